//! Linear probes: `[probe.NAME]`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::dataset::DatasetConfig;
use crate::model::TapRef;
use crate::optim::{MultiStep, OptimizerConfig, ScheduleConfig, Sgd};

/// A linear probe: a linear classifier on the features of each finished student, each teacher that a method asks, and the
/// student's network as it was before training. See [`probe`](crate::probe).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProbeConfig {
    /// The data that classifiers are trained and tested on; absent: the experiment's own: the samples that it trains on, and all that it tests on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<Arc<dyn DatasetConfig>>,
    /// The view of these data that every network sees; absent: each sees the one that it was trained on, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// Where features are taken; a map is averaged over space.
    pub tap: TapRef,
    /// Whether each feature is given mean 0 and deviation 1 over the training part.
    pub standardize: bool,
    /// The seeds of the classifiers on teachers and of the networks that never train; absent: `compare.seeds`. Classifiers on
    /// students have the students' own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seeds: Option<Vec<u64>>,
    /// How classifiers are trained.
    pub train: ProbeTrainConfig,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        ProbeConfig {
            dataset: None,
            view: None,
            tap: TapRef::output("pooled"),
            standardize: true,
            seeds: None,
            train: ProbeTrainConfig::default(),
        }
    }
}

/// How linear classifiers are trained. SGD with momentum, the batch and the shape of the schedule are those with which the
/// CRD paper trains everything. Length, rate and decay are ours: on features that are standardised and do not change, 30
/// epochs at 0.1 suffice, and without decay the classifier is what fits the training part, as linear evaluation usually has
/// it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProbeTrainConfig {
    /// Passes over the training part.
    pub epochs: u64,
    /// Samples in a batch; the last one may be smaller.
    pub batch: usize,
    /// The base learning rate.
    pub learning_rate: f64,
    /// What it is multiplied by.
    pub schedule: Arc<dyn ScheduleConfig>,
    /// The optimiser.
    pub optimizer: Arc<dyn OptimizerConfig>,
}

impl Default for ProbeTrainConfig {
    fn default() -> Self {
        ProbeTrainConfig {
            epochs: 30,
            batch: 64,
            learning_rate: 0.1,
            schedule: Arc::new(MultiStep::default()),
            optimizer: Arc::new(Sgd { weight_decay: 0.0, ..Sgd::default() }),
        }
    }
}
