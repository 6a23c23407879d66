//! Checkpoints: everything that moves, in one file that proves its own integrity, with the one before kept.

use std::fs;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::error::{Error, Result};
use crate::files;
use crate::weights;

/// The name of the newest checkpoint in a run folder.
pub const NEWEST: &str = "checkpoint.safetensors";
/// The name of the one before.
pub const PREVIOUS: &str = "checkpoint.previous.safetensors";
/// One that was written and not yet moved into its place when the process was killed.
const STAGED: &str = "checkpoint.safetensors.tmp";

/// What stands in the file beside the tensors.
#[derive(Serialize, Deserialize)]
struct Note {
    /// The version of this format.
    format: u32,
    /// See [`digest`], in hexadecimal.
    digest: String,
    /// The state, as JSON text: the text itself is what the digest covers.
    state: String,
}

const FORMAT: u32 = 2;

/// A checkpoint that was read and found whole.
#[derive(Debug)]
pub struct Loaded<S> {
    /// What is not a tensor.
    pub state: S,
    /// The tensors by name.
    pub tensors: IndexMap<String, Tensor>,
    /// The file.
    pub path: PathBuf,
    /// Why the newest file was passed over, if it was.
    pub passed_over: Option<String>,
}

/// BLAKE3 over the state and every tensor's name, kind, shape and bytes, by name: tensor by tensor, so that no more than
/// one is copied at a time. Every part goes in behind its length, so that no two contents read the same.
fn digest<'a>(state: &str, tensors: impl IntoIterator<Item = (&'a String, &'a Tensor)>) -> String {
    let mut tensors: Vec<_> = tensors.into_iter().collect();
    tensors.sort_by_key(|(name, _)| *name);
    let mut hasher = blake3::Hasher::new();
    digest_part(&mut hasher, state.as_bytes());
    for (name, tensor) in tensors {
        digest_part(&mut hasher, name.as_bytes());
        digest_part(&mut hasher, format!("{:?} {:?}", tensor.kind(), tensor.size()).as_bytes());
        digest_part(&mut hasher, &weights::bytes_of(tensor));
    }
    hasher.finalize().to_hex().to_string()
}

fn digest_part(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

/// Writes a checkpoint into a run folder; the newest becomes the previous one. Returns its path.
///
/// # Errors
/// If it cannot be written; the older checkpoints are then untouched.
pub fn write<S: Serialize>(folder: &Path, state: &S, tensors: &[(String, Tensor)]) -> Result<PathBuf> {
    let state = serde_json::to_string(state).map_err(|e| Error::run(format!("checkpoint state: {e}")))?;
    let note = Note { format: FORMAT, digest: digest(&state, tensors.iter().map(|(n, t)| (n, t))), state };
    let note = serde_json::to_string(&note).map_err(|e| Error::run(format!("checkpoint note: {e}")))?;
    let newest = folder.join(NEWEST);
    let staged = files::stage(&newest, &weights::to_bytes(tensors, Some(&note))?)?;
    match fs::rename(&newest, folder.join(PREVIOUS)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("move", &newest)(e)),
        _ => {}
    }
    fs::rename(&staged, &newest).map_err(Error::io("replace", &newest))?;
    files::sync_folder(&newest)?;
    Ok(newest)
}

/// Reads the newest whole checkpoint of a run folder; `None` if there is none at all.
///
/// # Errors
/// If there are checkpoints and none is whole: each is named with what is wrong with it.
pub fn read<S: DeserializeOwned>(folder: &Path) -> Result<Option<Loaded<S>>> {
    let mut faults: Vec<String> = Vec::new();
    for name in [NEWEST, PREVIOUS, STAGED] {
        let path = folder.join(name);
        if !path.exists() {
            continue;
        }
        match read_one(&path) {
            Ok((state, tensors)) => {
                let passed_over = if faults.is_empty() { None } else { Some(faults.join("; ")) };
                return Ok(Some(Loaded { state, tensors, path, passed_over }));
            }
            // Killed while the very first one was written: there was none yet.
            Err(_) if name == STAGED && faults.is_empty() => {}
            Err(error) => faults.push(error.to_string()),
        }
    }
    if faults.is_empty() {
        return Ok(None);
    }
    let faults = faults.join("; ");
    Err(Error::run(format!("no checkpoint can be used: {faults}; delete {} to begin anew", folder.display())))
}

fn read_one<S: DeserializeOwned>(path: &Path) -> Result<(S, IndexMap<String, Tensor>)> {
    let file = weights::read(path)?;
    let note = file.note.ok_or_else(|| Error::data(path, "not a checkpoint: it has no note"))?;
    let note: Note =
        serde_json::from_str(&note).map_err(|e| Error::data(path, format!("the checkpoint's note is damaged: {e}")))?;
    if note.format != FORMAT {
        return Err(Error::data(path, format!("checkpoint format {} is not known, expected {FORMAT}", note.format)));
    }
    if digest(&note.state, &file.tensors) != note.digest {
        return Err(Error::data(path, "the checkpoint is damaged: its digest does not fit its content"));
    }
    let state = serde_json::from_str(&note.state)
        .map_err(|e| Error::data(path, format!("the checkpoint's state is of another version: {e}")))?;
    Ok((state, file.tensors))
}

/// Removes the checkpoint before the newest: the run is finished.
///
/// # Errors
/// If the file exists and cannot be removed.
pub(crate) fn remove_previous(folder: &Path) -> Result<()> {
    let path = folder.join(PREVIOUS);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &path)(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensors(value: f64) -> Vec<(String, Tensor)> {
        vec![("w".to_owned(), Tensor::from_slice(&[value, 2.0])), ("i".to_owned(), Tensor::from_slice(&[7_i64]))]
    }

    #[test]
    fn the_newest_whole_checkpoint_is_read() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read::<u64>(folder.path()).unwrap().is_none());
        write(folder.path(), &1_u64, &tensors(1.0)).unwrap();
        write(folder.path(), &2_u64, &tensors(2.0)).unwrap();
        let loaded = read::<u64>(folder.path()).unwrap().unwrap();
        assert_eq!((loaded.state, loaded.passed_over), (2, None));
        assert_eq!(loaded.tensors["w"].double_value(&[0]), 2.0);

        // Any byte of the newest, cut or flipped, is noticed, and the previous one steps in.
        let newest = folder.path().join(NEWEST);
        let whole = fs::read(&newest).unwrap();
        for i in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[i] ^= 0x10;
            for damaged in [&whole[..i], &flipped] {
                fs::write(&newest, damaged).unwrap();
                let loaded = read::<u64>(folder.path()).unwrap().unwrap();
                assert_eq!((loaded.state, loaded.passed_over.is_some()), (1, true), "byte {i}");
            }
        }
        fs::remove_file(&newest).unwrap();
        assert_eq!(read::<u64>(folder.path()).unwrap().unwrap().state, 1);
    }

    #[test]
    fn killed_between_the_two_moves_after_damage_the_staged_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &3_u64, &tensors(3.0)).unwrap();
        fs::rename(folder.path().join(NEWEST), folder.path().join(STAGED)).unwrap();
        fs::write(folder.path().join(PREVIOUS), b"damaged!").unwrap();
        assert_eq!(read::<u64>(folder.path()).unwrap().unwrap().state, 3);
    }

    #[test]
    fn killed_while_the_first_one_is_written_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(STAGED), b"half").unwrap();
        assert!(read::<u64>(folder.path()).unwrap().is_none());
    }

    #[test]
    fn without_a_whole_checkpoint_every_fault_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        write(folder.path(), &1_u64, &tensors(1.0)).unwrap();
        let mut whole = fs::read(place(NEWEST)).unwrap();
        fs::write(place(NEWEST), &whole[..whole.len() - 3]).unwrap();
        whole.pop();
        whole.push(7);
        fs::write(place(PREVIOUS), &whole).unwrap();
        let expected = format!(
            "no checkpoint can be used: {}: cut short: {} of {} bytes are there; {}: the checkpoint is damaged: its digest \
             does not fit its content; delete {} to begin anew",
            place(NEWEST).display(),
            whole.len() - 3,
            whole.len(),
            place(PREVIOUS).display(),
            folder.path().display()
        );
        assert_eq!(read::<u64>(folder.path()).unwrap_err().to_string(), expected);
    }
}
