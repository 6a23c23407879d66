//! Workers: the tasks of a sweep spread over processes, on one device or several.
//!
//! The process that was called workers out the tasks, one a worker at a time; a worker is the same program with the same
//! arguments and `--worker`. It reads its order from the standard input stream and writes its reply to the standard
//! output stream. When its input ends it stops in order, with checkpoints: so no worker survives its caller, whatever
//! becomes of that one. libtorch's generators and threads belong to a process, which is why these are no threads.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use indexmap::IndexMap;
use limbeck::cohort::Stop;
use limbeck::error::{Error, Result};
use limbeck::event::Observer;
use serde::{Deserialize, Serialize};

use super::runner::Runner;
use super::tasks::{End, Finished, Task, TaskGraph};
use crate::plan::cohorts::Cohort;
use crate::plan::runs::{PlannedProbeRun, runs};
use crate::plan::sweep::Sweep;
use crate::progress::Stderr;
use crate::words::full_message;

/// Held by the workers of a sweep, together.
const LOCK: &str = "workers";
/// How often a caller looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// How workers are started.
#[derive(Clone, Debug)]
pub struct WorkerPool {
    /// The program.
    pub program: PathBuf,
    /// Its arguments behind `run --worker` and the device.
    pub arguments: Vec<OsString>,
    /// The devices, in turn; none: what the experiment says.
    pub devices: Vec<String>,
    /// How many work at a time.
    pub jobs: usize,
    /// libtorch's threads in each, where the experiment does not say.
    pub threads: usize,
}

/// What a worker is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// libtorch's threads, where the experiment does not say.
    pub threads: usize,
    /// The points that it has to plan, by label.
    pub points: Vec<String>,
    task: TaskReference,
}

/// A task by its folders, as another process finds it among its own plans.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TaskReference {
    Teacher(PathBuf),
    Cohort(Vec<PathBuf>),
    Probe(PathBuf),
}

/// What a worker answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Ended(End),
    Failed { message: String, usage: bool },
}

impl Order {
    fn new(task: &Task<'_>, threads: usize) -> Self {
        match task {
            Task::Teacher(plan, teacher) => {
                let task = TaskReference::Teacher(teacher.weights.path());
                Order { threads, points: vec![plan.label.clone()], task }
            }
            Task::Cohort(cohort) => {
                let (mut points, mut folders) = (Vec::new(), Vec::new());
                for run in &cohort.runs {
                    points.push(run.plan.label.clone());
                    folders.push(run.cell.folder.clone());
                }
                Order { threads, points, task: TaskReference::Cohort(folders) }
            }
            Task::Probe(run) => {
                let task = TaskReference::Probe(run.subject.folder.clone());
                Order { threads, points: vec![run.plan.label.clone()], task }
            }
        }
    }

    /// The task in the worker's own plans; none if they lack it.
    fn task<'a>(&self, sweep: &'a Sweep) -> Option<Task<'a>> {
        match &self.task {
            TaskReference::Teacher(weights) => {
                for plan in sweep.plans() {
                    for teacher in &plan.teachers {
                        if teacher.weights.path() == *weights {
                            return Some(Task::Teacher(plan, teacher));
                        }
                    }
                }
                None
            }
            TaskReference::Cohort(folders) => {
                let runs = runs(sweep.plans(), |_, cell| folders.contains(&cell.folder));
                if runs.len() < folders.len() { None } else { Some(Task::Cohort(Cohort { runs })) }
            }
            TaskReference::Probe(folder) => {
                let mut probes = sweep.plans().flat_map(PlannedProbeRun::all);
                probes.find(|run| run.subject.folder == *folder).map(Task::Probe)
            }
        }
    }
}

/// Works as a worker: reads the order, plans what it speaks of, performs it and prints the reply.
///
/// # Errors
/// If there is no order to read, or the reply cannot be written.
pub(crate) fn serve(
    stop: &Arc<Stop>,
    observer: &mut dyn Observer,
    plan: impl FnOnce(&Order) -> Result<Sweep>,
) -> Result<()> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(Error::io("read", "the standard input stream"))?;
    let order: Order =
        serde_json::from_str(&line).map_err(|e| Error::plan(format!("--worker is for Limbeck itself: {e}")))?;
    let watched = Arc::clone(stop);
    std::thread::spawn(move || {
        // Nothing more is sent: this waits for the end.
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        watched.request();
    });
    let reply = match perform(&order, stop, observer, plan) {
        Ok(end) => Reply::Ended(end),
        Err(error) => Reply::Failed { message: full_message(&error), usage: error.is_usage() },
    };
    let text = serde_json::to_string(&reply).map_err(|e| Error::run(format!("the reply: {e}")))?;
    writeln!(io::stdout(), "{text}").map_err(Error::io("write", "the standard output stream"))
}

fn perform(
    order: &Order,
    stop: &Stop,
    observer: &mut dyn Observer,
    plan: impl FnOnce(&Order) -> Result<Sweep>,
) -> Result<End> {
    let sweep = plan(order)?;
    let _held = hold(&sweep.folder)?;
    // The caller may be gone by now, and another one at work here.
    if stop.is_due() {
        return Ok(End { stopped: true, ..End::default() });
    }
    let Some(task) = order.task(&sweep) else {
        return Err(Error::run("the experiment file has changed since the call began: call it again"));
    };
    Runner::new(stop, observer).perform(&task)
}

fn lock_file(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    File::create(&path).map_err(Error::io("create", &path))
}

/// Says that a worker is in a folder for as long as it is held.
fn hold(folder: &Path) -> Result<File> {
    let file = lock_file(folder)?;
    file.lock_shared().map_err(Error::io("lock", folder.join(LOCK)))?;
    Ok(file)
}

/// Waits until workers whose caller was killed have ended, which they do after the step that they are at.
pub(crate) fn wait_for_orphans(folder: &Path) -> Result<()> {
    if !folder.join(LOCK).exists() {
        return Ok(());
    }
    let file = lock_file(folder)?;
    if file.try_lock().is_err() {
        let _ = writeln!(Stderr, "waiting for the workers of an earlier call to end in {}", folder.display());
        file.lock().map_err(Error::io("lock", folder.join(LOCK)))?;
    }
    Ok(())
}

/// A worker at work.
struct Worker {
    slot: usize,
    /// Dropping it tells the worker to stop.
    stdin: Option<ChildStdin>,
}

/// Hands the tasks out to workers, until all are done or a stop is due.
pub(crate) fn spread(mut graph: TaskGraph<'_>, folder: &Path, pool: &WorkerPool, stop: &Stop) -> Finished {
    let (sender, replies) = mpsc::channel();
    let mut workers: IndexMap<usize, Worker> = IndexMap::new();
    loop {
        let over = stop.is_due() || graph.is_refused();
        if over {
            workers.values_mut().for_each(|worker| worker.stdin = None);
        }
        while !over
            && let Some(slot) = (0..pool.jobs).find(|slot| workers.values().all(|worker| worker.slot != *slot))
            && let Some((index, task)) = graph.take()
        {
            match pool.start(slot, index, &task, &sender) {
                Ok(stdin) => _ = workers.insert(index, Worker { slot, stdin: Some(stdin) }),
                Err(error) => graph.close(index, Err(error)),
            }
        }
        if workers.is_empty() {
            return graph.finish(folder);
        }
        match replies.recv_timeout(LOOK) {
            Ok((index, end)) => {
                workers.swap_remove(&index);
                graph.close(index, end);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }
}

impl WorkerPool {
    /// Starts a worker and gives it its order. Its end is sent with `index`.
    fn start(
        &self,
        slot: usize,
        index: usize,
        task: &Task<'_>,
        replies: &Sender<(usize, Result<End>)>,
    ) -> Result<ChildStdin> {
        let mut command = Command::new(&self.program);
        command.args(["run", "--worker"]);
        if let Some(device) = self.devices.get(slot % self.devices.len().max(1)) {
            command.args(["--device", device]);
        }
        command.args(&self.arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(Error::io("start", &self.program))?;
        let Some(mut stdin) = child.stdin.take() else {
            return Err(Error::run(format!("{}: a worker has no standard streams", task.name())));
        };
        let order = serde_json::to_string(&Order::new(task, self.threads));
        let order = order.map_err(|e| Error::run(format!("{}: the order of a worker: {e}", task.name())))?;
        // A worker that is gone already is noticed by its missing reply.
        let _ = writeln!(stdin, "{order}");
        let (name, replies) = (task.name(), replies.clone());
        std::thread::spawn(move || {
            let end = attend(child).and_then(|reply| understand(reply, &name));
            // Nobody listens any more once the caller is at its end.
            let _ = replies.send((index, end));
        });
        Ok(stdin)
    }
}

/// A worker's reply, or how it ended without one.
type Answer = Result<Reply, String>;

/// Passes on what a worker says, and waits for its end.
fn attend(mut child: Child) -> Result<Answer> {
    let said = child.stderr.take().map(|stderr| {
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = writeln!(Stderr, "{line}");
            }
        })
    });
    let mut text = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut text).map_err(Error::io("read", "a worker's standard output stream"))?;
    }
    let status = child.wait().map_err(Error::io("wait for", "a worker"))?;
    if let Some(said) = said {
        let _ = said.join();
    }
    let reply = text.lines().next_back().and_then(|line| serde_json::from_str(line).ok());
    Ok(reply.ok_or_else(|| status.to_string()))
}

fn understand(answer: Answer, name: &str) -> Result<End> {
    match answer {
        Ok(Reply::Ended(end)) => Ok(end),
        Ok(Reply::Failed { message, usage: true }) => Err(Error::plan(message)),
        Ok(Reply::Failed { message, usage: false }) => Err(Error::run(message)),
        Err(status) => Err(Error::run(format!(
            "{name}: its worker ended without an answer ({status}); the next call goes on from the last checkpoints"
        ))),
    }
}
