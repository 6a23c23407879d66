//! Linear probes as planned: which classifiers are trained on which frozen networks, once these are there.
//!
//! A probe of the experiment gives one classifier for each of its cells, for each teacher and seed, and for each seed on the
//! student's network as it was before training. All have folders of their own beside the cells, known by what determines
//! the result; a classifier that several experiments of a sweep have is trained once.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use indexmap::IndexMap;
use limbeck::cohort::{Data, STUDENT, Stop};
use limbeck::dataset::Split;
use limbeck::error::{Error, Result};
use limbeck::event::{LaneInfo, Observer};
use limbeck::experiment::{ProbeConfig, ProbeTrainConfig};
use limbeck::model::{ModelConfig, Signature};
use limbeck::probe::{Probe, ProbeWeights};
use limbeck::record::{Environment, PROBE_FORMAT, ProbeRecord, ProbedNetwork};
use limbeck_report::words::thousands;
use serde::Serialize;

use crate::plan::{self, Cell, Network, Plan, PlannedTeacher, join_label, shape};
use crate::store::{self, ProbeEntry, Progress};

/// The folder of features, in that of the probes.
const FEATURES: &str = "features";

/// A probe of an experiment.
#[derive(Debug)]
pub struct PlannedProbe {
    /// Its name in the experiment.
    pub name: String,
    /// What the experiment says of it.
    pub config: ProbeConfig,
    /// Its data.
    pub data: Rc<Data>,
    /// The samples with a label: to train on and to test on.
    pub samples: [usize; 2],
    /// The networks that it reads.
    pub subjects: Vec<Subject>,
    /// What it leaves out, and why.
    pub notes: Vec<String>,
}

/// One classifier to be trained on one frozen network.
#[derive(Clone, Debug)]
pub struct Subject {
    /// For people: `probe tiny, crd, seed 0`.
    pub name: String,
    /// Whose features.
    pub network: ProbedNetwork,
    /// The seed of the student, or of the classifier.
    pub seed: u64,
    /// What the network sees.
    pub view: String,
    /// How many features it gives.
    pub features: i64,
    /// Its folder.
    pub folder: PathBuf,
    /// A digest of everything that determines the result.
    pub identity: String,
    /// The run folder of the student, if it is one.
    pub cell: Option<PathBuf>,
}

impl Subject {
    /// As `plan.json` has it.
    pub(crate) fn entry(&self, probe: &str, folder: &Path) -> ProbeEntry {
        ProbeEntry {
            probe: probe.to_owned(),
            network: self.network.clone(),
            seed: self.seed,
            folder: store::relative(&self.folder, folder),
        }
    }
}

/// What determines a probe's result, and nothing else: the order of fields is part of the digest.
#[derive(Serialize)]
struct Identity<'a> {
    format: u32,
    dataset: &'a str,
    /// How many rows are trained on: of its own data those of the experiment.
    rows: usize,
    /// Which, where they are not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<&'a str>,
    view: &'a str,
    tap: String,
    standardize: bool,
    train: &'a ProbeTrainConfig,
    seed: u64,
    network: &'a str,
}

/// A network that may be probed.
struct Candidate<'a> {
    network: ProbedNetwork,
    seed: u64,
    planned: &'a Network,
    /// A digest of what determines its weights.
    identity: String,
    cell: Option<PathBuf>,
}

/// Plans a probe: every network is checked against its data.
///
/// # Errors
/// If its targets are not of whole samples, no sample of a part has a label, or a network lacks the tap or takes another shape than the view has; the message has
/// the key and the remedy.
pub(crate) fn plan(plan: &Plan, name: &str, config: &ProbeConfig, data: Rc<Data>) -> Result<PlannedProbe> {
    let task = data.dataset.info().task;
    if !task.of_whole_samples() {
        return Err(Error::plan(format!(
            "a linear probe tells whole samples apart, and the targets of its data are {}: give it another `dataset`",
            task.targets()
        )));
    }
    let (candidates, notes) = candidates(plan, config)?;
    let count = |split| data.labelled(split).map(|rows| rows.len()).map_err(|e| e.within("dataset"));
    let samples = [count(Split::Train)?, count(Split::Test)?];
    let (name, config) = (name.to_owned(), config.clone());
    let mut probe = PlannedProbe { name, config, data, samples, subjects: Vec::new(), notes };
    for candidate in candidates {
        let subject = probe.subject(plan, candidate)?;
        probe.subjects.push(subject);
    }
    Ok(probe)
}

/// The networks in the order of the report: students, teachers, the untrained one.
fn candidates<'a>(plan: &'a Plan, config: &ProbeConfig) -> Result<(Vec<Candidate<'a>>, Vec<String>)> {
    let seeds = config.seeds.as_ref().unwrap_or(&plan.experiment.compare.seeds);
    let student = |cell: &Cell| Candidate {
        network: ProbedNetwork::Student { method: cell.method.clone() },
        seed: cell.seed,
        planned: &plan.student,
        identity: cell.identity.clone(),
        cell: Some(cell.folder.clone()),
    };
    let mut candidates: Vec<Candidate<'_>> = plan.cells.iter().map(student).collect();
    let mut notes = Vec::new();
    for teacher in plan.asked_teachers() {
        if let Some(why) = why_not(teacher) {
            notes.push(format!("teacher {} {why} and is left out", teacher.name));
            continue;
        }
        candidates.extend(seeds.iter().map(|seed| Candidate {
            network: ProbedNetwork::Teacher { name: teacher.name.clone() },
            seed: *seed,
            planned: &teacher.network,
            identity: teacher.identity.clone(),
            cell: None,
        }));
    }
    for seed in seeds {
        let recipe = (&plan.experiment.student.model, plan.student.signature.input, plan.student.signature.classes);
        candidates.push(Candidate {
            network: ProbedNetwork::Untrained,
            seed: *seed,
            planned: &plan.student,
            identity: store::digest(&("untrained", recipe, seed))?,
            cell: None,
        });
    }
    Ok((candidates, notes))
}

/// Why there are no features of a teacher to read.
fn why_not(teacher: &PlannedTeacher) -> Option<&'static str> {
    if teacher.is_recorded {
        Some("is known by its outputs on the training samples alone")
    } else if teacher.network.signature.taps.is_empty() {
        Some("shows no tap")
    } else {
        None
    }
}

impl PlannedProbe {
    fn subject(&self, plan: &Plan, candidate: Candidate<'_>) -> Result<Subject> {
        let Candidate { network, seed, planned, identity, cell } = candidate;
        let info = self.data.dataset.info();
        let view = match &self.config.view {
            Some(view) => info.view(Some(view))?,
            None => info.view(Some(&planned.view)).map_err(|e| {
                Error::plan(format!("{e}; a network is shown the view of the name that it was trained on: set `view`"))
            })?,
        };
        check_shape(view.name.as_str(), view.shape, planned)?;
        let features = features(&planned.signature, &self.config)?;
        let identity = store::digest(&Identity {
            format: PROBE_FORMAT,
            dataset: &info.identity,
            rows: self.samples[0],
            part: self.data.part.as_deref(),
            view: &view.name,
            tap: self.config.tap.to_string(),
            standardize: self.config.standardize,
            train: &self.config.train,
            seed,
            network: &identity,
        })?;
        let mut subject = Subject {
            name: String::new(),
            network,
            seed,
            view: view.name.clone(),
            features,
            folder: PathBuf::new(),
            identity,
            cell,
        };
        let (of, short) = (subject.network.to_string(), store::short(&subject.identity));
        let folder = store::folder_name(&format!("{}-{}-seed{seed}-{short}", self.name, of.replace(' ', "-")));
        subject.folder = plan.probe_folder.join(folder);
        subject.name = join_label(&plan.label, &format!("probe {}, {of}, seed {seed}", self.name));
        Ok(subject)
    }

    /// The probe for programs; `plan` is the one that it is of.
    pub(crate) fn outline(&self, plan: &Plan) -> ProbeOutline {
        let info = self.data.dataset.info();
        let subject = |subject: &Subject| SubjectOutline {
            network: subject.network.clone(),
            seed: subject.seed,
            view: subject.view.clone(),
            features: subject.features,
            progress: ProbeSeat { plan, probe: self, subject }.progress().to_string(),
            folder: subject.folder.clone(),
        };
        ProbeOutline {
            name: self.name.clone(),
            dataset: info.name.clone(),
            measure: info.task.score().key,
            tap: self.config.tap.to_string(),
            samples: self.samples,
            classes: info.classes(),
            networks: self.subjects.iter().map(subject).collect(),
            notes: self.notes.clone(),
        }
    }
}

fn check_shape(view: &str, found: [i64; 3], network: &Network) -> Result<()> {
    let expected = network.signature.input;
    if found == expected {
        return Ok(());
    }
    Err(Error::plan(format!(
        "view `{view}` is {}, and {} takes {}: set the size of the probe's data, or another `view`",
        shape(&found),
        network.kind,
        shape(&expected)
    )))
}

/// How many features a tap gives: a map is averaged over space, and a sequence over its tokens.
fn features(signature: &Signature, config: &ProbeConfig) -> Result<i64> {
    Ok(signature.shape(&config.tap)?.channels())
}

/// What `limbeck plan` says of a probe.
impl fmt::Display for PlannedProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (info, config, [train, test]) = (self.data.dataset.info(), &self.config, self.samples);
        let mut networks: IndexMap<String, (usize, i64, &str)> = IndexMap::new();
        for subject in &self.subjects {
            networks.entry(subject.network.to_string()).or_insert((0, subject.features, &subject.view)).0 += 1;
        }
        let ProbeTrainConfig { epochs, batch, learning_rate, .. } = &config.train;
        let scale = if config.standardize { "standardised" } else { "as they are" };
        writeln!(
            f,
            "\nprobe {}: linear classifiers on frozen networks, on {}: {} to train on, {} to test on, {} classes, measured by {}",
            self.name,
            info.name,
            thousands(train as i64),
            thousands(test as i64),
            info.classes(),
            info.task.score().short
        )?;
        writeln!(
            f,
            "  tap {}, features {scale}; {epochs} epochs, batch {batch}, learning rate {learning_rate}",
            config.tap
        )?;
        for (name, (count, features, view)) in networks {
            writeln!(f, "  {count} × {name}, {features} features of view {view}")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "  note: {note}"))
    }
}

/// A probe for programs.
#[derive(Debug, Serialize)]
pub(crate) struct ProbeOutline {
    name: String,
    dataset: String,
    measure: &'static str,
    tap: String,
    /// Samples to train on and to test on.
    samples: [usize; 2],
    classes: i64,
    networks: Vec<SubjectOutline>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct SubjectOutline {
    #[serde(flatten)]
    network: ProbedNetwork,
    seed: u64,
    view: String,
    features: i64,
    progress: String,
    folder: PathBuf,
}

/// A classifier with the plan and the probe that it is of.
#[derive(Clone, Copy, Debug)]
pub struct ProbeSeat<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The probe.
    pub probe: &'a PlannedProbe,
    /// The classifier.
    pub subject: &'a Subject,
}

impl<'a> ProbeSeat<'a> {
    /// Every classifier of a plan.
    pub fn all(plan: &'a Plan) -> impl Iterator<Item = ProbeSeat<'a>> {
        let of_probe =
            move |probe: &'a PlannedProbe| probe.subjects.iter().map(move |subject| ProbeSeat { plan, probe, subject });
        plan.probes.iter().flat_map(of_probe)
    }

    /// The teacher whose features it reads.
    pub fn teacher(&self) -> Option<&'a PlannedTeacher> {
        let ProbedNetwork::Teacher { name } = &self.subject.network else { return None };
        self.plan.teachers.iter().find(|teacher| teacher.name == *name)
    }

    /// Whether its network was not trained to its end, so that there is nothing to read.
    fn lacks_network(&self) -> bool {
        let lacks_student = |cell: &PathBuf| store::progress(cell) != Progress::Finished;
        self.subject.cell.as_ref().is_some_and(lacks_student)
            || self.teacher().is_some_and(PlannedTeacher::is_to_be_trained)
    }

    /// Its network's weights.
    fn weights(&self) -> ProbeWeights {
        match (&self.subject.cell, self.teacher()) {
            (Some(cell), _) => ProbeWeights::File(cell.join(STUDENT)),
            (None, Some(teacher)) => ProbeWeights::File(teacher.weights.path()),
            (None, None) => ProbeWeights::Untrained,
        }
    }

    /// How far it has come. What was read off other weights than those that are there now does not count.
    pub fn progress(&self) -> Progress {
        let is_of_these = |record: &ProbeRecord| match self.weights() {
            ProbeWeights::File(path) => plan::file_digest(&path).is_ok_and(|digest| digest == record.digest),
            ProbeWeights::Untrained => true,
        };
        match store::probe(&self.subject.folder) {
            Ok(Some(record)) if record.identity == self.subject.identity => {
                if !self.lacks_network() && is_of_these(&record) { Progress::Finished } else { Progress::New }
            }
            _ => Progress::New,
        }
    }

    /// Its name and folder, for those who watch.
    pub(crate) fn lane(&self) -> LaneInfo {
        LaneInfo { index: 0, lanes: 1, name: self.subject.name.clone(), folder: self.subject.folder.clone() }
    }

    /// Trains the classifier, unless the student came out as it was before: `false` if it was stopped.
    ///
    /// # Errors
    /// If the network is not there, or as for [`Probe::run`].
    pub(crate) fn run(&self, environment: &Environment, stop: &Stop, observer: &mut dyn Observer) -> Result<bool> {
        let ProbeSeat { plan, probe, subject } = self;
        fs::create_dir_all(&subject.folder).map_err(Error::io("create", &subject.folder))?;
        if self.lacks_network() {
            return Err(Error::run("there are no features to read, for its network is not trained to its end"));
        }
        if self.progress() == Progress::Finished {
            return Ok(true);
        }
        let (planned, model): (_, &dyn ModelConfig) = match self.teacher() {
            Some(teacher) => (&teacher.network, &*teacher.config.model),
            None => (&plan.student, &*plan.experiment.student.model),
        };
        let features = plan.probe_folder.join(FEATURES);
        let probe = Probe {
            info: self.lane(),
            name: &probe.name,
            identity: &subject.identity,
            config: &probe.config,
            data: &probe.data,
            view: &subject.view,
            network: subject.network.clone(),
            model,
            spec: plan.data.spec(Some(&planned.view))?,
            weights: self.weights(),
            features: &features,
            seed: subject.seed,
            device: plan.device,
            environment,
            stop,
        };
        Ok(probe.run(observer)?.is_some())
    }
}
