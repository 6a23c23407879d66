//! What a run folder holds: an experiment, its cells, and what became of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use limbeck::config;
use limbeck::error::{Error, Result};
use limbeck::experiment::{AccuracyChoice, Experiment};
use limbeck::record::{Accuracies, Ensemble, ProbeRecord, ProbedNetwork, Summary, TeacherRecord};
use limbeck::task::{Metrics, Task};

use crate::run::Run;
use crate::statistics::{Spread, differences};
use crate::store::{self, CellEntry, PlanFile, ProbeEntry, SweepFile};

/// The version of `plan.json` that reports read.
const PLAN_FORMAT: u32 = 1;

/// The version of `sweep.json` that reports read.
const SWEEP_FORMAT: u32 = 1;

/// One experiment: usually a pair of networks.
#[derive(Debug)]
pub struct Study {
    pub experiment: Experiment,
    /// Its folder.
    pub folder: PathBuf,
    /// Where it is in a sweep, if it is part of one.
    pub point: Option<Point>,
    /// The pair, or the experiment's name where that says more: distinct within a report.
    pub label: String,
    /// The methods in the order of `compare.methods`.
    pub methods: Vec<Method>,
    /// The teachers of all runs, each once.
    pub teachers: Vec<TeacherRecord>,
    /// What was learnt and measured; absent as long as there is no number.
    pub task: Option<&'static dyn Task>,
    /// The linear classifiers on frozen networks, in the order of the plan.
    pub probes: Vec<ProbeRun>,
}

/// A linear classifier and what became of it.
#[derive(Debug)]
pub struct ProbeRun {
    pub entry: ProbeEntry,
    /// What it says of itself; absent if it has not ended or cannot be read.
    pub record: Option<ProbeRecord>,
}

/// The place of an experiment in a sweep.
#[derive(Clone, Debug)]
pub struct Point {
    /// The sweep's folder.
    pub folder: PathBuf,
    /// The sweep's name.
    pub sweep: String,
    /// A name for people.
    pub label: String,
    /// The value of each axis.
    pub at: IndexMap<String, String>,
}

/// The runs of one method.
#[derive(Debug)]
pub struct Method {
    pub name: String,
    /// In the order of `compare.seeds`.
    pub runs: Vec<Run>,
    /// (seed, metrics) of the runs that have a result.
    pub results: Vec<(u64, Metrics)>,
    /// The score over seeds.
    pub score: Option<Spread>,
    /// What the task shows beside it, over seeds.
    pub beside: Vec<Option<Spread>>,
    /// That minus the baseline's, of the seeds that both have; empty for the baseline itself.
    pub differences: Vec<f64>,
    /// Their spread.
    pub difference: Option<Spread>,
}

impl Method {
    fn new(name: &str, runs: Vec<Run>) -> Self {
        Method {
            name: name.to_owned(),
            runs,
            results: Vec::new(),
            score: None,
            beside: Vec::new(),
            differences: Vec::new(),
            difference: None,
        }
    }

    pub fn scores(&self) -> Vec<(u64, f64)> {
        self.results.iter().map(|(seed, metrics)| (*seed, metrics.score())).collect()
    }

    /// The summaries of runs with a result.
    pub fn finished(&self) -> impl Iterator<Item = &Summary> {
        self.runs.iter().filter(|run| run.accuracies.is_some()).filter_map(|run| run.summary.as_ref())
    }
}

impl Study {
    /// Reads a folder that `limbeck run` wrote: one experiment, or the points of a sweep that were begun.
    ///
    /// # Errors
    /// If it holds no experiment, or its plan cannot be read.
    pub fn read(dir: &Path) -> Result<Vec<Study>> {
        let path = dir.join(store::SWEEP);
        if !path.is_file() {
            return Ok(vec![Study::read_one(dir, None)?]);
        }
        let sweep: SweepFile = store::read_json(&path)?;
        if sweep.format != SWEEP_FORMAT {
            return Err(Error::data(
                &path,
                format!("format {} is not known; this version reads format {SWEEP_FORMAT}", sweep.format),
            ));
        }
        let mut studies = Vec::new();
        for entry in sweep.points {
            let folder = dir.join(&entry.folder);
            // A point is there once something of it was run.
            if folder.join(store::EXPERIMENT).is_file() {
                let point =
                    Point { folder: dir.to_owned(), sweep: sweep.name.clone(), label: entry.label, at: entry.at };
                studies.push(Study::read_one(&folder, Some(point))?);
            }
        }
        if studies.is_empty() {
            return Err(Error::plan(format!("nothing of the sweep in {} was run yet", dir.display())));
        }
        Ok(studies)
    }

    /// Reads one experiment; missing, failed and damaged runs are part of it, with their reason.
    fn read_one(dir: &Path, point: Option<Point>) -> Result<Study> {
        let path = dir.join(store::EXPERIMENT);
        if !path.is_file() {
            return Err(Error::plan(format!(
                "{} holds no experiment (there is no experiment.toml in it): give the folder that `limbeck run` wrote, runs/NAME",
                dir.display()
            )));
        }
        let experiment = config::load(&path, &[])?;
        let plan = read_plan(dir)?;
        let methods = group(&experiment, plan.cells, dir, point.is_some());
        let mut probes = Vec::new();
        for entry in plan.probes {
            probes.push(ProbeRun { record: store::probe(&dir.join(&entry.folder)).ok().flatten(), entry });
        }
        let teachers = teachers(&experiment, &methods);
        let label = experiment.name.clone();
        let task = task(&methods);
        Ok(Study { experiment, folder: dir.to_owned(), point, label, methods, teachers, task, probes })
    }

    /// What it is part of: its sweep, or itself.
    pub fn title(&self) -> &str {
        self.point.as_ref().map_or(&self.experiment.name, |point| &point.sweep)
    }

    /// The networks: `resnet56 → resnet20`; absent where no run has ended.
    pub fn pair(&self) -> Option<String> {
        let student = &self.summaries().next()?.student;
        let networks = self.teachers.iter().filter(|teacher| teacher.members.is_empty());
        let mut models: Vec<&str> = networks.map(|teacher| teacher.model.as_str()).collect();
        models.dedup();
        Some(if models.is_empty() { student.clone() } else { format!("{} → {student}", models.join(" + ")) })
    }

    /// The recipes of student and teachers, whatever is made of them: the same of studies that differ in settings alone.
    pub fn networks(&self) -> String {
        let Experiment { student, teacher, .. } = &self.experiment;
        let mut networks = Vec::new();
        for (name, teacher) in teacher {
            networks.extend(teacher.network().map(|network| (name, &network.model)));
        }
        serde_json::to_string(&(&student.model, networks)).unwrap_or_default()
    }

    /// What its teachers are worth together, if there are several. A student that asks none of them may have been trained
    /// beside those of another point of a sweep: theirs is another ensemble.
    pub fn ensemble(&self) -> Option<&Ensemble> {
        let networks = self.teachers.iter().filter(|teacher| teacher.members.is_empty());
        let own: BTreeSet<_> = networks.map(|teacher| (&teacher.name, &teacher.digest)).collect();
        let mut ensembles = self.summaries().filter_map(|summary| summary.ensemble.as_ref());
        ensembles.find(|found| found.teachers.iter().zip(&found.digests).collect::<BTreeSet<_>>() == own)
    }

    /// Chooses the accuracy that is shown and the method that others are compared with.
    ///
    /// # Errors
    /// If the experiment has no such accuracy.
    pub fn choose(&mut self, accuracy: AccuracyChoice, task: &dyn Task, baseline: &str) -> Result<()> {
        if accuracy == AccuracyChoice::BestOnValidation && self.experiment.validation == 0 {
            return Err(Error::plan(
                "the accuracy best_on_validation needs samples that were held out, and this experiment has `validation = 0`",
            ));
        }
        for method in &mut self.methods {
            for run in &mut method.runs {
                let Some(accuracies) = &run.accuracies else { continue };
                match pick(accuracy, accuracies) {
                    Some(metrics) => method.results.push((run.cell.seed, metrics)),
                    None => run.reason = format!("it has no {}", accuracy.describe(task)),
                }
            }
            method.score = Spread::of(method.results.iter().map(|(_, metrics)| metrics.score()));
            for at in 0..task.beside().len() {
                let values = method.results.iter().filter_map(|(_, metrics)| metrics.beside().nth(at));
                method.beside.push(Spread::of(values.map(|(_, value)| value)));
            }
        }
        let theirs = self.method(baseline).map(Method::scores).unwrap_or_default();
        for method in self.methods.iter_mut().filter(|method| method.name != baseline) {
            method.differences = differences(&method.scores(), &theirs);
            method.difference = Spread::of(method.differences.iter().copied());
        }
        Ok(())
    }

    /// The method of that name.
    pub fn method(&self, name: &str) -> Option<&Method> {
        self.methods.iter().find(|method| method.name == name)
    }

    /// The mean accuracy of a method.
    pub fn mean(&self, name: &str) -> Option<f64> {
        Some(self.method(name)?.score?.mean)
    }

    /// The student trained by the labels alone: a method that has no term.
    pub fn scratch(&self) -> Option<&Method> {
        let mut methods = self.methods.iter();
        methods.find(|method| self.experiment.method(&method.name).is_ok_and(|config| config.terms.is_empty()))
    }

    /// The scores of a probe's classifiers on networks that never trained, by seed.
    pub fn untrained(&self, probe: &str) -> Vec<(u64, f64)> {
        let mut scores = Vec::new();
        for ProbeRun { entry, record } in &self.probes {
            if let Some(record) = record
                && entry.probe == probe
                && entry.network == ProbedNetwork::Untrained
            {
                scores.push((entry.seed, record.test.score()));
            }
        }
        scores
    }

    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.methods.iter().flat_map(|method| &method.runs)
    }

    pub fn summaries(&self) -> impl Iterator<Item = &Summary> {
        self.runs().filter_map(|run| run.summary.as_ref())
    }

    /// The teacher that differences are taken to: the most accurate of those that could be measured.
    pub fn best_teacher(&self) -> Option<&TeacherRecord> {
        let mut best: Option<(&TeacherRecord, Metrics)> = None;
        for teacher in &self.teachers {
            if let Some(test) = teacher.test
                && best.is_none_or(|(_, other)| test.is_better_than(&other))
            {
                best = Some((teacher, test));
            }
        }
        best.map(|(teacher, _)| teacher)
    }

    /// A method's mean minus the best teacher's accuracy.
    pub fn to_teacher(&self, method: &Method) -> Option<f64> {
        Some(method.score?.mean - self.best_teacher()?.test?.score())
    }
}

/// The task, as the runs' numbers say.
fn task(methods: &[Method]) -> Option<&'static dyn Task> {
    let summaries = methods.iter().flat_map(|method| &method.runs).filter_map(|run| run.summary.as_ref());
    let mut tests = summaries.flat_map(|summary| {
        let teachers = summary.teachers.iter().map(|teacher| teacher.test);
        teachers.chain(summary.history.iter().map(|record| record.test)).flatten()
    });
    tests.next().map(|test| test.task())
}

/// The teachers of all runs, each once, in the order of the experiment.
fn teachers(experiment: &Experiment, methods: &[Method]) -> Vec<TeacherRecord> {
    let mut teachers: Vec<TeacherRecord> = Vec::new();
    let summaries = methods.iter().flat_map(|method| &method.runs).filter_map(|run| run.summary.as_ref());
    for teacher in summaries.flat_map(|summary| &summary.teachers) {
        if !teachers.iter().any(|known| (&known.name, &known.digest) == (&teacher.name, &teacher.digest)) {
            teachers.push(teacher.clone());
        }
    }
    teachers.sort_by_key(|teacher| experiment.teacher.get_index_of(&teacher.name));
    teachers
}

fn read_plan(dir: &Path) -> Result<PlanFile> {
    let path = dir.join(store::PLAN);
    let plan: PlanFile = store::read_json(&path)?;
    if plan.format != PLAN_FORMAT {
        return Err(Error::data(
            &path,
            format!("format {} is not known; this version reads format {PLAN_FORMAT}", plan.format),
        ));
    }
    Ok(plan)
}

/// The cells by method, in the order of `compare`; cells that `compare` does not name come last, those that the plan
/// lacks are there as missing, unless it is that of a point of a sweep, where they are excluded.
fn group(experiment: &Experiment, cells: Vec<CellEntry>, dir: &Path, is_point: bool) -> Vec<Method> {
    let compare = &experiment.compare;
    let mut methods: IndexMap<&str, Vec<Run>> =
        compare.methods.iter().map(|name| (name.as_str(), Vec::new())).collect();
    for cell in &cells {
        methods.entry(&cell.method).or_default().push(Run::read(dir, cell.clone()));
    }
    for (name, runs) in &mut methods {
        for seed in compare.seeds.iter().filter(|_| !is_point) {
            if !runs.iter().any(|run| run.cell.seed == *seed) {
                let cell = CellEntry { method: (*name).to_owned(), seed: *seed, folder: PathBuf::new() };
                runs.push(Run::missing(cell, PathBuf::new(), "plan.json has no such cell".to_owned()));
            }
        }
        runs.sort_by_key(|run| {
            let seed = run.cell.seed;
            (compare.seeds.iter().position(|known| *known == seed).unwrap_or(usize::MAX), seed)
        });
    }
    methods.into_iter().map(|(name, runs)| Method::new(name, runs)).collect()
}

fn pick(choice: AccuracyChoice, accuracies: &Accuracies) -> Option<Metrics> {
    match choice {
        AccuracyChoice::Last => Some(accuracies.last),
        AccuracyChoice::BestOnValidation => accuracies.best_on_validation.map(|best| best.test),
        AccuracyChoice::BestOnTest => Some(accuracies.best_on_test.test),
    }
}
