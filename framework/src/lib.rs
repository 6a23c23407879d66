#![doc = include_str!("../README.md")]
#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

pub mod checkpoint;
pub mod checks;
pub mod cohort;
pub mod combination;
pub mod config;
pub mod conformance;
pub mod critic;
pub mod dataset;
pub mod device;
pub mod distiller;
pub mod error;
pub mod event;
pub mod experiment;
#[doc = include_str!("../GUIDE.md")]
pub mod guide {}
pub mod metric;
pub mod model;
pub mod negatives;
pub mod nn;
pub mod optim;
pub mod precision;
pub mod probe;
pub mod record;
pub mod registry;
pub mod seed;
pub mod similarity;
pub mod weights;

pub use inventory;
pub use tch;
pub use typetag;

/// What the author of a plugin needs, and no more.
pub mod prelude {
    pub use crate::critic::{Critic, CriticConfig, CriticSite, Scores, Side};
    pub use crate::dataset::{Batch, Dataset, DatasetConfig, DatasetInfo, Rows, Split, ViewInfo, Views};
    pub use crate::distiller::{Distiller, DistillerConfig, InitialStage, Site, Step, TapPair, TapPairs, Terms};
    pub use crate::error::{Error, Result};
    pub use crate::model::{
        Features, Folded, Form, Group, Mode, Model, ModelConfig, ModelSpec, Outputs, Recorder, Signature, TapInfo,
        TapRef, Taps,
    };
    pub use crate::negatives::{Draw, NegativeSampler, NegativeSamplerConfig, Negatives};
    pub use crate::nn;
    pub use crate::optim::{Optimizer, OptimizerConfig, Progress, ScheduleConfig};
    pub use crate::record::Measure;
    pub use crate::seed::Seed;
    pub use tch::{Device, Kind, Tensor};
    pub use typetag;
}
