//! Which classes gained and which lost, against the baseline.

use indexmap::IndexMap;
use limbeck::task::{Part, capitalized};
use serde::Serialize;

use crate::chart;
use crate::csv::{self, Columns, CsvFile};
use crate::document::{Block, Figure};
use crate::statistics::Spread;
use crate::study::Method;
use crate::survey::Survey;

/// The numbers of the pictures.
pub const FILE: CsvFile = CsvFile {
    name: "classes.csv",
    about: |survey| {
        let metric = survey.task.class_metric().map_or("score", |metric| metric.name);
        format!("{metric} by class, mean over seeds")
    },
    text: |survey| csv::text(rows(survey)),
};

/// A method's class.
#[derive(Serialize)]
struct ClassRow<'a> {
    experiment: &'a str,
    method: &'a str,
    class: &'a str,
    /// One column.
    #[serde(flatten)]
    score: Columns,
}

/// A picture for each method with results beside the baseline's.
pub fn blocks(survey: &Survey) -> Vec<Block> {
    let Some(metric) = survey.task.class_metric() else { return Vec::new() };
    let mut figures = Vec::new();
    for study in &survey.studies {
        let Some(baseline) = study.method(&survey.baseline) else { continue };
        for method in study.methods.iter().filter(|method| method.name != survey.baseline) {
            let differences = differences(method, baseline);
            if differences.is_empty() {
                continue;
            }
            let caption = format!("{}{} minus {}", survey.place(study), method.name, baseline.name);
            let title = format!("{} by class, {caption}", capitalized(metric.name));
            let svg = chart::bars(&title, metric.unit.difference, &differences, metric.better);
            figures.push(Figure { caption, svg, legend: Vec::new(), numbers: FILE.name_if_written(survey) });
        }
    }
    if figures.is_empty() {
        return Vec::new();
    }
    let text = format!(
        "{} by class after the last epoch, minus that of `{}`: means over all seeds of each.",
        capitalized(&survey.task.score_on(Part::Test, metric.name)),
        survey.baseline
    );
    vec![Block::Text(text), Block::Figures(figures)]
}

/// The score of every class that a test sample has: mean over the seeds that were measured.
fn scores(method: &Method) -> Vec<(&str, f64)> {
    let measured: Vec<_> = method.runs.iter().filter_map(|run| run.similarity.as_ref()).collect();
    let mut scores = Vec::new();
    for (at, class) in measured.iter().take(1).flat_map(|first| first.classes.iter().enumerate()) {
        let shares = measured.iter().filter_map(|found| found.classes.get(at)?.score());
        if let Some(spread) = Spread::of(shares) {
            scores.push((class.name.as_str(), spread.mean));
        }
    }
    scores
}

/// Of the classes that both have, by name.
fn differences(method: &Method, baseline: &Method) -> Vec<(String, f64)> {
    let theirs: IndexMap<&str, f64> = scores(baseline).into_iter().collect();
    let mut differences = Vec::new();
    for (class, ours) in scores(method) {
        if let Some(theirs) = theirs.get(class) {
            differences.push((class.to_owned(), ours - theirs));
        }
    }
    differences
}

fn rows(survey: &Survey) -> Vec<ClassRow<'_>> {
    let Some(metric) = survey.task.class_metric() else { return Vec::new() };
    let mut rows = Vec::new();
    for study in &survey.studies {
        for method in &study.methods {
            for (class, score) in scores(method) {
                rows.push(ClassRow {
                    experiment: &study.experiment.name,
                    method: &method.name,
                    class,
                    score: [(metric.key.to_owned(), Some(score))].into(),
                });
            }
        }
    }
    rows
}
