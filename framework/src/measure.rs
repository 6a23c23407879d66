//! What is measured on a split, and a network's worth by it.

use serde::{Deserialize, Serialize};

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
