//! An experiment file with the place of every key, and serde's errors in the user's words.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use toml::Value;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Origin};
use super::key::{get, is_within, join};
use crate::error::Result;
use crate::nearest::nearest;
use crate::registry::{self, Role};

/// An experiment file with the place of every key.
pub(super) struct Source<'a> {
    text: &'a str,
    path: &'a Path,
    pub(super) table: toml::Table,
    pub(super) spans: HashMap<String, Range<usize>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str, path: &'a Path) -> Result<Self> {
        let mut source = Source { text, path, table: toml::Table::new(), spans: HashMap::new() };
        let spanned = DeTable::parse(text).map_err(|e| source.not_toml(e))?;
        collect_spans(spanned.get_ref(), "", &mut source.spans);
        source.table = text.parse().map_err(|e| source.not_toml(e))?;
        Ok(source)
    }

    fn not_toml(&self, e: toml::de::Error) -> Box<Diagnostic> {
        let span = e.span().unwrap_or(0..0);
        let message = format!("this is not TOML: {}", e.message().trim());
        Box::new(Diagnostic { message, key: String::new(), origin: self.origin(span) })
    }

    pub(super) fn origin(&self, span: Range<usize>) -> Origin {
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
    pub(super) fn locate(&self, key: &str, set: &HashMap<String, Origin>) -> Origin {
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
    pub(super) fn diagnose(
        &self,
        key: &str,
        message: &str,
        table: &toml::Table,
        set: &HashMap<String, Origin>,
    ) -> Diagnostic {
        let message = message.lines().next().unwrap_or(message).trim();
        let quoted = backquoted(message);
        let (message, key) = if let (true, [unknown, known @ ..]) = (message.starts_with("unknown field"), &quoted[..])
        {
            let hint = match nearest(unknown, known.iter().copied()) {
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
                    let hint = match nearest(unknown, known.iter().copied()) {
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
    Role::ALL.into_iter().filter(|role| *role != Role::Method).find(|role| {
        let plugins = registry::plugins_of(*role);
        !plugins.is_empty() && plugins.iter().all(|plugin| known.contains(&plugin.name))
    })
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
