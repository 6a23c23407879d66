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
            let decays = flat.spread(|name| match name.strip_prefix("student.") {
                Some(name) if student.is_spared(name) => 0.0,
                _ => 1.0,
            });
            optimizer.decay_only(&decays)?;
        }
        let mut rates = None;
        if !train.rates.is_empty() {
            rates = Some(flat.spread(|name| train.rate_of(student, name.strip_prefix("student."))));
        }
        let accumulated = if train.accumulate > 1 { Some(flat.buffer().zeros_like()) } else { None };
        Ok(RunningStage { flat, optimizer, rates, accumulated })
    }

    /// What moves with the stage, by its name in the checkpoint; loading copies into these tensors.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = Vec::new();
        for (name, tensor) in self.optimizer.state() {
            state.push((format!("{STAGE_STATE}optimizer.{name}"), tensor));
        }
        if let Some(sum) = &self.accumulated {
            state.push((format!("{STAGE_STATE}accumulated"), sum.shallow_clone()));
        }
        state
    }
}
