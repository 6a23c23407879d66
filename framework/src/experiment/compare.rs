//! What an experiment compares: `[compare]`.

use serde::{Deserialize, Serialize};

use crate::contracts::task::{Part, Task};

/// What an experiment compares.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompareConfig {
    /// Names of `[method.…]` tables or of built-in methods.
    pub methods: Vec<String>,
    /// One student for each method and seed.
    pub seeds: Vec<u64>,
    /// The method that others are compared with; absent: the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
    /// Which accuracy the report shows.
    pub accuracy: AccuracyChoice,
}

impl Default for CompareConfig {
    fn default() -> Self {
        CompareConfig { methods: Vec::new(), seeds: vec![0], baseline: None, accuracy: AccuracyChoice::Last }
    }
}

/// Which of the recorded accuracies a report shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccuracyChoice {
    /// Test accuracy after the last epoch.
    #[default]
    Last,
    /// Test accuracy of the epoch with the best validation accuracy.
    BestOnValidation,
    /// The best test accuracy of any epoch: chosen on the test set, hence too good.
    BestOnTest,
}

impl AccuracyChoice {
    /// What a reader must know about it.
    pub fn describe(self, task: &dyn Task) -> String {
        let test = task.score_on(Part::Test, &task.measured());
        match self {
            AccuracyChoice::Last => format!("{test} after the last epoch"),
            AccuracyChoice::BestOnValidation => {
                format!("{test} at the epoch with the best {}", task.score_on(Part::HeldOut, "").trim_start())
            }
            AccuracyChoice::BestOnTest => {
                format!("best {test} of any epoch (chosen on the test set, hence optimistic)")
            }
        }
    }
}
