//! The tables of an experiment file while values are replaced in them.

use std::collections::HashMap;

use serde::de::DeserializeOwned;
use toml::Value;

use super::diagnostic::{Diagnostic, Origin};
use super::key::{KeyPath, Segment, get_path, normal, segments};
use super::source::Source;
use crate::error::{Error, Place, Result};
use crate::experiment::Experiment;
use crate::registry::{self, Role};

/// The tables of a file while values are replaced in them.
#[derive(Clone)]
pub(super) struct Draft<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) table: toml::Table,
    /// Where replaced values came from, by key.
    pub(super) origins: HashMap<String, Origin>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(source: &'a Source<'a>, overrides: &[String]) -> Result<Self> {
        let mut draft = Draft { source, table: source.table.clone(), origins: HashMap::new() };
        for text in overrides {
            let origin = Origin::Override(text.clone());
            let set = assignment(text).and_then(|(key, value)| draft.set(key, value, origin.clone()));
            set.map_err(|message| Box::new(Diagnostic { message, key: String::new(), origin }))?;
        }
        Ok(draft)
    }

    /// Replaces the value of a key.
    pub(super) fn set(&mut self, key: &str, value: Value, origin: Origin) -> Result<(), String> {
        self.origins.insert(put(&mut self.table, key, value)?, origin);
        Ok(())
    }

    pub(super) fn experiment(&self) -> Result<Experiment> {
        let experiment: Experiment = self.read()?;
        experiment.check().map_err(|fault| self.fault(&fault.key, fault.message))?;
        Ok(experiment)
    }

    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T> {
        let value = hoist_kind(Value::Table(self.table.clone()));
        Ok(serde_path_to_error::deserialize(value).map_err(|error| {
            let key = match error.path().to_string() {
                top if top == "." => String::new(),
                key => key,
            };
            Box::new(self.source.diagnose(&key, error.inner().message(), &self.table, &self.origins))
        })?)
    }

    /// How much of an error's key the file has, with what was replaced in it: a part that it lacks ends the key. None, if it
    /// has nothing of it.
    pub(super) fn known_key(&self, place: &Place) -> Option<KeyPath> {
        let mut known = KeyPath::default();
        for key in place.keys() {
            let longer = known.join(key);
            if !self.has(longer.segments()) {
                break;
            }
            known = longer;
        }
        if known.is_empty() { None } else { Some(known) }
    }

    /// Whether the file has that key, with what was replaced in it.
    fn has(&self, path: &[Segment]) -> bool {
        self.source.spans.contains_key(&normal(path)) || get_path(&self.table, path).is_some()
    }

    /// An error at a key.
    pub(super) fn fault(&self, key: &str, message: impl Into<String>) -> Error {
        let origin = self.source.locate(key, &self.origins);
        Box::new(Diagnostic { message: message.into(), key: key.to_owned(), origin }).into()
    }
}

/// Moves `kind` to the front of every table: typetag then reads the rest in place, and errors keep their path.
fn hoist_kind(value: Value) -> Value {
    match value {
        Value::Table(mut table) => {
            let mut sorted = toml::Table::new();
            if let Some(kind) = table.remove("kind") {
                sorted.insert("kind".to_owned(), kind);
            }
            sorted.extend(table.into_iter().map(|(key, value)| (key, hoist_kind(value))));
            Value::Table(sorted)
        }
        Value::Array(items) => Value::Array(items.into_iter().map(hoist_kind).collect()),
        other => other,
    }
}

/// The two sides of `key=value`. A value that is not TOML is a string.
fn assignment(text: &str) -> Result<(&str, Value), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| "an override is KEY=VALUE".to_owned())?;
    let value = value.trim();
    let value = format!("v = {value}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut parsed| parsed.remove("v"))
        .unwrap_or_else(|| Value::String(value.to_owned()));
    Ok((key.trim(), value))
}

/// Replaces a value; returns the key in the form of the spans.
fn put(table: &mut toml::Table, key: &str, value: Value) -> Result<String, String> {
    let path = segments(key)?;
    write_out_built_in(table, &path)?;
    let mut root = Value::Table(std::mem::take(table));
    let result = assign(&mut root, &path, value).map_err(|what| format!("{what} (in `{key}`)"));
    if let Value::Table(root) = root {
        *table = root;
    }
    result.map(|()| normal(&path))
}

/// An override inside a built-in method changes that method: the file says it in full first.
fn write_out_built_in(table: &mut toml::Table, path: &[Segment]) -> Result<(), String> {
    let [Segment::Name(method), Segment::Name(name), _, ..] = path else { return Ok(()) };
    let Some(plugin) = registry::plugins_of(Role::Method).into_iter().find(|plugin| plugin.name == name) else {
        return Ok(());
    };
    if method == "method"
        && let Value::Table(methods) = table.entry("method").or_insert_with(|| Value::Table(toml::Table::new()))
        && !methods.contains_key(name)
    {
        let settings = plugin.default_table().map_err(|e| e.to_string())?;
        methods.insert(name.clone(), Value::Table(settings));
    }
    Ok(())
}

fn assign(target: &mut Value, path: &[Segment], value: Value) -> Result<(), String> {
    let Some((first, rest)) = path.split_first() else {
        *target = value;
        return Ok(());
    };
    let child = match (first, target) {
        (Segment::Name(name), Value::Table(table)) => {
            table.entry(name.clone()).or_insert_with(|| Value::Table(toml::Table::new()))
        }
        (Segment::Item(i), Value::Array(items)) => {
            let count = items.len();
            items.get_mut(*i).ok_or_else(|| format!("there is no item [{i}]: the list has {count}"))?
        }
        (Segment::Name(name), other) => return Err(format!("`{name}` cannot be set in a {}", other.type_str())),
        (Segment::Item(i), other) => return Err(format!("[{i}] cannot be set in a {}", other.type_str())),
    };
    assign(child, rest, value)
}
