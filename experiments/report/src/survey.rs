//! All that a report is made of: the studies that stand side by side, and what is shown of them.

use std::path::PathBuf;

use indexmap::IndexSet;
use limbeck::error::{Error, Result};
use limbeck::experiment::AccuracyChoice;
use limbeck::nearest::nearest;
use limbeck::task::Task;

use crate::options::{Format, Options};
use crate::published::Published;
use crate::study::Study;
use crate::table::Cell;

/// All that a report is made of.
#[derive(Debug)]
pub struct Survey {
    pub studies: Vec<Study>,
    pub accuracy: AccuracyChoice,
    /// What was learnt and measured, in all studies alike.
    pub task: &'static dyn Task,
    pub baseline: String,
    /// The methods of all studies, in the order of the first that has them.
    pub methods: Vec<String>,
    /// Published accuracies of the studies' pairs.
    pub published: Published,
    /// Whether the CSV files are written, so that they can be pointed to.
    pub csv: bool,
}

impl Survey {
    /// Reads the experiments in `dirs`, the points of a sweep one by one.
    ///
    /// # Errors
    /// If a folder holds no experiment, or an option asks for what the experiments do not have.
    pub fn read(dirs: &[PathBuf], options: &Options) -> Result<Survey> {
        let mut studies = Vec::new();
        for dir in dirs {
            studies.extend(Study::read(dir)?);
        }
        let mut folders: Vec<PathBuf> = Vec::new();
        for study in &studies {
            let folder = study.folder.canonicalize().unwrap_or_else(|_| study.folder.clone());
            if folders.contains(&folder) {
                return Err(Error::plan(format!("{} is given twice", study.folder.display())));
            }
            folders.push(folder);
        }
        let Some(first) = studies.first() else {
            return Err(Error::plan("there is nothing to report: give the folder that `limbeck run` wrote, runs/NAME"));
        };
        let task = common_task(&studies)?;
        let compare = &first.experiment.compare;
        let accuracy = options.accuracy.unwrap_or(compare.accuracy);
        let usual = compare.baseline.clone().or_else(|| compare.methods.first().cloned()).unwrap_or_default();
        let methods: IndexSet<String> =
            studies.iter().flat_map(|study| &study.methods).map(|method| method.name.clone()).collect();
        let methods: Vec<String> = methods.into_iter().collect();
        let baseline = choose_baseline(options.baseline.as_deref(), usual, &methods)?;
        let several = studies.len() > 1;
        for study in &mut studies {
            let name = study.experiment.name.clone();
            study
                .choose(accuracy, task, &baseline)
                .map_err(|error| if several { error.within(&name) } else { error })?;
        }
        label(&mut studies);
        let csv = options.formats.contains(&Format::Csv);
        Ok(Survey { studies, accuracy, task, baseline, methods, published: Published::load()?, csv })
    }

    /// Whether it is of a single experiment.
    pub fn single(&self) -> Option<&Study> {
        match &self.studies[..] {
            [study] => Some(study),
            _ => None,
        }
    }

    /// What stands at the top: the names of experiments and sweeps.
    pub fn title(&self) -> String {
        let mut names: Vec<&str> = self.studies.iter().map(Study::title).collect();
        names.dedup();
        names.join(", ")
    }

    /// What stands before something of one study where there are others: `resnet56 → resnet20: `.
    pub fn place(&self, study: &Study) -> String {
        if self.single().is_some() { String::new() } else { format!("{}: ", study.label) }
    }

    /// A cell with the study's name where a table is of several: put before a row.
    pub fn study_cell(&self, study: &Study) -> Option<Cell> {
        self.single().is_none().then(|| study.label.as_str().into())
    }

    /// The title of that column: studies are pairs of networks, unless points of a sweep share one.
    pub fn study_column(&self) -> Option<&'static str> {
        if self.single().is_some() {
            return None;
        }
        for study in &self.studies {
            if study.point.is_some() && study.pair().as_ref() != Some(&study.label) {
                return Some("point");
            }
        }
        Some("pair")
    }
}

/// The task of all studies; the usual one as long as there is no number.
fn common_task(studies: &[Study]) -> Result<&'static dyn Task> {
    let mut measured = studies.iter().filter_map(|study| Some((&study.experiment.name, study.task?)));
    let Some((one, task)) = measured.next() else { return Ok(<&dyn Task>::default()) };
    if let Some((other, differs)) = measured.find(|(_, other)| other.name() != task.name()) {
        return Err(Error::plan(format!(
            "{one} is measured by {} and {other} by {}: they do not stand side by side, so make a report of each",
            task.score().short,
            differs.score().short
        )));
    }
    Ok(task)
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
    let hint = match nearest(asked, methods.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("it compares {}", methods.join(", ")),
    };
    Err(Error::plan(format!("the baseline `{asked}` is not among the methods of this experiment: {hint}")))
}
