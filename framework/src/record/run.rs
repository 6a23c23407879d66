//! What a run says of itself: `summary.json`, and every epoch of it.

use std::path::PathBuf;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::samples::SampleCounts;
use super::teacher::{Ensemble, TeacherRecord};
use crate::contracts::task::Metrics;
use crate::precision::Precision;

/// The version of [`Summary`]'s format.
pub const SUMMARY_FORMAT: u32 = 1;

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
    /// Means over the epoch's samples: `loss` (the total), the loss by the targets under the key of the task
    /// ([`Task::loss_key`](crate::task::Task::loss_key)), each term's unweighted losses and metrics.
    pub train: IndexMap<String, f64>,
    /// Top-1 on the training batches, in percent, as they came: augmented, while the weights moved. Absent where
    /// samples have not one class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_top1: Option<f64>,
    /// On the samples held out, if there are any and this epoch was evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Metrics>,
    /// On the test split, if this epoch was evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Metrics>,
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
    pub last: Metrics,
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
    pub test: Metrics,
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
    pub samples: SampleCounts,
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
    /// All the networks among the teachers that students of its cohort ask, together; absent where there is one,
    /// or one that cannot be measured, or where samples have not one class.
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
