//! The experiment file: what a researcher writes, and nothing else.

mod check;
mod compare;
mod fault;
mod method;
mod names;
mod probe;
mod schedule;
mod teacher;
mod train;

use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

pub use crate::division::Division;
pub use crate::precision::Precision;
pub use compare::{AccuracyChoice, CompareConfig};
pub use fault::Fault;
pub use method::{MethodConfig, TermConfig};
pub use probe::{ProbeConfig, ProbeTrainConfig};
pub use schedule::TermSchedule;
pub use teacher::{NetworkConfig, TeacherConfig};
pub use train::TrainConfig;

use crate::dataset::DatasetConfig;
use crate::device::DeviceSpec;
use crate::model::ModelConfig;

/// The version of the file format that this framework reads.
pub const FORMAT: u32 = 1;

/// An experiment: one data set, teachers, a student, and the methods to compare.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// The version of this format: [`FORMAT`].
    pub format: u32,
    /// A name for folders and reports.
    pub name: String,
    /// Where to train.
    #[serde(default)]
    pub device: DeviceSpec,
    /// Threads of libtorch on the CPU; absent: as many as cores. Another number changes the last bits of the results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// The most students that are trained side by side in one cohort; more of them make several.
    #[serde(default = "default_lanes", skip_serializing_if = "is_default_lanes")]
    pub lanes: usize,
    /// How many training samples are held out for validation.
    #[serde(default)]
    pub validation: usize,
    /// How many of the other training samples are trained on, teachers and students alike; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_samples: Option<usize>,
    /// The data.
    pub dataset: Arc<dyn DatasetConfig>,
    /// The teachers by name.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub teacher: IndexMap<String, TeacherConfig>,
    /// The student.
    pub student: StudentConfig,
    /// How students are trained.
    #[serde(default)]
    pub train: TrainConfig,
    /// Methods of this experiment; they take precedence over built-in ones of the same name.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub method: IndexMap<String, MethodConfig>,
    /// What to compare.
    #[serde(default)]
    pub compare: CompareConfig,
    /// Linear classifiers on the frozen networks, by name: trained after the students.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub probe: IndexMap<String, ProbeConfig>,
}

fn default_lanes() -> usize {
    16
}

fn is_default_lanes(lanes: &usize) -> bool {
    *lanes == default_lanes()
}

/// The student.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudentConfig {
    /// What it sees; absent: the data set's first view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// The network.
    pub model: Arc<dyn ModelConfig>,
    /// The arithmetic of its forward and backward pass. Its weights, the losses and the optimiser are float32 in any case.
    #[serde(default, skip_serializing_if = "Precision::is_float32")]
    pub precision: Precision,
}

impl Experiment {
    /// How the training part of its data is divided.
    pub fn division(&self) -> Division {
        Division { validation: self.validation, train_samples: self.train_samples }
    }
}
