//! Ablations: the accuracy by a setting that points of a sweep differ in.

use crate::report::Survey;
use crate::report::document::{Block, Figure};
use crate::report::numbers::spread;
use crate::report::picture::{self, Series};
use crate::report::study::Study;
use crate::report::table::{Cell, Table};

use super::distinct;

/// The most pictures of one axis; the tables have all panels.
const PANELS: usize = 12;

/// An axis of a sweep that is a setting: along it the networks are the same.
pub struct Axis<'a> {
    pub sweep: &'a str,
    pub name: &'a str,
    /// One for each combination of values of the other axes.
    pub panels: Vec<Panel<'a>>,
}

/// Points of a sweep that differ in one axis alone.
pub struct Panel<'a> {
    /// The axes that are held, those with one value left out: (axis, value).
    held: Vec<(&'a str, &'a str)>,
    /// (value, study), in the order of the axis, at least two.
    pub points: Vec<(&'a str, &'a Study)>,
}

impl Panel<'_> {
    /// `critic = nce, width = 64`; empty where nothing else varies.
    pub fn held(&self) -> String {
        self.held.iter().map(|(axis, value)| format!("{axis} = {value}")).collect::<Vec<_>>().join(", ")
    }
}

/// The axes of all sweeps that are settings, in the order of the sweep.
pub fn axes(survey: &Survey) -> Vec<Axis<'_>> {
    let folders = distinct(survey.studies.iter().filter_map(|study| Some(&study.point.as_ref()?.folder)));
    let mut axes = Vec::new();
    for folder in folders {
        let points = survey.studies.iter().filter(|study| study.point.as_ref().is_some_and(|p| p.folder == *folder));
        let points: Vec<&Study> = points.collect();
        let names = distinct(points.iter().flat_map(|study| coordinates(study).map(|(axis, _)| axis)));
        let several = |name: &&str| distinct(points.iter().map(|study| value(study, name))).len() > 1;
        let varying: Vec<&str> = names.into_iter().filter(several).collect();
        for name in &varying {
            let panels = panels(&points, name, &varying);
            let is_setting = |panel: &Panel<'_>| distinct(panel.points.iter().map(|(_, s)| s.networks())).len() == 1;
            if !panels.is_empty() && panels.iter().all(is_setting) {
                axes.push(Axis { sweep: points.first().map_or("", |study| study.title()), name, panels });
            }
        }
    }
    axes
}

fn coordinates(study: &Study) -> impl Iterator<Item = (&str, &str)> {
    let at = study.point.iter().flat_map(|point| &point.at);
    at.map(|(axis, value)| (axis.as_str(), value.as_str()))
}

fn value<'a>(study: &'a Study, axis: &str) -> &'a str {
    coordinates(study).find(|(name, _)| *name == axis).map_or("", |(_, value)| value)
}

/// The points by what they have in common beside one axis.
fn panels<'a>(points: &[&'a Study], axis: &str, varying: &[&'a str]) -> Vec<Panel<'a>> {
    let mut panels: Vec<Panel<'a>> = Vec::new();
    for study in points {
        let others = varying.iter().filter(|other| **other != axis);
        let held: Vec<(&str, &str)> = others.map(|other| (*other, value(study, other))).collect();
        let point = (value(study, axis), *study);
        match panels.iter_mut().find(|panel| panel.held == held) {
            Some(panel) => panel.points.push(point),
            None => panels.push(Panel { held, points: vec![point] }),
        }
    }
    panels.retain(|panel| panel.points.len() > 1);
    panels
}

/// For each axis its pictures and a table.
pub fn blocks(survey: &Survey) -> Vec<Block> {
    let axes = axes(survey);
    let sweeps = distinct(axes.iter().map(|axis| axis.sweep)).len();
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
    let studies = || axis.panels.iter().flat_map(|panel| &panel.points).map(|(_, study)| study);
    let methods = survey.methods.iter().map(String::as_str);
    methods.filter(|method| studies().any(|study| study.mean(method).is_some())).collect()
}

fn text(survey: &Survey, axis: &Axis<'_>) -> String {
    let mut text = format!(
        "Points that differ in `{}` alone, a line for each method: {}. A method that has nothing of this setting is one student \
         for all values, and its line is level.",
        axis.name,
        survey.accuracy.describe(survey.measure.task())
    );
    let studies = || axis.panels.iter().flat_map(|panel| &panel.points).map(|(_, study)| study);
    let spreads = || studies().flat_map(|study| &study.methods).filter_map(|method| method.score);
    text += match (spreads().any(|score| score.count > 1), spreads().all(|score| score.count > 1)) {
        (true, true) => " The band is one sample deviation over seeds to either side.",
        (true, false) => {
            " The band is one sample deviation over seeds to either side; where there is one seed it has no width."
        }
        _ => " Of one seed there is no deviation, and no band: how far seeds scatter is not known.",
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
    let series = |(index, name): (usize, &&str)| {
        let point = |(at, (_, study)): (usize, &(&str, &Study))| {
            let score = study.method(name)?.score?;
            Some((at as f64, score.mean, score.deviation))
        };
        let mut points: Vec<_> = panel.points.iter().enumerate().filter_map(point).collect();
        sort_by_value(&mut points, &values);
        Series { name: (*name).to_owned(), index, points }
    };
    let series: Vec<Series> = methods.iter().enumerate().map(series).collect();
    let caption =
        if panel.held.is_empty() { format!("{} by {}", survey.measure.title(), axis.name) } else { panel.held() };
    let title = format!("{}: {} by {}, {}", axis.sweep, survey.measure.short(), axis.name, panel.held());
    let svg = picture::settings(
        title.trim_end_matches(", "),
        axis.name,
        &format!("{} %", survey.measure.short()),
        &values,
        &series,
    );
    let is_drawn =
        |(name, series): (&&str, &Series)| if series.points.is_empty() { String::new() } else { (*name).to_owned() };
    let legend = methods.iter().zip(&series).map(is_drawn).collect();
    Figure { caption, svg, legend, numbers: survey.csv.then_some("ablations.csv") }
}

/// Numbers are joined by their size, whatever their order in the file.
fn sort_by_value(points: &mut [(f64, f64, Option<f64>)], values: &[&str]) {
    if let Some(numbers) = picture::numbers(values) {
        points.sort_by(|a, b| numbers[a.0 as usize].total_cmp(&numbers[b.0 as usize]));
    }
}

/// Every value of every panel, a column for each method.
fn table(survey: &Survey, axis: &Axis<'_>, methods: &[&str]) -> Table {
    let others: Vec<&str> =
        axis.panels.iter().take(1).flat_map(|panel| panel.held.iter().map(|(axis, _)| *axis)).collect();
    let header = others.iter().copied().chain([axis.name]).chain(methods.iter().copied());
    let caption = format!("{} by `{}`", survey.measure.title(), axis.name);
    let mut table = Table::new(header).left(others.len() + 1).caption(caption);
    for panel in &axis.panels {
        for (value, study) in &panel.points {
            let accuracy = |name: &&str| {
                let score = study.method(name).and_then(|method| method.score);
                Cell::number(spread(score), score.map(|score| score.mean))
            };
            let place = panel.held.iter().map(|(_, value)| Cell::from(*value)).chain([Cell::from(*value)]);
            table.row(place.chain(methods.iter().map(accuracy)));
        }
    }
    table
}
