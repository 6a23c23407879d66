//! What there is to do: teachers, and the cohorts that wait for them.

use std::path::Path;

use limbeck::error::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::cohorts::Cohort;
use crate::plan::{Plan, PlannedTeacher, join_label};
use crate::run::Finished;

/// Something that one process does in one piece.
#[derive(Clone, Debug)]
pub(crate) enum Task<'a> {
    /// Trains a teacher.
    Teacher(&'a Plan, &'a PlannedTeacher),
    /// Trains students side by side.
    Cohort(Cohort<'a>),
}

impl Task<'_> {
    /// A name for people.
    pub fn name(&self) -> String {
        match self {
            Task::Teacher(plan, teacher) => join_label(&plan.label, &format!("teacher {}", teacher.name)),
            Task::Cohort(cohort) => cohort.name(),
        }
    }
}

/// What became of a task that was tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct End {
    /// The runs that failed, with the reason.
    pub failed: Vec<String>,
    /// Whether it was stopped before its end.
    pub stopped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Begun,
    Done,
    Failed,
}

#[derive(Debug)]
struct Job<'a> {
    task: Task<'a>,
    /// The jobs that have to be done before.
    needs: Vec<usize>,
    state: State,
}

/// The tasks with how far they are, and what came of them.
#[derive(Debug)]
pub(crate) struct Board<'a> {
    jobs: Vec<Job<'a>>,
    end: End,
    errors: Vec<Error>,
}

impl<'a> Board<'a> {
    /// The cohorts, and before them the teachers that they ask and that are not there yet, each once.
    pub fn new(cohorts: Vec<Cohort<'a>>) -> Self {
        let mut teachers: Vec<(&Plan, &PlannedTeacher)> = Vec::new();
        let mut needs = Vec::new();
        for cohort in &cohorts {
            let mut asked = Vec::new();
            for (plan, teacher) in cohort.teachers().into_iter().filter(|(_, teacher)| teacher.is_to_be_trained()) {
                let path = teacher.weights.path();
                let known = teachers.iter().position(|(_, other)| other.weights.path() == path);
                asked.push(known.unwrap_or(teachers.len()));
                if known.is_none() {
                    teachers.push((plan, teacher));
                }
            }
            needs.push(asked);
        }
        let job = |task, needs| Job { task, needs, state: State::Waiting };
        let first = teachers.iter().map(|(plan, teacher)| job(Task::Teacher(plan, teacher), Vec::new()));
        let then = cohorts.into_iter().zip(needs).map(|(cohort, needs)| job(Task::Cohort(cohort), needs));
        Board { jobs: first.chain(then).collect(), end: End::default(), errors: Vec::new() }
    }

    /// A task that can be begun: its number, by which its end is told.
    pub fn take(&mut self) -> Option<(usize, Task<'a>)> {
        let done = |needs: &[usize]| needs.iter().all(|i| self.jobs[*i].state == State::Done);
        let index = self.jobs.iter().position(|job| job.state == State::Waiting && done(&job.needs))?;
        self.jobs[index].state = State::Begun;
        Some((index, self.jobs[index].task.clone()))
    }

    /// Notes what became of a task. Whatever waits for one that was stopped goes on waiting.
    pub fn close(&mut self, index: usize, end: Result<End>) {
        let state = &mut self.jobs[index].state;
        match end {
            Ok(end) => {
                *state = if end.stopped { State::Begun } else { State::Done };
                self.end.stopped |= end.stopped;
                self.end.failed.extend(end.failed);
            }
            Err(error) => {
                *state = State::Failed;
                self.errors.push(error);
            }
        }
    }

    /// Whether the call itself was refused: nothing else is worth trying.
    pub fn is_refused(&self) -> bool {
        self.errors.iter().any(Error::is_usage)
    }

    /// What it all came to. Whatever still waits was stopped, or its teacher failed.
    pub fn finish(mut self, folder: &Path) -> Finished {
        let is_hindered = |job: &&Job<'_>| job.needs.iter().any(|i| self.jobs[*i].state == State::Failed);
        let waiting = self.jobs.iter().filter(|job| job.state == State::Waiting);
        let (hindered, stopped): (Vec<&Job<'_>>, Vec<&Job<'_>>) = waiting.partition(is_hindered);
        self.end.stopped |= !stopped.is_empty() && !self.is_refused();
        self.end
            .failed
            .extend(hindered.iter().map(|job| format!("{}: not tried, for its teacher failed", job.task.name())));
        Finished { folder: folder.to_owned(), failed: self.end.failed, stopped: self.end.stopped, errors: self.errors }
    }
}
