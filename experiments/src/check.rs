//! `limbeck check`: does a device compute what the CPU computes, and how fast?
//!
//! Everything that it needs is in the binary: reference numbers, drawn images, networks. It writes to a temporary folder.
//!
//! | module | asks |
//! |---|---|
//! | `numbers` | networks and losses against the reference numbers, float32 against the CPU, the precisions of a teacher |
//! | `cohorts` | every built-in method for ten steps against the CPU, and stopped and resumed; the precisions of a student |
//! | `speed` | seconds per step by part, whether the host runs ahead of the device, what makes it wait |

mod cohorts;
mod numbers;
mod speed;

use std::fmt;
use std::path::Path;

use indexmap::IndexMap;
use limbeck::cohort;
use limbeck::device::{DeviceReport, DeviceSpec};
use limbeck::error::{Error, Result};
use serde::Serialize;
use tch::{Device, Tensor};

use crate::words::device_name;
use crate::{plan, run};

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
    fn new(part: &'static str, verdict: Verdict, text: impl Into<String>) -> Self {
        Finding { part, verdict, text: text.into(), numbers: IndexMap::new() }
    }

    /// Ok if `value` is at most `tolerance`; `text` says of what.
    fn within(part: &'static str, text: &str, value: f64, tolerance: f64) -> Self {
        let verdict = if value <= tolerance { Verdict::Ok } else { Verdict::Failed };
        Finding::new(part, verdict, format!("{text} {value:.1e} (tolerance {tolerance:.0e})"))
            .number("difference", value)
            .number("tolerance", tolerance)
    }

    fn number(mut self, name: &str, value: f64) -> Self {
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

/// What the parts share.
struct Bench<'a> {
    device: Device,
    folder: &'a Path,
    threads: usize,
}

/// One part: all that it finds.
type Work = fn(&Bench<'_>) -> Result<Vec<Finding>>;

/// Checks a device, and says each finding as soon as it is there.
///
/// # Errors
/// If the device is not there, or a temporary folder cannot be had. What goes wrong in a part is a finding.
pub fn run(spec: DeviceSpec, tell: &mut dyn FnMut(&Finding)) -> Result<Report> {
    let device = spec.resolve()?;
    let folder = tempfile::tempdir().map_err(Error::io("create a folder in", std::env::temp_dir()))?;
    let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1);
    let bench = Bench { device, folder: folder.path(), threads };
    let parts: [(&'static str, Work); 7] = [
        ("networks", numbers::networks),
        ("losses", numbers::losses),
        ("cohort", cohorts::against_the_cpu),
        ("resume", cohorts::stopped_and_resumed),
        ("precision", numbers::precisions),
        ("precision", cohorts::precisions),
        ("speed", speed::measure),
    ];
    let mut report = Report {
        device: device_name(device),
        device_name: run::hardware(device),
        libtorch: DeviceReport::gather().libtorch_version,
        findings: Vec::new(),
    };
    for (part, work) in parts {
        let failed = |error: Error| vec![Finding::new(part, Verdict::Failed, error.to_string())];
        for finding in cohort::catch(|| work(&bench)).unwrap_or_else(failed) {
            tell(&finding);
            report.findings.push(finding);
        }
    }
    Ok(report)
}

/// ‖a − b‖ / ‖b‖ in float64, on the CPU; infinite if either is not finite.
fn relative(a: &Tensor, b: &Tensor) -> f64 {
    let double = |t: &Tensor| t.detach().to_device(Device::Cpu).to_kind(tch::Kind::Double);
    let (a, b) = (double(a), double(b));
    let distance = (a - &b).norm().double_value(&[]);
    match distance / b.norm().double_value(&[]) {
        _ if distance == 0.0 => 0.0,
        ratio if ratio.is_nan() => f64::INFINITY,
        ratio => ratio,
    }
}

/// The largest; 0 of nothing, and NaN if one of them is.
fn largest(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(0.0, |a: f64, b| if a.is_nan() || b <= a { a } else { b })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_is_never_within_a_tolerance() {
        let (one, nan) = (Tensor::from_slice(&[3.0, 4.0]), Tensor::from_slice(&[3.0, f64::NAN]));
        assert_eq!(relative(&one, &one), 0.0);
        assert!((relative(&(&one * 1.5), &one) - 0.5).abs() < 1e-12);
        assert_eq!(relative(&nan, &one), f64::INFINITY);
        assert!(largest([1.0, f64::NAN]).is_nan());
        for value in [0.2, f64::INFINITY, f64::NAN] {
            assert_eq!(Finding::within("cohort", "off by", value, 0.1).verdict, Verdict::Failed, "{value}");
        }
        let line = Finding::within("cohort", "off by", 0.2, 0.1).to_string();
        assert_eq!(line, "FAILED    cohort     off by 2.0e-1 (tolerance 1e-1)");
    }
}
