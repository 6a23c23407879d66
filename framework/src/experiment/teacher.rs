//! Teachers: `[teacher.NAME]`.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::train::TrainConfig;
use crate::combination::Combination;
use crate::model::ModelConfig;
use crate::precision::Precision;

/// A teacher: a network, or several of them taken as one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged, try_from = "TeacherTable")]
pub enum TeacherConfig {
    /// A network.
    Network(Box<NetworkConfig>),
    /// What other teachers say together: it has logits alone. Terms ask it only by name.
    Combined {
        /// Which, and how.
        combine: Combination,
    },
}

impl TeacherConfig {
    /// The network, if it is one.
    pub fn network(&self) -> Option<&NetworkConfig> {
        match self {
            TeacherConfig::Network(network) => Some(network),
            TeacherConfig::Combined { .. } => None,
        }
    }

    /// The same to be changed.
    pub fn network_mut(&mut self) -> Option<&mut NetworkConfig> {
        match self {
            TeacherConfig::Network(network) => Some(network),
            TeacherConfig::Combined { .. } => None,
        }
    }

    /// What it combines, if it does.
    pub fn combination(&self) -> Option<&Combination> {
        match self {
            TeacherConfig::Network(_) => None,
            TeacherConfig::Combined { combine } => Some(combine),
        }
    }
}

/// A teacher as it is written: every key that either form has, so that each is read in its place and errors name it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TeacherTable {
    combine: Option<Combination>,
    view: Option<String>,
    model: Option<Arc<dyn ModelConfig>>,
    weights: Option<PathBuf>,
    precision: Option<Precision>,
    fold_batch_norm: Option<bool>,
    train: Option<TrainConfig>,
    seed: Option<u64>,
}

impl TryFrom<TeacherTable> for TeacherConfig {
    type Error = String;

    fn try_from(table: TeacherTable) -> Result<Self, String> {
        let TeacherTable { combine, view, model, weights, precision, fold_batch_norm, train, seed } = table;
        let Some(combine) = combine else {
            return Ok(TeacherConfig::Network(Box::new(NetworkConfig {
                view,
                model: model.ok_or("missing field `model`")?,
                weights,
                precision: precision.unwrap_or_default(),
                fold_batch_norm: fold_batch_norm.unwrap_or_default(),
                train,
                seed: seed.unwrap_or_default(),
            })));
        };
        let of_networks = [
            ("model", model.is_some()),
            ("view", view.is_some()),
            ("weights", weights.is_some()),
            ("precision", precision.is_some()),
            ("fold_batch_norm", fold_batch_norm.is_some()),
            ("train", train.is_some()),
            ("seed", seed.is_some()),
        ];
        match of_networks.into_iter().find(|(_, is)| *is) {
            None => Ok(TeacherConfig::Combined { combine }),
            Some((key, _)) => {
                Err(format!("a teacher that combines others is no network of its own: remove `{key}`, or `combine`"))
            }
        }
    }
}

/// A teacher's network with weights, or with a recipe for them.
#[derive(Clone, Debug, Serialize)]
pub struct NetworkConfig {
    /// What it sees; absent: the data set's first view.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// The network.
    pub model: Arc<dyn ModelConfig>,
    /// Its weights (safetensors or a PyTorch checkpoint), relative to the experiment file. Absent: it is
    /// trained first, by `train`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// The arithmetic of its forward pass. Its outputs are float32 in any case.
    pub precision: Precision,
    /// Whether each BatchNorm is folded into the convolution before it: faster, and the features differ in the last digits.
    #[serde(skip_serializing_if = "is_false")]
    pub fold_batch_norm: bool,
    /// How it is trained if it has no weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train: Option<TrainConfig>,
    /// The seed with which it is trained.
    pub seed: u64,
}

fn is_false(value: &bool) -> bool {
    !value
}
