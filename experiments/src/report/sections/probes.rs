//! Linear probes: what classifiers on frozen networks came to, beside those on a network that never trained.

use indexmap::IndexMap;
use limbeck::record::{Measure, ProbeRecord, ProbedNetwork};

use crate::log;
use crate::report::Survey;
use crate::report::document::Block;
use crate::report::numbers::{signed_spread, spread};
use crate::report::statistics::{Spread, differences};
use crate::report::study::{ProbeRun, Study};
use crate::report::table::{Cell, NONE, Table};
use crate::words::{plural, thousands};

use super::comparison::difference;

/// The classifiers of one probe on one network, over seeds.
struct Row<'a> {
    network: &'a ProbedNetwork,
    planned: usize,
    records: Vec<&'a ProbeRecord>,
}

impl Row<'_> {
    fn scores(&self) -> Vec<(u64, f64)> {
        self.records.iter().map(|record| (record.seed, record.test.score())).collect()
    }

    fn seeds(&self) -> String {
        match self.records.len() {
            found if found == self.planned => found.to_string(),
            found => format!("{found} of {}", self.planned),
        }
    }
}

/// Everything.
pub fn blocks(survey: &Survey) -> Vec<Block> {
    let mut blocks = Vec::new();
    for study in &survey.studies {
        let mut probes: IndexMap<&str, Vec<&ProbeRun>> = IndexMap::new();
        study.probes.iter().for_each(|run| probes.entry(&run.entry.probe).or_default().push(run));
        for (name, runs) in probes {
            let place = if survey.single().is_some() { String::new() } else { format!("{}: ", study.label) };
            blocks.push(Block::Heading(format!("{place}{name}")));
            blocks.extend(of_probe(study, name, &runs));
        }
    }
    blocks
}

fn of_probe(study: &Study, name: &str, runs: &[&ProbeRun]) -> Vec<Block> {
    let failures = failures(study, runs);
    let Some(first) = runs.iter().find_map(|run| run.record.as_ref()) else {
        return match failures.is_empty() {
            true => vec!["No classifier has ended yet; run the experiment again and it goes on.".into()],
            false => vec!["No classifier has a result.".into(), Block::List(failures)],
        };
    };
    let mut rows: Vec<Row<'_>> = Vec::new();
    for run in runs {
        let at = rows.iter().position(|row| *row.network == run.entry.network).unwrap_or_else(|| {
            rows.push(Row { network: &run.entry.network, planned: 0, records: Vec::new() });
            rows.len() - 1
        });
        rows[at].planned += 1;
        rows[at].records.extend(run.record.as_ref());
    }
    let random = study.untrained(name);
    let verdict = verdict(study, &rows, &random, first.test.measure());
    vec![
        Block::Text(about(first)),
        Block::Table(table(&rows, &random, first.test.measure())),
        Block::List(std::iter::once(verdict).chain(failures).collect()),
    ]
}

/// The classifiers that have no result, and why their logs say that they failed.
fn failures(study: &Study, runs: &[&ProbeRun]) -> Vec<String> {
    let failed = |run: &&ProbeRun| {
        let reason = log::failure(&study.folder.join(&run.entry.folder))?;
        Some(format!("{}, seed {}, failed: {reason}", run.entry.network, run.entry.seed))
    };
    runs.iter().filter(|run| run.record.is_none()).filter_map(failed).collect()
}

/// What was done, in words.
fn about(record: &ProbeRecord) -> String {
    let [train, test] = record.samples.map(|samples| thousands(samples as i64));
    format!(
        "Linear classifiers on the features of frozen networks (evaluation mode, BatchNorm included) at `{}`, {}, trained for \
         {} on {}: {train} training and {test} test samples without augmentation, {} classes. Shown: {} on the test part after \
         the last epoch, in percent; mean ± sample deviation (n − 1) over seeds. The difference to the random backbone, the \
         student's network with the weights that it begins with, is the mean over common seeds ± the deviation. A teacher has \
         one set of weights: its deviation is that of classifiers alone.",
        record.tap,
        if record.standardized { "standardised" } else { "as they are" },
        plural(record.epochs, "epoch"),
        record.dataset,
        record.classes,
        match record.test.measure() {
            Measure::Top1 => "top-1 accuracy",
            Measure::MeanAveragePrecision => "mean average precision (mAP, not top-1: targets are sets of classes)",
        }
    )
}

fn table(rows: &[Row<'_>], random: &[(u64, f64)], measure: Measure) -> Table {
    let top5 = (measure == Measure::Top1).then_some("top-5");
    let header = ["network", "view", "features", "seeds", measure.short()].into_iter().chain(top5);
    let mut table = Table::new(header.chain(["to random backbone"])).left(2);
    for row in rows {
        let score = Spread::of(row.scores().into_iter().map(|(_, score)| score));
        let second = Spread::of(row.records.iter().filter_map(|record| record.test.top5()));
        let of_first =
            |value: &dyn Fn(&ProbeRecord) -> String| row.records.first().map_or(NONE.to_owned(), |r| value(r));
        let mut cells: Vec<Cell> = vec![row.network.to_string().into(), of_first(&|r| r.view.clone()).into()];
        cells.extend([of_first(&|r| r.features.to_string()).into(), row.seeds().into()]);
        cells.push(Cell::number(spread(score), score.map(|score| score.mean)));
        cells.extend(top5.map(|_| Cell::number(spread(second), second.map(|second| second.mean))));
        cells.push(match row.network {
            ProbedNetwork::Untrained => NONE.into(),
            _ => difference(Spread::of(differences(&row.scores(), random))),
        });
        table.row(cells);
    }
    table
}

/// Whether the best distilled student beats the random backbone by more than the seeds scatter.
fn verdict(study: &Study, rows: &[Row<'_>], random: &[(u64, f64)], measure: Measure) -> String {
    let is_distilled = |row: &&Row<'_>| match row.network {
        ProbedNetwork::Student { method } => {
            study.experiment.method(method).is_ok_and(|config| !config.terms.is_empty())
        }
        _ => false,
    };
    let mean = |row: &Row<'_>| Spread::of(row.scores().into_iter().map(|(_, score)| score)).map(|spread| spread.mean);
    let best = rows.iter().filter(is_distilled).filter_map(|row| Some((row, mean(row)?)));
    let Some((best, _)) = best.reduce(|best, row| if row.1 > best.1 { row } else { best }) else {
        return "No distilled student has a result here.".to_owned();
    };
    let Some(lead) = Spread::of(differences(&best.scores(), random)) else {
        return "There is no random backbone of the same seed to compare the distilled students with.".to_owned();
    };
    let (name, by, measure) = (best.network.to_string(), signed_spread(Some(lead)), measure.short());
    let over = if lead.count == 1 { "one seed".to_owned() } else { format!("{} common seeds", lead.count) };
    let text = format!(
        "The best distilled student, `{name}`, minus the random backbone: {by} points of {measure} over {over}"
    );
    match lead.deviation {
        None => format!("{text}. A single seed has no deviation: nothing is established."),
        Some(deviation) if lead.mean > deviation => {
            format!("{text}. It beats the random backbone by more than the deviation over seeds.")
        }
        Some(_) => format!("{text}. It does NOT beat the random backbone by more than the deviation over seeds."),
    }
}
