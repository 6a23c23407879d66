//! What the methods cost, and accuracy against it.

use limbeck::record::{Measure, Timing};

use crate::report::Survey;
use crate::report::document::{Block, Figure};
use crate::report::numbers::{bytes, duration};
use crate::report::picture::{self, Spot};
use crate::report::statistics::Spread;
use crate::report::study::{Method, Study};
use crate::report::table::{Cell, NONE, Table};
use crate::words::thousands;

use super::{of_study, study_column};

/// The mean over runs of something of their timed steps, in seconds.
fn timed(method: &Method, part: impl Fn(&Timing) -> f64) -> Option<f64> {
    let timed = method.finished().map(|summary| &summary.timing).filter(|timing| timing.steps > 0);
    Spread::of(timed.map(part)).map(|seconds| seconds.mean)
}

/// Everything.
pub fn blocks(survey: &Survey) -> Vec<Block> {
    let table = table(survey);
    if table.rows.is_empty() {
        return Vec::new();
    }
    let lanes = survey.studies.iter().flat_map(Study::summaries).map(|summary| summary.lanes).max().unwrap_or(1);
    let mut text = String::from(
        "Parameters left at inference and trained (the method's own included); what one image's forward pass of the student \
         multiplies and adds; milliseconds of a step, part by part, as means \
         over the timed steps, and images a second at that pace; time of a run, mean over seeds; peak resident memory of the \
         process.",
    );
    if lanes > 1 {
        text += &format!(
            " Up to {lanes} runs were trained side by side: they shared data and teacher, whose milliseconds each row shows in \
             full, and the memory is that of all of them."
        );
    }
    let mut blocks = vec![Block::Text(text), Block::Table(table)];
    let figures: Vec<Figure> = survey.studies.iter().filter_map(|study| against_accuracy(survey, study)).collect();
    if !figures.is_empty() {
        blocks.push(Block::Figures(figures));
    }
    blocks
}

fn table(survey: &Survey) -> Table {
    let parts = ["data", "teacher", "student", "loss", "optimiser", "step"];
    let mut header: Vec<&str> =
        study_column(survey).into_iter().chain(["method", "inference", "training", "multiply-adds"]).collect();
    header.extend(parts.into_iter().chain(["images/s", "a run", "memory"]));
    let mut table = Table::new(header).left(if survey.single().is_some() { 1 } else { 2 });
    for study in &survey.studies {
        for method in &study.methods {
            let Some(first) = method.finished().next() else { continue };
            let or_none = |value: Option<f64>, text: &dyn Fn(f64) -> String| {
                Cell::number(value.map_or_else(|| NONE.to_owned(), text), value)
            };
            let milliseconds = |part: fn(&Timing) -> f64| {
                or_none(timed(method, part).map(|seconds| 1e3 * seconds), &|value| format!("{value:.1}"))
            };
            let number = |value: i64| Cell::number(thousands(value), Some(value as f64));
            let memory = method.finished().filter_map(|summary| summary.peak_memory).max();
            let seconds = Spread::of(method.finished().map(|summary| summary.seconds)).map(|seconds| seconds.mean);
            let pace = timed(method, Timing::total).map(|step| study.experiment.train.batch as f64 / step);
            let mut row: Vec<Cell> = of_study(survey, &study.label).into_iter().collect();
            row.extend([method.name.as_str().into(), number(first.student_parameters)]);
            row.push(number(first.student_parameters + first.method_parameters));
            let products = first.student_multiply_adds;
            row.push(Cell::number(
                products.map_or_else(|| NONE.to_owned(), thousands),
                products.map(|count| count as f64),
            ));
            row.extend([milliseconds(|t| t.data), milliseconds(|t| t.teacher), milliseconds(|t| t.student)]);
            row.extend([milliseconds(|t| t.loss), milliseconds(|t| t.optimizer), milliseconds(Timing::total)]);
            row.extend([or_none(pace, &|pace| format!("{pace:.0}")), or_none(seconds, &duration)]);
            row.push(Cell::number(memory.map_or_else(|| NONE.to_owned(), bytes), memory.map(|bytes| bytes as f64)));
            table.row(row);
        }
    }
    table
}

fn against_accuracy(survey: &Survey, study: &Study) -> Option<Figure> {
    let spot = |(index, name): (usize, &String)| {
        let method = study.method(name)?;
        let score = method.score?;
        let x = 1e3 * timed(method, Timing::total)?;
        Some(Spot { name: name.clone(), index, x, y: score.mean, deviation: score.deviation })
    };
    let spots: Vec<Spot> = survey.methods.iter().enumerate().filter_map(spot).collect();
    if spots.len() < 2 {
        return None;
    }
    let measured = match survey.measure {
        Measure::Top1 => "top-1 accuracy",
        Measure::MeanAveragePrecision => "mAP",
    };
    let title = format!("{}: {measured} and milliseconds of a step alone", study.label);
    let svg = picture::scatter(&title, "ms a step, alone", &format!("{} %", survey.measure.short()), &spots);
    Some(Figure { caption: title, svg, legend: Vec::new(), numbers: survey.csv.then_some("runs.csv") })
}
