//! What a run leaves behind: numbers with names, written as JSON and read again by reports.

use std::fmt;
use std::path::PathBuf;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::model::TapRef;
use crate::precision::Precision;

/// The version of [`Summary`]'s format.
pub const SUMMARY_FORMAT: u32 = 1;

/// What is measured on a split. It follows from what the targets of the data are, and whoever shows a number calls it by
/// this name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// One class a sample: the share of samples whose first guess is right.
    #[default]
    Top1,
    /// A set of classes a sample: the mean over classes of [average precision](crate::metric::average_precision).
    MeanAveragePrecision,
}

impl Measure {
    /// As it stands beside a number: `top-1`, `mAP`.
    pub fn short(self) -> &'static str {
        match self {
            Measure::Top1 => "top-1",
            Measure::MeanAveragePrecision => "mAP",
        }
    }

    /// As it stands in a title.
    pub fn title(self) -> &'static str {
        match self {
            Measure::Top1 => "Top-1 accuracy",
            Measure::MeanAveragePrecision => "Mean average precision (mAP)",
        }
    }

    /// As files for programs have it.
    pub fn key(self) -> &'static str {
        match self {
            Measure::Top1 => "top1",
            Measure::MeanAveragePrecision => "mean_average_precision",
        }
    }

    /// The loss by the targets, as it stands among the losses of a step.
    pub fn loss(self) -> &'static str {
        match self {
            Measure::Top1 => "cross_entropy",
            Measure::MeanAveragePrecision => "binary_cross_entropy",
        }
    }

    /// That loss in words.
    pub fn loss_in_words(self) -> &'static str {
        match self {
            Measure::Top1 => "cross-entropy",
            Measure::MeanAveragePrecision => "binary cross-entropy",
        }
    }
}

/// What a network is worth on a whole split: by [`Measure`], under names that cannot be taken for each other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Accuracy {
    /// One class a sample.
    SingleLabel {
        /// Share of samples whose first guess is right, in percent.
        top1: f64,
        /// Share of samples whose first five guesses hold the label, in percent.
        top5: f64,
        /// Mean cross-entropy in nats.
        loss: f64,
    },
    /// A set of classes a sample.
    MultiLabel {
        /// Mean of the average precision of the classes that occur in the split, in percent: see
        /// [`mean_average_precision`](crate::metric::mean_average_precision).
        mean_average_precision: f64,
        /// Mean binary cross-entropy over samples and classes, in nats.
        binary_cross_entropy: f64,
    },
}

impl Accuracy {
    /// What was measured.
    pub fn measure(&self) -> Measure {
        match self {
            Accuracy::SingleLabel { .. } => Measure::Top1,
            Accuracy::MultiLabel { .. } => Measure::MeanAveragePrecision,
        }
    }

    /// The number that networks are compared by, in percent: top-1 or mAP.
    pub fn score(&self) -> f64 {
        match self {
            Accuracy::SingleLabel { top1, .. } => *top1,
            Accuracy::MultiLabel { mean_average_precision, .. } => *mean_average_precision,
        }
    }

    /// Top-5 in percent, where there is one class a sample.
    pub fn top5(&self) -> Option<f64> {
        match self {
            Accuracy::SingleLabel { top5, .. } => Some(*top5),
            Accuracy::MultiLabel { .. } => None,
        }
    }

    /// The loss by the targets: cross-entropy, or binary cross-entropy.
    pub fn loss(&self) -> f64 {
        match self {
            Accuracy::SingleLabel { loss, .. } => *loss,
            Accuracy::MultiLabel { binary_cross_entropy, .. } => *binary_cross_entropy,
        }
    }

    /// Its numbers with the names that they have in files.
    pub fn named(&self) -> Vec<(&'static str, f64)> {
        match *self {
            Accuracy::SingleLabel { top1, top5, loss } => vec![("top1", top1), ("top5", top5), ("loss", loss)],
            Accuracy::MultiLabel { mean_average_precision, binary_cross_entropy } => {
                vec![("mean_average_precision", mean_average_precision), ("binary_cross_entropy", binary_cross_entropy)]
            }
        }
    }
}

/// Mean seconds of the timed steps, part by part. Data and teacher are shared by the lanes of a cohort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// How many steps were timed.
    pub steps: u64,
    /// Taking the batch and augmenting it.
    pub data: f64,
    /// The teachers' forward passes.
    pub teacher: f64,
    /// The student's forward pass and the backward pass through everything.
    pub student: f64,
    /// The method's losses, forward, and its work after the step.
    pub loss: f64,
    /// The optimiser's step.
    pub optimizer: f64,
}

impl Timing {
    /// Seconds of a step if this lane runs alone.
    pub fn total(&self) -> f64 {
        self.data + self.teacher + self.student + self.loss + self.optimizer
    }
}

/// One epoch of one lane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// `main`, or `initial:TERM`.
    pub stage: String,
    /// From 1, within the stage.
    pub epoch: u64,
    /// Steps done in the stage.
    pub step: u64,
    /// The learning rate of the epoch's last step.
    pub learning_rate: f64,
    /// Means over the epoch's samples: `loss` (the total), the loss by the targets ([`Measure::loss`]), each term's
    /// unweighted losses and metrics.
    pub train: IndexMap<String, f64>,
    /// Top-1 on the training batches, in percent, as they came: augmented, while the weights moved. Absent where targets are
    /// sets of classes: average precision is no mean over batches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_top1: Option<f64>,
    /// On the samples held out, if there are any and this epoch was evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Accuracy>,
    /// On the test split, if this epoch was evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Accuracy>,
    /// Seconds that this lane took for the epoch, evaluation and its share of data and teachers included.
    pub seconds: f64,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Outcome {
    /// All epochs are done.
    Finished,
    /// It ended early.
    Failed {
        /// Why, with step and term.
        reason: String,
        /// The last good checkpoint, if there is one.
        checkpoint: Option<PathBuf>,
    },
}

/// The three accuracies that are recorded of every run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracies {
    /// Test, after the last epoch.
    pub last: Accuracy,
    /// Test, at the epoch with the best validation accuracy (the first of equals).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_on_validation: Option<EpochAccuracy>,
    /// Test, at its own best epoch: chosen on the test set.
    pub best_on_test: EpochAccuracy,
}

/// The test accuracy of a certain epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochAccuracy {
    /// From 1.
    pub epoch: u64,
    /// On the test split.
    pub test: Accuracy,
}

/// A teacher of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TeacherRecord {
    /// Its name in the experiment.
    pub name: String,
    /// The kind of its network; how it combines others, if it does: `mean_logits of a, b`.
    pub model: String,
    /// What it saw.
    pub view: String,
    /// Where its weights came from; empty if it combines others.
    pub weights: PathBuf,
    /// BLAKE3 of the file of its weights, in hexadecimal, or of those of its members and how they are combined.
    pub digest: String,
    /// The number of its parameters.
    pub parameters: i64,
    /// The arithmetic in which it teaches.
    #[serde(default, skip_serializing_if = "Precision::is_float32")]
    pub precision: Precision,
    /// Whether its BatchNorm was folded into its convolutions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub folded: bool,
    /// Its accuracy on the test split, measured before the run in the precision that it teaches in; absent if only its
    /// outputs on the training samples are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Accuracy>,
    /// The teachers that it combines; none if it is a network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
}

/// Several teachers taken as one, by the mean of their probabilities.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ensemble {
    /// Their names.
    pub teachers: Vec<String>,
    /// The digests of their weights, in that order: see [`TeacherRecord::digest`].
    #[serde(default)]
    pub digests: Vec<String>,
    /// Their accuracy together, on the test split.
    pub test: Accuracy,
}

/// The surroundings of a run: all that could change its numbers and is not in its configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Limbeck's version.
    pub limbeck: String,
    /// The commit of the sources that the run was started in, with `+changes` if the tree differed; absent outside git.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<String>,
    /// libtorch's version.
    pub libtorch: String,
    /// The device: `cpu` or `cuda:N`.
    pub device: String,
    /// The device's name as the system gives it.
    pub device_name: String,
    /// libtorch's threads.
    pub threads: usize,
}

/// What a finished or failed run says of itself: `summary.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// [`SUMMARY_FORMAT`]
    pub format: u32,
    /// The method's name.
    pub method: String,
    /// The seed.
    pub seed: u64,
    /// The data set's name.
    pub dataset: String,
    /// Samples trained on, held out, and tested on.
    pub samples: [usize; 3],
    /// The kind of the student's network.
    pub student: String,
    /// The arithmetic of the student's passes.
    #[serde(default, skip_serializing_if = "Precision::is_float32")]
    pub precision: Precision,
    /// Whether what was evaluated and exported is the moving average of its weights.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub averaged: bool,
    /// What the student saw.
    pub view: String,
    /// The teachers.
    pub teachers: Vec<TeacherRecord>,
    /// All the networks among the teachers that students of its cohort ask, together; absent where there is one, or one that cannot be measured,
    /// or where targets are sets of classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ensemble: Option<Ensemble>,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The accuracies; absent if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Accuracies>,
    /// Epochs of the main stage that were configured.
    pub epochs: u64,
    /// Every epoch that was done, initial stages included.
    pub history: Vec<EpochRecord>,
    /// Parameters of the student: what is left at inference.
    pub student_parameters: i64,
    /// What one image's forward pass of the student multiplies and adds; absent where the network does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub student_multiply_adds: Option<i64>,
    /// Parameters that are trained beside it: heads, regressors.
    pub method_parameters: i64,
    /// Mean seconds of a step.
    pub timing: Timing,
    /// Seconds in all, over every resumption.
    pub seconds: f64,
    /// The process's peak resident memory in bytes when the run ended, whatever it trained before included; absent on a GPU
    /// and where the system does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    /// How many lanes the cohort had.
    pub lanes: usize,
    /// The surroundings.
    pub environment: Environment,
}

/// The version of [`Similarity`]'s format.
pub const SIMILARITY_FORMAT: u32 = 1;

/// What a finished student does on the test split besides being right, and what it has in common with the teachers of its
/// cohort: `similarity.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Similarity {
    /// [`SIMILARITY_FORMAT`]
    pub format: u32,
    /// Expected calibration error of the student, in percentage points; absent where targets are sets of classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration_error: Option<f64>,
    /// Every class, in the order of the labels.
    pub classes: Vec<ClassAccuracy>,
    /// Against each teacher of the cohort, whether the student's method asks it or not.
    pub teachers: Vec<TeacherSimilarity>,
}

/// A student on the test samples of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassAccuracy {
    /// The class.
    pub name: String,
    /// The test samples that have it.
    pub samples: usize,
    /// How many of them the first guess got right; absent where targets are sets of classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub right: Option<usize>,
    /// Its average precision in percent, where targets are sets of classes and a sample has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average_precision: Option<f64>,
}

impl ClassAccuracy {
    /// How good the student is at this class, in percent: the share of its samples that were guessed right, or its average
    /// precision. Nothing if no test sample has it.
    pub fn share(&self) -> Option<f64> {
        match self.right {
            Some(_) if self.samples == 0 => None,
            Some(right) => Some(100.0 * right as f64 / self.samples as f64),
            None => self.average_precision,
        }
    }
}

/// A student beside a teacher, on the same test samples. What compares one distribution over all classes is absent where
/// targets are sets of classes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TeacherSimilarity {
    /// The teacher's name in the experiment.
    pub name: String,
    /// [`TeacherRecord::digest`]
    pub digest: String,
    /// Expected calibration error of the teacher, in percentage points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration_error: Option<f64>,
    /// Share of samples with the same first guess, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f64>,
    /// Mean KL(teacher ‖ student) at temperature 1, in nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence: Option<f64>,
    /// Mean absolute difference of the correlations of classes' logits.
    pub correlation_difference: f64,
    /// Alignment of the taps.
    pub taps: Vec<TapSimilarity>,
}

/// Linear CKA of a pair of taps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TapSimilarity {
    /// The student's tap.
    pub student: String,
    /// The teacher's tap.
    pub teacher: String,
    /// See [`Alignment`](crate::similarity::Alignment); absent where one of them does not vary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alignment: Option<f64>,
}

/// The version of [`ProbeRecord`]'s format.
pub const PROBE_FORMAT: u32 = 1;

/// Whose features a probe reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ProbedNetwork {
    /// A finished student.
    Student {
        /// Its method.
        method: String,
    },
    /// A teacher.
    Teacher {
        /// Its name in the experiment.
        name: String,
    },
    /// The student's network with the weights that it begins with: never trained, one for each seed.
    Untrained,
}

/// For people: the method, the teacher, or none.
impl fmt::Display for ProbedNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProbedNetwork::Student { method } => f.write_str(method),
            ProbedNetwork::Teacher { name } => write!(f, "teacher {name}"),
            ProbedNetwork::Untrained => f.write_str("random backbone"),
        }
    }
}

/// What a linear probe came to: `probe.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeRecord {
    /// [`PROBE_FORMAT`]
    pub format: u32,
    /// A digest of everything that determines the result.
    pub identity: String,
    /// The probe's name in the experiment.
    pub probe: String,
    /// Whose features.
    pub network: ProbedNetwork,
    /// The seed of the student, or of the classifier where the network is a teacher.
    pub seed: u64,
    /// The kind of the network.
    pub model: String,
    /// BLAKE3 of the file of its weights, in hexadecimal.
    pub digest: String,
    /// What it saw.
    pub view: String,
    /// Where its features were taken.
    pub tap: TapRef,
    /// How many there are of a sample.
    pub features: i64,
    /// The probe's data set.
    pub dataset: String,
    /// The classes of that.
    pub classes: i64,
    /// Samples that the classifier was trained on and tested on.
    pub samples: [usize; 2],
    /// Whether each feature had mean 0 and deviation 1 over the training part.
    pub standardized: bool,
    /// Passes over the training part.
    pub epochs: u64,
    /// Mean loss of the last of them, in nats.
    pub train_loss: f64,
    /// On the test part, after the last epoch.
    pub test: Accuracy,
    /// Seconds, taking the features included where they were not there yet.
    pub seconds: f64,
    /// The surroundings.
    pub environment: Environment,
}
