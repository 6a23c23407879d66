//! What became of the checks of a plugin.

use std::fmt;

use limbeck::registry::Role;
use serde::Serialize;

/// What became of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", content = "why", rename_all = "snake_case")]
pub enum Outcome {
    /// It holds.
    Held,
    /// It was not made, for this reason.
    Skipped(String),
    /// It does not hold: what was found, and what to do about it.
    Fault(String),
}

/// One check and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What must hold, in words.
    pub check: &'static str,
    /// Whether it does.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Every check of one plugin, in the order in which they were made. As text, a line each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The plugin's role.
    pub role: Role,
    /// Its name.
    pub name: String,
    /// The checks.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The checks that do not hold: (check, fault).
    pub fn faults(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.findings.iter().filter_map(|finding| match &finding.outcome {
            Outcome::Fault(fault) => Some((finding.check, fault.as_str())),
            Outcome::Held | Outcome::Skipped(_) => None,
        })
    }

    /// Ends a test if there is a fault.
    ///
    /// # Panics
    /// If a check does not hold, with the whole report.
    #[track_caller]
    pub fn assert(&self) {
        assert!(self.faults().next().is_none(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} `{}`:", self.role, self.name)?;
        for Finding { check, outcome } in &self.findings {
            match outcome {
                Outcome::Held => writeln!(f, "  ok       {check}")?,
                Outcome::Skipped(why) => writeln!(f, "  skipped  {check}: {why}")?,
                Outcome::Fault(fault) => writeln!(f, "  FAULT    {check}: {fault}")?,
            }
        }
        Ok(())
    }
}
