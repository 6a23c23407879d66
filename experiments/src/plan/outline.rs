//! The plan for programs: `limbeck plan --json`.

use std::path::PathBuf;

use limbeck::combination::Combination;
use limbeck::distiller::TapPair;
use limbeck::experiment::TermSchedule;
use limbeck::model::{Signature, TapShape};
use limbeck::record::{ProbeSampleCounts, ProbedNetwork, SampleCounts};
use serde::Serialize;

use super::Plan;
use super::cell::Cell;
use super::combination::PlannedCombination;
use super::method::{PlannedMethod, PlannedTerm};
use super::network::Network;
use super::probe::PlannedProbe;
use super::runs::PlannedProbeRun;
use super::teacher::{PlannedTeacher, TeacherWeights, arithmetic};
use crate::words::device_name;

/// The plan for programs: `limbeck plan --json`.
#[derive(Debug, Serialize)]
pub struct Outline {
    experiment: String,
    folder: PathBuf,
    device: String,
    threads: usize,
    samples: SampleCounts,
    /// Samples of the training part, whether they are trained on, held out or neither.
    available: usize,
    steps_per_epoch: u64,
    /// The key of the score, where it is not the usual one.
    #[serde(skip_serializing_if = "Option::is_none")]
    measure: Option<&'static str>,
    student: NetworkOutline,
    teachers: Vec<TeacherOutline>,
    /// Teachers that combine others.
    combined: Vec<CombinationOutline>,
    methods: Vec<MethodOutline>,
    cells: Vec<CellOutline>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    probes: Vec<ProbeOutline>,
}

#[derive(Debug, Serialize)]
struct NetworkOutline {
    kind: String,
    view: String,
    parameters: i64,
    multiply_adds: Option<i64>,
    signature: Signature,
}

impl From<&Network> for NetworkOutline {
    fn from(network: &Network) -> Self {
        let Network { kind, view, signature, parameters, multiply_adds } = network;
        let (kind, view, signature) = (kind.clone(), view.clone(), signature.clone());
        NetworkOutline { kind, view, parameters: *parameters, multiply_adds: *multiply_adds, signature }
    }
}

#[derive(Debug, Serialize)]
struct TeacherOutline {
    name: String,
    network: NetworkOutline,
    arithmetic: String,
    weights: PathBuf,
    /// Of its training; absent where the weights are given.
    progress: Option<String>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct CombinationOutline {
    name: String,
    #[serde(flatten)]
    combination: Combination,
}

#[derive(Debug, Serialize)]
struct MethodOutline {
    name: String,
    cross_entropy: f64,
    terms: Vec<TermOutline>,
}

#[derive(Debug, Serialize)]
struct TermOutline {
    label: String,
    weight: f64,
    schedule: Option<TermSchedule>,
    teacher: String,
    parameters: i64,
    initial_epochs: Option<u64>,
    pairs: Vec<PairOutline>,
    /// Taps without a partner.
    dropped: Vec<String>,
}

#[derive(Debug, Serialize)]
struct PairOutline {
    student: String,
    student_shape: TapShape,
    teacher: String,
    teacher_shape: TapShape,
}

#[derive(Debug, Serialize)]
struct CellOutline {
    method: String,
    seed: u64,
    progress: String,
    folder: PathBuf,
}

/// A probe for programs.
#[derive(Debug, Serialize)]
struct ProbeOutline {
    name: String,
    dataset: String,
    measure: &'static str,
    tap: String,
    samples: ProbeSampleCounts,
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

impl Plan {
    /// The plan for programs.
    pub fn outline(&self) -> Outline {
        let info = self.data.dataset.info();
        Outline {
            experiment: self.experiment.name.clone(),
            folder: self.folder.clone(),
            device: device_name(self.device),
            threads: self.threads,
            samples: self.data.sample_counts(),
            available: info.train_labels.len(),
            steps_per_epoch: self.data.steps_per_epoch(self.experiment.train.batch),
            measure: if info.task.is_usual() { None } else { Some(info.task.score().key) },
            student: (&self.student).into(),
            teachers: self.teachers.iter().map(|teacher| self.outline_teacher(teacher)).collect(),
            combined: self.combined.iter().map(CombinationOutline::from).collect(),
            methods: self.methods.iter().map(MethodOutline::from).collect(),
            cells: self.cells.iter().map(CellOutline::from).collect(),
            probes: self.probes.iter().map(|probe| self.outline_probe(probe)).collect(),
        }
    }

    fn outline_teacher(&self, teacher: &PlannedTeacher) -> TeacherOutline {
        let mut notes = teacher.notes.clone();
        notes.extend(self.twins().into_iter().filter(|twin| twin.teacher == teacher.name).map(|twin| twin.message));
        TeacherOutline {
            name: teacher.name.clone(),
            network: (&teacher.network).into(),
            arithmetic: arithmetic(&teacher.config),
            weights: teacher.weights.path(),
            progress: match &teacher.weights {
                TeacherWeights::File(_) => None,
                TeacherWeights::Trained { progress, .. } => Some(progress.to_string()),
            },
            notes,
        }
    }

    fn outline_probe(&self, probe: &PlannedProbe) -> ProbeOutline {
        let info = probe.data.dataset.info();
        let mut networks = Vec::new();
        for subject in &probe.subjects {
            networks.push(SubjectOutline {
                network: subject.network.clone(),
                seed: subject.seed,
                view: subject.view.clone(),
                features: subject.features,
                progress: PlannedProbeRun { plan: self, probe, subject }.progress().to_string(),
                folder: subject.folder.clone(),
            });
        }
        ProbeOutline {
            name: probe.name.clone(),
            dataset: info.name.clone(),
            measure: info.task.score().key,
            tap: probe.config.tap.to_string(),
            samples: probe.samples,
            classes: info.classes(),
            networks,
            notes: probe.notes.clone(),
        }
    }
}

impl From<&PlannedCombination> for CombinationOutline {
    fn from(teacher: &PlannedCombination) -> Self {
        CombinationOutline { name: teacher.name.clone(), combination: teacher.combination.clone() }
    }
}

impl From<&PlannedMethod> for MethodOutline {
    fn from(method: &PlannedMethod) -> Self {
        MethodOutline {
            name: method.name.clone(),
            cross_entropy: method.config.cross_entropy,
            terms: method.terms.iter().map(TermOutline::from).collect(),
        }
    }
}

impl From<&PlannedTerm> for TermOutline {
    fn from(term: &PlannedTerm) -> Self {
        TermOutline {
            label: term.label.clone(),
            weight: term.weight,
            schedule: term.schedule.clone(),
            teacher: term.teacher.clone(),
            parameters: term.parameters,
            initial_epochs: term.initial_epochs,
            pairs: term.taps.pairs.iter().map(PairOutline::from).collect(),
            dropped: term.taps.dropped.clone(),
        }
    }
}

impl From<&TapPair> for PairOutline {
    fn from(pair: &TapPair) -> Self {
        PairOutline {
            student: pair.student.to_string(),
            student_shape: pair.student_shape,
            teacher: pair.teacher.to_string(),
            teacher_shape: pair.teacher_shape,
        }
    }
}

impl From<&Cell> for CellOutline {
    fn from(cell: &Cell) -> Self {
        CellOutline {
            method: cell.method.clone(),
            seed: cell.seed,
            progress: cell.progress.to_string(),
            folder: cell.folder.clone(),
        }
    }
}
