//! The layout of run folders, and what identifies a run: the content of its resolved configuration.
//!
//! ```text
//! OUT/                        --out, `runs` by default
//!   teachers/KIND-DIGEST/     a trained teacher: the same files as a cell, shared by every experiment
//!   teachers/measured/        accuracies of teachers whose weights came as files
//!   NAME/                     one experiment
//!     experiment.toml         the resolved experiment
//!     plan.json               its cells
//!     cells/METHOD-seedN-DIGEST/
//!       cell.toml  events.jsonl  checkpoint.safetensors  student.safetensors  summary.json
//!       similarity.json  correlations.safetensors
//!     probes/PROBE-NETWORK-seedN-DIGEST/
//!       events.jsonl  probe.json        of a linear classifier; untrained.safetensors where the network never trained
//!     probes/features/        what the frozen networks say of a probe's samples, known by what it is a function of
//!     report/
//! ```
//!
//! A sweep, that is an experiment with a `[grid]`, has one set of cells for all of its points: a cell that several points
//! have, since an axis does not concern it, is trained once.
//!
//! ```text
//!   NAME/                     one sweep
//!     sweep.json              its points: label, axes, folder
//!     cells/METHOD-seedN-DIGEST/
//!     probes/PROBE-NETWORK-seedN-DIGEST/  and probes/features/
//!     points/LABEL/           an experiment like any other, but for its cells and probes
//!       experiment.toml
//!       plan.json             its cells, in ../../cells, and its probes, in ../../probes
//!       report/
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use limbeck::cohort;
use limbeck::error::{Error, Result};
use limbeck::experiment::TrainConfig;
use limbeck::files::write_atomically;
use limbeck::probe::PROBE;
use limbeck::record::{Outcome, PROBE_FORMAT, ProbeRecord, ProbedNetwork, Summary};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The resolved experiment in an experiment's folder.
pub const EXPERIMENT: &str = "experiment.toml";
/// The list of cells in an experiment's folder.
pub const PLAN: &str = "plan.json";
/// The resolved configuration in a cell's folder.
pub const CELL: &str = "cell.toml";
/// The folder of the cells in an experiment's or a sweep's folder.
pub const CELLS: &str = "cells";
/// The folder of linear probes, beside that of the cells.
pub const PROBES: &str = "probes";
/// The list of points in a sweep's folder.
pub const SWEEP: &str = "sweep.json";
/// The folder of the points in a sweep's folder.
pub const POINTS: &str = "points";
/// The folder of trained teachers in the folder of all runs.
pub const TEACHERS: &str = "teachers";

/// `plan.json`: which cells an experiment has, for reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanFile {
    /// The version of this format: 1.
    pub format: u32,
    /// The cells in the order of the experiment: methods first, then seeds.
    pub cells: Vec<CellEntry>,
    /// The linear classifiers on frozen networks: probe by probe, students first, then teachers, then untrained networks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<ProbeEntry>,
}

/// One classifier of `plan.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeEntry {
    /// The probe's name.
    pub probe: String,
    /// Whose features.
    pub network: ProbedNetwork,
    /// The seed.
    pub seed: u64,
    /// Its folder, relative to the experiment's folder.
    pub folder: PathBuf,
}

/// One cell of `plan.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellEntry {
    /// The method's name.
    pub method: String,
    /// The seed.
    pub seed: u64,
    /// The run folder, relative to the experiment's folder.
    pub folder: PathBuf,
}

/// `sweep.json`: which experiments a sweep consists of, for reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepFile {
    /// The version of this format: 1.
    pub format: u32,
    /// The sweep's name.
    pub name: String,
    /// The axes with the names of their values.
    pub axes: IndexMap<String, Vec<String>>,
    /// The points in the order of the grid, the last axis fastest.
    pub points: Vec<PointEntry>,
}

/// One point of `sweep.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointEntry {
    /// A name for people.
    pub label: String,
    /// The value of each axis.
    pub at: IndexMap<String, String>,
    /// The folder of the experiment, relative to the sweep's; not there before something of it was run.
    pub folder: PathBuf,
}

/// How far a run folder has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing is there.
    New,
    /// A checkpoint is there, or a failure that will be tried again.
    Begun,
    /// The student is there.
    Finished,
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Progress::New => "to do",
            Progress::Begun => "begun",
            Progress::Finished => "finished",
        })
    }
}

/// How far a run folder has come.
pub fn progress(folder: &Path) -> Progress {
    match summary(folder) {
        Ok(Some(summary)) if summary.outcome == Outcome::Finished && folder.join(cohort::STUDENT).exists() => {
            Progress::Finished
        }
        _ if folder.join(limbeck::checkpoint::NEWEST).exists() => Progress::Begun,
        _ if folder.join(limbeck::checkpoint::PREVIOUS).exists() => Progress::Begun,
        _ => Progress::New,
    }
}

/// The summary in a run folder, if the run has ended.
///
/// # Errors
/// If the file is there and cannot be read.
pub fn summary(folder: &Path) -> Result<Option<Summary>> {
    let path = folder.join(cohort::SUMMARY);
    if path.exists() { read_json(&path).map(Some) } else { Ok(None) }
}

/// The record in a probe's folder, if it has ended.
///
/// # Errors
/// If the file is there and cannot be read, or is of another format.
pub fn probe(folder: &Path) -> Result<Option<ProbeRecord>> {
    let path = folder.join(PROBE);
    if !path.exists() {
        return Ok(None);
    }
    let record: ProbeRecord = read_json(&path)?;
    match record.format {
        PROBE_FORMAT => Ok(Some(record)),
        other => {
            Err(Error::data(&path, format!("format {other} is not known; this version reads format {PROBE_FORMAT}")))
        }
    }
}

/// Reads a JSON file.
///
/// # Errors
/// If it cannot be read or is of another form.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    serde_json::from_str(&text).map_err(|e| Error::data(path, e.to_string()))
}

/// Writes a JSON file atomically.
///
/// # Errors
/// If it cannot be written.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::data(path, e.to_string()))?;
    write_atomically(path, format!("{text}\n").as_bytes())
}

/// Writes a TOML file atomically.
///
/// # Errors
/// If it cannot be written.
pub fn write_toml<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = toml::to_string(value).map_err(|e| Error::data(path, e.to_string()))?;
    write_atomically(path, text.as_bytes())
}

/// The digest of a value: BLAKE3 of its JSON, in hexadecimal.
///
/// # Errors
/// If the value cannot be written as JSON.
pub fn digest<T: Serialize>(value: &T) -> Result<String> {
    let text = serde_json::to_vec(value).map_err(|e| Error::run(format!("digest: {e}")))?;
    Ok(blake3::hash(&text).to_hex().to_string())
}

/// The part of a training configuration that changes results: not how often something is logged, timed or saved.
pub fn decisive(train: &TrainConfig) -> TrainConfig {
    let default = TrainConfig::default();
    TrainConfig {
        checkpoint_steps: default.checkpoint_steps,
        log_steps: default.log_steps,
        timing_steps: default.timing_steps,
        ..train.clone()
    }
}

/// A digest as it stands in the name of a folder.
pub fn short(digest: &str) -> &str {
    &digest[..digest.len().min(10)]
}

/// A name as it stands in the name of a folder.
pub fn folder_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_+.=,".contains(c) { c } else { '_' }).collect()
}

/// A path as seen from a folder, both absolute or both relative to the same place.
pub fn relative(path: &Path, folder: &Path) -> PathBuf {
    for (up, above) in folder.ancestors().enumerate() {
        if let Ok(rest) = path.strip_prefix(above) {
            return std::iter::repeat_n(Path::new(".."), up).chain([rest]).collect();
        }
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(path: &str, folder: &str) -> PathBuf {
        relative(Path::new(path), Path::new(folder))
    }

    #[test]
    fn paths_are_seen_from_a_folder() {
        assert_eq!(seen("runs/a/cells/kd", "runs/a"), Path::new("cells/kd"));
        assert_eq!(seen("runs/a/cells/kd", "runs/a/points/x"), Path::new("../../cells/kd"));
        assert_eq!(seen("/r/a/cells/kd", "/r/a/points/x"), Path::new("../../cells/kd"));
        assert_eq!(seen("/elsewhere", "runs"), Path::new("/elsewhere"));
    }
}
