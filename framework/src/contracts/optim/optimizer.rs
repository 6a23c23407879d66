//! The contract of an optimiser: it updates one flat buffer of parameters.

use std::fmt;

use tch::Tensor;

use crate::error::{Error, Result};

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

    /// Lets weight decay apply to some of the parameters only: `decays` is `[P]`, 1 where it does and 0 where it does not.
    /// Called once, before the first step, where the training asks for `no_decay`.
    ///
    /// # Errors
    /// If the optimiser does not know how to.
    fn decay_only(&mut self, _decays: &Tensor) -> Result<()> {
        Err(Error::plan("this optimiser cannot spare parameters from weight decay: remove `no_decay`"))
    }

    /// What must be saved, by name. The tensors share storage with the optimiser: loading copies into them.
    fn state(&self) -> Vec<(&'static str, Tensor)>;
}
