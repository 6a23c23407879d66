//! Optimisers and learning-rate schedules, all on one flat buffer of parameters.

mod adamw;
mod average;
mod flat;
mod schedule;
mod sgd;

use std::fmt;

use tch::Tensor;

pub use adamw::AdamW;
pub(crate) use average::Average;
pub use average::AverageConfig;
pub use flat::{FlatParameters, Variable};
pub use schedule::{Constant, Cosine, MultiStep};
pub use sgd::Sgd;

use crate::error::Result;

/// The recipe of an optimiser. Register it with [`plugin!`](crate::plugin).
#[typetag::serde(tag = "kind")]
pub trait OptimizerConfig: fmt::Debug + Send + Sync {
    /// Builds the optimiser for a flat buffer `[P]` of parameters.
    ///
    /// # Errors
    /// If a setting is out of range.
    fn build(&self, parameters: &Tensor) -> Result<Box<dyn Optimizer>>;
}

/// An optimiser at work: it updates a flat buffer in place and owns flat buffers of the same length.
pub trait Optimizer: fmt::Debug + Send {
    /// One update. `parameters` and `gradient` are `[P]`; called without gradients.
    ///
    /// `gradient` may be changed in place. `learning_rate` is a tensor on the device, a scalar or, where groups have rates
    /// of their own, `[P]`. It is 0 once the lane has met a non-finite loss (the gradient is 0 then, too): multiply every
    /// change of the parameters by it.
    fn step(&mut self, parameters: &mut Tensor, gradient: &mut Tensor, learning_rate: &Tensor);

    /// What must be saved, by name. The tensors share storage with the optimiser: loading copies into them.
    fn state(&self) -> Vec<(&'static str, Tensor)>;
}

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
