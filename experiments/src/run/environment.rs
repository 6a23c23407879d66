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
        Device::Cuda(index) => Command::new("nvidia-smi")
            .args(["--query-gpu=name", "--format=csv,noheader", &format!("--id={index}")])
            .output()
            .ok()
            .filter(|output| output.status.success())
            .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        _ => fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        }),
    };
    name.unwrap_or_else(|| "unknown".to_owned())
}

/// The commit that is checked out where the run was started.
fn git_state() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let changed = git(&["status", "--porcelain"]).is_some_and(|changes| !changes.is_empty());
    Some(if changed { format!("{commit}+changes") } else { commit })
}
