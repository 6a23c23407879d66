//! What an experiment compares: `[compare]`.

use serde::{Deserialize, Serialize};

use crate::measure::Measure;

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
    pub fn describe(self, measure: Measure) -> &'static str {
        match (measure, self) {
            (Measure::Top1, AccuracyChoice::Last) => "test accuracy after the last epoch",
            (Measure::Top1, AccuracyChoice::BestOnValidation) => {
                "test accuracy at the epoch with the best validation accuracy"
            }
            (Measure::Top1, AccuracyChoice::BestOnTest) => {
                "best test accuracy of any epoch (chosen on the test set, hence optimistic)"
            }
            (Measure::MeanAveragePrecision, AccuracyChoice::Last) => {
                "mean average precision (mAP, not top-1: targets are sets of classes) on the test split after the last epoch"
            }
            (Measure::MeanAveragePrecision, AccuracyChoice::BestOnValidation) => {
                "mean average precision (mAP, not top-1: targets are sets of classes) on the test split at the epoch with the \
                 best on the samples held out"
            }
            (Measure::MeanAveragePrecision, AccuracyChoice::BestOnTest) => {
                "best mean average precision (mAP, not top-1: targets are sets of classes) on the test split of any epoch \
                 (chosen on the test set, hence optimistic)"
            }
        }
    }
}
