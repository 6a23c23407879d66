//! Experiments that are planned and run in this process, and what they leave.

use std::fs;
use std::path::Path;

use limbeck::cohort::{Limit, STUDENT, Stop};
use limbeck::config;
use limbeck::error::Result;
use limbeck::event::Observer;
use limbeck::record::{EpochRecord, Summary};
use limbeck_cli::plan::Plan;
use limbeck_cli::run::{self, Finished};
use limbeck_cli::store;

use crate::experiment::overrides;

/// The plan of an experiment whose file would lie in `folder`, and whose runs are in `folder/runs`.
///
/// # Errors
/// What the planner says.
pub fn plan(folder: &Path, text: &str, values: &[&str]) -> Result<Plan> {
    let file = folder.join("experiment.toml");
    Plan::new(config::parse(text, &file, &overrides(values))?, &file, &folder.join("runs"))
}

/// Runs what is planned to its end: nothing may fail.
pub fn execute(plan: &Plan, observer: &mut dyn Observer) -> Finished {
    let finished = run::execute(plan, &Stop::default(), observer).unwrap();
    assert_eq!((&finished.failed, finished.errors.len(), finished.stopped), (&Vec::new(), 0, false));
    finished
}

/// Runs what is planned up to a limit, and says whether that stopped it.
pub fn stops(plan: &Plan, limit: Limit) -> bool {
    let finished = run::execute(plan, &Stop::new(Some(limit)), &mut ()).unwrap();
    assert_eq!((&finished.failed, finished.errors.len()), (&Vec::new(), 0));
    finished.stopped
}

/// A trained student.
#[derive(Debug)]
pub struct Student {
    /// What it was trained by.
    pub method: String,
    /// The bytes of the file with its weights.
    pub weights: Vec<u8>,
    /// What its run came to.
    pub summary: Summary,
}

/// Every student of an experiment.
pub fn students(plan: &Plan) -> Vec<Student> {
    let mut students = Vec::new();
    for cell in &plan.cells {
        let weights = fs::read(cell.folder.join(STUDENT)).unwrap();
        let summary = store::summary(&cell.folder).unwrap().unwrap();
        students.push(Student { method: cell.method.clone(), weights, summary });
    }
    students
}

/// The folder of a method's first student.
pub fn cell<'a>(plan: &'a Plan, method: &str) -> &'a Path {
    &plan.cells.iter().find(|cell| cell.method == method).unwrap().folder
}

/// The bytes of the weights of a method's first student.
pub fn student(plan: &Plan, method: &str) -> Vec<u8> {
    fs::read(cell(plan, method).join(STUDENT)).unwrap()
}

/// The summary of a method's first student.
pub fn summary(plan: &Plan, method: &str) -> Summary {
    store::summary(cell(plan, method)).unwrap().unwrap()
}

/// What of a history must not depend on the clock.
pub fn timeless(history: &[EpochRecord]) -> Vec<EpochRecord> {
    history.iter().map(|record| EpochRecord { seconds: 0.0, ..record.clone() }).collect()
}
