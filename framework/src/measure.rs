//! A bridge for reports that still ask by the kind of task. Ask [`Metrics::task`] instead.

use serde::{Deserialize, Serialize};

use crate::contracts::task::{ClassScore, Metrics, Task};
use crate::task::{Classification, Presence};

pub use crate::contracts::task::{ClassScore as ClassAccuracy, Metrics as Accuracy};

/// What is measured on a split: ask the [`Task`] instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// One class a sample.
    #[default]
    Top1,
    /// A set of classes a sample.
    MeanAveragePrecision,
}

impl Measure {
    /// The task.
    pub fn task(self) -> &'static dyn Task {
        match self {
            Measure::Top1 => &Classification,
            Measure::MeanAveragePrecision => &Presence,
        }
    }

    /// `task.score().short`
    pub fn short(self) -> &'static str {
        self.task().score().short
    }

    /// `task.score().title()`
    pub fn title(self) -> &'static str {
        match self {
            Measure::Top1 => "Top-1 accuracy",
            Measure::MeanAveragePrecision => "Mean average precision (mAP)",
        }
    }

    /// `task.score().key`
    pub fn key(self) -> &'static str {
        self.task().score().key
    }

    /// `task.split_loss().name`
    pub fn loss_in_words(self) -> &'static str {
        self.task().split_loss().name
    }
}

impl Metrics {
    /// [`Metrics::task`]
    pub fn measure(&self) -> Measure {
        if self.task().is_usual() { Measure::Top1 } else { Measure::MeanAveragePrecision }
    }

    /// [`Metrics::beside`]
    pub fn top5(&self) -> Option<f64> {
        self.beside().next().map(|(_, value)| value)
    }
}

impl ClassScore {
    /// [`ClassScore::score`]
    pub fn share(&self) -> Option<f64> {
        self.score()
    }
}
