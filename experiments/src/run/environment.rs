//! What a run is trained with: versions, commit, device.

use std::fs;
use std::process::Command;

use limbeck::device::DeviceReport;
use limbeck::record::Environment;
use tch::Device;

use crate::words::device_name;

/// What a run on this device is trained with.
pub(super) fn gather(device: Device, threads: usize) -> Environment {
    Environment {
        limbeck: env!("CARGO_PKG_VERSION").to_owned(),
        git: git_state(),
        libtorch: DeviceReport::gather().libtorch_version.unwrap_or_else(|| "unknown".to_owned()),
        device: device_name(device),
        device_name: hardware(device),
        threads,
    }
}

/// The name of the processor or the GPU, as the system gives it.
pub(crate) fn hardware(device: Device) -> String {
    let name = match device {
        Device::Cuda(index) => {
            said_by("nvidia-smi", &["--query-gpu=name", "--format=csv,noheader", &format!("--id={index}")])
        }
        _ => processor(),
    };
    name.unwrap_or_else(|| "unknown".to_owned())
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The commit that is checked out where the run was started.
fn git_state() -> Option<String> {
    let commit = said_by("git", &["rev-parse", "HEAD"])?;
    let changes = said_by("git", &["status", "--porcelain"]).unwrap_or_default();
    Some(if changes.is_empty() { commit } else { format!("{commit}+changes") })
}

/// What a program prints, if it succeeds.
fn said_by(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    if !output.status.success() {
        return None;
    }
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
