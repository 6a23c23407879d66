//! The memory of this process, as the system counts it.

use std::fs;

/// The process's peak resident memory in bytes since it started, where the system says.
pub fn peak() -> Option<u64> {
    status("VmHWM:")
}

/// The process's resident memory in bytes, where the system says: what it allocated. Files that it maps, such as libtorch,
/// do not count, for the system drops their pages and reads them again as it likes.
pub fn resident() -> Option<u64> {
    status("RssAnon:")
}

fn status(key: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
