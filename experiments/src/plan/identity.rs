//! What identifies a run: whatever determines its result.

use std::path::Path;

use limbeck::error::{Error, Result};
use limbeck::experiment::{MethodConfig, TrainConfig};
use limbeck::model::ModelConfig;
use limbeck::precision::Precision;
use serde::Serialize;

/// What determines a run's result, and nothing else: the order of fields is part of the digest.
#[derive(Serialize)]
pub(super) struct RunIdentity<'a> {
    pub format: u32,
    pub dataset: &'a str,
    pub validation: usize,
    /// The rows that are trained on, where they are not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<&'a str>,
    pub teachers: Vec<(&'a str, &'a str)>,
    pub view: &'a str,
    pub student: &'a dyn ModelConfig,
    #[serde(skip_serializing_if = "Precision::is_float32")]
    pub precision: Precision,
    pub train: TrainConfig,
    pub method: &'a MethodConfig,
    pub seed: u64,
}

/// The digest of a file: BLAKE3 in hexadecimal.
pub(crate) fn file_digest(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    Ok(blake3::hash(&bytes).to_hex().to_string())
}
