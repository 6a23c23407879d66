//! Reports: what the runs of one or several experiments say, side by side.
//!
//! A report is a function of the experiments' folders and of nothing else: no date, no host, no order of the file system.
//! Made twice, it is the same byte for byte. Of each folder it reads
//!
//! - `sweep.json`, if it is a sweep: the folders of its points, which are experiments,
//! - `experiment.toml`, the resolved experiment,
//! - `plan.json`, the cells (one run for each method and seed) and their folders,
//! - each cell's `summary.json`, and what the student has in common with its teachers (`similarity.json`,
//!   `correlations.safetensors`),
//!
//! and makes a document: sections of text, tables and pictures. That is written as `report.html` (one page, which needs
//! no other file), `report.md`, `summary.md` (the comparison alone, to be pasted somewhere) and `report.tex` (its tables).
//! For programs there are CSV files with the numbers of every table and picture, in full precision.

mod csv;
mod document;
mod html;
mod latex;
mod markdown;
mod numbers;
mod picture;
mod published;
mod sections;
mod statistics;
mod study;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use limbeck::error::{Error, Result};
use limbeck::experiment::AccuracyChoice;
use limbeck::record::{Accuracy, Measure};
use serde::Serialize;

use crate::tensorboard;

use published::Published;
use study::{Method, Run, Study};

/// With fewer seeds than this, the order of methods is not established, and the report says so.
const ENOUGH_SEEDS: usize = 3;

/// With fewer pairs than this, nothing is claimed of the methods' ranks.
const ENOUGH_PAIRS: usize = 5;

/// What a report is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `report.html`
    Html,
    /// `report.md` and `summary.md`
    Markdown,
    /// The numbers of every table and picture.
    Csv,
    /// `report.tex`
    Latex,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 4] = [Format::Html, Format::Markdown, Format::Csv, Format::Latex];
}

/// What a report may show otherwise than the experiments say.
#[derive(Clone, Debug)]
pub struct Options {
    /// The method that others are compared with; absent: `compare.baseline` of the first experiment, else its first method.
    pub baseline: Option<String>,
    /// Which accuracy is shown; absent: `compare.accuracy` of the first experiment.
    pub accuracy: Option<AccuracyChoice>,
    /// What is written.
    pub formats: Vec<Format>,
    /// Where it is written; absent: the folder `report` in that of a single experiment.
    pub out: Option<PathBuf>,
    /// Whether event files for TensorBoard are written, into the folder `tensorboard` beside the report's files.
    pub tensorboard: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { baseline: None, accuracy: None, formats: Format::ALL.into(), out: None, tensorboard: false }
    }
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
    /// Reads what is there of the experiments in `dirs` (`runs/NAME` each, the points of a sweep one by one), which may be
    /// under way; `report` is passed on.
    ///
    /// # Errors
    /// If a folder holds no experiment, or an option asks for what the experiments do not have.
    pub fn read(dirs: &[PathBuf], options: &Options, report: Option<&Path>) -> Result<Vec<Outline>> {
        let Survey { studies, accuracy, baseline, .. } = Survey::read(dirs, options)?;
        let cell = |method: &Method, run: &Run| CellOutline {
            method: method.name.clone(),
            seed: run.cell.seed,
            folder: run.path.clone(),
            status: run.status,
            reason: (!run.reason.is_empty()).then(|| run.reason.clone()),
            accuracy: method.results.iter().find(|(seed, _)| *seed == run.cell.seed).map(|(_, accuracy)| *accuracy),
        };
        let outline = |study: &Study| Outline {
            experiment: study.experiment.name.clone(),
            folder: study.folder.clone(),
            report: report.map(Path::to_owned),
            accuracy,
            baseline: baseline.clone(),
            cells: study.methods.iter().flat_map(|method| method.runs.iter().map(|run| cell(method, run))).collect(),
        };
        Ok(studies.iter().map(outline).collect())
    }
}

/// A report that was written.
#[derive(Clone, Debug)]
pub struct Report {
    /// The folder.
    pub folder: PathBuf,
    /// What to look at first.
    pub path: PathBuf,
    /// Its comparison with what must be known to read it, as Markdown.
    pub comparison: String,
}

/// Writes the report of the experiments in `dirs` (`runs/NAME` each). The points of a sweep are experiments side by side.
///
/// Runs that are missing, failed or unreadable are listed with their reason; they are no error.
///
/// # Errors
/// If a folder holds no experiment, an option asks for what the experiments do not have, or a file cannot be written.
pub fn write(dirs: &[PathBuf], options: &Options) -> Result<Report> {
    let folder = match (&options.out, dirs) {
        (Some(out), _) => out.clone(),
        (None, [dir]) => dir.join("report"),
        (None, _) => return Err(Error::plan("a report of several experiments needs a folder: name one with --out")),
    };
    let survey = Survey::read(dirs, options)?;
    let document = sections::document(&survey);
    let summary = markdown::write(&sections::summary(&survey));
    let mut files: Vec<(String, String)> = Vec::new();
    // What an earlier report may have had and this one has not.
    let mut stale: Vec<&str> = Vec::new();
    for format in Format::ALL.into_iter().filter(|format| options.formats.contains(format)) {
        match format {
            Format::Html => files.push(("report.html".to_owned(), html::write(&document))),
            Format::Markdown => {
                files.push(("report.md".to_owned(), markdown::write(&document)));
                files.push(("summary.md".to_owned(), summary.clone()));
            }
            Format::Csv => {
                let (full, empty): (Vec<_>, Vec<_>) =
                    csv::all(&survey).into_iter().partition(|(_, table)| !table.rows.is_empty());
                files.extend(full.into_iter().map(|(name, table)| (name.to_owned(), table.csv())));
                stale.extend(empty.into_iter().map(|(name, _)| name));
            }
            Format::Latex => files.push(("report.tex".to_owned(), latex::write(&document))),
        }
    }
    fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    for path in stale.into_iter().map(|name| folder.join(name)).filter(|path| path.exists()) {
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
    }
    for (name, text) in &files {
        let path = folder.join(name);
        fs::write(&path, text).map_err(Error::io("write", &path))?;
    }
    if options.tensorboard {
        survey.write_events(&folder.join("tensorboard"))?;
    }
    let path = folder.join(files.first().map_or("", |(name, _)| name));
    Ok(Report { folder, path, comparison: summary })
}

/// All that a report is made of.
#[derive(Debug)]
struct Survey {
    studies: Vec<Study>,
    accuracy: AccuracyChoice,
    /// What was measured, in all studies alike.
    measure: Measure,
    baseline: String,
    /// The methods of all studies, in the order of the first that has them.
    methods: Vec<String>,
    /// Published accuracies of the studies' pairs.
    published: Published,
    /// Whether the CSV files are written, so that they can be pointed to.
    csv: bool,
}

impl Survey {
    fn read(dirs: &[PathBuf], options: &Options) -> Result<Survey> {
        let mut studies = Vec::new();
        for dir in dirs {
            studies.extend(Study::read(dir)?);
        }
        let folder = |study: &Study| study.folder.canonicalize().unwrap_or_else(|_| study.folder.clone());
        let folders: Vec<PathBuf> = studies.iter().map(folder).collect();
        if let Some(at) = (1..folders.len()).find(|at| folders[..*at].contains(&folders[*at])) {
            return Err(Error::plan(format!("{} is given twice", studies[at].folder.display())));
        }
        let Some(first) = studies.first() else {
            return Err(Error::plan("there is nothing to report: give the folder that `limbeck run` wrote, runs/NAME"));
        };
        let mut measured = studies.iter().filter_map(|study| Some((&study.experiment.name, study.measure?)));
        let one = measured.next();
        let measure = one.map(|(_, measure)| measure).unwrap_or_default();
        if let (Some((one, _)), Some((other, differs))) = (one, measured.find(|(_, other)| *other != measure)) {
            return Err(Error::plan(format!(
                "{one} is measured by {} and {other} by {}: they do not stand side by side, so make a report of each",
                measure.short(),
                differs.short()
            )));
        }
        let compare = &first.experiment.compare;
        let accuracy = options.accuracy.unwrap_or(compare.accuracy);
        let usual = compare.baseline.clone().or_else(|| compare.methods.first().cloned()).unwrap_or_default();
        let mut methods: Vec<String> = Vec::new();
        for method in studies.iter().flat_map(|study| &study.methods) {
            if !methods.contains(&method.name) {
                methods.push(method.name.clone());
            }
        }
        let baseline = choose_baseline(options.baseline.as_deref(), usual, &methods)?;
        let several = studies.len() > 1;
        for study in &mut studies {
            let name = study.experiment.name.clone();
            study
                .choose(accuracy, measure, &baseline)
                .map_err(|error| if several { error.within(&name) } else { error })?;
        }
        label(&mut studies);
        let csv = options.formats.contains(&Format::Csv);
        Ok(Survey { studies, accuracy, measure, baseline, methods, published: Published::load()?, csv })
    }

    /// Whether it is of a single experiment.
    fn single(&self) -> Option<&Study> {
        match &self.studies[..] {
            [study] => Some(study),
            _ => None,
        }
    }

    /// What stands at the top: the names of experiments and sweeps.
    fn title(&self) -> String {
        let mut names: Vec<&str> = self.studies.iter().map(Study::title).collect();
        names.dedup();
        names.join(", ")
    }

    /// Writes an event file for each run that has a log, below the experiment's name where there are several.
    fn write_events(&self, out: &Path) -> Result<()> {
        for study in &self.studies {
            let out = if self.single().is_some() { out.to_owned() } else { out.join(&study.experiment.name) };
            for run in study.runs() {
                // A run that the plan lacks has no folder.
                if let Some(name) = run.path.file_name() {
                    tensorboard::write(&run.path, &out.join(name))?;
                }
            }
        }
        Ok(())
    }
}

/// Names every study by its pair of networks where that tells them apart, else by its point of a sweep, else by the
/// experiment's name; where that is another's, too, with its folder.
fn label(studies: &mut [Study]) {
    let pairs: Vec<Option<String>> = studies.iter().map(Study::pair).collect();
    let distinct = pairs.iter().enumerate().all(|(at, pair)| pair.is_some() && !pairs[..at].contains(pair));
    for (study, pair) in studies.iter_mut().zip(pairs) {
        let pair = pair.filter(|_| distinct);
        let point = study.point.as_ref().map(|point| point.label.clone());
        study.label = pair.or(point).unwrap_or_else(|| study.experiment.name.clone());
    }
    let labels: Vec<String> = studies.iter().map(|study| study.label.clone()).collect();
    for study in studies.iter_mut().filter(|study| labels.iter().filter(|label| **label == study.label).count() > 1) {
        study.label = format!("{} ({})", study.label, study.folder.display());
    }
}

fn choose_baseline(asked: Option<&str>, usual: String, methods: &[String]) -> Result<String> {
    let Some(asked) = asked else { return Ok(usual) };
    if methods.iter().any(|method| method == asked) {
        return Ok(asked.to_owned());
    }
    let hint = match limbeck::nearest::nearest(asked, methods.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("it compares {}", methods.join(", ")),
    };
    Err(Error::plan(format!("the baseline `{asked}` is not among the methods of this experiment: {hint}")))
}

#[cfg(test)]
mod tests;
