//! What happened epoch by epoch: accuracy, learning rate, every loss.

use std::collections::BTreeMap;

use indexmap::IndexSet;
use limbeck::critic;
use limbeck::record::{EpochRecord, Summary};
use limbeck::task::{Part, capitalized};
use serde::Serialize;

use crate::chart::{self, Series};
use crate::csv::{self, Columns, CsvFile};
use crate::document::{Block, Figure};
use crate::statistics::Spread;
use crate::study::{Method, Study};
use crate::survey::Survey;

/// The epochs.
pub const FILE: CsvFile = CsvFile {
    name: "curves.csv",
    about: |_| "every epoch of every run; curves are means over seeds, bands their deviation".to_owned(),
    text: |survey| csv::text(rows(survey)),
};

/// An epoch of a run.
#[derive(Serialize)]
struct EpochRow<'a> {
    experiment: &'a str,
    method: &'a str,
    seed: u64,
    stage: &'a str,
    epoch: u64,
    step: u64,
    learning_rate: f64,
    seconds: f64,
    /// On the training batches, the samples held out and the test split; then a column for every training metric that any
    /// run has.
    #[serde(flatten)]
    numbers: Columns,
}

/// Everything.
pub fn blocks(survey: &Survey) -> Vec<Block> {
    let mut blocks = Vec::new();
    for study in &survey.studies {
        let figures = figures(survey, study);
        if !figures.is_empty() {
            if survey.single().is_none() {
                blocks.push(Block::Heading(study.label.clone()));
            }
            blocks.push(Block::Figures(figures));
        }
    }
    if !blocks.is_empty() {
        blocks.insert(0, "Means over seeds; the band is one sample deviation to either side.".into());
    }
    blocks
}

/// Takes a number from an epoch, if it has that number.
type Value<'a> = Box<dyn Fn(&EpochRecord) -> Option<f64> + 'a>;

/// A number of an epoch that is drawn.
struct Curve<'a> {
    title: String,
    unit: String,
    stage: &'a str,
    value: Value<'a>,
}

impl Curve<'_> {
    /// (epoch, mean over seeds, deviation)
    fn points(&self, method: &Method) -> Vec<(f64, f64, Option<f64>)> {
        let mut values: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        let summaries = method.runs.iter().filter_map(|run| run.summary.as_ref());
        for record in summaries.flat_map(|summary| &summary.history).filter(|record| record.stage == self.stage) {
            if let Some(value) = (self.value)(record) {
                values.entry(record.epoch).or_default().push(value);
            }
        }
        let spreads = values.into_iter().filter_map(|(epoch, values)| Some((epoch, Spread::of(values)?)));
        spreads.map(|(epoch, spread)| (epoch as f64, spread.mean, spread.deviation)).collect()
    }
}

fn figures(survey: &Survey, study: &Study) -> Vec<Figure> {
    curves(survey, study).iter().filter_map(|curve| figure(survey, study, curve)).collect()
}

fn curves<'a>(survey: &Survey, study: &'a Study) -> Vec<Curve<'a>> {
    let score = survey.task.score();
    let mut curves = vec![
        Curve {
            title: capitalized(&survey.task.score_on(Part::Test, score.name)),
            unit: score.axis(),
            stage: "main",
            value: Box::new(|record| Some(record.test?.score())),
        },
        Curve {
            title: capitalized(&survey.task.score_on(Part::HeldOut, score.name)),
            unit: score.axis(),
            stage: "main",
            value: Box::new(|record| Some(record.validation?.score())),
        },
        Curve {
            title: "Training accuracy, on augmented batches".to_owned(),
            unit: "top-1 %".to_owned(),
            stage: "main",
            value: Box::new(|record| record.train_top1),
        },
        Curve {
            title: "Learning rate".to_owned(),
            unit: String::new(),
            stage: "main",
            value: Box::new(|record| Some(record.learning_rate)),
        },
    ];
    for (stage, metric) in metrics(study) {
        let title = if stage == "main" { metric.to_owned() } else { format!("{stage}, {metric}") };
        let value = Box::new(move |record: &EpochRecord| record.train.get(metric).copied());
        curves.push(Curve { title, unit: String::new(), stage, value });
    }
    curves
}

/// The names of all losses by stage; the bound on the mutual information is shown elsewhere.
fn metrics(study: &Study) -> Vec<(&str, &str)> {
    let mut metrics: IndexSet<(&str, &str)> = IndexSet::new();
    for record in study.summaries().flat_map(|summary| &summary.history) {
        let names = record.train.keys().filter(|name| !critic::is_bound(name));
        metrics.extend(names.map(|name| (record.stage.as_str(), name.as_str())));
    }
    let mut metrics: Vec<(&str, &str)> = metrics.into_iter().collect();
    metrics.sort_by_key(|(stage, _)| *stage != "main");
    metrics
}

fn figure(survey: &Survey, study: &Study, curve: &Curve<'_>) -> Option<Figure> {
    let mut series = Vec::new();
    // A place in the legend is a colour: methods that are not in this picture leave theirs empty.
    let mut legend: Vec<String> = Vec::new();
    for (index, name) in survey.methods.iter().enumerate() {
        let points = study.method(name).map(|method| curve.points(method)).unwrap_or_default();
        if !points.is_empty() {
            legend.resize(index, String::new());
            legend.push(name.clone());
            series.push(Series { name: name.clone(), index, points });
        }
    }
    if series.is_empty() {
        return None;
    }
    let title = format!("{}: {} by epoch", study.label, curve.title);
    let svg = chart::lines(&title, "epoch", &curve.unit, &series);
    Some(Figure { caption: curve.title.clone(), svg, legend, numbers: FILE.name_if_written(survey) })
}

fn rows(survey: &Survey) -> Vec<EpochRow<'_>> {
    let mut metrics: IndexSet<&str> = IndexSet::new();
    for record in survey.studies.iter().flat_map(Study::summaries).flat_map(|summary| &summary.history) {
        metrics.extend(record.train.keys().map(String::as_str));
    }
    let mut rows = Vec::new();
    for study in &survey.studies {
        for summary in study.summaries() {
            for epoch in &summary.history {
                rows.push(row(survey, study, summary, epoch, &metrics));
            }
        }
    }
    rows
}

fn row<'a>(
    survey: &Survey,
    study: &'a Study,
    summary: &'a Summary,
    epoch: &'a EpochRecord,
    metrics: &IndexSet<&str>,
) -> EpochRow<'a> {
    let mut numbers = Columns::new();
    if survey.task.one_class() {
        numbers.insert("train_top1".to_owned(), epoch.train_top1);
    }
    numbers.extend(csv::metrics(survey.task, "validation", epoch.validation));
    numbers.extend(csv::metrics(survey.task, "test", epoch.test));
    numbers.extend(metrics.iter().map(|name| (format!("train.{name}"), epoch.train.get(*name).copied())));
    EpochRow {
        experiment: &study.experiment.name,
        method: &summary.method,
        seed: summary.seed,
        stage: &epoch.stage,
        epoch: epoch.epoch,
        step: epoch.step,
        learning_rate: epoch.learning_rate,
        seconds: epoch.seconds,
        numbers,
    }
}
