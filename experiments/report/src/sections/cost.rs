//! What the methods cost, and accuracy against it.

use limbeck::record::{EpochAccuracy, Timing};
use limbeck::task::Task;
use serde::Serialize;

use crate::chart::{self, Spot};
use crate::csv::{self, Columns, CsvFile};
use crate::document::{Block, Figure};
use crate::numbers::{bytes, duration};
use crate::run::Run;
use crate::statistics::Spread;
use crate::study::{Method, Study};
use crate::survey::Survey;
use crate::table::{Cell, Table};
use crate::words::thousands;

/// The runs.
pub const FILE: CsvFile = CsvFile {
    name: "runs.csv",
    about: |_| {
        "every run with its three results, cost and surroundings; a step is the sum of its parts, `*_seconds`"
            .to_owned()
    },
    text: |survey| csv::text(rows(survey)),
};

/// A run, with a result or without one.
#[derive(Serialize)]
struct RunRow<'a> {
    experiment: &'a str,
    method: &'a str,
    seed: u64,
    status: &'a str,
    reason: &'a str,
    folder: String,
    #[serde(flatten)]
    last: Columns,
    best_on_validation_epoch: Option<u64>,
    #[serde(flatten)]
    best_on_validation: Columns,
    best_on_test_epoch: Option<u64>,
    #[serde(flatten)]
    best_on_test: Columns,
    epochs: Option<u64>,
    student_parameters: Option<i64>,
    student_multiply_adds: Option<i64>,
    method_parameters: Option<i64>,
    seconds: Option<f64>,
    timed_steps: Option<u64>,
    data_seconds: Option<f64>,
    teacher_seconds: Option<f64>,
    student_seconds: Option<f64>,
    loss_seconds: Option<f64>,
    optimizer_seconds: Option<f64>,
    peak_memory_bytes: Option<u64>,
    lanes: Option<usize>,
    device: Option<&'a str>,
    device_name: Option<&'a str>,
    threads: Option<usize>,
    limbeck: Option<&'a str>,
    libtorch: Option<&'a str>,
    git: Option<&'a str>,
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
    let mut header: Vec<&str> = survey.study_column().into_iter().collect();
    header.extend(["method", "inference", "training", "multiply-adds"]);
    header.extend(["data", "teacher", "student", "loss", "optimiser", "step", "images/s", "a run", "memory"]);
    let mut table = Table::new(header).left(if survey.single().is_some() { 1 } else { 2 });
    for study in &survey.studies {
        for method in &study.methods {
            if let Some(cells) = costs(study, method) {
                table.row(survey.study_cell(study).into_iter().chain(cells));
            }
        }
    }
    table
}

/// The costs of a method; nothing where no run has ended.
fn costs(study: &Study, method: &Method) -> Option<Vec<Cell>> {
    let first = method.finished().next()?;
    let mut cells = vec![method.name.as_str().into()];
    for parameters in [first.student_parameters, first.student_parameters + first.method_parameters] {
        cells.push(Cell::number(thousands(parameters), Some(parameters as f64)));
    }
    cells.push(Cell::maybe(first.student_multiply_adds.map(|count| count as f64), |count| thousands(count as i64)));
    let parts: [fn(&Timing) -> f64; 6] =
        [|t| t.data, |t| t.teacher, |t| t.student, |t| t.loss, |t| t.optimizer, Timing::total];
    for part in parts {
        let milliseconds = timed(method, part).map(|seconds| 1e3 * seconds);
        cells.push(Cell::maybe(milliseconds, |value| format!("{value:.1}")));
    }
    let pace = timed(method, Timing::total).map(|step| study.experiment.train.batch as f64 / step);
    cells.push(Cell::maybe(pace, |pace| format!("{pace:.0}")));
    let seconds = Spread::of(method.finished().map(|summary| summary.seconds)).map(|seconds| seconds.mean);
    cells.push(Cell::maybe(seconds, duration));
    let memory = method.finished().filter_map(|summary| summary.peak_memory).max();
    cells.push(Cell::maybe(memory.map(|memory| memory as f64), |memory| bytes(memory as u64)));
    Some(cells)
}

/// The mean over runs of something of their timed steps, in seconds.
fn timed(method: &Method, part: fn(&Timing) -> f64) -> Option<f64> {
    let timed = method.finished().map(|summary| &summary.timing).filter(|timing| timing.steps > 0);
    Spread::of(timed.map(part)).map(|seconds| seconds.mean)
}

fn against_accuracy(survey: &Survey, study: &Study) -> Option<Figure> {
    let mut spots = Vec::new();
    for (index, name) in survey.methods.iter().enumerate() {
        if let Some(method) = study.method(name)
            && let Some(score) = method.score
            && let Some(step) = timed(method, Timing::total)
        {
            spots.push(Spot { name: name.clone(), index, x: 1e3 * step, y: score.mean, deviation: score.deviation });
        }
    }
    if spots.len() < 2 {
        return None;
    }
    let score = survey.task.score();
    let caption = format!("{}: {} and milliseconds of a step alone", study.label, score.label());
    let svg = chart::scatter(&caption, "ms a step, alone", &score.axis(), &spots);
    Some(Figure { caption, svg, legend: Vec::new(), numbers: FILE.name_if_written(survey) })
}

fn rows(survey: &Survey) -> Vec<RunRow<'_>> {
    let runs = survey.studies.iter().flat_map(|study| study.runs().map(move |run| (study, run)));
    runs.map(|(study, run)| row(survey.task, study, run)).collect()
}

fn row<'a>(task: &dyn Task, study: &'a Study, run: &'a Run) -> RunRow<'a> {
    let (accuracies, summary) = (run.accuracies.as_ref(), run.summary.as_ref());
    let best_on_validation: Option<EpochAccuracy> = accuracies.and_then(|accuracies| accuracies.best_on_validation);
    let best_on_test = accuracies.map(|accuracies| accuracies.best_on_test);
    // Without a timed step the means mean nothing.
    let timing = summary.map(|summary| summary.timing).filter(|timing| timing.steps > 0);
    let environment = summary.map(|summary| &summary.environment);
    RunRow {
        experiment: &study.experiment.name,
        method: &run.cell.method,
        seed: run.cell.seed,
        status: run.status,
        reason: &run.reason,
        folder: run.cell.folder.display().to_string(),
        last: csv::metrics(task, "last", accuracies.map(|accuracies| accuracies.last)),
        best_on_validation_epoch: best_on_validation.map(|best| best.epoch),
        best_on_validation: csv::metrics(task, "best_on_validation", best_on_validation.map(|best| best.test)),
        best_on_test_epoch: best_on_test.map(|best| best.epoch),
        best_on_test: csv::metrics(task, "best_on_test", best_on_test.map(|best| best.test)),
        epochs: summary.map(|summary| summary.epochs),
        student_parameters: summary.map(|summary| summary.student_parameters),
        student_multiply_adds: summary.and_then(|summary| summary.student_multiply_adds),
        method_parameters: summary.map(|summary| summary.method_parameters),
        seconds: summary.map(|summary| summary.seconds),
        timed_steps: summary.map(|summary| summary.timing.steps),
        data_seconds: timing.map(|timing| timing.data),
        teacher_seconds: timing.map(|timing| timing.teacher),
        student_seconds: timing.map(|timing| timing.student),
        loss_seconds: timing.map(|timing| timing.loss),
        optimizer_seconds: timing.map(|timing| timing.optimizer),
        peak_memory_bytes: summary.and_then(|summary| summary.peak_memory),
        lanes: summary.map(|summary| summary.lanes),
        device: environment.map(|environment| environment.device.as_str()),
        device_name: environment.map(|environment| environment.device_name.as_str()),
        threads: environment.map(|environment| environment.threads),
        limbeck: environment.map(|environment| environment.limbeck.as_str()),
        libtorch: environment.map(|environment| environment.libtorch.as_str()),
        git: environment.and_then(|environment| environment.git.as_deref()),
    }
}
