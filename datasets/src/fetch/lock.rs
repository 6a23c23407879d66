//! One process at a time works on an archive.

use std::fs::File;
use std::path::Path;

use limbeck::files::try_lock;
use limbeck::prelude::*;

/// Locks an archive for as long as the file is open.
pub(super) fn lock(file: &File, path: &Path) -> Result<()> {
    if try_lock(file, path)? {
        return Ok(());
    }
    Err(Error::run(format!("another process is at work on {}: wait for it", path.display())))
}
