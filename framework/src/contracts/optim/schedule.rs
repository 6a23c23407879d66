//! The contract of a learning-rate schedule.

use std::fmt;

use crate::error::Result;

/// Where training stands, for a schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// From 1.
    pub epoch: u64,
    /// The last epoch's number.
    pub epochs: u64,
    /// From 0, over all epochs.
    pub step: u64,
    /// Steps of one epoch.
    pub steps_per_epoch: u64,
}

impl Progress {
    /// Steps done over steps to do, in [0, 1).
    pub fn fraction(&self) -> f64 {
        self.step as f64 / (self.epochs * self.steps_per_epoch).max(1) as f64
    }
}

/// A learning-rate schedule. It is a pure function, so the recipe is the live object. Register it with
/// [`plugin!`](crate::plugin).
#[typetag::serde(tag = "kind")]
pub trait ScheduleConfig: fmt::Debug + Send + Sync {
    /// What the base learning rate is multiplied by in this step.
    fn factor(&self, progress: &Progress) -> f64;

    /// Checks the settings against the length of training.
    ///
    /// # Errors
    /// If a setting is out of range.
    fn check(&self, _epochs: u64) -> Result<()> {
        Ok(())
    }
}
