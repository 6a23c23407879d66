//! The state of a lane that is not a tensor, as a checkpoint has it.

use serde::{Deserialize, Serialize};

use crate::record::{EpochRecord, Timing};

/// The state of a lane that is not a tensor.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Saved {
    pub identity: String,
    pub threads: usize,
    pub device: String,
    pub libtorch: String,
    pub stage: usize,
    pub step: u64,
    /// The variables in the flat buffer, in order; empty before a stage's first step.
    pub trained: Vec<String>,
    pub meter: Vec<String>,
    pub history: Vec<EpochRecord>,
    pub timing: Timing,
    pub seconds: f64,
    pub epoch_seconds: f64,
    pub learning_rate: f64,
}
