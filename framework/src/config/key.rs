//! Keys: `a.b[0].c`.

use std::fmt;

use toml::Value;

/// A segment of a key: a name or the number of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Name(String),
    Item(usize),
}

/// A key of an experiment file, or a part of one, as a value: `"train"`, `["teacher", "big"]`, and with
/// [`item`](Self::item) `terms[0]`. Names are taken as they are, dots included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPath(Vec<Segment>);

impl KeyPath {
    /// Item `index` of the list under this key.
    #[must_use]
    pub fn item(mut self, index: usize) -> Self {
        self.0.push(Segment::Item(index));
        self
    }

    /// The key of `inner` below this one.
    #[must_use]
    pub fn join(&self, inner: &KeyPath) -> Self {
        KeyPath([&self.0[..], &inner.0].concat())
    }

    /// Whether it is the file's top.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.0
    }
}

impl From<&str> for KeyPath {
    fn from(name: &str) -> Self {
        KeyPath::from([name])
    }
}

impl<const N: usize> From<[&str; N]> for KeyPath {
    fn from(names: [&str; N]) -> Self {
        KeyPath(names.into_iter().map(|name| Segment::Name(name.to_owned())).collect())
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&normal(&self.0))
    }
}

/// `a.b[0].c`; names with dots are quoted: `method."x.y".terms`.
pub(super) fn segments(key: &str) -> Result<Vec<Segment>, String> {
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

pub(super) fn get<'t>(table: &'t toml::Table, key: &str) -> Option<&'t Value> {
    get_path(table, &segments(key).ok()?)
}

pub(super) fn get_path<'t>(table: &'t toml::Table, path: &[Segment]) -> Option<&'t Value> {
    let (Segment::Name(first), rest) = path.split_first()? else { return None };
    rest.iter().try_fold(table.get(first)?, |value, segment| match segment {
        Segment::Name(name) => value.get(name.as_str()),
        Segment::Item(i) => value.get(*i),
    })
}

/// Whether a key is below another one: `a.b` and `a[0]` are below `a`.
pub(super) fn is_within(key: &str, other: &str) -> bool {
    key.strip_prefix(other).is_some_and(|rest| rest.starts_with(['.', '[']))
}

/// A key in the form of the spans: without quotation marks.
pub(super) fn normal(path: &[Segment]) -> String {
    path.iter().fold(String::new(), |key, segment| match segment {
        Segment::Name(name) => join(&key, name),
        Segment::Item(i) => format!("{key}[{i}]"),
    })
}

pub(super) fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}
