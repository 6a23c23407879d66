//! One student to be trained.

use std::path::PathBuf;

use limbeck::experiment::Experiment;
use limbeck_report::store::{self, Progress};

/// One student to be trained.
#[derive(Clone, Debug)]
pub struct Cell {
    /// For people: `crd, seed 0`, after the label of the point if there is a grid.
    pub name: String,
    /// The method's name.
    pub method: String,
    /// The seed.
    pub seed: u64,
    /// The run folder.
    pub folder: PathBuf,
    /// A digest of everything that determines the result.
    pub identity: String,
    /// How far it has come.
    pub progress: Progress,
    /// Its own experiment: running this file alone trains this student.
    pub resolved: Experiment,
}

impl Cell {
    /// Whether it is not finished.
    pub fn is_open(&self) -> bool {
        store::progress(&self.folder) != Progress::Finished
    }
}
