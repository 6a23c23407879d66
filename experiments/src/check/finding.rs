//! What a check finds, line by line.

use std::fmt;

use indexmap::IndexMap;
use serde::Serialize;

/// What one part came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Within its tolerance.
    Ok,
    /// Not so.
    Failed,
    /// A number that nothing is promised about.
    Measured,
    /// Not on this device.
    NotApplicable,
}

/// One line of a check.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub part: &'static str,
    /// What it came to.
    pub verdict: Verdict,
    /// In words, with the numbers.
    pub text: String,
    /// The numbers by name; units are in the names.
    pub numbers: IndexMap<String, f64>,
}

impl Finding {
    pub(super) fn new(part: &'static str, verdict: Verdict, text: impl Into<String>) -> Self {
        Finding { part, verdict, text: text.into(), numbers: IndexMap::new() }
    }

    /// Ok if `value` is at most `tolerance`; `text` says of what.
    pub(super) fn within(part: &'static str, text: &str, value: f64, tolerance: f64) -> Self {
        let verdict = if value <= tolerance { Verdict::Ok } else { Verdict::Failed };
        Finding::new(part, verdict, format!("{text} {value:.1e} (tolerance {tolerance:.0e})"))
            .number("difference", value)
            .number("tolerance", tolerance)
    }

    pub(super) fn number(mut self, name: &str, value: f64) -> Self {
        self.numbers.insert(name.to_owned(), value);
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Failed => "FAILED",
            Verdict::Measured => "measured",
            Verdict::NotApplicable => "-",
        };
        write!(f, "{verdict:8}  {:9}  {}", self.part, self.text)
    }
}

/// A whole check.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The device as a configuration names it.
    pub device: String,
    /// Its name as the system gives it.
    pub device_name: String,
    /// libtorch's version.
    pub libtorch: Option<String>,
    /// Line by line.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether no part failed.
    pub fn passed(&self) -> bool {
        self.findings.iter().all(|finding| finding.verdict != Verdict::Failed)
    }
}
