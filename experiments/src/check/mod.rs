//! `limbeck check`: does a device compute what the CPU computes, and how fast?
//!
//! Everything that it needs is in the binary: reference numbers, drawn images, networks. It writes to a temporary folder.
//!
//! | module | asks |
//! |---|---|
//! | `numbers` | networks and losses against the reference numbers, float32 against the CPU, the precisions of a teacher |
//! | `cohorts` | every built-in method for ten steps against the CPU, and stopped and resumed; the precisions of a student |
//! | `speed` | seconds per step by part, whether the host runs ahead of the device, what makes it wait |

mod bench;
mod cohorts;
mod finding;
mod numbers;
mod speed;

use limbeck::cohort;
use limbeck::device::{DeviceReport, DeviceSpec};
use limbeck::error::{Error, Result};

use crate::run::environment::hardware;
use crate::words::device_name;

use bench::Bench;

pub use finding::{Finding, Report, Verdict};

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
        device_name: hardware(device),
        libtorch: DeviceReport::gather().libtorch_version,
        findings: Vec::new(),
    };
    for (part, work) in parts {
        let findings = match cohort::catch(|| work(&bench)) {
            Ok(findings) => findings,
            Err(error) => vec![Finding::new(part, Verdict::Failed, error.to_string())],
        };
        for finding in findings {
            tell(&finding);
            report.findings.push(finding);
        }
    }
    Ok(report)
}
