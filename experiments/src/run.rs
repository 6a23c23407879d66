//! Running a plan: teachers first, then one cohort for each seed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use limbeck::cohort::{self, Classifier, CohortConfig, LaneConfig, Stop, Teacher};
use limbeck::dataset::{Split, Views};
use limbeck::device::DeviceReport;
use limbeck::error::{Error, Result};
use limbeck::event::{Event, LaneInfo, Observer};
use limbeck::model::Taps;
use limbeck::precision::Precision;
use limbeck::record::{Accuracy, Environment, Outcome, TeacherRecord};
use tch::Device;

use crate::log::EventLog;
use crate::plan::{self, Cell, Plan, PlannedTeacher, TeacherWeights};
use crate::store::{self, Progress};

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The experiment's folder.
    pub folder: PathBuf,
    /// The runs that failed, with the reason: `crd, seed 0: …`.
    pub failed: Vec<String>,
    /// Whether it was stopped before its end: the same call goes on.
    pub stopped: bool,
}

/// Trains what is not finished yet.
///
/// # Errors
/// If something fails that concerns more than one student: a teacher, a disk, the data.
pub fn execute(plan: &Plan, stop: &Stop, observer: &mut dyn Observer) -> Result<Finished> {
    let mut observer = Both(EventLog::default(), observer);
    fs::create_dir_all(&plan.folder).map_err(Error::io("create", &plan.folder))?;
    let _alone = cohort::lock(&plan.folder)?;
    store::write_toml(&plan.folder.join(store::EXPERIMENT), &plan.experiment)?;
    store::write_json(&plan.folder.join(store::PLAN), &plan.file())?;
    let environment = environment(plan.device, plan.threads);
    let open: Vec<&Cell> =
        plan.cells.iter().filter(|cell| store::progress(&cell.folder) != Progress::Finished).collect();
    let mut finished = Finished { folder: plan.folder.clone(), failed: Vec::new(), stopped: false };
    if open.is_empty() {
        return Ok(finished);
    }
    let asked: Vec<&PlannedTeacher> = plan
        .teachers
        .iter()
        // Those of finished cells too: a student that asks no teacher is compared with those of the others.
        .filter(|teacher| plan.cells.iter().any(|cell| cell.resolved.teacher.contains_key(&teacher.name)))
        .collect();
    for teacher in &asked {
        let trained = train_teacher(plan, teacher, &environment, stop, &mut observer)
            .map_err(|e| e.within(&format!("teacher {}", teacher.name)))?;
        if !trained {
            return Ok(Finished { stopped: true, ..finished });
        }
    }
    let teachers = asked.iter().map(|teacher| load_teacher(plan, teacher)).collect::<Result<Vec<_>>>()?;
    for &seed in &plan.experiment.compare.seeds {
        let cells: Vec<&Cell> = open.iter().copied().filter(|cell| cell.seed == seed).collect();
        let cohort = train_cohort(plan, &cells, seed, &teachers, &environment, stop, &mut observer)?;
        finished.failed.extend(cohort.failed);
        finished.stopped |= cohort.stopped;
    }
    Ok(finished)
}

/// What became of a cohort.
struct CohortEnd {
    failed: Vec<String>,
    stopped: bool,
}

fn train_cohort(
    plan: &Plan,
    cells: &[&Cell],
    seed: u64,
    teachers: &[(Teacher, TeacherRecord)],
    environment: &Environment,
    stop: &Stop,
    observer: &mut dyn Observer,
) -> Result<CohortEnd> {
    let mut lanes = Vec::new();
    for cell in cells {
        fs::create_dir_all(&cell.folder).map_err(Error::io("create", &cell.folder))?;
        store::write_toml(&cell.folder.join(store::CELL), &cell.resolved)?;
        lanes.push(LaneConfig {
            name: format!("{}, seed {}", cell.method, cell.seed),
            folder: cell.folder.clone(),
            identity: cell.identity.clone(),
            student: Arc::clone(&plan.experiment.student.model),
            precision: plan.experiment.student.precision,
            view: plan.student.view.clone(),
            method_name: cell.method.clone(),
            method: plan.experiment.method(&cell.method)?,
        });
    }
    let config = CohortConfig {
        data: &plan.data,
        teachers,
        train: &plan.experiment.train,
        seed,
        device: plan.device,
        environment,
        stop,
    };
    let outcomes = cohort::run(&config, &lanes, observer)?;
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
    Ok(CohortEnd { failed: ended.filter_map(failure).collect(), stopped })
}

/// Trains a teacher that has no weights: a cohort of one, by the labels alone. Returns whether it is there now.
fn train_teacher(
    plan: &Plan,
    teacher: &PlannedTeacher,
    environment: &Environment,
    stop: &Stop,
    observer: &mut dyn Observer,
) -> Result<bool> {
    let (TeacherWeights::Trained { folder, recipe, .. }, Some(train)) = (&teacher.weights, &teacher.config.train)
    else {
        return Ok(true);
    };
    if store::progress(folder) == Progress::Finished {
        return Ok(true);
    }
    let lane = LaneConfig {
        name: format!("teacher {}", teacher.name),
        folder: folder.clone(),
        identity: recipe.clone(),
        student: Arc::clone(&teacher.config.model),
        precision: Precision::Float32,
        view: teacher.network.view.clone(),
        method_name: "teacher".to_owned(),
        method: plan::vanilla(),
    };
    let seed = teacher.config.seed;
    let config = CohortConfig { data: &plan.data, teachers: &[], train, seed, device: plan.device, environment, stop };
    match cohort::run(&config, &[lane], observer)?.into_iter().flatten().next() {
        Some(Outcome::Failed { reason, .. }) => Err(Error::run(reason)),
        Some(Outcome::Finished) => Ok(true),
        None => Ok(false),
    }
}

/// Loads a teacher and measures it on the test split, once for each file, network, view, precision and data set.
fn load_teacher(plan: &Plan, planned: &PlannedTeacher) -> Result<(Teacher, TeacherRecord)> {
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
    let digest = plan::file_digest(&path)?;
    let key = store::digest(&(
        &digest,
        &config.model,
        &network.view,
        plan::arithmetic(config),
        &plan.data.dataset.info().identity,
    ))?;
    let cache = plan.teacher_folder.join("measured").join(format!("{}-{}.json", network.kind, store::short(&key)));
    let test = match teacher.model().outputs() {
        Some(_) => None,
        None => Some(store::read_json(&cache).or_else(|error| {
            if cache.exists() {
                tracing::warn!(%error, "the accuracy of teacher {name} is damaged and measured again");
            }
            measure(plan, &teacher, &cache)
        })?),
    };
    let record = TeacherRecord {
        name: name.clone(),
        model: network.kind.clone(),
        view: network.view.clone(),
        weights: path,
        digest,
        parameters: network.parameters,
        precision: config.precision,
        folded: config.fold_batch_norm,
        test,
    };
    Ok((teacher, record))
}

fn measure(plan: &Plan, teacher: &Teacher, cache: &Path) -> Result<Accuracy> {
    let rows: Vec<i64> = (0..plan.data.dataset.info().test_labels.len() as i64).collect();
    let network =
        |batch: &limbeck::dataset::Batch| Ok(teacher.forward(batch.view(&teacher.view)?, &Taps::none())?.logits);
    let views: Views = [teacher.view.as_str()].into_iter().collect();
    let networks: [Classifier<'_>; 1] = [&network];
    let results = cohort::accuracy(&plan.data, Split::Test, &rows, &views, &networks, plan.device)?;
    let test = results.into_iter().next().ok_or_else(|| Error::run("no accuracy was measured"))??;
    if let Some(folder) = cache.parent() {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    }
    store::write_json(cache, &test)?;
    Ok(test)
}

/// The run's own log first, then the program's, then whoever watches.
struct Both<'a>(EventLog, &'a mut dyn Observer);

impl Observer for Both<'_> {
    fn event(&mut self, lane: &LaneInfo, event: &Event) {
        self.0.event(lane, event);
        match event {
            Event::Step { .. } => tracing::debug!(lane = lane.name, ?event),
            Event::Warning { .. } | Event::Ended(Outcome::Failed { .. }) => tracing::warn!(lane = lane.name, ?event),
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
