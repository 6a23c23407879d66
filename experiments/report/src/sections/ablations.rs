//! Ablations: the accuracy by a setting that points of a sweep differ in.

use std::path::Path;

use indexmap::{IndexMap, IndexSet};
use serde::Serialize;

use crate::chart::{self, Series};
use crate::csv::{self, Columns, CsvFile};
use crate::document::{Block, Figure};
use crate::numbers::spread_cell;
use crate::study::Study;
use crate::survey::Survey;
use crate::table::{Cell, Table};

/// The most pictures of one axis; the tables have all panels.
const PANELS: usize = 12;

/// The numbers of the pictures.
pub const FILE: CsvFile = CsvFile {
    name: "ablations.csv",
    about: |_| "a row for each method at each value of a setting, the others held".to_owned(),
    text: |survey| csv::text(rows(survey)),
};

/// A method at a point of a panel.
#[derive(Serialize)]
struct AblationRow<'a> {
    sweep: &'a str,
    axis: &'a str,
    value: &'a str,
    held: String,
    method: &'a str,
    seeds: usize,
    #[serde(flatten)]
    score: Columns,
}

/// An axis of a sweep that is a setting: along it the networks are the same.
struct Axis<'a> {
    sweep: &'a str,
    name: &'a str,
    /// One for each combination of values of the other axes.
    panels: Vec<Panel<'a>>,
}

impl<'a> Axis<'a> {
    fn studies(&self) -> impl Iterator<Item = &'a Study> {
        self.panels.iter().flat_map(|panel| &panel.points).map(|(_, study)| *study)
    }
}

/// Points of a sweep that differ in one axis alone.
struct Panel<'a> {
    /// The axes that are held, those with one value left out: (axis, value).
    held: Vec<(&'a str, &'a str)>,
    /// (value, study), in the order of the axis, at least two.
    points: Vec<(&'a str, &'a Study)>,
}

impl Panel<'_> {
    /// `critic = nce, width = 64`; empty where nothing else varies.
    fn held(&self) -> String {
        self.held.iter().map(|(axis, value)| format!("{axis} = {value}")).collect::<Vec<_>>().join(", ")
    }

    /// Whether its points have the same networks.
    fn has_one_pair(&self) -> bool {
        self.points.iter().map(|(_, study)| study.networks()).collect::<IndexSet<_>>().len() == 1
    }
}

/// The axes of all sweeps that are settings, in the order of the sweep.
fn axes(survey: &Survey) -> Vec<Axis<'_>> {
    let mut sweeps: IndexMap<&Path, Vec<&Study>> = IndexMap::new();
    for study in &survey.studies {
        if let Some(point) = &study.point {
            sweeps.entry(&point.folder).or_default().push(study);
        }
    }
    let mut axes = Vec::new();
    for points in sweeps.values() {
        let varying = varying(points);
        for name in &varying {
            let panels = panels(points, name, &varying);
            if !panels.is_empty() && panels.iter().all(Panel::has_one_pair) {
                axes.push(Axis { sweep: points[0].title(), name, panels });
            }
        }
    }
    axes
}

/// The axes along which points of a sweep have several values.
fn varying<'a>(points: &[&'a Study]) -> Vec<&'a str> {
    let mut names: IndexSet<&str> = IndexSet::new();
    for point in points.iter().filter_map(|study| study.point.as_ref()) {
        names.extend(point.at.keys().map(String::as_str));
    }
    names.retain(|name| points.iter().any(|study| value(study, name) != value(points[0], name)));
    names.into_iter().collect()
}

/// Where a study is along an axis.
fn value<'a>(study: &'a Study, axis: &str) -> &'a str {
    study.point.as_ref().and_then(|point| point.at.get(axis)).map_or("", String::as_str)
}

/// Axes and where a study is along them.
type Held<'a> = Vec<(&'a str, &'a str)>;

/// The points by what they have in common beside one axis.
fn panels<'a>(points: &[&'a Study], axis: &str, varying: &[&'a str]) -> Vec<Panel<'a>> {
    let mut panels: IndexMap<Held<'_>, Vec<(&str, &Study)>> = IndexMap::new();
    for study in points {
        let others = varying.iter().filter(|other| **other != axis);
        let held = others.map(|other| (*other, value(study, other))).collect();
        panels.entry(held).or_default().push((value(study, axis), *study));
    }
    panels.retain(|_, points| points.len() > 1);
    panels.into_iter().map(|(held, points)| Panel { held, points }).collect()
}

/// For each axis its pictures and a table.
pub fn blocks(survey: &Survey) -> Vec<Block> {
    let axes = axes(survey);
    let sweeps = axes.iter().map(|axis| axis.sweep).collect::<IndexSet<_>>().len();
    let mut blocks = Vec::new();
    for axis in &axes {
        let methods = methods(survey, axis);
        if methods.is_empty() {
            continue;
        }
        let place = if sweeps > 1 { format!("{}: ", axis.sweep) } else { String::new() };
        blocks.push(Block::Heading(format!("{place}{}", axis.name)));
        blocks.push(Block::Text(text(survey, axis)));
        let shown = axis.panels.iter().take(PANELS);
        blocks.push(Block::Figures(shown.map(|panel| figure(survey, axis, panel, &methods)).collect()));
        blocks.push(Block::Table(table(survey, axis, &methods)));
    }
    blocks
}

/// The methods that have a result at any point.
fn methods<'a>(survey: &'a Survey, axis: &Axis<'_>) -> Vec<&'a str> {
    let methods = survey.methods.iter().map(String::as_str);
    methods.filter(|method| axis.studies().any(|study| study.mean(method).is_some())).collect()
}

fn text(survey: &Survey, axis: &Axis<'_>) -> String {
    let mut text = format!(
        "Points that differ in `{}` alone, a line for each method: {}. A method that has nothing of this setting is one student \
         for all values, and its line is level.",
        axis.name,
        survey.accuracy.describe(survey.task)
    );
    let seeds: IndexSet<usize> =
        axis.studies().flat_map(|study| &study.methods).filter_map(|method| Some(method.score?.count)).collect();
    text += if seeds.iter().all(|count| *count > 1) && !seeds.is_empty() {
        " The band is one sample deviation over seeds to either side."
    } else if seeds.iter().any(|count| *count > 1) {
        " The band is one sample deviation over seeds to either side; where there is one seed it has no width."
    } else {
        " Of one seed there is no deviation, and no band: how far seeds scatter is not known."
    };
    let panels = axis.panels.len();
    if panels > 1 {
        text += " There is a picture for each combination of the other settings, which its title names.";
    }
    if panels > PANELS {
        text += &format!(" The first {PANELS} of {panels} are drawn; the table has all.");
    }
    text
}

fn figure(survey: &Survey, axis: &Axis<'_>, panel: &Panel<'_>, methods: &[&str]) -> Figure {
    let values: Vec<&str> = panel.points.iter().map(|(value, _)| *value).collect();
    let mut series = Vec::new();
    let mut legend = Vec::new();
    for (index, name) in methods.iter().enumerate() {
        let points = points(panel, name, &values);
        legend.push(if points.is_empty() { String::new() } else { (*name).to_owned() });
        series.push(Series { name: (*name).to_owned(), index, points });
    }
    let score = survey.task.score();
    let caption = if panel.held.is_empty() { format!("{} by {}", score.title(), axis.name) } else { panel.held() };
    let title = format!("{}: {} by {}, {}", axis.sweep, score.short, axis.name, panel.held());
    let svg = chart::settings(title.trim_end_matches(", "), axis.name, &score.axis(), &values, &series);
    Figure { caption, svg, legend, numbers: FILE.name_if_written(survey) }
}

/// (place among the values, mean, deviation) of a method. Numbers are joined by their size, whatever their order in the file.
fn points(panel: &Panel<'_>, method: &str, values: &[&str]) -> Vec<(f64, f64, Option<f64>)> {
    let mut points = Vec::new();
    for (at, (_, study)) in panel.points.iter().enumerate() {
        if let Some(score) = study.method(method).and_then(|method| method.score) {
            points.push((at as f64, score.mean, score.deviation));
        }
    }
    if let Some(numbers) = chart::numbers(values) {
        points.sort_by(|a, b| numbers[a.0 as usize].total_cmp(&numbers[b.0 as usize]));
    }
    points
}

/// Every value of every panel, a column for each method.
fn table(survey: &Survey, axis: &Axis<'_>, methods: &[&str]) -> Table {
    let mut header: Vec<&str> = Vec::new();
    if let Some(panel) = axis.panels.first() {
        header.extend(panel.held.iter().map(|(axis, _)| *axis));
    }
    header.push(axis.name);
    let left = header.len();
    header.extend(methods);
    let caption = format!("{} by `{}`", survey.task.score().title(), axis.name);
    let mut table = Table::new(header).left(left).caption(caption);
    for panel in &axis.panels {
        for (value, study) in &panel.points {
            let mut row: Vec<Cell> = panel.held.iter().map(|(_, value)| Cell::from(*value)).collect();
            row.push((*value).into());
            for name in methods {
                let score = study.method(name).and_then(|method| method.score);
                row.push(spread_cell(score, survey.task.score().unit));
            }
            table.row(row);
        }
    }
    table
}

fn rows(survey: &Survey) -> Vec<AblationRow<'_>> {
    let mut rows = Vec::new();
    for axis in axes(survey) {
        for panel in &axis.panels {
            for (value, study) in &panel.points {
                for method in study.methods.iter().filter(|method| method.score.is_some()) {
                    rows.push(AblationRow {
                        sweep: axis.sweep,
                        axis: axis.name,
                        value,
                        held: panel.held(),
                        method: &method.name,
                        seeds: method.results.len(),
                        score: csv::spread(survey.task.score().key, method.score).into(),
                    });
                }
            }
        }
    }
    rows
}
