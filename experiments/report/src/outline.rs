//! What the runs of experiments came to, for programs.

use std::path::{Path, PathBuf};

use limbeck::error::Result;
use limbeck::experiment::AccuracyChoice;
use limbeck::task::Metrics;
use serde::Serialize;

use crate::options::Options;
use crate::study::Method;
use crate::survey::Survey;

/// What the runs of an experiment came to, for programs.
#[derive(Clone, Debug, Serialize)]
pub struct Outline {
    /// The experiment's name.
    pub experiment: String,
    /// Its folder.
    pub folder: PathBuf,
    /// `report.md`; absent as long as none was written, because the experiment was stopped before its end.
    pub report: Option<PathBuf>,
    /// Which accuracy is shown.
    pub accuracy: AccuracyChoice,
    /// The method that others are compared with.
    pub baseline: String,
    /// Its runs: methods first, then seeds.
    pub cells: Vec<CellOutline>,
}

/// One run of an [`Outline`].
#[derive(Clone, Debug, Serialize)]
pub struct CellOutline {
    /// The method's name.
    pub method: String,
    /// The seed.
    pub seed: u64,
    /// Its folder.
    pub folder: PathBuf,
    /// `finished`, `failed`, or `missing`: it has not ended.
    pub status: &'static str,
    /// Why it has no accuracy, if it has none.
    pub reason: Option<String>,
    /// What it is worth on the test split.
    pub accuracy: Option<Metrics>,
}

impl Outline {
    /// Reads what is there of the experiments in `dirs` (`runs/NAME` each, the points of a sweep one by one), which may be
    /// under way; `report` is passed on.
    ///
    /// # Errors
    /// If a folder holds no experiment, or an option asks for what the experiments do not have.
    pub fn read(dirs: &[PathBuf], options: &Options, report: Option<&Path>) -> Result<Vec<Outline>> {
        let Survey { studies, accuracy, baseline, .. } = Survey::read(dirs, options)?;
        let mut outlines = Vec::new();
        for study in &studies {
            outlines.push(Outline {
                experiment: study.experiment.name.clone(),
                folder: study.folder.clone(),
                report: report.map(Path::to_owned),
                accuracy,
                baseline: baseline.clone(),
                cells: study.methods.iter().flat_map(cells).collect(),
            });
        }
        Ok(outlines)
    }
}

/// The runs of a method.
fn cells(method: &Method) -> impl Iterator<Item = CellOutline> {
    method.runs.iter().map(|run| CellOutline {
        method: method.name.clone(),
        seed: run.cell.seed,
        folder: run.path.clone(),
        status: run.status,
        reason: (!run.reason.is_empty()).then(|| run.reason.clone()),
        accuracy: method.results.iter().find(|(seed, _)| *seed == run.cell.seed).map(|(_, metrics)| *metrics),
    })
}
