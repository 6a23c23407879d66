//! A method as planned: its terms, built once against the networks.

use std::sync::Arc;

use indexmap::IndexMap;
use limbeck::cohort::{CombinedTeacher, Data, Term, TermSite, build_terms, check_main_stage};
use limbeck::distiller::TapPairs;
use limbeck::error::Result;
use limbeck::experiment::{Experiment, MethodConfig, TermSchedule};
use limbeck::model::Signature;
use tch::Device;

use super::combination::PlannedCombination;
use super::network::Network;
use super::teacher::PlannedTeacher;

/// A method as planned.
#[derive(Debug)]
pub struct PlannedMethod {
    /// Its name.
    pub name: String,
    /// Its terms with their weights.
    pub config: MethodConfig,
    /// Its terms.
    pub terms: Vec<PlannedTerm>,
}

impl PlannedMethod {
    /// Whether one of its terms asks this teacher, itself and not as a part of a combination.
    pub(super) fn asks(&self, teacher: &str) -> bool {
        self.terms.iter().any(|term| term.teacher == teacher)
    }
}

/// A term as planned.
#[derive(Debug)]
pub struct PlannedTerm {
    /// Its name in logs and reports.
    pub label: String,
    /// What its loss is multiplied by.
    pub weight: f64,
    /// When that applies; absent: always.
    pub schedule: Option<TermSchedule>,
    /// The teacher's name.
    pub teacher: String,
    /// The features that it compares.
    pub taps: TapPairs,
    /// The number of parameters that are trained beside the student.
    pub parameters: i64,
    /// The epochs of its initial stage, if it has one.
    pub initial_epochs: Option<u64>,
    /// The learning rate of that; absent: the experiment's.
    pub initial_learning_rate: Option<f64>,
    /// The last epoch of the main stage in which it has a loss; absent: the last of all. 0: it has none there.
    pub last_epoch: Option<u64>,
}

impl From<&Term> for PlannedTerm {
    fn from(term: &Term) -> Self {
        PlannedTerm {
            label: term.label.clone(),
            weight: term.weight,
            schedule: term.schedule.clone(),
            teacher: term.teacher.clone(),
            taps: term.taps.clone(),
            parameters: term.parameters(),
            initial_epochs: term.initial_stage().map(|stage| stage.epochs),
            initial_learning_rate: term.initial_stage().and_then(|stage| stage.learning_rate),
            last_epoch: term.last_epoch(),
        }
    }
}

/// Plans a method: builds its terms against the networks' signatures.
pub(super) fn plan_method(
    experiment: &Experiment,
    name: &str,
    student: &Network,
    teachers: &[PlannedTeacher],
    combined: &[PlannedCombination],
    data: &Data,
) -> Result<PlannedMethod> {
    let config = experiment.method(name)?;
    let mut signatures: IndexMap<String, Signature> = IndexMap::new();
    let mut members: IndexMap<String, Vec<String>> = IndexMap::new();
    for teacher in teachers {
        signatures.insert(teacher.name.clone(), teacher.network.signature.clone());
    }
    let of_all = CombinedTeacher::signature(&data.spec(None)?);
    for teacher in combined {
        signatures.insert(teacher.name.clone(), of_all.clone());
        members.insert(teacher.name.clone(), teacher.combination.teachers.clone());
    }
    let labels: &Arc<[i64]> = &data.labels;
    let task = data.dataset.info().task;
    let site = TermSite { teachers: &signatures, combined: &members, labels, task, device: Device::Cpu, seed: 0 };
    let terms = build_terms(&config, &student.signature, &site)
        .and_then(|terms| check_main_stage(&config, &terms, experiment.train.epochs).map(|()| terms))
        .map_err(|e| e.at(["method", name]))?;
    let terms = terms.iter().map(PlannedTerm::from).collect();
    Ok(PlannedMethod { name: name.to_owned(), config, terms })
}
