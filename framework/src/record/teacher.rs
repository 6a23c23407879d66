//! What a run says of its teachers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::contracts::task::Metrics;
use crate::precision::Precision;

/// A teacher of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TeacherRecord {
    /// Its name in the experiment.
    pub name: String,
    /// The kind of its network; how it combines others, if it does: `mean_logits of a, b`.
    pub model: String,
    /// What it saw.
    pub view: String,
    /// Where its weights came from; empty if it combines others.
    pub weights: PathBuf,
    /// BLAKE3 of the file of its weights, in hexadecimal, or of those of its members and how they are combined.
    pub digest: String,
    /// The number of its parameters.
    pub parameters: i64,
    /// The arithmetic in which it teaches.
    #[serde(default, skip_serializing_if = "Precision::is_float32")]
    pub precision: Precision,
    /// Whether its BatchNorm was folded into its convolutions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub folded: bool,
    /// Its accuracy on the test split, measured before the run in the precision that it teaches in; absent if only its
    /// outputs on the training samples are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Metrics>,
    /// The teachers that it combines; none if it is a network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
}

/// Several teachers taken as one, by the mean of their probabilities.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ensemble {
    /// Their names.
    pub teachers: Vec<String>,
    /// The digests of their weights, in that order: see [`TeacherRecord::digest`].
    #[serde(default)]
    pub digests: Vec<String>,
    /// Their accuracy together, on the test split.
    pub test: Metrics,
}
