//! Linear probes as planned: which classifiers are trained on which frozen networks, once these are there.
//!
//! A probe of the experiment gives one classifier for each of its cells, for each teacher and seed, and for each seed on the
//! student's network as it was before training. All have folders of their own beside the cells, known by what determines
//! the result; a classifier that several experiments of a sweep have is trained once.

use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use indexmap::IndexMap;
use limbeck::cohort::Data;
use limbeck::dataset::Split;
use limbeck::error::{Error, Result};
use limbeck::experiment::{Experiment, ProbeConfig, ProbeTrainConfig};
use limbeck::model::Signature;
use limbeck::record::{PROBE_FORMAT, ProbeSampleCounts, ProbedNetwork};
use limbeck_report::store::{self, ProbeEntry};
use limbeck_report::words::thousands;
use serde::Serialize;

use super::cell::Cell;
use super::network::Network;
use super::teacher::PlannedTeacher;
use crate::words::{join_label, shape};

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
    pub samples: ProbeSampleCounts,
    /// The networks that it reads.
    pub subjects: Vec<ProbedSubject>,
    /// What it leaves out, and why.
    pub notes: Vec<String>,
}

/// One classifier to be trained on one frozen network.
#[derive(Clone, Debug)]
pub struct ProbedSubject {
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

impl ProbedSubject {
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
struct ProbeIdentity<'a> {
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

/// What an experiment has for its probes: the networks, and where the classifiers go.
pub(super) struct Probed<'a> {
    /// The experiment's name among the points of a grid; empty if it is none.
    pub label: &'a str,
    /// The folder of the probes.
    pub folder: &'a Path,
    pub experiment: &'a Experiment,
    pub student: &'a Network,
    pub cells: &'a [Cell],
    /// The networks that any of its students asks.
    pub teachers: Vec<&'a PlannedTeacher>,
}

impl<'a> Probed<'a> {
    /// The networks in the order of the report, students, teachers, the untrained one; and why others are left out.
    fn candidates(&self, config: &ProbeConfig) -> Result<(Vec<Candidate<'a>>, Vec<String>)> {
        let seeds = config.seeds.as_ref().unwrap_or(&self.experiment.compare.seeds);
        let (mut candidates, mut notes) = (Vec::new(), Vec::new());
        for cell in self.cells {
            candidates.push(Candidate {
                network: ProbedNetwork::Student { method: cell.method.clone() },
                seed: cell.seed,
                planned: self.student,
                identity: cell.identity.clone(),
                cell: Some(cell.folder.clone()),
            });
        }
        for teacher in &self.teachers {
            if let Some(why) = why_not(teacher) {
                notes.push(format!("teacher {} {why} and is left out", teacher.name));
                continue;
            }
            for seed in seeds {
                candidates.push(Candidate {
                    network: ProbedNetwork::Teacher { name: teacher.name.clone() },
                    seed: *seed,
                    planned: &teacher.network,
                    identity: teacher.identity.clone(),
                    cell: None,
                });
            }
        }
        let recipe = (&self.experiment.student.model, self.student.signature.input, self.student.signature.classes);
        for seed in seeds {
            candidates.push(Candidate {
                network: ProbedNetwork::Untrained,
                seed: *seed,
                planned: self.student,
                identity: store::digest(&("untrained", recipe, seed))?,
                cell: None,
            });
        }
        Ok((candidates, notes))
    }
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
    /// Plans a probe: every network is checked against its data.
    ///
    /// # Errors
    /// If its targets are not of whole samples, no sample of a part has a label, or a network lacks the tap or takes another
    /// shape than the view has; the message has the key and the remedy.
    pub(super) fn new(probed: &Probed<'_>, name: &str, config: &ProbeConfig, data: Rc<Data>) -> Result<Self> {
        let task = data.dataset.info().task;
        if !task.of_whole_samples() {
            return Err(Error::plan(format!(
                "a linear probe tells whole samples apart, and the targets of its data are {}: give it another `dataset`",
                task.targets()
            )));
        }
        let (candidates, notes) = probed.candidates(config)?;
        let samples = ProbeSampleCounts {
            train: data.labelled(Split::Train).map_err(|e| e.at("dataset"))?.len(),
            test: data.labelled(Split::Test).map_err(|e| e.at("dataset"))?.len(),
        };
        let (name, config) = (name.to_owned(), config.clone());
        let mut probe = PlannedProbe { name, config, data, samples, subjects: Vec::new(), notes };
        for candidate in candidates {
            let subject = probe.subject(probed, candidate)?;
            probe.subjects.push(subject);
        }
        Ok(probe)
    }

    fn subject(&self, probed: &Probed<'_>, candidate: Candidate<'_>) -> Result<ProbedSubject> {
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
        let identity = store::digest(&ProbeIdentity {
            format: PROBE_FORMAT,
            dataset: &info.identity,
            rows: self.samples.train,
            part: self.data.part.as_deref(),
            view: &view.name,
            tap: self.config.tap.to_string(),
            standardize: self.config.standardize,
            train: &self.config.train,
            seed,
            network: &identity,
        })?;
        let mut subject = ProbedSubject {
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
        subject.folder = probed.folder.join(folder);
        subject.name = join_label(probed.label, &format!("probe {}, {of}, seed {seed}", self.name));
        Ok(subject)
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
        let (info, config) = (self.data.dataset.info(), &self.config);
        let ProbeSampleCounts { train, test } = self.samples;
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
