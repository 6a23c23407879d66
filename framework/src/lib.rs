#![doc = include_str!("../README.md")]
#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

// What `#[derive(Settings)]` and `plugin!` write has the paths that it has in other crates.
extern crate self as limbeck;

pub mod checks;
pub mod config;
mod contracts;
pub mod device;
mod division;
pub mod error;
pub mod event;
pub mod experiment;
pub mod files;
#[doc = include_str!("../GUIDE.md")]
pub mod guide {}
pub mod memory;
pub mod metric;
pub mod nearest;
pub mod nn;
pub mod pickle;
pub mod precision;
pub mod record;
pub mod registry;
pub mod seed;
pub mod settings;
pub mod similarity;
mod switches;
pub mod task;
mod train;
pub mod weights;

pub use contracts::{critic, dataset, distiller, model, negatives, optim};
pub use train::{checkpoint, cohort, combination, probe};

pub use inventory;
pub use serde;
pub use tch;
pub use typetag;

/// What the author of a plugin needs, and no more.
pub mod prelude {
    pub use crate::critic::{Critic, CriticConfig, CriticSite, Scores, Side};
    pub use crate::dataset::{Batch, Dataset, DatasetConfig, DatasetInfo, Rows, Split, ViewInfo, Views};
    pub use crate::distiller::{Distiller, DistillerConfig, InitialStage, Site, Step, TapPair, TapPairs, Terms};
    pub use crate::error::{Error, Result};
    pub use crate::experiment::{MethodConfig, TermConfig};
    pub use crate::model::{
        BatchNormInfo, ClassifierInfo, Features, Folded, Form, Group, Mode, Model, ModelConfig, ModelSpec, Outputs,
        Recorder, Signature, TapInfo, TapRef, TapShape, Taps,
    };
    pub use crate::negatives::{Draw, NegativeSampler, NegativeSamplerConfig, Negatives};
    pub use crate::nn;
    pub use crate::optim::{Optimizer, OptimizerConfig, Progress, ScheduleConfig};
    pub use crate::seed::Seed;
    pub use crate::settings::Settings;
    pub use crate::task::{Classification, Presence, Task, TaskMeter, Truth};
    pub use tch::{Device, Kind, Tensor};
    pub use typetag;
}
