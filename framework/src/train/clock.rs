//! The time that the parts of a step take.

use std::collections::BTreeSet;
use std::time::Instant;

use indexmap::IndexMap;
use tch::Device;

use super::combined::CombinedTeacher;
use super::config::LoadedTeacher;
use crate::device::synchronize;

/// Times the parts of every Nth step. On a GPU a timed part waits for the device; others do not.
pub(super) struct Clock<'a> {
    pub device: Device,
    pub timed: bool,
    pub data: f64,
    /// By teacher: a lane is charged for those that it asks, and for the members of those that combine others.
    pub teachers: IndexMap<String, f64>,
    pub combined: &'a [LoadedTeacher<CombinedTeacher>],
}

impl Clock<'_> {
    /// The seconds of these teachers.
    pub fn seconds_of(&self, asked: &BTreeSet<&str>) -> f64 {
        let of_combined = self.combined.iter().filter(|loaded| asked.contains(loaded.teacher.name.as_str()));
        let members = of_combined.flat_map(|loaded| loaded.teacher.combination.teachers.iter().map(String::as_str));
        let all: BTreeSet<&str> = asked.iter().copied().chain(members).collect();
        all.into_iter().filter_map(|name| self.teachers.get(name)).sum()
    }

    pub fn since(&self, start: Instant) -> f64 {
        if self.timed {
            synchronize(self.device);
        }
        start.elapsed().as_secs_f64()
    }
}
