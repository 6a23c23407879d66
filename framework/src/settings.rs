//! The settings of a plugin: one statement each, from which everything follows that is said of it.

use std::fmt::{Display, Write as _};
use std::ops::{Bound, RangeBounds};

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use toml::Value;

pub use limbeck_derive::Settings;

use crate::error::{Error, Result};

/// The settings of a plugin. Derive it:
///
/// ```
/// use limbeck::prelude::*;
///
/// /// Hints.
/// #[derive(Clone, Debug, Settings)]
/// struct Hints {
///     /// T: logits are divided by it.
///     #[setting(default = 4.0, range = positive)]
///     temperature: f64,
///     /// How many layers are compared.
///     #[setting(example = 3, range = 1..=16)]
///     layers: usize,
/// }
///
/// let hints: Hints = toml::from_str("layers = 2").unwrap();
/// assert_eq!((hints.temperature, hints.layers), (4.0, 2));
/// let error = toml::from_str::<Hints>("layers = 2\ntemperature = 0.0").unwrap_err();
/// assert!(error.message().starts_with("temperature must be positive, not 0"));
/// assert!(toml::from_str::<Hints>("layers = 2\ntemperatur = 4.0").is_err());
/// ```
///
/// A field is a setting. Its documentation is its comment in listings, up to the first empty line. `#[setting(…)]` says:
///
/// | | |
/// |---|---|
/// | `default = …` | its value where a file says nothing; a string in quotation marks becomes a `String` or a `PathBuf` |
/// | `example = …` | of a setting without a default, which a file must give: the value that listings show |
/// | `range = …` | what a file may say: `positive` or `not_negative` (finite numbers), or a range such as `0.0..1.0`, `1..=64`, `1..` |
/// | `fields = …` | where the default is a table: what its keys mean, as a list of [`Setting`]s |
///
/// An `Option` is absent by default. A struct whose settings all have defaults implements [`Default`]. All of them
/// are read and written by serde without more ado: a key that is no field is refused, and so is a value out of range, at its
/// place in the file.
pub trait Settings: Serialize + DeserializeOwned {
    /// All settings in the order of the fields.
    fn settings() -> Vec<Setting>;

    /// Checks values that no file gave, as [`build`](crate::distiller::DistillerConfig::build) supposes them.
    ///
    /// # Errors
    /// If a value is out of its range.
    fn check_ranges(&self) -> Result<()>;
}

/// What a listing says of a setting.
#[derive(Clone, Debug)]
pub struct Setting {
    key: &'static str,
    /// Nothing where it is absent by default.
    value: Option<Value>,
    comment: String,
    /// What the keys of `value` mean, where it is a table.
    fields: Vec<Setting>,
}

impl Setting {
    /// A setting with its default, or the value to show in place of one, and the lines of its documentation.
    pub fn new(key: &'static str, value: &impl Serialize, docs: &[&str]) -> Self {
        let paragraph = docs.iter().map(|line| line.trim()).take_while(|line| !line.is_empty());
        let comment = paragraph.collect::<Vec<_>>().join(" ");
        let comment = comment.strip_suffix('.').unwrap_or(&comment).to_owned();
        Setting { key, value: Value::try_from(value).ok(), comment, fields: Vec::new() }
    }

    /// The same with what the keys of its value mean.
    pub fn with_fields(mut self, fields: Vec<Setting>) -> Self {
        self.fields = fields;
        self
    }

    /// Key and value, if it has one.
    pub(crate) fn entry(self) -> Option<(String, Value)> {
        Some((self.key.to_owned(), self.value?))
    }

    /// `key = value`, without its comment; a comment itself where there is no value.
    fn line(&self) -> String {
        match &self.value {
            Some(value) => format!("{} = {}", self.key, inline(value)),
            None => format!("# {} = …", self.key),
        }
    }

    /// The value, if it is shown as a table of its own.
    fn own_table(&self) -> Option<&toml::Table> {
        let table = self.value.as_ref()?.as_table()?;
        (!self.fields.is_empty() || self.line().chars().count() > WIDTH).then_some(table)
    }
}

/// The longest line of TOML that is shown in one.
pub(crate) const WIDTH: usize = 120;

/// The widest line that comments of other lines are aligned with.
const ALIGNED: usize = 60;

/// Settings as TOML, each with its comment.
pub fn to_toml(settings: &[Setting]) -> String {
    let (tables, lines): (Vec<&Setting>, Vec<&Setting>) =
        settings.iter().partition(|setting| setting.own_table().is_some());
    let mut text = String::new();
    write_lines(&mut text, lines.iter().map(|setting| (setting.line(), setting.comment.as_str())).collect());
    for setting in tables {
        let Some(table) = setting.own_table() else { continue };
        let _ = writeln!(text, "\n[{}]   # {}", setting.key, setting.comment);
        let mut lines = Vec::new();
        for (key, value) in table {
            let field = setting.fields.iter().find(|field| field.key == key);
            lines.push((format!("{} = {}", name(key), inline(value)), field.map_or("", |field| &field.comment)));
        }
        write_lines(&mut text, lines);
    }
    text
}

/// Lines with their comments below one another.
fn write_lines(text: &mut String, lines: Vec<(String, &str)>) {
    let widths = lines.iter().map(|(line, _)| line.chars().count());
    let width = widths.filter(|width| *width <= ALIGNED).max().unwrap_or(0);
    for (line, comment) in lines {
        if comment.is_empty() {
            let _ = writeln!(text, "{line}");
        } else {
            let _ = writeln!(text, "{line:width$}   # {comment}");
        }
    }
}

/// A value in one line. Numbers are as short as they can be and still be read as the same.
pub(crate) fn inline(value: &Value) -> String {
    match value {
        Value::Float(number) => format!("{number:?}"),
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Table(table) if table.is_empty() => "{}".to_owned(),
        Value::Table(table) => {
            let pairs = table.iter().map(|(key, value)| format!("{} = {}", name(key), inline(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// A key, in quotation marks if it needs them.
fn name(key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if bare { key.to_owned() } else { format!("{key:?}") }
}

/// A finite number above 0.
///
/// # Errors
/// If it is none: what it must be.
pub fn positive(value: f64) -> Result<(), String> {
    if value > 0.0 && value.is_finite() { Ok(()) } else { Err(format!("must be positive, not {value}")) }
}

/// A finite number from 0 on.
///
/// # Errors
/// If it is none: what it must be.
pub fn not_negative(value: f64) -> Result<(), String> {
    if value >= 0.0 && value.is_finite() { Ok(()) } else { Err(format!("must not be negative, not {value}")) }
}

/// A value in a range.
///
/// # Errors
/// If it is not: what it must be.
pub fn within<T: PartialOrd + Display>(value: &T, range: impl RangeBounds<T>) -> Result<(), String> {
    if range.contains(value) {
        return Ok(());
    }
    Err(match (range.start_bound(), range.end_bound()) {
        (Bound::Included(least), Bound::Unbounded) => format!("must be at least {least}, not {value}"),
        (Bound::Unbounded, Bound::Included(most)) => format!("must be at most {most}, not {value}"),
        (Bound::Unbounded, Bound::Excluded(above)) => format!("must be below {above}, not {value}"),
        (Bound::Included(least), Bound::Included(most)) => format!("must be in {least}..={most}, not {value}"),
        (Bound::Included(least), Bound::Excluded(above)) => format!("must be in {least}..{above}, not {value}"),
        _ => format!("is out of range: {value}"),
    })
}

/// Reads a setting and checks its range. Used by the derive.
///
/// # Errors
/// Of the format, or if the value is out of its range.
pub fn read<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
    key: &str,
    in_range: fn(&T) -> Result<(), String>,
) -> Result<T, D::Error> {
    let value = T::deserialize(deserializer)?;
    in_range(&value).map_err(|what| D::Error::custom(format!("{key} {what}")))?;
    Ok(value)
}

/// The error of a setting out of its range. Used by the derive.
///
/// # Errors
/// If it is.
pub fn check(key: &str, in_range: Result<(), String>) -> Result<()> {
    in_range.map_err(|what| Error::plan(format!("{key} {what}")))
}
