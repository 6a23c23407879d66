//! The bound on the mutual information of teacher and student, where a critic estimates it.

use indexmap::IndexSet;
use limbeck::critic;

use crate::chart::{self, Series};
use crate::document::{Block, Figure};
use crate::statistics::Spread;
use crate::study::{Method, Study};
use crate::survey::Survey;
use crate::table::{NONE, Table};

use super::curves;

/// More epochs than this are thinned out in tables; all of them are in `curves.csv`.
const SHOWN_EPOCHS: usize = 12;

/// The bound by epoch of a method that estimates it.
struct Bound<'a> {
    study: &'a Study,
    method: &'a Method,
    metric: &'a str,
}

impl Bound<'_> {
    fn at(&self, epoch: u64) -> Option<Spread> {
        let records = self.method.finished().flat_map(|summary| &summary.history);
        let here = records.filter(|record| record.stage == "main" && record.epoch == epoch);
        Spread::of(here.filter_map(|record| record.train.get(self.metric).copied()))
    }

    fn name(&self, survey: &Survey) -> String {
        format!("{}{}: {}", survey.place(self.study), self.method.name, self.metric)
    }
}

fn bounds(survey: &Survey) -> Vec<Bound<'_>> {
    let mut bounds = Vec::new();
    for study in &survey.studies {
        for method in &study.methods {
            let mut metrics: IndexSet<&String> = IndexSet::new();
            for record in method.finished().flat_map(|summary| &summary.history) {
                metrics.extend(record.train.keys().filter(|metric| critic::is_bound(metric)));
            }
            bounds.extend(metrics.into_iter().map(|metric| Bound { study, method, metric }));
        }
    }
    bounds
}

/// The bound by epoch, as a picture and a table.
pub fn blocks(survey: &Survey) -> Vec<Block> {
    let bounds = bounds(survey);
    if bounds.is_empty() {
        return Vec::new();
    }
    let histories = bounds.iter().flat_map(|bound| bound.method.finished()).flat_map(|summary| &summary.history);
    let last = histories.filter(|record| record.stage == "main").map(|record| record.epoch).max().unwrap_or(0);
    let names: Vec<String> = bounds.iter().map(|bound| bound.name(survey)).collect();
    let mut table = Table::new(std::iter::once("epoch".to_owned()).chain(names.iter().cloned()));
    let shown = thinned(last);
    for epoch in &shown {
        let mut row = vec![epoch.to_string()];
        for bound in &bounds {
            row.push(bound.at(*epoch).map_or_else(|| NONE.to_owned(), |spread| format!("{:.3}", spread.mean)));
        }
        table.row(row);
    }
    let mut series = Vec::new();
    for (index, (bound, name)) in bounds.iter().zip(&names).enumerate() {
        let mut points = Vec::new();
        for epoch in 1..=last {
            points.extend(bound.at(epoch).map(|spread| (epoch as f64, spread.mean, spread.deviation)));
        }
        series.push(Series { name: name.clone(), index, points });
    }
    let title = "Bound on the mutual information by epoch";
    let figure = Figure {
        caption: title.to_owned(),
        svg: chart::lines(title, "epoch", "nats", &series),
        legend: names,
        numbers: curves::FILE.name_if_written(survey),
    };
    let selection = if (shown.len() as u64) < last { " The table has a selection of epochs." } else { "" };
    let text = format!(
        "The lower bound that the critic estimates, in nats, on training batches: mean over the epoch and over seeds. It is \
         vacuous where it is negative.{selection}"
    );
    let heading = Block::Heading("Mutual information of teacher and student".to_owned());
    vec![heading, Block::Text(text), Block::Figures(vec![figure]), Block::Table(table)]
}

/// Epochs 1 to `last`, at most [`SHOWN_EPOCHS`] of them, evenly spread, the first and the last among them.
fn thinned(last: u64) -> Vec<u64> {
    let shown = SHOWN_EPOCHS as u64;
    if last <= shown { (1..=last).collect() } else { (0..shown).map(|i| 1 + i * (last - 1) / (shown - 1)).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_thinned_evenly() {
        assert_eq!(thinned(3), [1, 2, 3]);
        let shown = thinned(240);
        assert_eq!((shown.len(), shown.first(), shown.last()), (12, Some(&1), Some(&240)));
        assert_eq!(thinned(13), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13]);
    }
}
