//! How a network is trained: `[train]` and `[teacher.NAME.train]`.

use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::fault::Fault;
use crate::error::{Error, Result};
use crate::model::Signature;
use crate::nearest::nearest;
use crate::optim::{AverageConfig, MultiStep, OptimizerConfig, ScheduleConfig, Sgd};

/// How a network is trained. The defaults are the CIFAR-100 protocol of the CRD paper.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Passes over the training set.
    pub epochs: u64,
    /// Samples in a batch; the last batch of an epoch may be smaller.
    pub batch: usize,
    /// The base learning rate.
    pub learning_rate: f64,
    /// Epochs over which the rate rises linearly from 0, step by step, before the schedule takes over (it runs on meanwhile).
    pub warmup_epochs: f64,
    /// What the base learning rate is multiplied by.
    pub schedule: Arc<dyn ScheduleConfig>,
    /// The optimiser.
    pub optimizer: Arc<dyn OptimizerConfig>,
    /// Factors on the learning rate by group, in every stage: `heads` is what a method trains beside the student, `features`
    /// every feature module of the student, and a name of the student's own groups goes before that.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub rates: IndexMap<String, f64>,
    /// Whether weight decay spares the parameters that the network names for that: biases, norms, position and class tokens.
    /// What methods train beside it decays in full.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_decay: bool,
    /// The largest L2 norm of the gradient of everything that is trained; a larger one is scaled down to it (Pascanu, Mikolov,
    /// Bengio. On the difficulty of training recurrent neural networks. ICML 2013, algorithm 1). Absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// Steps whose mean gradient makes one update of the optimiser; the last update of a stage takes what is left.
    #[serde(skip_serializing_if = "is_one")]
    pub accumulate: u64,
    /// An exponential moving average of the student, in the main stage: what is evaluated and exported then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average: Option<AverageConfig>,
    /// Epochs between evaluations on validation and test; the last epoch is always evaluated.
    pub evaluate_epochs: u64,
    /// Steps between checkpoints; there is always one at the end.
    pub checkpoint_steps: u64,
    /// Steps between log entries, at which losses are read from the device.
    pub log_steps: u64,
    /// Steps between steps that are timed part by part; 0: none. On a GPU a timed step waits for the device.
    pub timing_steps: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        TrainConfig {
            epochs: 240,
            batch: 64,
            learning_rate: 0.05,
            warmup_epochs: 0.0,
            schedule: Arc::new(MultiStep::default()),
            optimizer: Arc::new(Sgd::default()),
            rates: IndexMap::new(),
            no_decay: false,
            clip_norm: None,
            accumulate: 1,
            average: None,
            evaluate_epochs: 1,
            checkpoint_steps: 500,
            log_steps: 50,
            timing_steps: 25,
        }
    }
}

impl TrainConfig {
    /// Checks every number, the schedule's and the optimiser's too. `key` is the table that this is.
    ///
    /// # Errors
    /// With the key and its range.
    pub fn check(&self, key: &str) -> Result<(), Fault> {
        let counts = [
            ("epochs", self.epochs, 1, 1_000_000),
            ("batch", self.batch as u64, 1, 1 << 20),
            ("accumulate", self.accumulate, 1, 1 << 20),
            ("evaluate_epochs", self.evaluate_epochs, 1, u64::MAX),
            ("checkpoint_steps", self.checkpoint_steps, 1, u64::MAX),
            ("log_steps", self.log_steps, 1, u64::MAX),
        ];
        if let Some((name, value, least, most)) =
            counts.iter().find(|(_, value, least, most)| value < least || value > most)
        {
            let range =
                if *most == u64::MAX { format!("at least {least}") } else { format!("between {least} and {most}") };
            return Fault::refuse(key, name, format!("{name} must be {range}, not {value}"));
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return Fault::refuse(
                key,
                "learning_rate",
                format!("learning_rate must be positive, not {}", self.learning_rate),
            );
        }
        if !(self.warmup_epochs >= 0.0 && self.warmup_epochs <= self.epochs as f64) {
            let message =
                format!("warmup_epochs must be between 0 and epochs ({}), not {}", self.epochs, self.warmup_epochs);
            return Fault::refuse(key, "warmup_epochs", message);
        }
        if let Some((group, factor)) = self.rates.iter().find(|(_, factor)| !(**factor >= 0.0 && factor.is_finite())) {
            return Fault::refuse(
                key,
                &format!("rates.{group}"),
                format!("a factor must not be negative, not {factor}"),
            );
        }
        if let Some(norm) = self.clip_norm.filter(|norm| !(*norm > 0.0 && norm.is_finite())) {
            return Fault::refuse(key, "clip_norm", format!("clip_norm must be positive, not {norm}"));
        }
        if let Some(Err(error)) = self.average.map(|average| average.check()) {
            return Fault::refuse(key, "average.decay", error.to_string());
        }
        if let Err(error) = self.schedule.check(self.epochs) {
            return Fault::refuse(key, "schedule", error.to_string());
        }
        let parameters = tch::Tensor::zeros([1], (tch::Kind::Float, tch::Device::Cpu));
        let mut optimizer = match self.optimizer.build(&parameters) {
            Err(error) => return Fault::refuse(key, "optimizer", error.to_string()),
            Ok(optimizer) => optimizer,
        };
        if self.no_decay
            && let Err(error) = optimizer.decay_only(&parameters)
        {
            return Fault::refuse(key, "no_decay", error.to_string());
        }
        Ok(())
    }
}

impl TrainConfig {
    /// Checks that every name in `rates` is a group: `heads`, `features`, or one of the student's own; and that the student
    /// names parameters for `no_decay`, if that is set.
    ///
    /// # Errors
    /// With the key, and the nearest name of a group.
    pub fn check_groups(&self, student: &Signature) -> Result<()> {
        if self.no_decay && student.no_decay.is_empty() {
            return Err(Error::plan(
                "no_decay: the network names no parameters that weight decay should spare: remove `no_decay`",
            ));
        }
        let own = student.groups.iter().map(|group| group.name.as_str());
        let names: Vec<&str> = [HEADS, FEATURES].into_iter().chain(own).collect();
        match self.rates.keys().find(|name| !names.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => {
                let near = nearest(name, names.iter().copied());
                let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                let message = format!("there is no such group, but {}{near}", names.join(", "));
                Err(Error::plan(message).at(["rates", name]))
            }
        }
    }

    /// The factor on the learning rate of a parameter of the student, or of what a method trains beside it (`None`).
    pub(crate) fn rate_of(&self, student: &Signature, parameter: Option<&str>) -> f64 {
        let Some(parameter) = parameter else { return self.rates.get(HEADS).copied().unwrap_or(1.0) };
        let group = student.group_of(parameter);
        let features = group.filter(|group| group.feature).and_then(|_| self.rates.get(FEATURES));
        group.and_then(|group| self.rates.get(group.name.as_str())).or(features).copied().unwrap_or(1.0)
    }
}

/// The group of everything that methods train beside the student.
const HEADS: &str = "heads";

/// The group of all of the student's feature modules.
const FEATURES: &str = "features";

fn is_one(value: &u64) -> bool {
    *value == 1
}
