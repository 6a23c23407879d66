//! Which classes gained and which lost, against the baseline.

use indexmap::IndexMap;
use limbeck::record::{ClassAccuracy, Measure};

use crate::report::Survey;
use crate::report::document::{Block, Figure};
use crate::report::picture;
use crate::report::statistics::Spread;
use crate::report::study::{Method, Study};

/// A picture for each method with results beside the baseline's.
pub fn blocks(survey: &Survey) -> Vec<Block> {
    let mut figures = Vec::new();
    for study in &survey.studies {
        let Some(baseline) = study.method(&survey.baseline) else { continue };
        for method in study.methods.iter().filter(|method| method.name != survey.baseline) {
            let differences = differences(method, baseline);
            if differences.is_empty() {
                continue;
            }
            let place = if survey.single().is_some() { String::new() } else { format!("{}: ", study.label) };
            let caption = format!("{place}{} minus {}", method.name, baseline.name);
            let what = match survey.measure {
                Measure::Top1 => "Accuracy",
                Measure::MeanAveragePrecision => "Average precision",
            };
            let title = format!("{what} by class, {caption}");
            let svg = picture::bars(&title, "points", &differences);
            figures.push(Figure { caption, svg, legend: Vec::new(), numbers: survey.csv.then_some("classes.csv") });
        }
    }
    if figures.is_empty() {
        return Vec::new();
    }
    let what = match survey.measure {
        Measure::Top1 => "Test accuracy",
        Measure::MeanAveragePrecision => "Average precision on the test split",
    };
    let text = format!(
        "{what} by class after the last epoch, minus that of `{}`: means over all seeds of each.",
        survey.baseline
    );
    vec![Block::Text(text), Block::Figures(figures)]
}

/// The accuracy, or average precision, of every class that a test sample has, in percent: mean over the seeds that were
/// measured.
pub fn accuracies(method: &Method) -> Vec<(String, f64)> {
    let measured: Vec<_> = method.runs.iter().filter_map(|run| run.similarity.as_ref()).collect();
    let Some(first) = measured.first() else { return Vec::new() };
    let mean = |(at, class): (usize, &ClassAccuracy)| {
        let found = measured.iter().filter_map(|found| found.classes.get(at));
        Some((class.name.clone(), Spread::of(found.filter_map(ClassAccuracy::share))?.mean))
    };
    first.classes.iter().enumerate().filter_map(mean).collect()
}

/// Of the classes that both have, by name.
fn differences(method: &Method, baseline: &Method) -> Vec<(String, f64)> {
    let theirs: IndexMap<String, f64> = accuracies(baseline).into_iter().collect();
    let difference = |(name, ours): (String, f64)| theirs.get(&name).map(|theirs| (name, ours - theirs));
    accuracies(method).into_iter().filter_map(difference).collect()
}

/// Every study and method with its classes.
pub fn all(survey: &Survey) -> impl Iterator<Item = (&Study, &Method, Vec<(String, f64)>)> {
    let methods = survey.studies.iter().flat_map(|study| study.methods.iter().map(move |method| (study, method)));
    methods.map(|(study, method)| (study, method, accuracies(method)))
}
