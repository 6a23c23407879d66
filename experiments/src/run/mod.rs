//! Running what is planned: teachers first, then the cohorts that ask them, then linear probes.
//!
//! | module | holds |
//! |---|---|
//! | `tasks` | what there is to do, and what waits for what |
//! | `runner` | doing a task in this process |
//! | [`worker`] | handing tasks to other processes, and doing them there |
//! | `teachers` | loading and measuring teachers |
//! | `environment` | versions and hardware, as a run's summary has them |

pub(crate) mod environment;
mod runner;
mod tasks;
mod teachers;
pub mod worker;

use std::fs::{self, File};
use std::path::Path;

use limbeck::cohort::Stop;
use limbeck::error::{Error, Result};
use limbeck::event::Observer;
use limbeck::files::lock;
use limbeck_report::store::{self, PlanFile, Progress};
use limbeck_report::words::plural;
use tracing::warn;

use crate::plan::runs::{PlannedProbeRun, runs};
use crate::plan::sweep::Sweep;
use crate::plan::{Plan, cohorts};

use runner::Runner;
use tasks::TaskGraph;
use worker::WorkerPool;

pub use tasks::Finished;

/// Trains what is not finished yet.
///
/// # Errors
/// If something fails that concerns more than one student: a teacher, a disk, the data.
pub fn execute(plan: &Plan, stop: &Stop, observer: &mut dyn Observer) -> Result<Finished> {
    let _alone = begin(&plan.folder)?;
    describe(plan)?;
    let open = runs([plan], |_, cell| cell.is_open());
    let probes = PlannedProbeRun::all(plan).filter(PlannedProbeRun::is_open).collect();
    let mut finished = work(TaskGraph::new(cohorts::form(&open)?, probes), &plan.folder, stop, observer);
    if finished.errors.is_empty() { Ok(finished) } else { Err(finished.errors.remove(0)) }
}

/// Trains what is not finished yet of a sweep: in this process, or in those of a pool of workers.
///
/// # Errors
/// If the sweep's folder cannot be written, or another process is at work there. What concerns only a part of the sweep is
/// among the errors of [`Finished`].
pub fn execute_sweep(
    sweep: &Sweep,
    workers: Option<&WorkerPool>,
    stop: &Stop,
    observer: &mut dyn Observer,
) -> Result<Finished> {
    let _alone = begin(&sweep.folder)?;
    sweep.describe()?;
    sweep.plans().try_for_each(describe)?;
    let graph = TaskGraph::new(cohorts::form(&sweep.open())?, sweep.open_probes());
    Ok(match workers {
        None => work(graph, &sweep.folder, stop, observer),
        Some(pool) => worker::spread(graph, &sweep.folder, pool, stop),
    })
}

/// Takes a folder for this process and its workers.
fn begin(folder: &Path) -> Result<File> {
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let alone = lock(folder)?;
    worker::wait_for_orphans(folder)?;
    Ok(alone)
}

/// Writes what an experiment is into its folder. Of what was there before, students remain, and the report forgets those
/// that the experiment lacks now.
fn describe(plan: &Plan) -> Result<()> {
    fs::create_dir_all(&plan.folder).map_err(Error::io("create", &plan.folder))?;
    let (path, file) = (plan.folder.join(store::PLAN), plan.file());
    let mut left = 0;
    if let Ok(before) = store::read_json::<PlanFile>(&path) {
        for cell in before.cells {
            let is_known = file.cells.iter().any(|known| known.folder == cell.folder);
            if !is_known && store::progress(&plan.folder.join(&cell.folder)) == Progress::Finished {
                left += 1;
            }
        }
    }
    if left > 0 {
        let (place, students) = (plan.folder.display(), plural(left, "finished student"));
        warn!("{place} was of another configuration: {students} of it will not be in the report; their folders remain");
    }
    store::write_toml(&plan.folder.join(store::EXPERIMENT), &plan.experiment)?;
    store::write_json(&path, &file)
}

/// Does one task after the other in this process.
fn work(mut graph: TaskGraph<'_>, folder: &Path, stop: &Stop, observer: &mut dyn Observer) -> Finished {
    let mut runner = Runner::new(stop, observer);
    while let Some((index, task)) = graph.take() {
        let end = runner.perform(&task);
        let is_over = end.as_ref().is_ok_and(|end| end.stopped);
        graph.close(index, end);
        if is_over || graph.is_refused() {
            break;
        }
    }
    graph.finish(folder)
}
