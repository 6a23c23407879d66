//! What happened epoch by epoch: accuracy, learning rate, every loss.

use limbeck::record::{EpochRecord, Measure, Summary};

use crate::report::Survey;
use crate::report::document::{Block, Figure};
use crate::report::picture::{self, Series};
use crate::report::statistics::Spread;
use crate::report::study::{Method, Study};

use super::distinct;
use super::likeness::MUTUAL_INFORMATION;

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

fn figures(survey: &Survey, study: &Study) -> Vec<Figure> {
    let main = |record: &EpochRecord| record.stage == "main";
    let mut figures = Vec::new();
    let mut draw = |title: String, unit: &str, of: &dyn Fn(&EpochRecord) -> Option<f64>| {
        figures.extend(figure(survey, study, title, unit, of));
    };
    let [test, validation] = match survey.measure {
        Measure::Top1 => ["Test accuracy", "Validation accuracy"],
        Measure::MeanAveragePrecision => {
            ["Mean average precision on the test split", "Mean average precision on the samples held out"]
        }
    };
    let unit = format!("{} %", survey.measure.short());
    draw(test.to_owned(), &unit, &|r| r.test.filter(|_| main(r)).map(|test| test.score()));
    draw(validation.to_owned(), &unit, &|r| r.validation.filter(|_| main(r)).map(|found| found.score()));
    draw("Training accuracy, on augmented batches".to_owned(), "top-1 %", &|r| r.train_top1.filter(|_| main(r)));
    draw("Learning rate".to_owned(), "", &|r| main(r).then_some(r.learning_rate));
    for (stage, metric) in metrics(study) {
        let title = if stage == "main" { metric.clone() } else { format!("{stage}, {metric}") };
        draw(title, "", &|r| if r.stage == stage { r.train.get(&metric).copied() } else { None });
    }
    figures
}

/// The names of all losses by stage; the bound on the mutual information is shown elsewhere.
fn metrics(study: &Study) -> Vec<(String, String)> {
    let histories = study.summaries().flat_map(|summary| &summary.history);
    let names = histories.flat_map(|record| record.train.keys().map(|name| (record.stage.clone(), name.clone())));
    let mut metrics = distinct(names.filter(|(_, name)| !name.contains(MUTUAL_INFORMATION)));
    metrics.sort_by_key(|(stage, _)| stage != "main");
    metrics
}

fn figure(
    survey: &Survey,
    study: &Study,
    title: String,
    unit: &str,
    of: &dyn Fn(&EpochRecord) -> Option<f64>,
) -> Option<Figure> {
    let series = |(index, name): (usize, &String)| {
        let points = points(study.method(name)?, of);
        (!points.is_empty()).then(|| Series { name: name.clone(), index, points })
    };
    let series: Vec<Series> = survey.methods.iter().enumerate().filter_map(series).collect();
    if series.is_empty() {
        return None;
    }
    let full = format!("{}: {title} by epoch", study.label);
    let svg = picture::lines(&full, "epoch", unit, &series);
    let last = series.iter().map(|series| series.index).max().unwrap_or(0);
    let known = |index| series.iter().find(|series| series.index == index).map(|series| series.name.clone());
    // A place in the legend is a colour: methods that are not in this picture leave theirs empty.
    let legend = (0..=last).map(|index| known(index).unwrap_or_default()).collect();
    Some(Figure { caption: title, svg, legend, numbers: survey.csv.then_some("curves.csv") })
}

/// (epoch, mean over seeds, deviation)
fn points(method: &Method, of: &dyn Fn(&EpochRecord) -> Option<f64>) -> Vec<(f64, f64, Option<f64>)> {
    let summaries: Vec<&Summary> = method.runs.iter().filter_map(|run| run.summary.as_ref()).collect();
    let records = || summaries.iter().flat_map(|summary| &summary.history).filter_map(|r| of(r).map(|v| (r.epoch, v)));
    let mut epochs = distinct(records().map(|(epoch, _)| epoch));
    epochs.sort_unstable();
    let point = |epoch: u64| {
        let spread = Spread::of(records().filter(|(other, _)| *other == epoch).map(|(_, value)| value))?;
        Some((epoch as f64, spread.mean, spread.deviation))
    };
    epochs.into_iter().filter_map(point).collect()
}
