//! The checks of a plugin, made one after the other.

use limbeck::cohort::catch;
use limbeck::error::{Error, Result};

use crate::report::{Finding, Outcome};

/// The checks of a plugin so far.
pub struct Trial {
    pub findings: Vec<Finding>,
}

impl Trial {
    /// Makes a check. A panic is a fault too.
    pub fn check(&mut self, check: &'static str, work: impl FnOnce() -> Result<()>) -> bool {
        self.value(check, work).is_some()
    }

    /// Makes a check that gives something for those that follow.
    pub fn value<T>(&mut self, check: &'static str, work: impl FnOnce() -> Result<T>) -> Option<T> {
        let (outcome, value) = match catch(|| tch::with_grad(work)) {
            Ok(value) => (Outcome::Held, Some(value)),
            Err(error) => (Outcome::Fault(error.to_string()), None),
        };
        self.findings.push(Finding { check, outcome });
        value
    }

    /// Makes a check that says something only where another one holds.
    pub fn check_if(&mut self, sound: bool, else_why: &str, check: &'static str, work: impl FnOnce() -> Result<()>) {
        if sound {
            self.check(check, work);
        } else {
            self.skip(check, else_why);
        }
    }

    pub fn skip(&mut self, check: &'static str, why: &str) {
        self.findings.push(Finding { check, outcome: Outcome::Skipped(why.to_owned()) });
    }
}

pub fn ensure(holds: bool, fault: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::run(fault())) }
}
