//! Running what is planned: teachers first, then the cohorts that ask them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use limbeck::cohort::{self, Classifier, CohortConfig, CombinedTeacher, LaneConfig, Stop, Teacher};
use limbeck::combination::Combination;
use limbeck::dataset::{Batch, Split, Views};
use limbeck::device::DeviceReport;
use limbeck::error::{Error, Result};
use limbeck::event::{Event, LaneInfo, Observer};
use limbeck::model::Taps;
use limbeck::precision::Precision;
use limbeck::record::{Ensemble, Environment, Outcome, TeacherRecord};
use limbeck::task::Metrics;
use limbeck_report::twins::vanilla;
use limbeck_report::words::plural;
use tch::Device;
use tracing::warn;

use crate::cohorts::{self, Cohort, Seat};
use crate::log::EventLog;
use crate::plan::{self, Cell, Plan, PlannedCombination, PlannedTeacher, TeacherWeights};
use crate::probes::ProbeSeat;
use crate::store::{self, CellEntry, PlanFile, Progress};
use crate::sweep::Sweep;
use crate::tasks::{Board, End, Task};
use crate::worker::{self, Crew};

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

/// Trains what is not finished yet.
///
/// # Errors
/// If something fails that concerns more than one student: a teacher, a disk, the data.
pub fn execute(plan: &Plan, stop: &Stop, observer: &mut dyn Observer) -> Result<Finished> {
    let _alone = begin(&plan.folder)?;
    describe(plan)?;
    let open = cohorts::seats([plan], |_, cell| is_open(cell));
    let probes = ProbeSeat::all(plan).filter(is_unread).collect();
    let mut finished = work(Board::new(cohorts::form(&open)?, probes), &plan.folder, stop, observer);
    if finished.errors.is_empty() { Ok(finished) } else { Err(finished.errors.remove(0)) }
}

/// Trains what is not finished yet of a sweep: in this process, or in those of a crew.
///
/// # Errors
/// If the sweep's folder cannot be written, or another process is at work there. What concerns only a part of the sweep is
/// among the errors of [`Finished`].
pub fn execute_sweep(sweep: &Sweep, crew: Option<&Crew>, stop: &Stop, observer: &mut dyn Observer) -> Result<Finished> {
    let _alone = begin(&sweep.folder)?;
    sweep.describe()?;
    sweep.plans().try_for_each(describe)?;
    let board = Board::new(cohorts::form(&sweep.open())?, sweep.open_probes());
    Ok(match crew {
        None => work(board, &sweep.folder, stop, observer),
        Some(crew) => worker::spread(board, &sweep.folder, crew, stop),
    })
}

/// Takes a folder for this process and its workers.
fn begin(folder: &Path) -> Result<File> {
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let alone = limbeck::files::lock(folder)?;
    worker::wait_for_orphans(folder)?;
    Ok(alone)
}

/// Writes what an experiment is into its folder. Of what was there before, students remain, and the report forgets those
/// that the experiment lacks now.
fn describe(plan: &Plan) -> Result<()> {
    fs::create_dir_all(&plan.folder).map_err(Error::io("create", &plan.folder))?;
    let (path, file) = (plan.folder.join(store::PLAN), plan.file());
    let before = store::read_json(&path).map_or_else(|_| Vec::new(), |before: PlanFile| before.cells);
    let is_left = |cell: &&CellEntry| {
        let is_known = file.cells.iter().any(|known| known.folder == cell.folder);
        !is_known && store::progress(&plan.folder.join(&cell.folder)) == Progress::Finished
    };
    let left = before.iter().filter(is_left).count() as u64;
    if left > 0 {
        let (place, students) = (plan.folder.display(), plural(left, "finished student"));
        warn!("{place} was of another configuration: {students} of it will not be in the report; their folders remain");
    }
    store::write_toml(&plan.folder.join(store::EXPERIMENT), &plan.experiment)?;
    store::write_json(&path, &file)
}

/// Whether a cell is not finished.
pub(crate) fn is_open(cell: &Cell) -> bool {
    store::progress(&cell.folder) != Progress::Finished
}

/// Whether a linear classifier is not trained.
pub(crate) fn is_unread(seat: &ProbeSeat<'_>) -> bool {
    seat.progress() != Progress::Finished
}

/// Does one task after the other in this process.
fn work(mut board: Board<'_>, folder: &Path, stop: &Stop, observer: &mut dyn Observer) -> Finished {
    let mut runner = Runner::new(stop, observer);
    while let Some((index, task)) = board.take() {
        let end = runner.perform(&task);
        let is_over = end.as_ref().is_ok_and(|end| end.stopped);
        board.close(index, end);
        if is_over || board.is_refused() {
            break;
        }
    }
    board.finish(folder)
}

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
            Task::Probe(seat) => self.train_probe(seat),
        };
        match end {
            Err(Error::Stopped) => Ok(End { failed: Vec::new(), stopped: true }),
            end => end,
        }
    }

    /// Sets libtorch's threads, and says what the surroundings are.
    fn surroundings(&mut self, plan: &Plan) -> Environment {
        tch::set_num_threads(plan.threads as i32);
        let device = plan::device_name(plan.device);
        let known = |environment: &&Environment| environment.device == device && environment.threads == plan.threads;
        if let Some(known) = self.environments.iter().find(known) {
            return known.clone();
        }
        let new = environment(plan.device, plan.threads);
        self.environments.push(new.clone());
        new
    }

    fn train_cohort(&mut self, cohort: &Cohort<'_>) -> Result<End> {
        let plan = cohort.plan();
        let environment = self.surroundings(plan);
        let lanes = cohort.seats.iter().map(lane).collect::<Result<Vec<_>>>()?;
        let teachers = cohort.teachers();
        let load = |(plan, teacher): &(&Plan, &PlannedTeacher)| load_teacher(plan, teacher, self.stop);
        let teachers = teachers.iter().map(load).collect::<Result<Vec<_>>>()?;
        let combined = cohort.combined().map(|planned| combine(plan, planned, &teachers, self.stop));
        let combined = combined.collect::<Result<Vec<_>>>()?;
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
        let failure = |(lane, outcome): (&LaneConfig, Outcome)| match outcome {
            Outcome::Finished => None,
            Outcome::Failed { reason, checkpoint: None } => {
                Some(format!("{}: {reason}; it has no good checkpoint", lane.name))
            }
            Outcome::Failed { reason, checkpoint: Some(path) } => {
                Some(format!("{}: {reason}; its last good checkpoint is {}", lane.name, path.display()))
            }
        };
        let stopped = outcomes.iter().any(Option::is_none);
        let ended = lanes.iter().zip(outcomes).filter_map(|(lane, outcome)| Some((lane, outcome?)));
        Ok(End { failed: ended.filter_map(failure).collect(), stopped })
    }

    /// Trains a linear classifier. One that fails fails alone, and its log says why.
    fn train_probe(&mut self, seat: &ProbeSeat<'_>) -> Result<End> {
        let environment = self.surroundings(seat.plan);
        match cohort::catch(|| seat.run(&environment, self.stop, &mut self.observer)) {
            Ok(is_done) => Ok(End { failed: Vec::new(), stopped: !is_done }),
            Err(error) if error.is_usage() => Err(error.within(&seat.subject.name)),
            Err(error) => {
                let reason = error.to_string();
                let failed = vec![format!("{}: {reason}", seat.subject.name)];
                self.observer.event(&seat.lane(), &Event::Ended(Outcome::Failed { reason, checkpoint: None }));
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
        let environment = self.surroundings(plan);
        let lane = LaneConfig {
            name: plan::join_label(&plan.label, &format!("teacher {}", teacher.name)),
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

/// A student on its way: its folder says how it would be trained alone.
fn lane(seat: &Seat<'_>) -> Result<LaneConfig> {
    let Seat { plan, cell } = seat;
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

/// Loads a teacher and measures it on the test split, once for each file, network, view, precision and data set.
fn load_teacher(plan: &Plan, planned: &PlannedTeacher, stop: &Stop) -> Result<(Teacher, TeacherRecord)> {
    let PlannedTeacher { name, config, network, weights, .. } = planned;
    let spec = plan.data.spec(Some(&network.view))?;
    let mut teacher = Teacher::new(
        name,
        &network.view,
        &*config.model,
        &spec,
        config.precision,
        config.fold_batch_norm,
        plan.device,
    )?;
    let path = weights.path();
    teacher.load(&path)?;
    let file = plan::file_digest(&path)?;
    let key = store::digest(&(
        &file,
        &config.model,
        &network.view,
        plan::arithmetic(config),
        &plan.data.dataset.info().identity,
    ))?;
    let cache = format!("{}-{}", network.kind, store::short(&key));
    let classify = |batch: &Batch| Ok(teacher.forward(batch.view(&teacher.view)?, &Taps::none())?.logits);
    let test = match teacher.model().outputs() {
        Some(_) => None,
        None => Some(measured(plan, name, &cache, &[&teacher], &classify, stop)?),
    };
    let record = TeacherRecord {
        name: name.clone(),
        model: network.kind.clone(),
        view: network.view.clone(),
        weights: path,
        digest: file,
        parameters: network.parameters,
        precision: config.precision,
        folded: config.fold_batch_norm,
        test,
        members: Vec::new(),
    };
    Ok((teacher, record))
}

/// A teacher that combines some of those that are loaded, measured on the test split where all of them can be.
fn combine(
    plan: &Plan,
    planned: &PlannedCombination,
    teachers: &[(Teacher, TeacherRecord)],
    stop: &Stop,
) -> Result<(CombinedTeacher, TeacherRecord)> {
    let combination = &planned.combination;
    let members = members(combination, teachers)?;
    let records = || members.iter().map(|(_, record)| record);
    let mut views: Vec<&str> = records().map(|record| record.view.as_str()).collect();
    views.sort_unstable();
    views.dedup();
    let record = TeacherRecord {
        name: planned.name.clone(),
        model: combination.to_string(),
        view: views.join(", "),
        weights: PathBuf::new(),
        digest: together(plan, combination, &members)?,
        parameters: records().map(|record| record.parameters).sum(),
        precision: Precision::Float32,
        folded: false,
        test: measure_together(plan, &planned.name, combination, &members, stop)?,
        members: combination.teachers.clone(),
    };
    Ok((CombinedTeacher { name: planned.name.clone(), combination: combination.clone() }, record))
}

/// What several networks are worth together, though nobody asked for their combination. Where samples have not one
/// class there is no distribution over all classes whose mean could be taken.
fn ensemble(plan: &Plan, teachers: &[(Teacher, TeacherRecord)], stop: &Stop) -> Result<Option<Ensemble>> {
    if teachers.len() < 2 || !plan.data.dataset.info().task.one_class() {
        return Ok(None);
    }
    let names: Vec<String> = teachers.iter().map(|(teacher, _)| teacher.name.clone()).collect();
    let all: Vec<&(Teacher, TeacherRecord)> = teachers.iter().collect();
    let mean = Combination::mean_probabilities(names.clone());
    let digests = teachers.iter().map(|(_, record)| record.digest.clone()).collect();
    let test = measure_together(plan, &names.join(", "), &mean, &all, stop)?;
    Ok(test.map(|test| Ensemble { teachers: names, digests, test }))
}

fn members<'a>(
    combination: &Combination,
    teachers: &'a [(Teacher, TeacherRecord)],
) -> Result<Vec<&'a (Teacher, TeacherRecord)>> {
    let member = |name: &String| {
        let found = teachers.iter().find(|(teacher, _)| teacher.name == *name);
        found.ok_or_else(|| Error::run(format!("teacher {name} is not there to be combined")))
    };
    combination.teachers.iter().map(member).collect()
}

/// A digest of the members and of how they are combined, whatever they are called.
fn together(plan: &Plan, combination: &Combination, members: &[&(Teacher, TeacherRecord)]) -> Result<String> {
    let member = |(_, record): &&(Teacher, TeacherRecord)| {
        let TeacherRecord { name, view, digest, precision, folded, .. } = record;
        let model = plan.teachers.iter().find(|planned| planned.name == *name).map(|planned| &planned.config.model);
        store::digest(&(model, view, digest, precision, folded))
    };
    let members = members.iter().map(member).collect::<Result<Vec<_>>>()?;
    store::digest(&(combination.kind, combination.shares(), members, &plan.data.dataset.info().identity))
}

/// The accuracy of networks together; nothing if one of them is known by its outputs on the training samples alone.
fn measure_together(
    plan: &Plan,
    name: &str,
    combination: &Combination,
    members: &[&(Teacher, TeacherRecord)],
    stop: &Stop,
) -> Result<Option<Metrics>> {
    if members.iter().any(|(teacher, _)| teacher.model().outputs().is_some()) {
        return Ok(None);
    }
    let networks: Vec<&Teacher> = members.iter().map(|(teacher, _)| teacher).collect();
    let classify = |batch: &Batch| {
        let logits = |teacher: &&Teacher| Ok(teacher.forward(batch.view(&teacher.view)?, &Taps::none())?.logits);
        let logits = networks.iter().map(logits).collect::<Result<Vec<_>>>()?;
        Ok(combination.logits(&logits.iter().collect::<Vec<_>>()))
    };
    let cache = format!("{}-{}", combination.kind.name(), store::short(&together(plan, combination, members)?));
    measured(plan, name, &cache, &networks, &classify, stop).map(Some)
}

/// The accuracy of a teacher on the test split, measured once for each `cache`, the name of a file.
fn measured(
    plan: &Plan,
    name: &str,
    cache: &str,
    networks: &[&Teacher],
    classify: Classifier<'_>,
    stop: &Stop,
) -> Result<Metrics> {
    let cache = plan.teacher_folder.join("measured").join(format!("{cache}.json"));
    let _turn = take_turns(&cache)?;
    store::read_json(&cache).or_else(|error| {
        if cache.exists() {
            warn!(%error, "the accuracy of teacher {name} is damaged and measured again");
        }
        let rows: Vec<i64> = (0..plan.data.dataset.info().test_labels.len() as i64).collect();
        let views: Views = networks.iter().map(|teacher| teacher.view.as_str()).collect();
        let results = cohort::accuracy(&plan.data, Split::Test, &rows, &views, &[classify], plan.device, stop)?;
        let test = results.into_iter().next().ok_or_else(|| Error::run("no accuracy was measured"))??;
        store::write_json(&cache, &test)?;
        Ok(test)
    })
}

/// While one process measures a teacher, others wait for the result.
fn take_turns(cache: &Path) -> Result<File> {
    if let Some(folder) = cache.parent() {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    }
    let path = cache.with_extension("lock");
    let file = File::create(&path).map_err(Error::io("create", &path))?;
    file.lock().map_err(Error::io("lock", &path))?;
    Ok(file)
}

/// The run's own log first, then the program's, then whoever watches.
struct Both<'a>(EventLog, &'a mut dyn Observer);

impl Observer for Both<'_> {
    fn event(&mut self, lane: &LaneInfo, event: &Event) {
        self.0.event(lane, event);
        match event {
            Event::Step { .. } => tracing::debug!(lane = lane.name, ?event),
            Event::Warning { .. } => tracing::warn!(lane = lane.name, ?event),
            // Whoever watches says it.
            Event::Ended(Outcome::Failed { reason, checkpoint }) => {
                tracing::debug!(lane = lane.name, reason, ?checkpoint, "failed");
            }
            _ => tracing::info!(lane = lane.name, ?event),
        }
        self.1.event(lane, event);
    }
}

fn environment(device: Device, threads: usize) -> Environment {
    Environment {
        limbeck: env!("CARGO_PKG_VERSION").to_owned(),
        git: git_state(),
        libtorch: DeviceReport::gather().libtorch_version.unwrap_or_else(|| "unknown".to_owned()),
        device: plan::device_name(device),
        device_name: hardware(device),
        threads,
    }
}

/// The name of the processor or the GPU, as the system gives it.
pub(crate) fn hardware(device: Device) -> String {
    let name = match device {
        Device::Cuda(index) => Command::new("nvidia-smi")
            .args(["--query-gpu=name", "--format=csv,noheader", &format!("--id={index}")])
            .output()
            .ok()
            .filter(|output| output.status.success())
            .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        _ => fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        }),
    };
    name.unwrap_or_else(|| "unknown".to_owned())
}

/// The commit that is checked out where the run was started.
fn git_state() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let changed = git(&["status", "--porcelain"]).is_some_and(|changes| !changes.is_empty());
    Some(if changed { format!("{commit}+changes") } else { commit })
}
