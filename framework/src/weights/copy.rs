//! Weights of a file into the variables of a network, checked name by name.

use std::collections::HashSet;
use std::path::Path;

use indexmap::IndexMap;
use tch::{Tensor, no_grad_guard};

use crate::error::{Error, Result};
use crate::nearest::nearest;

/// Copies tensors into variables of the same names, in place: kinds are cast, storage stays.
///
/// # Errors
/// If a name is missing on either side or a shape differs: of each sort their number and the first ones, and nothing is
/// copied.
pub fn copy_into(variables: &[(String, Tensor)], source: &IndexMap<String, Tensor>, path: &Path) -> Result<()> {
    if let Some(differences) = differences(variables, source) {
        let hint = match wrapper(variables, source) {
            Some(prefix) => {
                format!("; every name begins with `{prefix}`: `limbeck weights import --strip {prefix}` takes it off")
            }
            None => String::new(),
        };
        return Err(Error::data(path, format!("these are not the weights of this network: {differences}{hint}")));
    }
    let _no_grad = no_grad_guard();
    for (name, variable) in variables {
        if let Some(value) = source.get(name) {
            variable.shallow_clone().f_copy_(value)?;
        }
    }
    Ok(())
}

/// What differs in names and shapes, if anything does.
fn differences(variables: &[(String, Tensor)], source: &IndexMap<String, Tensor>) -> Option<String> {
    const SHOWN: usize = 8;
    let expected: HashSet<&str> = variables.iter().map(|(name, _)| name.as_str()).collect();
    let unexpected: Vec<&str> = source.keys().map(String::as_str).filter(|name| !expected.contains(name)).collect();
    let missing: Vec<&str> =
        variables.iter().map(|(name, _)| name.as_str()).filter(|name| !source.contains_key(*name)).collect();
    let reshaped: Vec<String> = variables
        .iter()
        .filter_map(|(name, variable)| Some((name, variable.size(), source.get(name)?.size())))
        .filter(|(_, expected, found)| expected != found)
        .map(|(name, expected, found)| format!("`{name}` has shape {found:?}, expected {expected:?}"))
        .collect();
    let mut sorts = Vec::new();
    if !reshaped.is_empty() {
        sorts.push(shown(reshaped.iter().take(SHOWN).cloned().collect(), reshaped.len(), "; "));
    }
    if !missing.is_empty() {
        let mut first = Vec::new();
        for name in missing.iter().take(SHOWN) {
            // What is in its right place is not what was meant by another name.
            first.push(match nearest(name, unexpected.iter().copied()) {
                Some(near) => format!("`{name}` (it has `{near}`)"),
                None => format!("`{name}`"),
            });
        }
        sorts.push(format!("{} missing: {}", missing.len(), shown(first, missing.len(), ", ")));
    }
    if !unexpected.is_empty() {
        let first = unexpected.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
        sorts.push(format!("{} unexpected: {}", unexpected.len(), shown(first, unexpected.len(), ", ")));
    }
    (!sorts.is_empty()).then(|| sorts.join("; "))
}

/// The first of so many, and how many more there are.
fn shown(first: Vec<String>, all: usize, separator: &str) -> String {
    let more = all - first.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    first.join(separator) + &more
}

/// The module around the network that a file has before every name: `module.` of `DataParallel`, for example.
fn wrapper(variables: &[(String, Tensor)], source: &IndexMap<String, Tensor>) -> Option<String> {
    let (name, _) = source.first()?;
    let prefix = &name[..=name.find('.')?];
    let inner: Option<Vec<&str>> = source.keys().map(|name| name.strip_prefix(prefix)).collect();
    inner?.iter().any(|inner| variables.iter().any(|(name, _)| name == inner)).then(|| prefix.to_owned())
}
