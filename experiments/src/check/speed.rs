//! How long a step takes, whether the host runs ahead of the device, and what makes it wait.

use std::ffi::c_int;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use libloading::os::unix::Library;
use limbeck::cohort::{Data, Limit, Stop};
use limbeck::config;
use limbeck::dataset::{Batch, Dataset, DatasetInfo, Rows, Split, Views};
use limbeck::device::synchronize;
use limbeck::error::{Error, Result};
use limbeck::experiment::Division;
use limbeck::seed::Seed;
use limbeck::weights;
use limbeck_golden::models;
use limbeck_report::store;
use tch::{Device, Kind};

use super::bench::Bench;
use super::finding::{Finding, Verdict};
use crate::plan::Plan;
use crate::run;
use crate::words::device_name;

/// What is measured, and for how long.
#[derive(Clone, Copy, Debug)]
struct Load {
    student: &'static str,
    teacher: &'static str,
    batch: u64,
    /// Steps before the clock starts: allocators and kernels warm up.
    warm_up: u64,
    /// Steps in a row.
    row: u64,
    /// Steps that each begin with an idle device.
    single: u64,
}

impl Load {
    /// A pair of the CRD paper on a GPU; on a CPU something that takes a second.
    fn on(device: Device) -> Self {
        match device {
            Device::Cpu => Load { student: "resnet8", teacher: "resnet14", batch: 16, warm_up: 2, row: 6, single: 0 },
            _ => Load { student: "resnet8x4", teacher: "resnet32x4", batch: 64, warm_up: 10, row: 50, single: 10 },
        }
    }

    fn steps(&self) -> u64 {
        // One more, at whose beginning the last one ends.
        self.warm_up + self.row + self.single + 1
    }
}

/// Seconds, as the data set sees them: it is asked for a batch at the beginning of every step.
#[derive(Debug, Default)]
struct Times {
    begun: u64,
    since: Option<Instant>,
    /// The steps in a row, until the device was done.
    row: f64,
    /// The single steps, until the host had nothing left to say.
    single: f64,
}

impl Times {
    /// Seconds since the watch was started, 0 if it never was.
    fn elapsed(&self) -> f64 {
        self.since.map_or(0.0, |since| since.elapsed().as_secs_f64())
    }
}

/// A data set that holds a watch.
#[derive(Debug)]
struct Watched {
    inner: Box<dyn Dataset>,
    device: Device,
    load: Load,
    /// Whether a synchronisation during the steps in a row is an error.
    forbid: bool,
    times: Arc<Mutex<Times>>,
}

impl Dataset for Watched {
    fn info(&self) -> &DatasetInfo {
        self.inner.info()
    }

    fn batch(&self, split: Split, rows: &Rows, views: &Views, draw: Option<Seed>) -> Result<Batch> {
        if draw.is_some() {
            self.step_begins();
        }
        self.inner.batch(split, rows, views, draw)
    }

    fn prefetch(&self, split: Split, rows: &[i64], views: &Views, draw: Option<Seed>) {
        self.inner.prefetch(split, rows, views, draw);
    }
}

impl Watched {
    fn step_begins(&self) {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let step = times.begun;
        times.begun += 1;
        let end_of_row = self.load.warm_up + self.load.row;
        if step == end_of_row {
            forbid_synchronisation(false);
            synchronize(self.device);
            times.row = times.elapsed();
        } else if step > end_of_row && step <= end_of_row + self.load.single {
            times.single += times.elapsed();
        }
        if step == self.load.warm_up || step >= end_of_row {
            synchronize(self.device);
            times.since = Some(Instant::now());
        }
        if step == self.load.warm_up && self.forbid {
            forbid_synchronisation(true);
        }
    }
}

/// Makes libtorch refuse every operation that waits for the GPU, or allow them again; false if that cannot be had.
fn forbid_synchronisation(forbid: bool) -> bool {
    /// The object that `c10::cuda::warning_state()` returns; the function itself is inline and in no library.
    const STATE: &[u8] = b"_ZZN3c104cuda13warning_stateEvE14warning_state_\0";
    /// `SyncDebugMode::L_DISABLED` and `L_ERROR`.
    const MODES: [c_int; 2] = [0, 2];
    let process = Library::this();
    // SAFETY: the symbol is looked up in the libraries that this process has loaded, and none is loaded for it. The
    // libtorch that tch is bound to, 2.11, has at its address a class whose only member is an enum without a fixed
    // type, hence an `int`, and the library stays in the process for ever (see `limbeck::device::load_cuda`).
    let Ok(state) = (unsafe { process.get::<*mut c_int>(STATE) }) else { return false };
    // SAFETY: a valid, aligned `int` as said above. libtorch's threads read it without a lock, so that it is written in
    // one piece; nothing else in this process writes it.
    unsafe { AtomicI32::from_ptr(*state) }.store(MODES[usize::from(forbid)], Ordering::SeqCst);
    true
}

/// Allows synchronisation again however a measurement ends.
struct Allow;

impl Drop for Allow {
    fn drop(&mut self) {
        forbid_synchronisation(false);
    }
}

fn experiment(bench: &Bench<'_>, load: &Load, timing: u64) -> Result<String> {
    let weights = bench.folder.join("speed.safetensors");
    let case = models::cases()?.into_iter().find(|case| case.model == load.teacher);
    let mut case = case.ok_or_else(|| Error::run(format!("no {} among the reference numbers", load.teacher)))?;
    case.classes = 20;
    weights::save(&weights, &weights::variables(&case.network(Kind::Float, Device::Cpu)?.0), None)?;
    let Load { student, teacher, batch, .. } = load;
    Ok(format!(
        r#"
format = 1
name = "speed"
device = "{}"
threads = {}

[dataset]
kind = "shapes"
train = {}
test = 20

[teacher.big]
model = {{ kind = "{teacher}" }}
weights = {weights:?}

[student]
model = {{ kind = "{student}" }}

[train]
epochs = 1
batch = {batch}
schedule = {{ kind = "constant" }}
checkpoint_steps = 100000
log_steps = 100000
timing_steps = {timing}

[compare]
methods = ["kd"]
"#,
        device_name(bench.device),
        bench.threads,
        (load.steps() + 1) * batch,
    ))
}

fn planned(bench: &Bench<'_>, load: &Load, timing: u64, out: &Path) -> Result<Plan> {
    let file = out.join("speed.toml");
    Plan::new(config::parse(&experiment(bench, load, timing)?, &file, &[])?, &file, out)
}

/// Trains under the watch and stops before anything is read from the device.
fn watch(bench: &Bench<'_>, load: &Load, forbid: bool, folder: &str) -> Result<(Times, Vec<String>)> {
    let mut plan = planned(bench, load, 0, &bench.folder.join(folder))?;
    let times = Arc::new(Mutex::new(Times::default()));
    let inner = plan.experiment.dataset.build(bench.device)?;
    let watched = Watched { inner, device: bench.device, load: *load, forbid, times: Arc::clone(&times) };
    plan.data = Rc::new(Data::new(Box::new(watched), Division::default())?);
    let _allow = Allow;
    let finished = run::execute(&plan, &Stop::new(Some(Limit::Steps(load.steps()))), &mut ())?;
    let times = std::mem::take(&mut *times.lock().unwrap_or_else(PoisonError::into_inner));
    Ok((times, finished.failed))
}

/// Seconds a step in a row and by part, the host's share, and synchronisations between log entries.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    const PART: &str = "speed";
    let load = Load::on(bench.device);
    let (times, failed) = watch(bench, &load, false, "row")?;
    if let Some(failed) = failed.into_iter().next() {
        return Err(Error::run(failed));
    }
    let Load { student, teacher, batch, row, .. } = load;
    let step = times.row / row as f64 * 1e3;
    let text =
        format!("{student} taught by {teacher} with kd, batches of {batch}: {step:.2} ms a step over {row} steps");
    let mut findings = vec![Finding::new(PART, Verdict::Measured, text).number("step_ms", step), parts(bench, &load)?];
    if bench.device == Device::Cpu {
        let text = "occupancy and synchronisations do not apply to the CPU: it computes while it is asked";
        findings.push(Finding::new(PART, Verdict::NotApplicable, text));
        return Ok(findings);
    }
    let host = times.single / load.single as f64 * 1e3;
    let who =
        if host < step { "the host runs ahead and the device does not wait" } else { "the device waits for the host" };
    let text =
        format!("the host takes {host:.2} ms to enqueue a step ({:.0} % of the step): {who}", host / step * 100.0);
    findings
        .push(Finding::new(PART, Verdict::Measured, text).number("host_ms", host).number("host_share", host / step));
    findings.push(synchronisations(bench, &load));
    Ok(findings)
}

fn parts(bench: &Bench<'_>, load: &Load) -> Result<Finding> {
    let plan = planned(bench, load, 3, &bench.folder.join("parts"))?;
    run::execute(&plan, &Stop::default(), &mut ())?;
    let summary = plan.cells.first().and_then(|cell| store::summary(&cell.folder).transpose()).transpose()?;
    let timing = summary.ok_or_else(|| Error::run("the timed run left no summary"))?.timing;
    let parts = [
        ("data", timing.data),
        ("teacher", timing.teacher),
        ("student", timing.student),
        ("loss", timing.loss),
        ("optimizer", timing.optimizer),
    ];
    let listed: Vec<String> = parts.iter().map(|(name, seconds)| format!("{name} {:.2}", seconds * 1e3)).collect();
    let text = format!("ms by part, with the device waited for after each: {}", listed.join(", "));
    let finding = Finding::new("speed", Verdict::Measured, text);
    Ok(parts.iter().fold(finding, |finding, (name, seconds)| finding.number(&format!("{name}_ms"), seconds * 1e3)))
}

/// Steps between log entries must not wait for the device. The first operation that does ends the run with its message.
fn synchronisations(bench: &Bench<'_>, load: &Load) -> Finding {
    if !forbid_synchronisation(false) {
        let text = "synchronisations cannot be counted: this libtorch has no c10::cuda::warning_state";
        return Finding::new("speed", Verdict::NotApplicable, text);
    }
    let row = load.row;
    let culprit = match watch(bench, load, true, "forbidden") {
        Ok((_, failed)) => failed.into_iter().next(),
        Err(error) => Some(error.to_string()),
    };
    match culprit {
        None => Finding::new("speed", Verdict::Ok, format!("no synchronisation in {row} steps between log entries"))
            .number("synchronisations", 0.0),
        Some(first) => {
            Finding::new("speed", Verdict::Failed, format!("a step between log entries waits for the device: {first}"))
        }
    }
}
