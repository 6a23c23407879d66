//! What a linear probe came to: `probe.json`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::run::Environment;
use super::samples::ProbeSampleCounts;
use crate::contracts::task::Metrics;
use crate::model::TapRef;

/// The version of [`ProbeRecord`]'s format.
pub const PROBE_FORMAT: u32 = 1;

/// Whose features a probe reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ProbedNetwork {
    /// A finished student.
    Student {
        /// Its method.
        method: String,
    },
    /// A teacher.
    Teacher {
        /// Its name in the experiment.
        name: String,
    },
    /// The student's network with the weights that it begins with: never trained, one for each seed.
    Untrained,
}

/// For people: the method, the teacher, or none.
impl fmt::Display for ProbedNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProbedNetwork::Student { method } => f.write_str(method),
            ProbedNetwork::Teacher { name } => write!(f, "teacher {name}"),
            ProbedNetwork::Untrained => f.write_str("random backbone"),
        }
    }
}

/// What a linear probe came to: `probe.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeRecord {
    /// [`PROBE_FORMAT`]
    pub format: u32,
    /// A digest of everything that determines the result.
    pub identity: String,
    /// The probe's name in the experiment.
    pub probe: String,
    /// Whose features.
    pub network: ProbedNetwork,
    /// The seed of the student, or of the classifier where the network is a teacher.
    pub seed: u64,
    /// The kind of the network.
    pub model: String,
    /// BLAKE3 of the file of its weights, in hexadecimal.
    pub digest: String,
    /// What it saw.
    pub view: String,
    /// Where its features were taken.
    pub tap: TapRef,
    /// How many there are of a sample.
    pub features: i64,
    /// The probe's data set.
    pub dataset: String,
    /// The classes of that.
    pub classes: i64,
    /// Samples that the classifier was trained on and tested on.
    pub samples: ProbeSampleCounts,
    /// Whether each feature had mean 0 and deviation 1 over the training part.
    pub standardized: bool,
    /// Passes over the training part.
    pub epochs: u64,
    /// Mean loss of the last of them, in nats.
    pub train_loss: f64,
    /// On the test part, after the last epoch.
    pub test: Metrics,
    /// Seconds, taking the features included where they were not there yet.
    pub seconds: f64,
    /// The surroundings.
    pub environment: Environment,
}
