//! Reading experiment files: TOML with overrides, and errors that name file, line, key and remedy.

pub mod grid;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Value;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, Result};
use crate::experiment::Experiment;
use crate::registry::{self, Role};

/// An error in an experiment file or an override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong, and what may have been meant.
    pub message: String,
    /// The key at fault, dotted; empty at the top.
    pub key: String,
    /// Where it stands.
    pub origin: Origin,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A place in a file.
    File {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// The text of that line.
        text: String,
        /// How many columns are meant.
        width: usize,
    },
    /// `--set KEY=VALUE`
    Override(String),
}

impl std::error::Error for Diagnostic {}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.origin {
            Origin::Override(text) => write!(f, "\n  --> --set {text}")?,
            Origin::File { path, line, column, text, width } => {
                let gutter = line.to_string().len();
                write!(f, "\n  --> {}:{line}:{column}", path.display())?;
                write!(f, "\n{:gutter$} |\n{line} | {text}", "")?;
                write!(f, "\n{:gutter$} | {:indent$}{}", "", "", "^".repeat(*width), indent = column - 1)?;
            }
        }
        if !self.key.is_empty() {
            write!(f, "\n  key: {}", self.key)?;
        }
        Ok(())
    }
}

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

/// Gives an error that was found while planning its place: that of the key that it begins with, as in
/// `teacher.big: weights: …`. An error that begins with no key of the file, or has a place already, stays as it is. One of a
/// file becomes one of the configuration, with the system's reason in its message.
pub fn place(error: Error, path: &Path, overrides: &[String]) -> Error {
    let message = match &error {
        Error::Plan(message) => message.clone(),
        Error::Io { source, .. } => format!("{error}: {source}"),
        Error::Data { .. } => error.to_string(),
        _ => return error,
    };
    let Ok(text) = std::fs::read_to_string(path) else { return error };
    let Ok(source) = Source::new(&text, path) else { return error };
    let Ok(draft) = Draft::new(&source, overrides) else { return error };
    match draft.key_of(&message) {
        Some(key) => draft.fault(&key, message),
        None => error,
    }
}

/// The tables of a file while values are replaced in them.
#[derive(Clone)]
struct Draft<'a> {
    source: &'a Source<'a>,
    table: toml::Table,
    /// Where replaced values came from, by key.
    origins: HashMap<String, Origin>,
}

impl<'a> Draft<'a> {
    fn new(source: &'a Source<'a>, overrides: &[String]) -> Result<Self> {
        let mut draft = Draft { source, table: source.table.clone(), origins: HashMap::new() };
        for text in overrides {
            let origin = Origin::Override(text.clone());
            let fault = |message| Box::new(Diagnostic { message, key: String::new(), origin: origin.clone() });
            let (key, value) = assignment(text).map_err(fault)?;
            draft.set(key, value, origin.clone()).map_err(fault)?;
        }
        Ok(draft)
    }

    /// Replaces the value of a key.
    fn set(&mut self, key: &str, value: Value, origin: Origin) -> Result<(), String> {
        self.origins.insert(put(&mut self.table, key, value)?, origin);
        Ok(())
    }

    fn experiment(&self) -> Result<Experiment> {
        let experiment: Experiment = self.read()?;
        experiment.check().map_err(|fault| self.fault(&fault.key, fault.message))?;
        Ok(experiment)
    }

    fn read<T: DeserializeOwned>(&self) -> Result<T> {
        let value = hoist_kind(Value::Table(self.table.clone()));
        Ok(serde_path_to_error::deserialize(value).map_err(|error| {
            let key = match error.path().to_string() {
                top if top == "." => String::new(),
                key => key,
            };
            Box::new(self.source.diagnose(&key, error.inner().message(), &self.table, &self.origins))
        })?)
    }

    /// The longest key of the file, or of an override, that a message begins with, a part before each colon. The label of a
    /// point may come first, and what a term is stands in parentheses behind its number.
    fn key_of(&self, message: &str) -> Option<String> {
        let mut key: Option<String> = None;
        for (i, part) in message.split(": ").enumerate() {
            let name = part.split(" (").next().unwrap_or(part);
            let longer = key.as_deref().map_or_else(|| name.to_owned(), |key| join(key, name));
            match self.has(&longer) {
                true => key = Some(longer),
                false if key.is_some() || i > 0 => break,
                false => {}
            }
        }
        key
    }

    /// Whether the file has that key, with what was replaced in it.
    fn has(&self, key: &str) -> bool {
        self.source.spans.contains_key(key) || get(&self.table, key).is_some()
    }

    /// An error at a key.
    fn fault(&self, key: &str, message: impl Into<String>) -> Error {
        let origin = self.source.locate(key, &self.origins);
        Box::new(Diagnostic { message: message.into(), key: key.to_owned(), origin }).into()
    }
}

/// An experiment file with the place of every key.
struct Source<'a> {
    text: &'a str,
    path: &'a Path,
    table: toml::Table,
    spans: HashMap<String, Range<usize>>,
}

impl<'a> Source<'a> {
    fn new(text: &'a str, path: &'a Path) -> Result<Self> {
        let mut source = Source { text, path, table: toml::Table::new(), spans: HashMap::new() };
        let not_toml = |source: &Self, e: toml::de::Error| {
            let span = e.span().unwrap_or(0..0);
            let message = format!("this is not TOML: {}", e.message().trim());
            Box::new(Diagnostic { message, key: String::new(), origin: source.origin(span) })
        };
        let spanned = DeTable::parse(text).map_err(|e| not_toml(&source, e))?;
        collect_spans(spanned.get_ref(), "", &mut source.spans);
        source.table = text.parse().map_err(|e| not_toml(&source, e))?;
        Ok(source)
    }

    fn origin(&self, span: Range<usize>) -> Origin {
        let start = span.start.min(self.text.len());
        let line_start = self.text[..start].rfind('\n').map_or(0, |i| i + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |i| start + i);
        let width = self.text[start..span.end.clamp(start, line_end)].chars().count().max(1);
        Origin::File {
            path: self.path.to_owned(),
            line: self.text[..start].matches('\n').count() + 1,
            column: self.text[line_start..start].chars().count() + 1,
            text: self.text[line_start..line_end].trim_end().to_owned(),
            width,
        }
    }

    /// The override that gave this key its value, or the key's place in the file, or that of the nearest key above it.
    fn locate(&self, key: &str, set: &HashMap<String, Origin>) -> Origin {
        let above = || std::iter::successors(Some(key), |key| key.rfind(['.', '[']).map(|cut| &key[..cut]));
        if let Some(origin) = above().find_map(|key| set.get(key)) {
            return origin.clone();
        }
        match (self.spans.get(key), set.iter().find(|(other, _)| is_within(other, key))) {
            (None, Some((_, origin))) => origin.clone(),
            _ => self.origin(above().find_map(|key| self.spans.get(key)).cloned().unwrap_or(0..0)),
        }
    }

    /// Puts serde's message into the user's words.
    fn diagnose(&self, key: &str, message: &str, table: &toml::Table, set: &HashMap<String, Origin>) -> Diagnostic {
        let message = message.lines().next().unwrap_or(message).trim();
        let quoted = backquoted(message);
        let (message, key) = if let (true, [unknown, known @ ..]) = (message.starts_with("unknown field"), &quoted[..])
        {
            let hint = match registry::nearest(unknown, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if known.is_empty() => "it takes no keys".to_owned(),
                None => format!("known here: {}", known.join(", ")),
            };
            let inner = if key.is_empty() { (*unknown).to_owned() } else { format!("{key}.{unknown}") };
            let key = if get(table, &inner).is_some() { inner } else { key.to_owned() };
            (format!("unknown key `{unknown}`: {hint}"), key)
        } else if let (true, [unknown, known @ ..]) = (message.starts_with("unknown variant"), &quoted[..]) {
            let inner = if key.ends_with(".kind") { key.to_owned() } else { format!("{key}.kind") };
            let of_kind = get(table, &inner).and_then(Value::as_str) == Some(unknown);
            match (of_kind, role_of(known)) {
                (true, Some(role)) => (registry::unknown(role, unknown), inner),
                _ => {
                    let hint = match registry::nearest(unknown, known.iter().copied()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("known here: {}", known.join(", ")),
                    };
                    (format!("unknown value `{unknown}`: {hint}"), if of_kind { inner } else { key.to_owned() })
                }
            }
        } else if let (true, [missing, ..]) = (message.starts_with("missing field"), &quoted[..]) {
            (format!("the key `{missing}` is missing here"), key.to_owned())
        } else {
            (wrong_type(message, key).unwrap_or_else(|| message.to_owned()), key.to_owned())
        };
        let origin = self.locate(&key, set);
        Diagnostic { message, key, origin }
    }
}

/// The role of which serde lists the kinds: it knows every plugin of it, and test doubles beside them. A kind that is no
/// plugin's, such as a step of a view, may have the name of a plugin, but not of all.
fn role_of(known: &[&str]) -> Option<Role> {
    let has_all = |role: &Role| {
        let plugins = registry::plugins_of(*role);
        !plugins.is_empty() && plugins.iter().all(|plugin| known.contains(&plugin.name))
    };
    Role::ALL.into_iter().filter(|role| *role != Role::Method).find(has_all)
}

/// serde's words for a value of another type, or a list of another length, in those of TOML.
fn wrong_type(message: &str, key: &str) -> Option<String> {
    let said = ["invalid type: ", "invalid value: ", "invalid length "]
        .into_iter()
        .find_map(|start| message.strip_prefix(start))?;
    let (found, expected) = said.rsplit_once(", expected ")?;
    let found = match found {
        "sequence" => "a list".to_owned(),
        "map" => "a table".to_owned(),
        length if message.starts_with("invalid length") => format!("a list of {length}"),
        other => other.to_owned(),
    };
    let expected = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "path string" => "a string",
        "a sequence" => "a list",
        "a map" => "a table",
        // The only lists of two different things that there are.
        "a tuple of size 2" => "a pair [student's tap, teacher's tap]",
        "fewer elements in array" if key.contains(".taps[") => "a pair [student's tap, teacher's tap]",
        "fewer elements in array" => "fewer values",
        plugin if plugin.starts_with("dyn ") && key.ends_with(".kind") => "a name",
        plugin if plugin.starts_with("dyn ") => "a table with a `kind`",
        table if table.starts_with("struct ") => "a table",
        other => other,
    };
    Some(format!("expected {expected}, found {found}"))
}

/// The words between backquotes.
fn backquoted(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

fn collect_spans(table: &DeTable<'_>, prefix: &str, spans: &mut HashMap<String, Range<usize>>) {
    for (key, value) in table {
        let path = join(prefix, key.get_ref());
        spans.insert(path.clone(), key.span());
        collect_value(value.get_ref(), &path, spans);
    }
}

fn collect_value(value: &DeValue<'_>, path: &str, spans: &mut HashMap<String, Range<usize>>) {
    match value {
        DeValue::Table(table) => collect_spans(table, path, spans),
        DeValue::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                let path = format!("{path}[{i}]");
                spans.insert(path.clone(), item.span());
                collect_value(item.get_ref(), &path, spans);
            }
        }
        _ => {}
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

/// A segment of a key: a name or the number of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Name(String),
    Item(usize),
}

/// `a.b[0].c`; names with dots are quoted: `method."x.y".terms`.
fn segments(key: &str) -> Result<Vec<Segment>, String> {
    let mut result = Vec::new();
    let mut rest = key;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let (number, after) = after.split_once(']').ok_or_else(|| format!("`{key}`: a bracket is not closed"))?;
            result.push(Segment::Item(
                number.parse().map_err(|_| format!("`{key}`: `[{number}]` is not the number of an item"))?,
            ));
            rest = after.strip_prefix('.').unwrap_or(after);
        } else if let Some(after) = rest.strip_prefix('"') {
            let (name, after) =
                after.split_once('"').ok_or_else(|| format!("`{key}`: a quotation mark is not closed"))?;
            result.push(Segment::Name(name.to_owned()));
            rest = after.strip_prefix('.').unwrap_or(after);
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            if end == 0 {
                return Err(format!("`{key}`: a name is missing"));
            }
            result.push(Segment::Name(rest[..end].to_owned()));
            rest = rest[end..].strip_prefix('.').unwrap_or(&rest[end..]);
        }
    }
    if result.is_empty() { Err("the key is missing: --set KEY=VALUE".to_owned()) } else { Ok(result) }
}

fn get<'t>(table: &'t toml::Table, key: &str) -> Option<&'t Value> {
    let path = segments(key).ok()?;
    let (Segment::Name(first), rest) = path.split_first()? else { return None };
    rest.iter().try_fold(table.get(first)?, |value, segment| match segment {
        Segment::Name(name) => value.get(name.as_str()),
        Segment::Item(i) => value.get(*i),
    })
}

/// Whether a key is below another one: `a.b` and `a[0]` are below `a`.
fn is_within(key: &str, other: &str) -> bool {
    key.strip_prefix(other).is_some_and(|rest| rest.starts_with(['.', '[']))
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

/// A key in the form of the spans: without quotation marks.
fn normal(path: &[Segment]) -> String {
    path.iter().fold(String::new(), |key, segment| match segment {
        Segment::Name(name) => join(&key, name),
        Segment::Item(i) => format!("{key}[{i}]"),
    })
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
