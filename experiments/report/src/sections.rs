//! The sections of a report, each a module that turns a survey into blocks.

pub mod ablations;
pub mod classes;
mod comparison;
mod cost;
mod curves;
pub mod evidence;
pub mod likeness;
mod probes;
mod setting;

use super::document::{Block, Document, Section};
use super::study::{Run, Study};
use super::table::{Cell, Table};
use super::{Survey, csv};

/// The whole report.
pub fn document(survey: &Survey) -> Document {
    let sections = [
        Section::new("What was compared", setting::blocks(survey)),
        Section::new("Comparison", comparison::blocks(survey)),
        Section::new("Ablations", ablations::blocks(survey)),
        Section::new("What can be said", evidence::blocks(survey)),
        Section::new("Linear probes", probes::blocks(survey)),
        Section::new("What the students took from the teacher", likeness::blocks(survey)),
        Section::new("Cost", cost::blocks(survey)),
        Section::new("Curves", curves::blocks(survey)),
        Section::new("Classes", classes::blocks(survey)),
        Section::new("Runs without a result", without_result(survey)),
        Section::new("Files", files(survey)),
    ];
    Document { title: survey.title(), sections: sections.into_iter().flatten().collect() }
}

/// The comparison, and the probes where there are any: short enough to be pasted.
pub fn summary(survey: &Survey) -> Document {
    let sections = [
        Section::new("Comparison", comparison::summary(survey)),
        Section::new("Linear probes", probes::blocks(survey)),
    ];
    Document { title: survey.title(), sections: sections.into_iter().flatten().collect() }
}

/// The distinct values of something over all runs, in the order of the runs.
fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    values.fold(Vec::new(), |mut seen, value| {
        if !seen.contains(&value) {
            seen.push(value);
        }
        seen
    })
}

/// A cell with the study's name where a table is of several: put before a row.
fn of_study(survey: &Survey, label: &str) -> Option<Cell> {
    survey.single().is_none().then(|| label.into())
}

/// The title of that column: studies are pairs of networks, unless points of a sweep share one.
fn study_column(survey: &Survey) -> Option<&'static str> {
    let is_pair = |study: &Study| study.point.is_none() || study.pair().as_ref() == Some(&study.label);
    survey.single().is_none().then(|| if survey.studies.iter().all(is_pair) { "pair" } else { "point" })
}

fn without_result(survey: &Survey) -> Vec<Block> {
    let header = study_column(survey).into_iter().chain(["method", "seed", "status", "reason"]);
    let mut table = Table::new(header).left(5);
    for study in &survey.studies {
        for Run { cell, status, reason, .. } in study.runs().filter(|run| !run.reason.is_empty()) {
            let cells = [cell.method.clone(), cell.seed.to_string(), (*status).to_owned(), reason.clone()];
            table.row(of_study(survey, &study.label).into_iter().chain(cells.map(Cell::from)));
        }
    }
    if table.rows.is_empty() { Vec::new() } else { vec![Block::Table(table)] }
}

fn files(survey: &Survey) -> Vec<Block> {
    if !survey.csv {
        return Vec::new();
    }
    let items = csv::files(survey).map(|(name, _)| format!("{name}: {}", csv::describe(survey.measure, name)));
    vec!["In full precision:".into(), Block::List(items.collect())]
}
