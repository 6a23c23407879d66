//! Reports: what the runs of an experiment say, side by side.
//!
//! A report is a function of the experiment's folder and of nothing else: no date, no host, no order of the file system.
//! Made twice, it is the same byte for byte. It reads
//!
//! - `experiment.toml`, the resolved experiment,
//! - `plan.json`, the cells (one run for each method and seed) and their folders,
//! - each cell's `summary.json`,
//!
//! and writes `report/report.md` for people, and for programs `report/comparison.csv` (a row for each method),
//! `report/runs.csv` (a row for each run) and `report/curves.csv` (a row for each run and epoch).

mod csv;
mod statistics;
mod table;
mod text;

use std::fs;
use std::path::{Path, PathBuf};

use limbeck::error::{Error, Result};
use limbeck::experiment::{AccuracyChoice, Experiment};
use limbeck::record::{Accuracies, Accuracy, Outcome, SUMMARY_FORMAT, Summary, TeacherRecord};
use limbeck::{cohort, config, registry};
use serde::Serialize;

use crate::store::{self, CellEntry, PlanFile};

use statistics::Spread;

/// The version of `plan.json` that reports read.
const PLAN_FORMAT: u32 = 1;

/// With fewer seeds than this, the order of methods is not established, and the report says so.
const ENOUGH_SEEDS: usize = 3;

/// What a report may show otherwise than the experiment says.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The method that others are compared with; absent: `compare.baseline`, else the first method.
    pub baseline: Option<String>,
    /// Which accuracy is shown; absent: `compare.accuracy`.
    pub accuracy: Option<AccuracyChoice>,
}

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
    /// On the test split: percent, and nats.
    pub accuracy: Option<Accuracy>,
}

impl Outline {
    /// Reads what is there of the experiment in `dir` (`runs/NAME`), which may be under way; `report` is passed on.
    ///
    /// # Errors
    /// If `dir` holds no experiment, or an option asks for what the experiment does not have.
    pub fn read(dir: &Path, options: &Options, report: Option<PathBuf>) -> Result<Outline> {
        let study = Study::read(dir, options)?;
        let cell = |run: &Run| CellOutline {
            method: run.cell.method.clone(),
            seed: run.cell.seed,
            folder: dir.join(&run.cell.folder),
            status: run.status,
            reason: (!run.reason.is_empty()).then(|| run.reason.clone()),
            accuracy: run.accuracies.as_ref().and_then(|accuracies| pick(study.accuracy, accuracies)),
        };
        Ok(Outline {
            experiment: study.experiment.name.clone(),
            folder: dir.to_owned(),
            report,
            accuracy: study.accuracy,
            baseline: study.baseline.clone(),
            cells: study.runs().map(cell).collect(),
        })
    }
}

/// A report that was written.
#[derive(Clone, Debug)]
pub struct Report {
    /// `report.md`
    pub path: PathBuf,
    /// Its comparison table with what must be known to read it, as Markdown.
    pub comparison: String,
}

/// Writes the report of the experiment in `dir` (`runs/NAME`) into `dir/report`.
///
/// Runs that are missing, failed or unreadable are listed with their reason; they are no error.
///
/// # Errors
/// If `dir` holds no experiment, an option asks for what the experiment does not have, or a file cannot be written.
pub fn write(dir: &Path, options: &Options) -> Result<Report> {
    let study = Study::read(dir, options)?;
    let folder = dir.join("report");
    fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    let comparison = text::comparison(&study);
    let path = folder.join("report.md");
    for (path, text) in [
        (folder.join("comparison.csv"), csv::comparison(&study)),
        (folder.join("runs.csv"), csv::runs(&study)),
        (folder.join("curves.csv"), csv::curves(&study)),
        (path.clone(), text::report(&study, &comparison)),
    ] {
        fs::write(&path, text).map_err(Error::io("write", &path))?;
    }
    Ok(Report { path, comparison })
}

/// A cell and what became of it.
#[derive(Debug)]
struct Run {
    cell: CellEntry,
    /// What it says of itself; absent if it has not ended or cannot be read.
    summary: Option<Summary>,
    /// `finished`, `failed` or `missing`.
    status: &'static str,
    /// Why it has no result; empty if it has one.
    reason: String,
    /// The three accuracies, if it has a result.
    accuracies: Option<Accuracies>,
}

impl Run {
    fn read(dir: &Path, cell: CellEntry) -> Run {
        let missing = |cell, reason| Run { cell, summary: None, status: "missing", reason, accuracies: None };
        let path = dir.join(&cell.folder).join(cohort::SUMMARY);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return missing(cell, "it has not ended; run the experiment again and it goes on".to_owned());
            }
            Err(error) => return missing(cell, format!("its summary.json cannot be read: {error}")),
        };
        match serde_json::from_str::<Summary>(&text) {
            Err(error) => missing(cell, format!("its summary.json is damaged: {error}")),
            Ok(summary) if summary.format != SUMMARY_FORMAT => {
                let found = summary.format;
                missing(
                    cell,
                    format!("its summary.json has format {found}; this version reads format {SUMMARY_FORMAT}"),
                )
            }
            Ok(summary) if (&summary.method, summary.seed) != (&cell.method, cell.seed) => {
                missing(cell, format!("its summary.json is of {}, seed {}", summary.method, summary.seed))
            }
            Ok(summary) => match (&summary.outcome, summary.accuracy.clone()) {
                (Outcome::Failed { reason, .. }, _) => {
                    let reason = reason.clone();
                    Run { cell, summary: Some(summary), status: "failed", reason, accuracies: None }
                }
                (Outcome::Finished, None) => missing(cell, "its summary.json has no accuracy".to_owned()),
                (Outcome::Finished, accuracies) => {
                    Run { cell, summary: Some(summary), status: "finished", reason: String::new(), accuracies }
                }
            },
        }
    }
}

/// All that a report is made of.
#[derive(Debug)]
struct Study {
    experiment: Experiment,
    accuracy: AccuracyChoice,
    baseline: String,
    /// The methods in the order of `compare.methods`.
    methods: Vec<Method>,
    /// The teachers of all runs, each once.
    teachers: Vec<TeacherRecord>,
}

/// The runs of one method.
#[derive(Debug)]
struct Method {
    name: String,
    /// In the order of `compare.seeds`.
    runs: Vec<Run>,
    /// (seed, accuracy) of the runs that have a result.
    results: Vec<(u64, Accuracy)>,
    /// Top-1 over seeds.
    top1: Option<Spread>,
    /// Top-5 over seeds.
    top5: Option<Spread>,
    /// Top-1 minus the baseline's, seed by seed; absent for the baseline itself.
    difference: Option<Spread>,
}

impl Method {
    fn top1s(&self) -> Vec<(u64, f64)> {
        self.results.iter().map(|(seed, accuracy)| (*seed, accuracy.top1)).collect()
    }

    /// The summaries of runs with a result.
    fn finished(&self) -> impl Iterator<Item = &Summary> {
        self.runs.iter().filter(|run| run.accuracies.is_some()).filter_map(|run| run.summary.as_ref())
    }
}

impl Study {
    fn read(dir: &Path, options: &Options) -> Result<Study> {
        let path = dir.join(store::EXPERIMENT);
        if !path.is_file() {
            return Err(Error::plan(format!(
                "{} holds no experiment (there is no experiment.toml in it): give the folder that `limbeck run` wrote, runs/NAME",
                dir.display()
            )));
        }
        let experiment = config::load(&path, &[])?;
        let accuracy = options.accuracy.unwrap_or(experiment.compare.accuracy);
        if accuracy == AccuracyChoice::BestOnValidation && experiment.validation == 0 {
            return Err(Error::plan(
                "the accuracy best_on_validation needs samples that were held out, and this experiment has `validation = 0`",
            ));
        }
        let baseline = choose_baseline(&experiment, options)?;
        let mut methods = group(&experiment, read_cells(dir)?, dir);
        for method in &mut methods {
            for run in &mut method.runs {
                match run.accuracies.as_ref().map(|accuracies| pick(accuracy, accuracies)) {
                    Some(Some(accuracy)) => method.results.push((run.cell.seed, accuracy)),
                    Some(None) => run.reason = format!("it has no {}", accuracy.describe()),
                    None => {}
                }
            }
            method.top1 = Spread::of(method.results.iter().map(|(_, accuracy)| accuracy.top1));
            method.top5 = Spread::of(method.results.iter().map(|(_, accuracy)| accuracy.top5));
        }
        let theirs = methods.iter().find(|method| method.name == baseline).map(Method::top1s).unwrap_or_default();
        for method in methods.iter_mut().filter(|method| method.name != baseline) {
            method.difference = Spread::of_differences(&method.top1s(), &theirs);
        }
        let mut teachers: Vec<TeacherRecord> = Vec::new();
        for teacher in methods
            .iter()
            .flat_map(|method| &method.runs)
            .filter_map(|run| run.summary.as_ref())
            .flat_map(|s| &s.teachers)
        {
            if !teachers.iter().any(|known| (&known.name, &known.digest) == (&teacher.name, &teacher.digest)) {
                teachers.push(teacher.clone());
            }
        }
        teachers.sort_by_key(|teacher| experiment.teacher.get_index_of(&teacher.name));
        Ok(Study { experiment, accuracy, baseline, methods, teachers })
    }

    fn runs(&self) -> impl Iterator<Item = &Run> {
        self.methods.iter().flat_map(|method| &method.runs)
    }

    fn summaries(&self) -> impl Iterator<Item = &Summary> {
        self.runs().filter_map(|run| run.summary.as_ref())
    }

    /// The teacher that differences are taken to: the most accurate of those that could be measured.
    fn best_teacher(&self) -> Option<&TeacherRecord> {
        let top1 = |teacher: &TeacherRecord| teacher.test.map(|test| test.top1);
        let measured = self.teachers.iter().filter(|teacher| teacher.test.is_some());
        measured.reduce(|best, teacher| if top1(teacher) > top1(best) { teacher } else { best })
    }

    /// A method's mean minus the best teacher's accuracy.
    fn to_teacher(&self, method: &Method) -> Option<f64> {
        Some(method.top1?.mean - self.best_teacher()?.test?.top1)
    }
}

fn choose_baseline(experiment: &Experiment, options: &Options) -> Result<String> {
    let methods = &experiment.compare.methods;
    let Some(asked) = &options.baseline else {
        return Ok(experiment.compare.baseline.clone().or_else(|| methods.first().cloned()).unwrap_or_default());
    };
    if methods.contains(asked) {
        return Ok(asked.clone());
    }
    let hint = match registry::nearest(asked, methods.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("it compares {}", methods.join(", ")),
    };
    Err(Error::plan(format!("the baseline `{asked}` is not among the methods of this experiment: {hint}")))
}

fn read_cells(dir: &Path) -> Result<Vec<CellEntry>> {
    let path = dir.join(store::PLAN);
    let plan: PlanFile = store::read_json(&path)?;
    if plan.format != PLAN_FORMAT {
        return Err(Error::data(
            &path,
            format!("format {} is not known; this version reads format {PLAN_FORMAT}", plan.format),
        ));
    }
    Ok(plan.cells)
}

/// The cells by method, in the order of `compare`; cells that `compare` does not name come last, those that the plan
/// lacks are there as missing.
fn group(experiment: &Experiment, cells: Vec<CellEntry>, dir: &Path) -> Vec<Method> {
    let compare = &experiment.compare;
    let new = |name: &str| Method {
        name: name.to_owned(),
        runs: Vec::new(),
        results: Vec::new(),
        top1: None,
        top5: None,
        difference: None,
    };
    let mut methods: Vec<Method> = compare.methods.iter().map(|name| new(name)).collect();
    for cell in cells {
        let at = methods.iter().position(|method| method.name == cell.method).unwrap_or_else(|| {
            methods.push(new(&cell.method));
            methods.len() - 1
        });
        methods[at].runs.push(Run::read(dir, cell));
    }
    for method in &mut methods {
        for seed in &compare.seeds {
            if !method.runs.iter().any(|run| run.cell.seed == *seed) {
                let cell = CellEntry { method: method.name.clone(), seed: *seed, folder: PathBuf::new() };
                let reason = "plan.json has no such cell".to_owned();
                method.runs.push(Run { cell, summary: None, status: "missing", reason, accuracies: None });
            }
        }
        let place = |seed| compare.seeds.iter().position(|known| *known == seed).unwrap_or(usize::MAX);
        method.runs.sort_by_key(|run| (place(run.cell.seed), run.cell.seed));
    }
    methods
}

fn pick(choice: AccuracyChoice, accuracies: &Accuracies) -> Option<Accuracy> {
    match choice {
        AccuracyChoice::Last => Some(accuracies.last),
        AccuracyChoice::BestOnValidation => accuracies.best_on_validation.map(|best| best.test),
        AccuracyChoice::BestOnTest => Some(accuracies.best_on_test.test),
    }
}

#[cfg(test)]
mod tests;
