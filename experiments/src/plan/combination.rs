//! A teacher that combines others, as planned.

use limbeck::cohort::Data;
use limbeck::combination::{Combination, Combining};
use limbeck::error::{Error, Result};
use limbeck_report::store;

use super::teacher::PlannedTeacher;

/// A teacher that combines others, as planned.
#[derive(Debug)]
pub struct PlannedCombination {
    /// Its name in the experiment.
    pub name: String,
    /// Which, and how.
    pub combination: Combination,
    /// A digest of how, and of the members' identities.
    pub identity: String,
}

impl PlannedCombination {
    /// The names of the teachers that it combines.
    pub fn members(&self) -> impl Iterator<Item = &str> {
        self.combination.teachers.iter().map(String::as_str)
    }
}

/// Plans a teacher that combines some of `teachers`.
pub(super) fn plan_combination(
    name: &str,
    combination: &Combination,
    teachers: &[PlannedTeacher],
    data: &Data,
) -> Result<PlannedCombination> {
    let task = data.dataset.info().task;
    if combination.kind != Combining::MeanLogits && !task.one_class() {
        return Err(Error::plan(format!(
            "{} takes one distribution over all classes, and the targets of these data are {}: combine by mean_logits",
            combination.kind.name(),
            task.targets()
        )));
    }
    let mut members = Vec::new();
    for member in &combination.teachers {
        let Some(teacher) = teachers.iter().find(|teacher| teacher.name == *member) else {
            return Err(Error::plan(format!("there is no teacher `{member}`")));
        };
        members.push(&teacher.identity);
    }
    let identity = store::digest(&(combination.kind, combination.shares(), members))?;
    Ok(PlannedCombination { name: name.to_owned(), combination: combination.clone(), identity })
}
