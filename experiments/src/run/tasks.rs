//! What there is to do: teachers, and the cohorts that wait for them.

use std::path::{Path, PathBuf};

use limbeck::error::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::plan::Plan;
use crate::plan::cohorts::Cohort;
use crate::plan::runs::PlannedProbeRun;
use crate::plan::teacher::PlannedTeacher;
use crate::words::join_label;

/// What a run came to.
#[derive(Debug)]
pub struct Finished {
    /// The experiment's folder.
    pub folder: PathBuf,
    /// The runs that failed, with the reason: `crd, seed 0: …`.
    pub failed: Vec<String>,
    /// Whether it was stopped before its end: the same call goes on.
    pub stopped: bool,
    /// What ended more than one student: a teacher, a disk, the data.
    pub errors: Vec<Error>,
}

/// Something that one process does in one piece.
#[derive(Clone, Debug)]
pub(crate) enum Task<'a> {
    /// Trains a teacher.
    Teacher(&'a Plan, &'a PlannedTeacher),
    /// Trains students side by side.
    Cohort(Cohort<'a>),
    /// Trains a linear classifier on a frozen network.
    Probe(PlannedProbeRun<'a>),
}

impl Task<'_> {
    /// A name for people.
    pub fn name(&self) -> String {
        match self {
            Task::Teacher(plan, teacher) => join_label(&plan.label, &format!("teacher {}", teacher.name)),
            Task::Cohort(cohort) => cohort.name(),
            Task::Probe(run) => run.subject.name.clone(),
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

/// Teachers that are not there yet, each once.
#[derive(Default)]
struct Teachers<'a>(Vec<(&'a Plan, &'a PlannedTeacher)>);

impl<'a> Teachers<'a> {
    /// Takes in those of these that have to be trained; returns their numbers.
    fn needed(&mut self, asked: impl IntoIterator<Item = (&'a Plan, &'a PlannedTeacher)>) -> Vec<usize> {
        let mut needed = Vec::new();
        for (plan, teacher) in asked.into_iter().filter(|(_, teacher)| teacher.is_to_be_trained()) {
            let path = teacher.weights.path();
            let known = self.0.iter().position(|(_, other)| other.weights.path() == path);
            needed.push(known.unwrap_or(self.0.len()));
            if known.is_none() {
                self.0.push((plan, teacher));
            }
        }
        needed
    }
}

/// The tasks with how far they are, and what came of them.
#[derive(Debug)]
pub(crate) struct TaskGraph<'a> {
    jobs: Vec<Job<'a>>,
    end: End,
    errors: Vec<Error>,
}

impl<'a> TaskGraph<'a> {
    /// The cohorts; before them the teachers that they, or the probes, ask and that are not there yet, each once; after them
    /// the probes, which wait for their network alone.
    pub fn new(cohorts: Vec<Cohort<'a>>, probes: Vec<PlannedProbeRun<'a>>) -> Self {
        let mut teachers = Teachers::default();
        let (mut cohorts_need, mut probes_need) = (Vec::new(), Vec::new());
        for cohort in &cohorts {
            cohorts_need.push(teachers.needed(cohort.teachers()));
        }
        for run in &probes {
            probes_need.push(teachers.needed(run.teacher().map(|teacher| (run.plan, teacher))));
        }
        let first_cohort = teachers.0.len();
        for (run, needs) in probes.iter().zip(&mut probes_need) {
            if let Some(cell) = &run.subject.cell
                && let Some(index) = cohorts.iter().position(|cohort| cohort.trains(cell))
            {
                needs.push(first_cohort + index);
            }
        }
        let mut graph = TaskGraph { jobs: Vec::new(), end: End::default(), errors: Vec::new() };
        for (plan, teacher) in teachers.0 {
            graph.add(Task::Teacher(plan, teacher), Vec::new());
        }
        for (cohort, needs) in cohorts.into_iter().zip(cohorts_need) {
            graph.add(Task::Cohort(cohort), needs);
        }
        for (run, needs) in probes.into_iter().zip(probes_need) {
            graph.add(Task::Probe(run), needs);
        }
        graph
    }

    fn add(&mut self, task: Task<'a>, needs: Vec<usize>) {
        self.jobs.push(Job { task, needs, state: State::Waiting });
    }

    /// A task that can be begun: its number, by which its end is told.
    pub fn take(&mut self) -> Option<(usize, Task<'a>)> {
        let index = self.jobs.iter().position(|job| {
            job.state == State::Waiting && job.needs.iter().all(|need| self.jobs[*need].state == State::Done)
        })?;
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

    /// What it all came to. Whatever still waits was stopped, or what it needs failed.
    pub fn finish(mut self, folder: &Path) -> Finished {
        for job in self.jobs.iter().filter(|job| job.state == State::Waiting) {
            if is_hindered(&self.jobs, job) {
                let why = match job.task {
                    Task::Probe(_) => "its network was not trained",
                    _ => "its teacher failed",
                };
                self.end.failed.push(format!("{}: not tried, for {why}", job.task.name()));
            } else {
                self.end.stopped |= !self.errors.iter().any(Error::is_usage);
            }
        }
        Finished { folder: folder.to_owned(), failed: self.end.failed, stopped: self.end.stopped, errors: self.errors }
    }
}

/// Whether a job can never begin: something that it needs failed, or can never begin itself.
fn is_hindered(jobs: &[Job<'_>], job: &Job<'_>) -> bool {
    job.needs.iter().map(|need| &jobs[*need]).any(|need| match need.state {
        State::Failed => true,
        State::Waiting => is_hindered(jobs, need),
        State::Begun | State::Done => false,
    })
}

#[cfg(test)]
mod tests {
    use limbeck::config;

    use super::*;
    use crate::plan::cohorts;
    use crate::plan::runs::runs;

    const EXPERIMENT: &str = r#"
format = 1
name = "chain"
device = "cpu"
threads = 1
[dataset]
kind = "shapes"
train = 40
test = 40
[teacher.big]
model = { kind = "resnet8" }
train = { epochs = 1 }
[student]
model = { kind = "resnet8" }
[compare]
methods = ["kd"]
[probe.itself]
"#;

    #[test]
    fn what_waits_for_what_failed_has_failed_and_was_not_stopped() {
        let (file, out) = (Path::new("chain.toml"), tempfile::tempdir().unwrap());
        let plan = Plan::new(config::parse(EXPERIMENT, file, &[]).unwrap(), file, out.path()).unwrap();
        let cohorts = cohorts::form(&runs([&plan], |_, _| true)).unwrap();
        let probes: Vec<PlannedProbeRun<'_>> =
            PlannedProbeRun::all(&plan).filter(|run| run.subject.cell.is_some()).collect();
        assert_eq!((cohorts.len(), probes.len()), (1, 1));
        let mut graph = TaskGraph::new(cohorts, probes);
        let (teacher, task) = graph.take().unwrap();
        assert_eq!(task.name(), "teacher big");
        assert!(graph.take().is_none(), "what needs the teacher has begun");
        graph.close(teacher, Err(Error::run("it broke")));
        assert!(graph.take().is_none());
        let finished = graph.finish(out.path());
        let failed = [
            "seed 0, 1 student: not tried, for its teacher failed",
            "probe itself, kd, seed 0: not tried, for its network was not trained",
        ];
        assert_eq!(finished.failed, failed);
        assert!(!finished.stopped);
        assert_eq!(finished.errors.len(), 1);
    }
}
