//! Which students are trained side by side: cells with the same batches and teachers, of whatever plans, form a cohort.

use std::collections::HashSet;

use indexmap::IndexMap;
use limbeck::error::Result;
use limbeck::experiment::TrainConfig;

use crate::plan::{self, Cell, Plan, PlannedCombination, PlannedTeacher};
use crate::store;

/// A cell with the plan that it is of; a cell of several plans stands under the first.
#[derive(Clone, Copy, Debug)]
pub struct Seat<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The cell.
    pub cell: &'a Cell,
}

/// Students that are trained side by side, on the same batches.
#[derive(Clone, Debug)]
pub struct Cohort<'a> {
    /// The students, at least one.
    pub(crate) seats: Vec<Seat<'a>>,
}

/// Each cell of the plans that `take` takes, once, in the order of the plans.
pub fn seats<'a>(plans: impl IntoIterator<Item = &'a Plan>, take: impl Fn(&Plan, &Cell) -> bool) -> Vec<Seat<'a>> {
    let mut seen = HashSet::new();
    let all = plans.into_iter().flat_map(|plan| plan.cells.iter().map(move |cell| Seat { plan, cell }));
    all.filter(|seat| take(seat.plan, seat.cell) && seen.insert(&seat.cell.folder)).collect()
}

/// Groups cells: those of a cohort have data, training, seed, device, threads and teachers in common. Too many for the
/// experiment's `lanes` are split evenly.
///
/// # Errors
/// If a configuration cannot be written as JSON.
pub fn form<'a>(seats: &[Seat<'a>]) -> Result<Vec<Cohort<'a>>> {
    let mut groups: IndexMap<_, Group<'a>> = IndexMap::new();
    for seat in seats {
        groups.entry((base(seat)?, seat.teachers())).or_default().0.push(*seat);
    }
    Ok(groups.values().flat_map(Group::split).collect())
}

/// A cohort before it is split.
#[derive(Default)]
struct Group<'a>(Vec<Seat<'a>>);

impl<'a> Group<'a> {
    fn split(&self) -> Vec<Cohort<'a>> {
        let lanes = self.0.iter().map(|seat| seat.plan.experiment.lanes).min().unwrap_or(1);
        let parts = self.0.len().div_ceil(lanes);
        self.0.chunks(self.0.len().div_ceil(parts)).map(|seats| Cohort { seats: seats.to_vec() }).collect()
    }
}

/// A digest of what all cells of a cohort have in common, but for the teachers.
fn base(seat: &Seat<'_>) -> Result<String> {
    let Plan { experiment, data, device, threads, .. } = seat.plan;
    let (dataset, train): (_, &TrainConfig) = (&data.dataset.info().identity, &experiment.train);
    store::digest(&(dataset, experiment.division(), train, seat.cell.seed, plan::device_name(*device), threads))
}

impl<'a> Seat<'a> {
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
        self.seats[0].plan
    }

    /// The seed of all its students.
    pub fn seed(&self) -> u64 {
        self.seats[0].cell.seed
    }

    /// A name for people: its students' points and seed.
    pub fn name(&self) -> String {
        let mut labels: Vec<&str> = self.seats.iter().map(|seat| seat.plan.label.as_str()).collect();
        labels.dedup();
        let of = match labels[..] {
            [""] => String::new(),
            [label] => format!(" of {label}"),
            _ => format!(" of {} points", labels.len()),
        };
        let students = limbeck_report::words::plural(self.seats.len() as u64, "student");
        format!("seed {}, {students}{of}", self.seed())
    }

    /// Teachers' forward passes, one for each batch, from the beginning to the end of training: (of the cohort, of its
    /// students one by one).
    pub fn passes(&self) -> (u64, u64) {
        let mut together: IndexMap<_, u64> = IndexMap::new();
        let mut alone = 0;
        for (key, epochs) in self.seats.iter().flat_map(Seat::asked_epochs) {
            alone += epochs;
            let most = together.entry(key).or_default();
            *most = (*most).max(epochs);
        }
        let plan = self.plan();
        let steps = plan.data.steps_per_epoch(plan.experiment.train.batch);
        (together.values().sum::<u64>() * steps, alone * steps)
    }
}
