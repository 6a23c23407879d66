//! Workers: the tasks of a sweep spread over processes, on one device or several.
//!
//! The process that was called hands out the tasks, one a worker at a time; a worker is the same program with the same
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

use crate::cohorts::{self, Cohort};
use crate::probes::ProbeSeat;
use crate::progress::Stderr;
use crate::run::{Finished, Runner};
use crate::sweep::Sweep;
use crate::tasks::{Board, End, Task};
use crate::words::full_message;

/// Held by the workers of a sweep, together.
const LOCK: &str = "workers";
/// How often a caller looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// How workers are started.
#[derive(Clone, Debug)]
pub struct Crew {
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
    errand: Errand,
}

/// A task by its folders.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Errand {
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
        let (points, errand) = match task {
            Task::Teacher(plan, teacher) => (vec![plan.label.clone()], Errand::Teacher(teacher.weights.path())),
            Task::Cohort(cohort) => (
                cohort.seats.iter().map(|seat| seat.plan.label.clone()).collect(),
                Errand::Cohort(cohort.seats.iter().map(|seat| seat.cell.folder.clone()).collect()),
            ),
            Task::Probe(seat) => (vec![seat.plan.label.clone()], Errand::Probe(seat.subject.folder.clone())),
        };
        Order { threads, points, errand }
    }

    /// The task in the worker's own plans.
    fn task<'a>(&self, sweep: &'a Sweep) -> Result<Task<'a>> {
        let changed = || Error::run("the experiment file has changed since the call began: call it again");
        match &self.errand {
            Errand::Teacher(weights) => {
                let all = sweep.plans().flat_map(|plan| plan.teachers.iter().map(move |teacher| (plan, teacher)));
                let found = all.into_iter().find(|(_, teacher)| teacher.weights.path() == *weights);
                found.map(|(plan, teacher)| Task::Teacher(plan, teacher)).ok_or_else(changed)
            }
            Errand::Cohort(folders) => {
                let seats = cohorts::seats(sweep.plans(), |_, cell| folders.contains(&cell.folder));
                if seats.len() < folders.len() { Err(changed()) } else { Ok(Task::Cohort(Cohort { seats })) }
            }
            Errand::Probe(folder) => {
                let found = sweep.plans().flat_map(ProbeSeat::all).find(|seat| seat.subject.folder == *folder);
                found.map(Task::Probe).ok_or_else(changed)
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
    let perform = || {
        let sweep = plan(&order)?;
        let _held = hold(&sweep.folder)?;
        // The caller may be gone by now, and another one at work here.
        if stop.is_due() {
            return Ok(End { stopped: true, ..End::default() });
        }
        Runner::new(stop, observer).perform(&order.task(&sweep)?)
    };
    let reply = match perform() {
        Ok(end) => Reply::Ended(end),
        Err(error) => Reply::Failed { message: full_message(&error), usage: error.is_usage() },
    };
    let text = serde_json::to_string(&reply).map_err(|e| Error::run(format!("the reply: {e}")))?;
    writeln!(io::stdout(), "{text}").map_err(Error::io("write", "the standard output stream"))
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
struct Hand {
    slot: usize,
    /// Dropping it tells the worker to stop.
    stdin: Option<ChildStdin>,
}

/// Hands the tasks out to workers, until all are done or a stop is due.
pub(crate) fn spread(mut board: Board<'_>, folder: &Path, crew: &Crew, stop: &Stop) -> Finished {
    let (sender, replies) = mpsc::channel();
    let mut hands: IndexMap<usize, Hand> = IndexMap::new();
    loop {
        let over = stop.is_due() || board.is_refused();
        if over {
            hands.values_mut().for_each(|hand| hand.stdin = None);
        }
        while !over
            && let Some(slot) = (0..crew.jobs).find(|slot| hands.values().all(|hand| hand.slot != *slot))
            && let Some((index, task)) = board.take()
        {
            match crew.start(slot, index, &task, &sender) {
                Ok(stdin) => _ = hands.insert(index, Hand { slot, stdin: Some(stdin) }),
                Err(error) => board.close(index, Err(error)),
            }
        }
        if hands.is_empty() {
            return board.finish(folder);
        }
        match replies.recv_timeout(LOOK) {
            Ok((index, end)) => {
                hands.swap_remove(&index);
                board.close(index, end);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }
}

impl Crew {
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
        // Pools that spin while they wait stall each other.
        command.env("OMP_WAIT_POLICY", "PASSIVE");
        let mut child = command.spawn().map_err(Error::io("start", &self.program))?;
        let lost = || Error::run(format!("{}: a worker has no standard streams", task.name()));
        let mut stdin = child.stdin.take().ok_or_else(lost)?;
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
