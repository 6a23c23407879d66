//! `limbeck run` and `limbeck plan`: from the arguments to a sweep, trained here or by workers.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::ValueEnum;
use limbeck::cohort::{Limit, Stop};
use limbeck::config::{self, grid::Filter};
use limbeck::device::DeviceSpec;
use limbeck::error::{Error, Result};
use limbeck_report as report;
use limbeck_report::tensorboard::EventFiles;

use super::arguments::{ExperimentArgs, LogOptions, WorkerArgs};
use super::failure::Failure;
use super::output::{complain, print_error, print_outlines, write_report};
use crate::plan::cores;
use crate::plan::data::DataCache;
use crate::plan::sweep::{Options, Sweep};
use crate::progress::{Progress, Stderr};
use crate::run;
use crate::run::worker::{self, WorkerPool};

fn plan(arguments: &ExperimentArgs, options: Options) -> Result<Sweep> {
    let device = arguments.device.iter().map(|device| format!("device={device}"));
    let overrides: Vec<String> = arguments.set.iter().cloned().chain(device).collect();
    let only = Filter::new(arguments.only.iter().map(String::as_str))?;
    let grid = config::load_grid(&arguments.file, &overrides, &only)?;
    let options = Options { lanes: arguments.lanes, ..options };
    Sweep::new(grid, &arguments.file, &arguments.out, &options, &mut DataCache::default())
        .map_err(|error| config::locate(error, &arguments.file, &overrides))
}

/// Trains what an experiment compares, and writes the report.
pub(super) fn run_experiment(
    experiment: &ExperimentArgs,
    workers: &WorkerArgs,
    log: &LogOptions,
    limit: Option<Limit>,
    json: bool,
    arguments: &[OsString],
) -> Result<ExitCode, Failure> {
    if workers.worker {
        return work(experiment, workers.tensorboard).map_err(Failure::from);
    }
    let pool = worker_pool(experiment, workers, log, limit, arguments)?;
    let sweep = plan_for(experiment, pool.as_ref()).map_err(Failure::of_configuration)?;
    let stop = Arc::new(Stop::new(limit));
    watch_signals(&stop, "stopping: the step is finished and checkpoints are written; once more stops at once");
    let mut observer = EventFiles { written: workers.tensorboard, then: Progress::new() };
    let finished = run::execute_sweep(&sweep, pool.as_ref(), &stop, &mut observer)?;
    drop(observer);
    for failed in &finished.failed {
        complain(&format!("a run failed: {failed}"));
    }
    for error in &finished.errors {
        print_error(error);
    }
    if finished.errors.iter().any(Error::is_usage) {
        return Ok(ExitCode::from(2));
    }
    // What ended one experiment leaves nothing to report; the other points of a sweep have gone on.
    if !finished.errors.is_empty() && sweep.points.len() == 1 {
        return Ok(ExitCode::from(1));
    }
    let has_failed = !finished.failed.is_empty() || !finished.errors.is_empty();
    if finished.stopped {
        let _ = writeln!(
            anstream::stderr(),
            "stopped before the end, with checkpoints in {}; this goes on from there:\n  {}",
            finished.folder.display(),
            command_line(&going_on(arguments))
        );
        if json {
            print_outlines(&[finished.folder], &report::Options::default(), None)?;
        }
        return Ok(ExitCode::from(if finished.errors.is_empty() { STOPPED } else { 1 }));
    }
    write_report(&[finished.folder], &report::Options::default(), json)?;
    Ok(ExitCode::from(u8::from(has_failed)))
}

/// Plans for this process, or for those of a pool.
pub(super) fn plan_for(experiment: &ExperimentArgs, pool: Option<&WorkerPool>) -> Result<Sweep> {
    let device = pool.and_then(|pool| pool.devices.first().cloned()).or_else(|| experiment.device.clone());
    let threads = pool.map(|pool| pool.threads);
    plan(&ExperimentArgs { device, ..experiment.clone() }, Options { threads, ..Options::default() })
}

/// A first request stops in order, a second one at once.
fn watch_signals(stop: &Arc<Stop>, message: &'static str) {
    let watched = Arc::clone(stop);
    // Within a test there is a handler already, from the run before.
    let _ = ctrlc::set_handler(move || {
        if watched.request() {
            // SAFETY: it takes any number and does not return. Plain `exit` would run libtorch's destructors while it works.
            unsafe { libc::_exit(INTERRUPTED) };
        }
        if !message.is_empty() {
            let _ = writeln!(Stderr, "{message}");
        }
    });
}

/// How the work is spread over processes, if it is.
pub(super) fn worker_pool(
    experiment: &ExperimentArgs,
    workers: &WorkerArgs,
    log: &LogOptions,
    limit: Option<Limit>,
    arguments: &[OsString],
) -> Result<Option<WorkerPool>, Failure> {
    let jobs = workers.jobs();
    if jobs == 1 && workers.devices.is_empty() {
        return Ok(None);
    }
    if let Some(Limit::Steps(_) | Limit::Epochs(_)) = limit {
        let message =
            "--stop-after counts steps and epochs in one process only: give a time, or leave --jobs and --devices out";
        return Err(Error::plan(message).into());
    }
    // The program itself, unless it was called by its whole path.
    let program = match arguments.first().map(Path::new) {
        Some(path) if path.is_absolute() => path.to_owned(),
        _ => std::env::current_exe().map_err(Error::io("find", "the program"))?,
    };
    let arguments = worker_arguments(experiment, workers, log);
    let devices = match &workers.devices[..] {
        [] => experiment.device.iter().cloned().collect(),
        devices => {
            // The plan is made for the first of them: the others' workers would be the ones to find out.
            devices.iter().try_for_each(|device| device.resolve().map(drop)).map_err(Error::from)?;
            devices.iter().map(DeviceSpec::to_string).collect()
        }
    };
    Ok(Some(WorkerPool { program, arguments, devices, jobs, threads: (cores() / jobs).max(1) }))
}

/// The arguments of a worker, behind `run --worker` and the device: those of this call that concern what is trained.
fn worker_arguments(experiment: &ExperimentArgs, workers: &WorkerArgs, log: &LogOptions) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--out".into(), experiment.out.clone().into()];
    for value in &experiment.set {
        arguments.push(format!("--set={value}").into());
    }
    for value in &experiment.only {
        arguments.push(format!("--only={value}").into());
    }
    if let Some(lanes) = experiment.lanes {
        arguments.push(format!("--lanes={lanes}").into());
    }
    if workers.tensorboard {
        arguments.push("--tensorboard".into());
    }
    for _ in 0..log.verbose {
        arguments.push("-v".into());
    }
    if let Some(format) = log.log_format.to_possible_value() {
        arguments.push(format!("--log-format={}", format.get_name()).into());
    }
    if let Some(colour) = log.color.to_possible_value() {
        arguments.push(format!("--color={}", colour.get_name()).into());
    }
    arguments.extend(["--".into(), experiment.file.clone().into()]);
    arguments
}

/// Works for another process.
fn work(experiment: &ExperimentArgs, tensorboard: bool) -> Result<ExitCode> {
    let stop = Arc::new(Stop::default());
    watch_signals(&stop, "");
    let mut observer = EventFiles { written: tensorboard, then: Progress::new() };
    worker::serve(&stop, &mut observer, |order| {
        let options =
            Options { threads: Some(order.threads), points: Some(order.points.clone()), ..Options::default() };
        plan(experiment, options)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The option that ends a call early.
const STOP_AFTER: &str = "--stop-after";
/// The exit code of a run that was stopped in order.
const STOPPED: u8 = 3;
/// The exit code of one that was interrupted at once: 128 and the number of SIGINT, as shells have it.
const INTERRUPTED: i32 = 130;

/// The arguments of a call that goes on: without the limit that this one has reached.
fn going_on(arguments: &[OsString]) -> Vec<OsString> {
    let mut rest = arguments.iter();
    let mut kept = Vec::new();
    while let Some(argument) = rest.next() {
        match argument.to_str() {
            Some(STOP_AFTER) => _ = rest.next(),
            Some(text) if text.strip_prefix(STOP_AFTER).is_some_and(|value| value.starts_with('=')) => {}
            _ => kept.push(argument.clone()),
        }
    }
    kept
}

/// The arguments as one types them for a shell.
fn command_line(arguments: &[OsString]) -> String {
    arguments.iter().map(|text| quoted(&text.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

fn quoted(text: &str) -> String {
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_+=./:,@%".contains(c));
    match text {
        "" => "''".to_owned(),
        text if is_plain => text.to_owned(),
        text => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_typed_again() {
        let arguments = ["limbeck", "run", "it's.toml", "--set", "compare.methods=[\"kd\"]", ""].map(OsString::from);
        assert_eq!(command_line(&arguments), r#"limbeck run 'it'\''s.toml' --set 'compare.methods=["kd"]' ''"#);
        let limited =
            ["limbeck", "run", "--stop-after", "3steps", "a.toml", "--stop-after=9m", "-v"].map(OsString::from);
        assert_eq!(command_line(&going_on(&limited)), "limbeck run a.toml -v");
    }
}
