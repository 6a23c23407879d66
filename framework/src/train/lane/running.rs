//! A stage of a lane while it trains.

use tch::Tensor;

use crate::error::Result;
use crate::experiment::TrainConfig;
use crate::model::Signature;
use crate::optim::{FlatParameters, Optimizer};

/// What exists while a stage trains: created by its first step, or from a checkpoint.
#[derive(Debug)]
pub(super) struct RunningStage {
    pub flat: FlatParameters,
    pub optimizer: Box<dyn Optimizer>,
    /// `[P]`: factors on the learning rate, where groups have rates of their own.
    pub rates: Option<Tensor>,
    /// `[P]`: the sum of the gradients since the last update, where several steps make one.
    pub accumulated: Option<Tensor>,
}

/// Names in a checkpoint begin with this where they are the running stage's.
pub(super) const STAGE_STATE: &str = "stage.";

impl RunningStage {
    pub fn new(flat: FlatParameters, train: &TrainConfig, student: &Signature) -> Result<Self> {
        let mut optimizer = train.optimizer.build(flat.buffer())?;
        if train.no_decay {
            // What methods train beside the student decays in full.
            let spared = |name: &str| name.strip_prefix("student.").is_some_and(|name| student.is_spared(name));
            optimizer.decay_only(&flat.spread(|name| if spared(name) { 0.0 } else { 1.0 }))?;
        }
        let rate = |name: &str| train.rate_of(student, name.strip_prefix("student."));
        let rates = if train.rates.is_empty() { None } else { Some(flat.spread(rate)) };
        let accumulated = if train.accumulate > 1 { Some(flat.buffer().zeros_like()) } else { None };
        Ok(RunningStage { flat, optimizer, rates, accumulated })
    }

    /// What moves with the stage, by its name in the checkpoint; loading copies into these tensors.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let optimizer =
            self.optimizer.state().into_iter().map(|(name, t)| (format!("{STAGE_STATE}optimizer.{name}"), t));
        let accumulated = self.accumulated.iter().map(|t| (format!("{STAGE_STATE}accumulated"), t.shallow_clone()));
        optimizer.chain(accumulated).collect()
    }
}
