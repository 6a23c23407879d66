//! Doing a task in this process: training a teacher, a cohort, a linear classifier.

use std::fs;
use std::sync::Arc;

use limbeck::cohort::{self, CohortConfig, LaneConfig, Stop};
use limbeck::error::{Error, Result};
use limbeck::event::{Event, LaneInfo, Observer};
use limbeck::model::ModelConfig;
use limbeck::precision::Precision;
use limbeck::probe::Probe;
use limbeck::record::{Environment, Outcome};
use limbeck_report::log::EventLog;
use limbeck_report::store::{self, Progress};
use limbeck_report::twins::vanilla;

use super::environment;
use super::tasks::{End, Task};
use super::teachers::{combine, ensemble, load_teacher};
use crate::plan::Plan;
use crate::plan::cohorts::Cohort;
use crate::plan::runs::{PlannedProbeRun, PlannedRun};
use crate::plan::teacher::{PlannedTeacher, TeacherWeights};
use crate::words::{device_name, join_label};

/// The folder of features, in that of the probes.
const FEATURES: &str = "features";

/// Performs tasks in this process.
pub(crate) struct Runner<'a> {
    stop: &'a Stop,
    observer: Both<'a>,
    /// Those of earlier tasks.
    environments: Vec<Environment>,
}

impl<'a> Runner<'a> {
    pub fn new(stop: &'a Stop, observer: &'a mut dyn Observer) -> Self {
        Runner { stop, observer: Both(EventLog::default(), observer), environments: Vec::new() }
    }

    /// Performs a task; its error says what it is of.
    pub fn perform(&mut self, task: &Task<'_>) -> Result<End> {
        // A sweep has more lanes than a process may have files open.
        self.observer.0.close();
        let end = match task {
            Task::Teacher(plan, teacher) => self.train_teacher(plan, teacher).map_err(|e| e.within(&task.name())),
            Task::Cohort(cohort) if cohort.plan().label.is_empty() => self.train_cohort(cohort),
            Task::Cohort(cohort) => self.train_cohort(cohort).map_err(|e| e.within(&task.name())),
            Task::Probe(run) => self.train_probe(run),
        };
        match end {
            Err(Error::Stopped) => Ok(End { failed: Vec::new(), stopped: true }),
            end => end,
        }
    }

    /// Sets libtorch's threads, and says what the run is trained with.
    fn environment(&mut self, plan: &Plan) -> Environment {
        tch::set_num_threads(plan.threads as i32);
        let device = device_name(plan.device);
        for known in &self.environments {
            if known.device == device && known.threads == plan.threads {
                return known.clone();
            }
        }
        let new = environment::gather(plan.device, plan.threads);
        self.environments.push(new.clone());
        new
    }

    fn train_cohort(&mut self, cohort: &Cohort<'_>) -> Result<End> {
        let plan = cohort.plan();
        let environment = self.environment(plan);
        let lanes = cohort.runs.iter().map(lane).collect::<Result<Vec<_>>>()?;
        let (mut teachers, mut combined) = (Vec::new(), Vec::new());
        for (plan, teacher) in cohort.teachers() {
            teachers.push(load_teacher(plan, teacher, self.stop)?);
        }
        for planned in cohort.combined() {
            combined.push(combine(plan, planned, &teachers, self.stop)?);
        }
        let ensemble = ensemble(plan, &teachers, self.stop)?;
        let config = CohortConfig {
            data: &plan.data,
            teachers: &teachers,
            combined: &combined,
            ensemble: ensemble.as_ref(),
            train: &plan.experiment.train,
            seed: cohort.seed(),
            device: plan.device,
            environment: &environment,
            stop: self.stop,
        };
        let outcomes = cohort::run(&config, &lanes, &mut self.observer)?;
        let mut end = End::default();
        for (lane, outcome) in lanes.iter().zip(outcomes) {
            match outcome {
                None => end.stopped = true,
                Some(Outcome::Finished) => {}
                Some(Outcome::Failed { reason, checkpoint: None }) => {
                    end.failed.push(format!("{}: {reason}; it has no good checkpoint", lane.name));
                }
                Some(Outcome::Failed { reason, checkpoint: Some(path) }) => {
                    let path = path.display();
                    end.failed.push(format!("{}: {reason}; its last good checkpoint is {path}", lane.name));
                }
            }
        }
        Ok(end)
    }

    /// Trains a linear classifier. One that fails fails alone, and its log says why.
    fn train_probe(&mut self, run: &PlannedProbeRun<'_>) -> Result<End> {
        let environment = self.environment(run.plan);
        match cohort::catch(|| probe(run, &environment, self.stop, &mut self.observer)) {
            Ok(is_done) => Ok(End { failed: Vec::new(), stopped: !is_done }),
            Err(error) if error.is_usage() => Err(error.within(&run.subject.name)),
            Err(error) => {
                let reason = error.to_string();
                let failed = vec![format!("{}: {reason}", run.subject.name)];
                self.observer.event(&run.lane(), &Event::Ended(Outcome::Failed { reason, checkpoint: None }));
                Ok(End { failed, stopped: false })
            }
        }
    }

    /// Trains a teacher that has no weights: a cohort of one, by the labels alone.
    fn train_teacher(&mut self, plan: &Plan, teacher: &PlannedTeacher) -> Result<End> {
        let (TeacherWeights::Trained { folder, recipe, .. }, Some(train)) = (&teacher.weights, &teacher.config.train)
        else {
            return Ok(End::default());
        };
        let environment = self.environment(plan);
        let lane = LaneConfig {
            name: join_label(&plan.label, &format!("teacher {}", teacher.name)),
            folder: folder.clone(),
            identity: recipe.clone(),
            student: Arc::clone(&teacher.config.model),
            precision: Precision::Float32,
            view: teacher.network.view.clone(),
            method_name: "teacher".to_owned(),
            method: vanilla(),
        };
        let config = CohortConfig {
            data: &plan.data,
            teachers: &[],
            combined: &[],
            ensemble: None,
            train,
            seed: teacher.config.seed,
            device: plan.device,
            environment: &environment,
            stop: self.stop,
        };
        match cohort::run(&config, &[lane], &mut self.observer)?.into_iter().flatten().next() {
            Some(Outcome::Failed { reason, .. }) => Err(Error::run(reason)),
            outcome => Ok(End { failed: Vec::new(), stopped: outcome.is_none() }),
        }
    }
}

/// Creates the run folder, writes `cell.toml`, which trains this student alone, and returns the lane's configuration.
fn lane(run: &PlannedRun<'_>) -> Result<LaneConfig> {
    let PlannedRun { plan, cell } = run;
    fs::create_dir_all(&cell.folder).map_err(Error::io("create", &cell.folder))?;
    store::write_toml(&cell.folder.join(store::CELL), &cell.resolved)?;
    Ok(LaneConfig {
        name: cell.name.clone(),
        folder: cell.folder.clone(),
        identity: cell.identity.clone(),
        student: Arc::clone(&plan.experiment.student.model),
        precision: plan.experiment.student.precision,
        view: plan.student.view.clone(),
        method_name: cell.method.clone(),
        method: plan.experiment.method(&cell.method)?,
    })
}

/// Trains a classifier, unless the network came out as it was before: `false` if it was stopped.
fn probe(
    run: &PlannedProbeRun<'_>,
    environment: &Environment,
    stop: &Stop,
    observer: &mut dyn Observer,
) -> Result<bool> {
    let PlannedProbeRun { plan, probe, subject } = run;
    fs::create_dir_all(&subject.folder).map_err(Error::io("create", &subject.folder))?;
    if run.lacks_network() {
        return Err(Error::run("there are no features to read, for its network is not trained to its end"));
    }
    if run.progress() == Progress::Finished {
        return Ok(true);
    }
    let (planned, model): (_, &dyn ModelConfig) = match run.teacher() {
        Some(teacher) => (&teacher.network, &*teacher.config.model),
        None => (&plan.student, &*plan.experiment.student.model),
    };
    let features = plan.probe_folder.join(FEATURES);
    let probe = Probe {
        info: run.lane(),
        name: &probe.name,
        identity: &subject.identity,
        config: &probe.config,
        data: &probe.data,
        view: &subject.view,
        network: subject.network.clone(),
        model,
        spec: plan.data.spec(Some(&planned.view))?,
        weights: run.weights(),
        features: &features,
        seed: subject.seed,
        device: plan.device,
        environment,
        stop,
    };
    Ok(probe.run(observer)?.is_some())
}

/// The run's own log first, then the program's, then the caller's observer.
struct Both<'a>(EventLog, &'a mut dyn Observer);

impl Observer for Both<'_> {
    fn event(&mut self, lane: &LaneInfo, event: &Event) {
        self.0.event(lane, event);
        match event {
            Event::Step { .. } => tracing::debug!(lane = lane.name, ?event),
            Event::Warning { .. } => tracing::warn!(lane = lane.name, ?event),
            // The caller's observer says it.
            Event::Ended(Outcome::Failed { reason, checkpoint }) => {
                tracing::debug!(lane = lane.name, reason, ?checkpoint, "failed");
            }
            _ => tracing::info!(lane = lane.name, ?event),
        }
        self.1.event(lane, event);
    }
}
