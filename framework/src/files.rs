//! Files that a kill leaves whole, and folders in which one process works at a time.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Replaces a file in one move: written beside it, synced, renamed. A kill at any moment leaves the old or the new one.
///
/// # Errors
/// If the folder is not writable or the disk is full; the old file is then untouched.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let staged = stage(path, bytes)?;
    fs::rename(&staged, path).map_err(Error::io("replace", path))?;
    sync_folder(path)
}

/// Writes and syncs the file that is to become `path`.
pub(crate) fn stage(path: &Path, bytes: &[u8]) -> Result<PathBuf> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let staged = path.with_file_name(name);
    if let Err(error) = write_synced(&staged, bytes) {
        // The half-written file is of no use to anyone; that it may not go away either changes nothing.
        let _ = fs::remove_file(&staged);
        return Err(Error::io("write", path)(error));
    }
    Ok(staged)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a rename in the folder of `path` durable.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io("sync", folder))
}

/// One process at a time works in a folder, for as long as it holds what this returns.
///
/// # Errors
/// If another process is at work there, or the folder is not writable.
pub fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let file = File::create(&path).map_err(Error::io("create", &path))?;
    if try_lock(&file, &path)? {
        return Ok(file);
    }
    Err(Error::plan(format!(
        "another process is at work in {}: wait for it, or choose another folder with --out",
        folder.display()
    )))
}

/// Locks a file for this process, for as long as it is open; false if another process has locked it.
///
/// # Errors
/// If the file system cannot lock it.
pub fn try_lock(file: &File, path: &Path) -> Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", path)(error)),
    }
}
