//! Which students are trained side by side: cells with the same batches and teachers, of whatever plans, form a cohort.

use std::path::Path;

use indexmap::IndexMap;
use limbeck::error::Result;
use limbeck::experiment::TrainConfig;
use limbeck_report::store;
use limbeck_report::words::plural;

use super::Plan;
use super::combination::PlannedCombination;
use super::runs::PlannedRun;
use super::teacher::PlannedTeacher;
use crate::words::device_name;

/// Students that are trained side by side, on the same batches.
#[derive(Clone, Debug)]
pub struct Cohort<'a> {
    /// The students, at least one.
    pub(crate) runs: Vec<PlannedRun<'a>>,
}

/// Groups cells: those of a cohort have data, training, seed, device, threads and teachers in common. Too many for the
/// experiment's `lanes` are split evenly.
///
/// # Errors
/// If a configuration cannot be written as JSON.
pub fn form<'a>(runs: &[PlannedRun<'a>]) -> Result<Vec<Cohort<'a>>> {
    let mut groups: IndexMap<_, Group<'a>> = IndexMap::new();
    for run in runs {
        groups.entry((base(run)?, run.teachers())).or_default().0.push(*run);
    }
    Ok(groups.values().flat_map(Group::split).collect())
}

/// A cohort before it is split.
#[derive(Default)]
struct Group<'a>(Vec<PlannedRun<'a>>);

impl<'a> Group<'a> {
    fn split(&self) -> Vec<Cohort<'a>> {
        let lanes = self.0.iter().map(|run| run.plan.experiment.lanes).min().unwrap_or(1);
        let parts = self.0.len().div_ceil(lanes);
        self.0.chunks(self.0.len().div_ceil(parts)).map(|runs| Cohort { runs: runs.to_vec() }).collect()
    }
}

/// A digest of what all cells of a cohort have in common, but for the teachers.
fn base(run: &PlannedRun<'_>) -> Result<String> {
    let Plan { experiment, data, device, threads, .. } = run.plan;
    let (dataset, train): (_, &TrainConfig) = (&data.dataset.info().identity, &experiment.train);
    store::digest(&(dataset, experiment.division(), train, run.cell.seed, device_name(*device), threads))
}

impl<'a> PlannedRun<'a> {
    /// The teachers by name and identity. Those of its whole experiment, also of a student that asks none: it is compared
    /// with them in the end, whoever sits beside it.
    fn teachers(&self) -> Vec<(&'a str, &'a str)> {
        let networks = self.plan.asked_teachers().map(|teacher| (teacher.name.as_str(), teacher.identity.as_str()));
        let combined = self.plan.asked_combinations();
        networks.chain(combined.map(|teacher| (teacher.name.as_str(), teacher.identity.as_str()))).collect()
    }

    /// How many epochs it asks each network in each stage: initial ones by number, the main one without.
    fn asked_epochs(&self) -> IndexMap<(Option<usize>, &'a str), u64> {
        let mut asked = IndexMap::new();
        let epochs = self.plan.experiment.train.epochs;
        let method = self.plan.methods.iter().find(|method| method.name == self.cell.method);
        let terms = method.into_iter().flat_map(|method| &method.terms);
        let mut initial = 0;
        for term in terms {
            let networks = self.plan.networks_of(&term.teacher);
            if let Some(epochs) = term.initial_epochs {
                asked.extend(networks.iter().map(|network| ((Some(initial), *network), epochs)));
                initial += 1;
            }
            for network in networks {
                let last = asked.entry((None, network)).or_insert(0);
                *last = (*last).max(term.last_epoch.unwrap_or(epochs));
            }
        }
        asked
    }
}

impl<'a> Cohort<'a> {
    /// The teachers that combine others and that its students ask or are compared with.
    pub fn combined(&self) -> impl Iterator<Item = &'a PlannedCombination> + use<'a> {
        self.plan().asked_combinations()
    }

    /// The networks that its students ask or are compared with, with the plan that they are of.
    pub fn teachers(&self) -> Vec<(&'a Plan, &'a PlannedTeacher)> {
        let plan = self.plan();
        plan.asked_teachers().map(|teacher| (plan, teacher)).collect()
    }

    /// What its students have in common is that of any of their plans.
    pub fn plan(&self) -> &'a Plan {
        self.runs[0].plan
    }

    /// The seed of all its students.
    pub fn seed(&self) -> u64 {
        self.runs[0].cell.seed
    }

    /// Whether the cell in this folder is one of its students.
    pub(crate) fn trains(&self, folder: &Path) -> bool {
        self.runs.iter().any(|run| run.cell.folder == folder)
    }

    /// A name for people: its students' points and seed.
    pub fn name(&self) -> String {
        let mut labels: Vec<&str> = self.runs.iter().map(|run| run.plan.label.as_str()).collect();
        labels.dedup();
        let of = match labels[..] {
            [""] => String::new(),
            [label] => format!(" of {label}"),
            _ => format!(" of {} points", labels.len()),
        };
        let students = plural(self.runs.len() as u64, "student");
        format!("seed {}, {students}{of}", self.seed())
    }

    /// Teachers' forward passes, one for each batch, from the beginning to the end of training: (of the cohort, of its
    /// students one by one).
    pub fn passes(&self) -> (u64, u64) {
        let mut together: IndexMap<_, u64> = IndexMap::new();
        let mut alone = 0;
        for (key, epochs) in self.runs.iter().flat_map(PlannedRun::asked_epochs) {
            alone += epochs;
            let most = together.entry(key).or_default();
            *most = (*most).max(epochs);
        }
        let plan = self.plan();
        let steps = plan.data.steps_per_epoch(plan.experiment.train.batch);
        (together.values().sum::<u64>() * steps, alone * steps)
    }
}
