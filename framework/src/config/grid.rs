//! Grids: a file that is several experiments, one for each combination of values.
//!
//! ```toml
//! [grid]
//! "train.batch" = [64, 128]      # an axis: a key and its values. Its name is the key's last part, `batch`
//! exclude = [{ pair = "wide", batch = 128 }, { method = "fsp", seed = [1, 2] }]
//!
//! [[grid.pair]]                  # an axis whose values have names and set several keys each
//! name = "wide"
//! set = { "teacher.big.model.kind" = "resnet32x4", "student.model.kind" = "resnet8x4" }
//! ```
//!
//! A point of the grid is the file with the values of the point in place of its own, as `--set` puts them there; a
//! point's cells are its methods × its seeds. A rule of `exclude` removes the cells that meet all of its conditions.
//!
//! Tables may be nested in place of dotted keys. A table with a `kind` is then a value: it replaces the one in the file.

use std::cell::Cell;

use indexmap::IndexMap;
use toml::Value;

use super::draft::Draft;
use super::key::{Segment, is_within, join, normal, segments};
use crate::error::{Error, Result};
use crate::experiment::{CompareConfig, Experiment};
use crate::nearest::nearest;

/// The table of a grid in an experiment file.
pub(super) const KEY: &str = "grid";
const EXCLUDE: &str = "exclude";
const METHOD: &str = "method";
const SEED: &str = "seed";
/// Keys that cannot differ between points.
const OF_THE_FILE: [&str; 5] = ["format", "name", "device", "threads", "lanes"];
/// More points than this are a slip of the pen.
const MOST_POINTS: usize = 10_000;

/// Where a point is: the value of every axis by the axis' name.
pub type Coordinates = IndexMap<String, String>;

/// A file that is several experiments. One without a `[grid]` has no axes and one point.
#[derive(Clone, Debug)]
pub struct Grid {
    /// The names of the axes with the names of their values.
    pub axes: IndexMap<String, Vec<String>>,
    /// The labels and places of all points, in order, the last axis fastest.
    pub listing: Vec<(String, Coordinates)>,
    /// The points that have cells to be looked at.
    pub points: Vec<Point>,
    /// Which cells are to be looked at, with the axes' own names.
    pub only: Filter,
}

/// One experiment of a grid.
#[derive(Clone, Debug)]
pub struct Point {
    /// A name for people; empty where there are no axes.
    pub label: String,
    /// Where it is.
    pub at: Coordinates,
    /// The experiment, without methods and seeds of which every cell is excluded.
    pub experiment: Experiment,
    exclude: Vec<Filter>,
}

impl Point {
    /// Whether a cell is not excluded.
    pub fn has(&self, method: &str, seed: u64) -> bool {
        !self.exclude.iter().any(|rule| rule.accepts(&self.at, Some((method, seed))))
    }

    /// The cells that are not excluded: methods first, then seeds.
    fn cells(&self) -> impl Iterator<Item = (&str, u64)> {
        all_cells(&self.experiment.compare).filter(|(method, seed)| self.has(method, *seed))
    }
}

fn all_cells(compare: &CompareConfig) -> impl Iterator<Item = (&str, u64)> {
    compare.methods.iter().flat_map(|method| compare.seeds.iter().map(move |seed| (method.as_str(), *seed)))
}

/// Conditions on axes, `method` and `seed`: each key with the values that it may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter(IndexMap<String, Vec<String>>);

impl Filter {
    /// Reads `KEY=VALUE`s; several of one key are alternatives.
    ///
    /// # Errors
    /// If one has no `=`.
    pub fn new<'t>(conditions: impl IntoIterator<Item = &'t str>) -> Result<Self> {
        let mut filter = Filter::default();
        for text in conditions {
            let (key, value) = text
                .split_once('=')
                .ok_or_else(|| Error::plan(format!("--only {text}: a condition is KEY=VALUE, as in method=kd")))?;
            filter.0.entry(key.trim().to_owned()).or_default().push(value.trim().to_owned());
        }
        Ok(filter)
    }

    /// Whether all conditions are met by a cell, given by method and seed. Without a cell: by any cell of the point.
    pub fn accepts(&self, at: &Coordinates, cell: Option<(&str, u64)>) -> bool {
        self.0.iter().all(|(key, values)| match (key.as_str(), cell) {
            (METHOD | SEED, None) => true,
            (METHOD, Some((method, _))) => values.iter().any(|value| value == method),
            (SEED, Some((_, seed))) => values.contains(&seed.to_string()),
            _ => at.get(key).is_some_and(|value| values.contains(value)),
        })
    }

    /// Whether it says nothing of cells, but of axes alone.
    fn is_of_points(&self) -> bool {
        self.0.keys().all(|key| key != METHOD && key != SEED)
    }

    /// The same with the axes' own names.
    ///
    /// # Errors
    /// A key or value that the grid does not have: the key, and what is wrong.
    fn resolve(self, axes: &[Axis]) -> Result<Self, (String, String)> {
        let mut resolved = Filter::default();
        for (key, values) in self.0 {
            let Some(axis) = axes.iter().find(|axis| axis.name == key || axis.key == key) else {
                if key == METHOD || key == SEED {
                    resolved.0.insert(key, values);
                    continue;
                }
                let names = axes.iter().map(|axis| axis.name.as_str()).chain([METHOD, SEED]);
                let message = format!("there is no axis `{key}`: {}", known(&key, names.collect()));
                return Err((key, message));
            };
            for value in &values {
                let Some(choice) = axis.choices.iter().find(|choice| is_same(&choice.label, value)) else {
                    let labels = axis.choices.iter().map(|choice| choice.label.as_str()).collect();
                    let message = format!("the axis `{}` has no value `{value}`: {}", axis.name, known(value, labels));
                    return Err((key, message));
                };
                resolved.0.entry(axis.name.clone()).or_default().push(choice.label.clone());
            }
        }
        Ok(resolved)
    }
}

/// Whether two values are the same, as text or as numbers: 4, 4.0.
fn is_same(one: &str, other: &str) -> bool {
    one == other || one.parse::<f64>().is_ok_and(|one| other.parse() == Ok(one))
}

fn known(name: &str, names: Vec<&str>) -> String {
    match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known here: {}", names.join(", ")),
    }
}

/// An axis.
struct Axis {
    name: String,
    /// Its key in the table of the grid.
    key: String,
    choices: Vec<Choice>,
}

/// A value of an axis.
struct Choice {
    label: String,
    /// What stands for it in the label of a point.
    says: String,
    sets: Vec<Assignment>,
}

/// A value for a key of the experiment.
struct Assignment {
    key: String,
    value: Value,
    /// Where it stands in the file.
    place: String,
}

/// A rule of `exclude`.
struct Rule {
    filter: Filter,
    place: String,
    /// Whether it speaks of methods or seeds of a point that was looked into.
    asked: Cell<bool>,
    /// Whether it removed something there.
    removes: Cell<bool>,
}

pub(super) fn read(mut draft: Draft<'_>, only: &Filter) -> Result<Grid> {
    let (axes, rules) = match draft.table.remove(KEY) {
        None => (Vec::new(), Vec::new()),
        Some(Value::Table(mut grid)) => {
            let exclude = grid.remove(EXCLUDE);
            let axes = read_axes(&draft, &grid)?;
            let rules = exclude.map(|list| read_rules(&draft, &list, &axes)).transpose()?;
            (axes, rules.unwrap_or_default())
        }
        Some(_) => return Err(draft.fault(KEY, "a grid is a table: [grid]")),
    };
    let only = only.clone().resolve(&axes).map_err(|(key, message)| Error::plan(format!("--only {key}: {message}")))?;
    let combinations = combine(&draft, &axes)?;
    let mut grid = Grid {
        axes: axes.iter().map(|axis| (axis.name.clone(), labels(axis))).collect(),
        listing: Vec::new(),
        points: Vec::new(),
        only,
    };
    for choices in combinations {
        let at: Coordinates =
            axes.iter().zip(&choices).map(|(axis, choice)| (axis.name.clone(), choice.label.clone())).collect();
        if rules.iter().any(|rule| rule.filter.is_of_points() && rule.filter.accepts(&at, None)) {
            continue;
        }
        let label = choices.iter().map(|choice| choice.says.as_str()).collect::<Vec<_>>().join(", ");
        if grid.only.accepts(&at, None) {
            let Some(point) = read_point(&draft, &choices, label.clone(), at.clone(), &rules)? else { continue };
            if point.cells().any(|cell| grid.only.accepts(&point.at, Some(cell))) {
                grid.points.push(point);
            }
        }
        grid.listing.push((label, at));
    }
    check_rules(&draft, &rules)?;
    if grid.points.is_empty() {
        return Err(if grid.only.0.is_empty() {
            draft.fault("grid.exclude", "the rules leave nothing of the grid")
        } else {
            Error::plan("nothing meets all conditions of --only: see `limbeck plan` for the cells that there are")
        });
    }
    grid.check_only()?;
    Ok(grid)
}

impl Grid {
    /// A method or seed of `--only` that no cell has, beside others that some have, is a slip.
    fn check_only(&self) -> Result<()> {
        let of_cells = self.only.0.iter().filter(|(key, _)| [METHOD, SEED].contains(&key.as_str()));
        for (key, value) in of_cells.flat_map(|(key, values)| values.iter().map(move |value| (key, value))) {
            let alone = Filter(IndexMap::from([(key.clone(), vec![value.clone()])]));
            if !self.points.iter().any(|point| point.cells().any(|cell| alone.accepts(&point.at, Some(cell)))) {
                return Err(Error::plan(format!(
                    "--only {key}={value}: no such cell meets the other conditions: see `limbeck plan` for those that there are"
                )));
            }
        }
        Ok(())
    }
}

fn labels(axis: &Axis) -> Vec<String> {
    axis.choices.iter().map(|choice| choice.label.clone()).collect()
}

/// Whether an axis can be called by its short name: no other can.
fn is_clear(name: &str, shorts: &[Option<String>]) -> bool {
    ![METHOD, SEED].contains(&name) && shorts.iter().filter(|short| short.as_deref() == Some(name)).count() == 1
}

fn read_axes(draft: &Draft<'_>, grid: &toml::Table) -> Result<Vec<Axis>> {
    let mut lists = Vec::new();
    leaves(grid, "", false, &mut lists);
    let shorts: Vec<Option<String>> = lists.iter().map(|(key, _)| last_name(key)).collect();
    let mut axes: Vec<Axis> = Vec::new();
    for (i, (key, list)) in lists.iter().enumerate() {
        let place = join(KEY, key);
        let path = segments(key).map_err(|message| draft.fault(&place, message))?;
        let Value::Array(items) = list else {
            return Err(draft.fault(&place, format!("an axis is a list of values: \"{key}\" = [A, B, …]")));
        };
        if items.is_empty() {
            return Err(draft.fault(&place, "the axis has no values"));
        }
        let name = shorts[i].clone().filter(|name| is_clear(name, &shorts)).unwrap_or_else(|| key.clone());
        if [METHOD, SEED].contains(&name.as_str()) {
            return Err(draft.fault(&place, format!("no axis can be called `{name}`")));
        }
        let is_named = items.iter().any(|item| item.get("set").is_some());
        let mut choices: Vec<Choice> = Vec::new();
        for (j, item) in items.iter().enumerate() {
            let place = format!("{}[{j}]", join(KEY, &normal(&path)));
            let choice = if is_named { named(draft, item, &place)? } else { plain(&name, key, item, place.clone()) };
            if choices.iter().any(|other| other.label == choice.label) {
                return Err(draft.fault(&place, format!("the axis `{name}` has the value `{}` twice", choice.label)));
            }
            choices.push(choice);
        }
        axes.push(Axis { name, key: key.clone(), choices });
    }
    Ok(axes)
}

/// The leaves of nested tables with their dotted keys. With `kinds`, a table with a `kind` is a leaf.
fn leaves(table: &toml::Table, prefix: &str, kinds: bool, found: &mut Vec<(String, Value)>) {
    for (key, value) in table {
        let key = join(prefix, key);
        match value {
            Value::Table(inner) if !(kinds && inner.contains_key("kind")) => leaves(inner, &key, kinds, found),
            _ => found.push((key, value.clone())),
        }
    }
}

/// The last name in a key: `temperature` of `method.kd.terms[0].distiller.temperature`.
fn last_name(key: &str) -> Option<String> {
    segments(key).ok()?.into_iter().rev().find_map(|segment| match segment {
        Segment::Name(name) => Some(name),
        Segment::Item(_) => None,
    })
}

/// A value of an axis that is a key.
fn plain(name: &str, key: &str, value: &Value, place: String) -> Choice {
    let label = label(value);
    let says = format!("{name}={label}");
    Choice { label, says, sets: vec![Assignment { key: key.to_owned(), value: value.clone(), place }] }
}

/// A value that has a name and sets several keys.
fn named(draft: &Draft<'_>, item: &Value, place: &str) -> Result<Choice> {
    let (Some(Value::String(name)), Some(Value::Table(set)), Some(2)) =
        (item.get("name"), item.get("set"), item.as_table().map(toml::Table::len))
    else {
        let message = "a named value is a table with `name`, a string, and `set`, a table of keys and values";
        return Err(draft.fault(place, message));
    };
    let mut found = Vec::new();
    leaves(set, "", true, &mut found);
    let mut sets = Vec::new();
    for (key, value) in found {
        let path = segments(&key).map_err(|message| draft.fault(place, message))?;
        sets.push(Assignment { key, value, place: format!("{place}.set.{}", normal(&path)) });
    }
    Ok(Choice { label: name.clone(), says: name.clone(), sets })
}

/// A value as it is called: a string by itself, a plugin by its kind.
fn label(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Table(table) => {
            let mut entries = Vec::new();
            for (key, value) in table {
                entries.push(if key == "kind" { label(value) } else { format!("{key}={}", label(value)) });
            }
            entries.join(",")
        }
        Value::Array(items) => items.iter().map(label).collect::<Vec<_>>().join("+"),
        other => other.to_string(),
    }
}

fn read_rules(draft: &Draft<'_>, list: &Value, axes: &[Axis]) -> Result<Vec<Rule>> {
    let place = join(KEY, EXCLUDE);
    let form = "exclude is a list of rules, each a table of conditions: [{ AXIS = VALUE, method = [\"a\", \"b\"] }, …]";
    let Value::Array(items) = list else { return Err(draft.fault(&place, form)) };
    let mut rules = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let place = format!("{place}[{i}]");
        let Some(table) = item.as_table().filter(|table| !table.is_empty()) else {
            return Err(draft.fault(&place, form));
        };
        let mut conditions = IndexMap::new();
        for (key, value) in table {
            let values = match value {
                Value::Array(items) => items.iter().map(label).collect(),
                one => vec![label(one)],
            };
            conditions.insert(key.clone(), values);
        }
        let filter = Filter(conditions);
        let filter = filter.resolve(axes).map_err(|(key, message)| draft.fault(&join(&place, &key), message))?;
        rules.push(Rule { filter, place, asked: Cell::new(false), removes: Cell::new(false) });
    }
    Ok(rules)
}

/// Every choice of a value for each axis, the last axis fastest.
fn combine<'a>(draft: &Draft<'_>, axes: &'a [Axis]) -> Result<Vec<Vec<&'a Choice>>> {
    let count = axes.iter().try_fold(1_usize, |count, axis| count.checked_mul(axis.choices.len()));
    if count.is_none_or(|count| count > MOST_POINTS) {
        return Err(draft.fault(KEY, format!("the grid has more than {MOST_POINTS} points")));
    }
    Ok(axes.iter().fold(vec![Vec::new()], |points, axis| {
        let mut extended = Vec::new();
        for point in points {
            for choice in &axis.choices {
                extended.push([&point[..], &[choice]].concat());
            }
        }
        extended
    }))
}

/// The experiment of a point, unless every cell of it is excluded.
fn read_point(
    draft: &Draft<'_>,
    choices: &[&Choice],
    label: String,
    at: Coordinates,
    rules: &[Rule],
) -> Result<Option<Point>> {
    let mut here = draft.clone();
    for assignment in choices.iter().flat_map(|choice| &choice.sets) {
        put(&mut here, assignment)?;
    }
    let experiment = here.experiment().map_err(|error| at_point(error, &label))?;
    let before = experiment.compare.clone();
    let mut exclude = Vec::new();
    for rule in rules.iter().filter(|rule| rule.filter.accepts(&at, None)) {
        rule.asked.set(true);
        rule.removes.set(rule.removes.get() || all_cells(&before).any(|cell| rule.filter.accepts(&at, Some(cell))));
        exclude.push(rule.filter.clone());
    }
    let mut point = Point { label, at, experiment, exclude };
    let (mut methods, mut seeds) = (before.methods.clone(), before.seeds.clone());
    methods.retain(|method| point.cells().any(|(other, _)| method == other));
    seeds.retain(|seed| point.cells().any(|(_, other)| *seed == other));
    if methods.is_empty() {
        return Ok(None);
    }
    if let Some(baseline) = before.baseline.filter(|baseline| !methods.contains(baseline)) {
        let error = here.fault("compare.baseline", format!("the baseline `{baseline}` is excluded"));
        return Err(at_point(error, &point.label));
    }
    (point.experiment.compare.methods, point.experiment.compare.seeds) = (methods, seeds);
    Ok(Some(point))
}

/// Puts a value of the grid into the file, unless something else has put one there.
fn put(draft: &mut Draft<'_>, assignment: &Assignment) -> Result<()> {
    let origin = draft.source.locate(&assignment.place, &draft.origins);
    let key = segments(&assignment.key)
        .map(|path| normal(&path))
        .map_err(|message| draft.fault(&assignment.place, message))?;
    if OF_THE_FILE.contains(&key.as_str()) {
        return Err(
            draft.fault(&assignment.place, format!("`{key}` is of the whole file: results do not depend on it"))
        );
    }
    if let Some(other) =
        draft.origins.keys().find(|other| **other == key || is_within(other, &key) || is_within(&key, other))
    {
        let message = format!(
            "`{other}` has a value already, from --set or from another axis: choose values of the grid with --only, or \
             replace the axis with --set"
        );
        return Err(draft.fault(&assignment.place, message));
    }
    draft
        .set(&assignment.key, assignment.value.clone(), origin)
        .map_err(|message| draft.fault(&assignment.place, message))
}

/// Says at which point of the grid an error is.
fn at_point(mut error: Error, label: &str) -> Error {
    if let (Error::Config(diagnostic), false) = (&mut error, label.is_empty()) {
        diagnostic.message += &format!(" (at {label})");
    }
    error
}

/// A rule that removes nothing from the points that it speaks of is a mistake.
fn check_rules(draft: &Draft<'_>, rules: &[Rule]) -> Result<()> {
    match rules.iter().find(|rule| rule.asked.get() && !rule.removes.get()) {
        Some(rule) => {
            Err(draft.fault(&rule.place, "the rule excludes nothing: no such method or seed is compared there"))
        }
        None => Ok(()),
    }
}
