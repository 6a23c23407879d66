//! Single runs: a cell, or a classifier of a probe, with the plan that it is of.

use std::collections::HashSet;

use limbeck::cohort::STUDENT;
use limbeck::event::LaneInfo;
use limbeck::probe::ProbeWeights;
use limbeck::record::{ProbeRecord, ProbedNetwork};
use limbeck_report::store::{self, Progress};

use super::Plan;
use super::cell::Cell;
use super::identity::file_digest;
use super::probe::{PlannedProbe, ProbedSubject};
use super::teacher::PlannedTeacher;

/// A cell with the plan that it is of; a cell of several plans stands under the first.
#[derive(Clone, Copy, Debug)]
pub struct PlannedRun<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The cell.
    pub cell: &'a Cell,
}

/// Each cell of the plans that `take` takes, once, in the order of the plans.
pub fn runs<'a>(plans: impl IntoIterator<Item = &'a Plan>, take: impl Fn(&Plan, &Cell) -> bool) -> Vec<PlannedRun<'a>> {
    let (mut runs, mut seen) = (Vec::new(), HashSet::new());
    for plan in plans {
        for cell in &plan.cells {
            if take(plan, cell) && seen.insert(&cell.folder) {
                runs.push(PlannedRun { plan, cell });
            }
        }
    }
    runs
}

/// A classifier with the plan and the probe that it is of.
#[derive(Clone, Copy, Debug)]
pub struct PlannedProbeRun<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The probe.
    pub probe: &'a PlannedProbe,
    /// The classifier.
    pub subject: &'a ProbedSubject,
}

impl<'a> PlannedProbeRun<'a> {
    /// Every classifier of a plan.
    pub fn all(plan: &'a Plan) -> impl Iterator<Item = PlannedProbeRun<'a>> {
        plan.probes
            .iter()
            .flat_map(move |probe| probe.subjects.iter().map(move |subject| PlannedProbeRun { plan, probe, subject }))
    }

    /// The teacher whose features it reads.
    pub fn teacher(&self) -> Option<&'a PlannedTeacher> {
        let ProbedNetwork::Teacher { name } = &self.subject.network else { return None };
        self.plan.teachers.iter().find(|teacher| teacher.name == *name)
    }

    /// Whether its network was not trained to its end, so that there is nothing to read.
    pub(crate) fn lacks_network(&self) -> bool {
        if let Some(cell) = &self.subject.cell {
            return store::progress(cell) != Progress::Finished;
        }
        self.teacher().is_some_and(PlannedTeacher::is_to_be_trained)
    }

    /// Its network's weights.
    pub(crate) fn weights(&self) -> ProbeWeights {
        match (&self.subject.cell, self.teacher()) {
            (Some(cell), _) => ProbeWeights::File(cell.join(STUDENT)),
            (None, Some(teacher)) => ProbeWeights::File(teacher.weights.path()),
            (None, None) => ProbeWeights::Untrained,
        }
    }

    /// How far it has come. What was read off other weights than those that are there now does not count.
    pub fn progress(&self) -> Progress {
        match store::probe(&self.subject.folder) {
            Ok(Some(record)) if self.is_result(&record) => Progress::Finished,
            _ => Progress::New,
        }
    }

    /// Whether a record is of this classifier, and of the weights that are there now.
    fn is_result(&self, record: &ProbeRecord) -> bool {
        if record.identity != self.subject.identity || self.lacks_network() {
            return false;
        }
        match self.weights() {
            ProbeWeights::File(path) => file_digest(&path).is_ok_and(|digest| digest == record.digest),
            ProbeWeights::Untrained => true,
        }
    }

    /// Whether it is not trained.
    pub fn is_open(&self) -> bool {
        self.progress() != Progress::Finished
    }

    /// Its name and folder, for observers.
    pub(crate) fn lane(&self) -> LaneInfo {
        LaneInfo { index: 0, lanes: 1, name: self.subject.name.clone(), folder: self.subject.folder.clone() }
    }
}
