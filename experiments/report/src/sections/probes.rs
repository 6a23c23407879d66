//! Linear probes: what classifiers on frozen networks came to, beside those on a network that never trained.

use indexmap::IndexMap;
use limbeck::record::{ProbeRecord, ProbedNetwork};
use limbeck::task::Task;
use serde::Serialize;

use crate::csv::{self, CsvFile};
use crate::document::Block;
use crate::log;
use crate::numbers::{signed_spread, spread_cell};
use crate::statistics::{Spread, differences, gain};
use crate::study::{ProbeRun, Study};
use crate::survey::Survey;
use crate::table::{Cell, NONE, Table};
use crate::words::{plural, thousands};

use super::comparison::difference;

/// The classifiers.
pub const FILE: CsvFile = CsvFile {
    name: "probes.csv",
    about: |_| "every linear classifier on a frozen network".to_owned(),
    text: |survey| csv::text(rows(survey)),
};

/// A classifier, with a result or without one.
#[derive(Serialize)]
struct ProbeRow<'a> {
    experiment: &'a str,
    probe: &'a str,
    network: &'a str,
    name: &'a str,
    seed: u64,
    model: Option<&'a str>,
    view: Option<&'a str>,
    tap: Option<String>,
    features: Option<i64>,
    dataset: Option<&'a str>,
    classes: Option<i64>,
    train_samples: Option<usize>,
    test_samples: Option<usize>,
    epochs: Option<u64>,
    measure: Option<&'a str>,
    score: Option<f64>,
    top5: Option<f64>,
    test_loss: Option<f64>,
    train_loss: Option<f64>,
    score_of_random_backbone: Option<f64>,
    seconds: Option<f64>,
}

/// The classifiers of one probe on one network, over seeds.
struct ProbedOverSeeds<'a> {
    network: &'a ProbedNetwork,
    planned: usize,
    records: Vec<&'a ProbeRecord>,
}

impl ProbedOverSeeds<'_> {
    fn scores(&self) -> Vec<(u64, f64)> {
        self.records.iter().map(|record| (record.seed, record.test.score())).collect()
    }

    fn score(&self) -> Option<Spread> {
        Spread::of(self.records.iter().map(|record| record.test.score()))
    }

    /// A metric that the task shows beside the score, by its place there.
    fn beside(&self, at: usize) -> Option<Spread> {
        let values = self.records.iter().filter_map(|record| record.test.beside().nth(at));
        Spread::of(values.map(|(_, value)| value))
    }

    fn seeds(&self) -> String {
        match self.records.len() {
            found if found == self.planned => found.to_string(),
            found => format!("{found} of {}", self.planned),
        }
    }

    /// Whether it is of students that were taught.
    fn is_distilled(&self, study: &Study) -> bool {
        let ProbedNetwork::Student { method } = self.network else { return false };
        study.experiment.method(method).is_ok_and(|config| !config.terms.is_empty())
    }
}

/// Everything.
pub fn blocks(survey: &Survey) -> Vec<Block> {
    let mut blocks = Vec::new();
    for study in &survey.studies {
        let mut probes: IndexMap<&str, Vec<&ProbeRun>> = IndexMap::new();
        for run in &study.probes {
            probes.entry(&run.entry.probe).or_default().push(run);
        }
        for (name, runs) in probes {
            blocks.push(Block::Heading(format!("{}{name}", survey.place(study))));
            blocks.extend(of_probe(study, name, &runs));
        }
    }
    blocks
}

fn of_probe(study: &Study, name: &str, runs: &[&ProbeRun]) -> Vec<Block> {
    let failures = failures(study, runs);
    let Some(first) = runs.iter().find_map(|run| run.record.as_ref()) else {
        return if failures.is_empty() {
            vec!["No classifier has ended yet; run the experiment again and it goes on.".into()]
        } else {
            vec!["No classifier has a result.".into(), Block::List(failures)]
        };
    };
    let networks = by_network(runs);
    let random = study.untrained(name);
    let mut remarks = vec![verdict(study, &networks, &random, first.test.task())];
    remarks.extend(failures);
    vec![Block::Text(about(first)), Block::Table(table(&networks, &random, first.test.task())), Block::List(remarks)]
}

/// The classifiers on each network, in the order of the plan.
fn by_network<'a>(runs: &[&'a ProbeRun]) -> Vec<ProbedOverSeeds<'a>> {
    let mut networks: Vec<ProbedOverSeeds<'_>> = Vec::new();
    for run in runs {
        let at = match networks.iter().position(|probed| *probed.network == run.entry.network) {
            Some(at) => at,
            None => {
                networks.push(ProbedOverSeeds { network: &run.entry.network, planned: 0, records: Vec::new() });
                networks.len() - 1
            }
        };
        networks[at].planned += 1;
        networks[at].records.extend(run.record.as_ref());
    }
    networks
}

/// The classifiers that have no result, and why their logs say that they failed.
fn failures(study: &Study, runs: &[&ProbeRun]) -> Vec<String> {
    let mut failures = Vec::new();
    for ProbeRun { entry, .. } in runs.iter().filter(|run| run.record.is_none()) {
        if let Some(reason) = log::failure(&study.folder.join(&entry.folder)) {
            failures.push(format!("{}, seed {}, failed: {reason}", entry.network, entry.seed));
        }
    }
    failures
}

/// What was done, in words.
fn about(record: &ProbeRecord) -> String {
    let [train, test] = <[usize; 2]>::from(record.samples).map(|samples| thousands(samples as i64));
    format!(
        "Linear classifiers on the features of frozen networks (evaluation mode, BatchNorm included) at `{}`, {}, trained for \
         {} on {}: {train} training and {test} test samples without augmentation, {} classes. Shown: {} on the test part after \
         the last epoch, in {}; mean ± sample deviation (n − 1) over seeds. The difference to the random backbone, the \
         student's network with the weights that it begins with, is the mean over common seeds ± the deviation. A teacher has \
         one set of weights: its deviation is that of classifiers alone.",
        record.tap,
        if record.standardized { "standardised" } else { "as they are" },
        plural(record.epochs, "epoch"),
        record.dataset,
        record.classes,
        record.test.task().measured(),
        record.test.task().score().unit.words,
    )
}

fn table(networks: &[ProbedOverSeeds<'_>], random: &[(u64, f64)], task: &dyn Task) -> Table {
    let score = task.score();
    let mut header = vec!["network", "view", "features", "seeds", score.short];
    header.extend(task.beside().iter().map(|metric| metric.short));
    header.push("to random backbone");
    let mut table = Table::new(header).left(2);
    for probed in networks {
        let mut cells: Vec<Cell> = vec![probed.network.to_string().into()];
        match probed.records.first() {
            Some(record) => cells.extend([record.view.as_str().into(), record.features.to_string().into()]),
            None => cells.extend([NONE.into(), NONE.into()]),
        }
        cells.extend([probed.seeds().into(), spread_cell(probed.score(), score.unit)]);
        for (at, metric) in task.beside().iter().enumerate() {
            cells.push(spread_cell(probed.beside(at), metric.unit));
        }
        cells.push(match probed.network {
            ProbedNetwork::Untrained => NONE.into(),
            _ => difference(Spread::of(differences(&probed.scores(), random)), score),
        });
        table.row(cells);
    }
    table
}

/// Whether the best distilled student beats the random backbone by more than the seeds scatter.
fn verdict(study: &Study, networks: &[ProbedOverSeeds<'_>], random: &[(u64, f64)], task: &dyn Task) -> String {
    let metric = task.score();
    let mut best: Option<(&ProbedOverSeeds<'_>, f64)> = None;
    for probed in networks.iter().filter(|probed| probed.is_distilled(study)) {
        if let Some(score) = probed.score()
            && best.is_none_or(|(_, other)| metric.better.is_better(score.mean, other))
        {
            best = Some((probed, score.mean));
        }
    }
    let Some((best, _)) = best else {
        return "No distilled student has a result here.".to_owned();
    };
    let Some(lead) = Spread::of(differences(&best.scores(), random)) else {
        return "There is no random backbone of the same seed to compare the distilled students with.".to_owned();
    };
    let (name, by) = (best.network.to_string(), signed_spread(Some(lead), metric.unit));
    let (unit, short) = (metric.unit.difference, metric.short);
    let over = if lead.count == 1 { "one seed".to_owned() } else { format!("{} common seeds", lead.count) };
    let text =
        format!("The best distilled student, `{name}`, minus the random backbone: {by} {unit} of {short} over {over}");
    match lead.deviation {
        None => format!("{text}. A single seed has no deviation: nothing is established."),
        Some(deviation) if gain(lead.mean, metric.better) > deviation => {
            format!("{text}. It beats the random backbone by more than the deviation over seeds.")
        }
        Some(_) => format!("{text}. It does NOT beat the random backbone by more than the deviation over seeds."),
    }
}

fn rows(survey: &Survey) -> Vec<ProbeRow<'_>> {
    let runs = survey.studies.iter().flat_map(|study| study.probes.iter().map(move |run| (study, run)));
    runs.map(|(study, run)| row(study, run)).collect()
}

fn row<'a>(study: &'a Study, run: &'a ProbeRun) -> ProbeRow<'a> {
    let (network, name) = match &run.entry.network {
        ProbedNetwork::Student { method } => ("student", method.as_str()),
        ProbedNetwork::Teacher { name } => ("teacher", name.as_str()),
        ProbedNetwork::Untrained => ("untrained", ""),
    };
    let record = run.record.as_ref();
    let test = record.map(|record| record.test);
    let untrained = study.untrained(&run.entry.probe);
    ProbeRow {
        experiment: &study.experiment.name,
        probe: &run.entry.probe,
        network,
        name,
        seed: run.entry.seed,
        model: record.map(|record| record.model.as_str()),
        view: record.map(|record| record.view.as_str()),
        tap: record.map(|record| record.tap.to_string()),
        features: record.map(|record| record.features),
        dataset: record.map(|record| record.dataset.as_str()),
        classes: record.map(|record| record.classes),
        train_samples: record.map(|record| record.samples.train),
        test_samples: record.map(|record| record.samples.test),
        epochs: record.map(|record| record.epochs),
        measure: test.map(|test| test.task().score().key),
        score: test.map(|test| test.score()),
        top5: test.and_then(|test| test.named().find(|(metric, _)| metric.key == "top5")).map(|(_, top5)| top5),
        test_loss: test.map(|test| test.loss()),
        train_loss: record.map(|record| record.train_loss),
        score_of_random_backbone: untrained.iter().find(|(seed, _)| *seed == run.entry.seed).map(|(_, score)| *score),
        seconds: record.map(|record| record.seconds),
    }
}
