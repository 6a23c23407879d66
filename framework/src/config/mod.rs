//! Reading experiment files: TOML with overrides, and errors that name file, line, key and remedy.

pub(crate) mod diagnostic;
mod draft;
pub mod grid;
pub(crate) mod key;
mod source;

use std::path::Path;

use serde::de::DeserializeOwned;

pub use diagnostic::{Diagnostic, Origin};
pub use key::KeyPath;

use crate::error::{Error, Result};
use crate::experiment::Experiment;
use draft::Draft;
use source::Source;

/// Reads an experiment file, applies the overrides (`key=value`, dotted keys, `terms[0].weight`), and checks it.
///
/// # Errors
/// If the file cannot be read, is not TOML, or does not describe an experiment.
pub fn load(path: &Path, overrides: &[String]) -> Result<Experiment> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    parse(&text, path, overrides)
}

/// [`load`] for a text in memory; `path` is only named in errors.
///
/// # Errors
/// As for [`load`].
pub fn parse(text: &str, path: &Path, overrides: &[String]) -> Result<Experiment> {
    let source = Source::new(text, path)?;
    let draft = Draft::new(&source, overrides)?;
    if draft.table.contains_key(grid::KEY) {
        return Err(draft.fault(grid::KEY, "a file with a [grid] is several experiments, and one is wanted here"));
    }
    draft.experiment()
}

/// Reads anything else that is written as an experiment file is, with overrides and the same errors.
///
/// # Errors
/// If the text is not TOML, or does not describe a `T`.
pub fn parse_as<T: DeserializeOwned>(text: &str, path: &Path, overrides: &[String]) -> Result<T> {
    let source = Source::new(text, path)?;
    Draft::new(&source, overrides)?.read()
}

/// Reads a file that is one experiment, or several if it has a `[grid]`; see [`grid`]. Points that `only` leaves no cell
/// are not looked into.
///
/// # Errors
/// As for [`load`]; and if the grid makes no sense, or `only` asks for what it does not have.
pub fn load_grid(path: &Path, overrides: &[String], only: &grid::Filter) -> Result<grid::Grid> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    parse_grid(&text, path, overrides, only)
}

/// [`load_grid`] for a text in memory; `path` is only named in errors.
///
/// # Errors
/// As for [`load_grid`].
pub fn parse_grid(text: &str, path: &Path, overrides: &[String], only: &grid::Filter) -> Result<grid::Grid> {
    let source = Source::new(text, path)?;
    grid::read(Draft::new(&source, overrides)?, only)
}

/// Gives an error that was found while planning the place of its key in the file. An error whose key the file does not
/// have, or that has a place already, stays as it is. One of a file becomes one of the configuration, with the system's
/// reason in its message.
pub fn locate(error: Error, path: &Path, overrides: &[String]) -> Error {
    let (place, message) = match &error {
        Error::Plan { place, .. } | Error::Data { place, .. } => (place, error.to_string()),
        Error::Io { place, source, .. } => (place, format!("{error}: {source}")),
        _ => return error,
    };
    let Ok(text) = std::fs::read_to_string(path) else { return error };
    let Ok(source) = Source::new(&text, path) else { return error };
    let Ok(draft) = Draft::new(&source, overrides) else { return error };
    match draft.known_key(place) {
        Some(key) => draft.fault(&key.to_string(), message),
        None => error,
    }
}
