//! What may be said of the differences: intervals and tests by pair, ranks over pairs, relative improvement.

use std::path::Path;

use indexmap::{IndexMap, IndexSet};
use serde::Serialize;

use crate::chart;
use crate::csv::{self, CsvFile};
use crate::document::{Block, Figure};
use crate::numbers::{probability, signed};
use crate::statistics::{
    ENOUGH_PAIRS, ENOUGH_SEEDS, LEVEL, ROUNDING, Ranking, Spread, gain, holm, median, sign_flip_test,
};
use crate::study::Study;
use crate::survey::Survey;
use crate::table::{Cell, Mark, NONE, Table};
use crate::words::plural;

/// Relative improvements whose denominator is nearer to 0 than this, in points, say little.
const NEAR_ZERO: f64 = 1.0;

/// The tests.
pub const DIFFERENCES: CsvFile = CsvFile {
    name: "differences.csv",
    about: |_| "every method against the baseline: intervals and p-values".to_owned(),
    text: |survey| csv::text(contrast_rows(survey)),
};

/// The ranks.
pub const RANKS: CsvFile = CsvFile {
    name: "ranks.csv",
    about: |_| "mean ranks over the experiments".to_owned(),
    text: |survey| csv::text(rank_rows(survey)),
};

/// The relative improvements.
pub const RELATIVE: CsvFile = CsvFile {
    name: "relative.csv",
    about: |_| "the relative improvement of every method over every other".to_owned(),
    text: |survey| csv::text(improvement_rows(survey)),
};

/// A method that can be compared with the baseline, on one pair.
#[derive(Serialize)]
struct ContrastRow<'a> {
    experiment: &'a str,
    method: &'a str,
    baseline: &'a str,
    seeds: usize,
    difference_mean: f64,
    difference_deviation: Option<f64>,
    interval_half_width: Option<f64>,
    p_t_test: Option<f64>,
    p_sign_flips: Option<f64>,
    p_corrected: Option<f64>,
    claim: &'static str,
}

/// A method that has a result on every pair.
#[derive(Serialize)]
struct RankRow<'a> {
    method: &'a str,
    mean_rank: f64,
    pairs: usize,
    friedman: Option<f64>,
    p_friedman: Option<f64>,
    critical_difference: f64,
}

/// A method over another, on all pairs together.
#[derive(Serialize)]
struct ImprovementRow<'a> {
    method: &'a str,
    over: &'a str,
    pairs: usize,
    ratios: usize,
    mean_percent: f64,
    median_percent: f64,
    mean_gap: f64,
    near_zero_denominators: usize,
}

/// Everything.
pub fn blocks(survey: &Survey) -> Vec<Block> {
    let mut blocks = by_pair(survey);
    blocks.extend(over_pairs(survey));
    blocks.extend(relative(survey));
    blocks
}

/// A method against the baseline on one pair.
struct Contrast<'a> {
    study: &'a Study,
    method: &'a str,
    difference: Spread,
    /// Of the paired t test; absent where there are too few seeds or they do not scatter.
    t_test: Option<f64>,
    /// Of the exact sign-flip test.
    sign_flip: Option<f64>,
    /// Of the t test, corrected for all contrasts of the report.
    corrected: Option<f64>,
}

impl<'a> Contrast<'a> {
    /// The folders of the students of both methods.
    fn students(&self, survey: &Survey) -> [Vec<&'a Path>; 2] {
        [self.method, survey.baseline.as_str()].map(|name| {
            let runs = self.study.method(name).into_iter().flat_map(|method| &method.runs);
            runs.map(|run| run.path.as_path()).collect()
        })
    }

    /// What is claimed.
    fn verdict(&self) -> &'static str {
        match self.corrected {
            _ if self.difference.count < ENOUGH_SEEDS => "too few seeds",
            None => "no scatter, no test",
            Some(p) if p >= LEVEL => "not shown",
            Some(_) if self.difference.mean > 0.0 => "above",
            Some(_) => "below",
        }
    }
}

/// Every contrast with the baseline that has a common seed.
fn contrasts(survey: &Survey) -> Vec<Contrast<'_>> {
    let mut contrasts = Vec::new();
    for study in &survey.studies {
        for method in &study.methods {
            let Some(difference) = method.difference else { continue };
            let enough = difference.count >= ENOUGH_SEEDS;
            let t_test = difference.t_test().filter(|_| enough);
            let sign_flip = sign_flip_test(&method.differences).filter(|_| enough);
            contrasts.push(Contrast { study, method: &method.name, difference, t_test, sign_flip, corrected: None });
        }
    }
    let tests = tests(survey, &contrasts);
    let corrected = holm(&tests.values().copied().collect::<Vec<f64>>());
    for contrast in contrasts.iter_mut().filter(|contrast| contrast.t_test.is_some()) {
        contrast.corrected = tests.get_index_of(&contrast.students(survey)).map(|at| corrected[at]);
    }
    contrasts
}

/// The t tests, each once: points of a sweep share the students that their axis does not concern.
fn tests<'a>(survey: &Survey, contrasts: &[Contrast<'a>]) -> IndexMap<[Vec<&'a Path>; 2], f64> {
    contrasts.iter().filter_map(|contrast| Some((contrast.students(survey), contrast.t_test?))).collect()
}

fn by_pair(survey: &Survey) -> Vec<Block> {
    let contrasts = contrasts(survey);
    if contrasts.is_empty() {
        return Vec::new();
    }
    let heading = Block::Heading(format!("Differences to {}", survey.baseline));
    let tested = tests(survey, &contrasts).len();
    vec![heading, Block::Text(about_tests(&contrasts, tested)), Block::Table(contrast_table(survey, &contrasts))]
}

fn contrast_table(survey: &Survey, contrasts: &[Contrast<'_>]) -> Table {
    let mut header: Vec<&str> = survey.study_column().into_iter().collect();
    header.extend(["method", "seeds", "difference", "95 % interval"]);
    header.extend(["p, t test", "p, sign flips", "p, corrected", "claim"]);
    let mut table = Table::new(header).left(if survey.single().is_some() { 1 } else { 2 });
    let score = survey.task.score();
    for contrast in contrasts {
        let Spread { count, mean, .. } = contrast.difference;
        let interval = match contrast.difference.half_width().filter(|_| count >= ENOUGH_SEEDS) {
            Some(half) => {
                let [low, high] = [mean - half, mean + half];
                Cell::number(format!("{} … {}", signed(low, score.unit), signed(high, score.unit)), Some(low))
            }
            None => NONE.into(),
        };
        let mark = match contrast.verdict() {
            "above" | "below" if gain(mean, score.better) > 0.0 => Some(Mark::Above),
            "above" | "below" => Some(Mark::Below),
            _ => None,
        };
        let mut row: Vec<Cell> = survey.study_cell(contrast.study).into_iter().collect();
        row.extend([
            contrast.method.into(),
            count.to_string().into(),
            Cell::number(signed(mean, score.unit), Some(mean)),
            interval,
        ]);
        for p in [contrast.t_test, contrast.sign_flip, contrast.corrected] {
            row.push(Cell::maybe(p, probability));
        }
        row.push(Cell::from(contrast.verdict()).marked(mark));
        table.row(row);
    }
    table
}

fn about_tests(contrasts: &[Contrast<'_>], tested: usize) -> String {
    let most = contrasts.iter().map(|contrast| contrast.difference.count).max().unwrap_or(0);
    let fewest = contrasts.iter().map(|contrast| contrast.difference.count).min().unwrap_or(0);
    let mut text = String::from("On paired seeds: the same batches, the same initial weights.");
    if tested > 0 {
        text += &format!(
            " The interval and the first p-value are Student's; the second is of the exact test over all choices of signs, which \
             supposes no distribution; the last is the first after Holm's correction for the {tested} tests of this report, and a \
             claim needs it below {LEVEL}."
        );
    }
    if fewest < ENOUGH_SEEDS {
        text += &format!(" With fewer than {ENOUGH_SEEDS} common seeds nothing is tested and nothing is claimed.");
    }
    if (ENOUGH_SEEDS..6).contains(&most) {
        text += &format!(
            " With {most} seeds the exact test cannot give less than {}, so a claim rests on the t test, which supposes \
             normal differences; six seeds free it from that.",
            probability(2.0 / f64::from(1u32 << most))
        );
    }
    text
}

/// Whether studies can stand for independent pairs of networks: those that differ in settings alone cannot.
fn are_pairs(survey: &Survey) -> bool {
    let mut pairs = IndexSet::new();
    survey.studies.iter().all(|study| {
        let dataset = study.summaries().next().map(|summary| &summary.dataset);
        pairs.insert((dataset, study.networks()))
    })
}

/// The methods that every study has a mean of, and their ranking over studies.
fn ranking(survey: &Survey) -> Option<(Vec<&str>, Ranking)> {
    if !are_pairs(survey) {
        return None;
    }
    let mut methods: Vec<&str> = survey.methods.iter().map(String::as_str).collect();
    methods.retain(|name| survey.studies.iter().all(|study| study.mean(name).is_some()));
    let better = survey.task.score().better;
    let mut scores: Vec<Vec<f64>> = Vec::new();
    for study in &survey.studies {
        let means = methods.iter().filter_map(|name| study.mean(name));
        scores.push(means.map(|mean| gain(mean, better)).collect());
    }
    Ranking::of(&scores).map(|ranking| (methods, ranking))
}

fn over_pairs(survey: &Survey) -> Vec<Block> {
    if survey.single().is_some() {
        return Vec::new();
    }
    let heading = Block::Heading("Ranks over pairs".to_owned());
    if !are_pairs(survey) {
        let in_sweeps = survey.studies.iter().all(|study| study.point.is_some());
        let text = "Ranks and relative improvements are averages over pairs of networks. Here a pair stands more than once, with \
                    other settings, so there are none: its studies are no independent evidence.";
        return if in_sweeps { Vec::new() } else { vec![heading, text.into()] };
    }
    let Some((methods, ranking)) = ranking(survey) else {
        let text = "Fewer than three methods have a result on every pair: there is nothing to rank.";
        return vec![heading, text.into()];
    };
    let mut order: Vec<(String, f64)> = Vec::new();
    for (name, rank) in methods.iter().zip(&ranking.mean_ranks) {
        order.push(((*name).to_owned(), *rank));
    }
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut table = Table::new(["method", "mean rank"]);
    for (name, rank) in &order {
        table.row([name.into(), Cell::number(format!("{rank:.2}"), Some(*rank))]);
    }
    let title = "Mean ranks; a bar joins methods that differ by less than the critical difference";
    let figure = Figure {
        caption: title.to_owned(),
        svg: chart::ranks(title, &order, ranking.critical_difference),
        legend: Vec::new(),
        numbers: RANKS.name_if_written(survey),
    };
    let text = about_ranks(survey, &methods, &ranking);
    vec![heading, Block::Text(text), Block::Table(table), Block::Figures(vec![figure])]
}

fn about_ranks(survey: &Survey, methods: &[&str], ranking: &Ranking) -> String {
    let count = ranking.pairs;
    let claim = match ranking.friedman {
        _ if count < ENOUGH_PAIRS => format!(
            "With {count} pairs the approximations behind these tests are poor and nothing is claimed; {ENOUGH_PAIRS} or more are needed."
        ),
        Some((_, p)) if p < LEVEL => {
            "The methods differ. Two of them do where their mean ranks are further apart than the critical difference."
                .to_owned()
        }
        _ => "It is not shown that the methods differ at all, so no two of them are compared.".to_owned(),
    };
    let friedman = match ranking.friedman {
        Some((statistic, p)) => format!("Friedman's χ² = {statistic:.2}, p = {}", probability(p)),
        None => "every pair ranks all methods equal".to_owned(),
    };
    let scores = methods.iter().flat_map(|name| survey.studies.iter().filter_map(|study| study.method(name)?.score));
    let fewest = scores.map(|score| score.count).min().unwrap_or(0);
    let noise = if fewest < ENOUGH_SEEDS {
        format!(" Some of these means are of {}, so that chance is in the ranks.", plural(fewest as u64, "seed"))
    } else {
        String::new()
    };
    format!(
        "Ranks of the mean {} over seeds, 1 for the {}, averaged over {count} pairs: {friedman}; Nemenyi's critical \
         difference at {LEVEL} is {:.2}. {claim}{noise}",
        survey.task.score().short,
        survey.task.score().better.best(),
        ranking.critical_difference
    )
}

/// The relative improvement of one method over another on several pairs.
#[derive(Debug)]
pub struct Improvement {
    /// The number of pairs.
    pub pairs: usize,
    /// In percent, pair by pair; pairs with a denominator of 0 have none.
    pub each: Vec<f64>,
    pub mean: f64,
    pub median: f64,
    /// The mean of the plain differences, in points.
    pub gap: f64,
    /// How many pairs have a denominator nearer to 0 than a point.
    pub unstable: usize,
}

/// The average relative improvement of the CRD paper (arXiv 1910.10699): the mean over pairs of (X − Y) / (Y − student), with
/// the accuracies `[X, Y, student alone]` of each pair; NaN where no pair has one.
pub fn relative_improvement(pairs: &[[f64; 3]]) -> Improvement {
    let mut each = Vec::new();
    for [ours, theirs, alone] in pairs {
        let gain = theirs - alone;
        if gain.abs() > ROUNDING {
            each.push(100.0 * (ours - theirs) / gain);
        }
    }
    Improvement {
        mean: Spread::of(each.iter().copied()).map_or(f64::NAN, |spread| spread.mean),
        median: median(&each).unwrap_or(f64::NAN),
        gap: Spread::of(pairs.iter().map(|[ours, theirs, _]| ours - theirs)).map_or(f64::NAN, |spread| spread.mean),
        pairs: pairs.len(),
        unstable: pairs.iter().filter(|[_, theirs, alone]| (theirs - alone).abs() < NEAR_ZERO).count(),
        each,
    }
}

/// The accuracies of `method`, `other` and the student alone, on every pair that has all three.
fn triples(survey: &Survey, method: &str, other: &str) -> Vec<[f64; 3]> {
    if !are_pairs(survey) {
        return Vec::new();
    }
    let mut triples = Vec::new();
    for study in &survey.studies {
        if let Some(alone) = study.scratch().and_then(|scratch| scratch.score)
            && let (Some(ours), Some(theirs)) = (study.mean(method), study.mean(other))
        {
            triples.push([ours, theirs, alone.mean]);
        }
    }
    triples
}

/// Whether a method is the student alone, which has no relative improvement over itself.
fn is_alone(survey: &Survey, method: &str) -> bool {
    survey.studies.iter().any(|study| study.scratch().is_some_and(|scratch| scratch.name == method))
}

fn relative(survey: &Survey) -> Vec<Block> {
    let baseline = &survey.baseline;
    let mut scratches = survey.studies.iter().filter_map(Study::scratch);
    if !are_pairs(survey) || scratches.all(|scratch| scratch.score.is_none()) {
        return Vec::new();
    }
    let heading = Block::Heading("Relative improvement".to_owned());
    if is_alone(survey, baseline) {
        let all = if survey.csv { " relative.csv has all of them." } else { "" };
        let text = format!(
            "The CRD paper's average relative improvement is one distillation method's over another, and `{baseline}` is the \
             student alone: report again with `--baseline kd` or another method.{all}"
        );
        return vec![heading, Block::Text(text)];
    }
    let mut table = Table::new(["method", "pairs", "ratios", "mean", "median", "mean gap", "near-zero denominators"]);
    let mut unstable = false;
    for method in survey.methods.iter().filter(|method| *method != baseline && !is_alone(survey, method)) {
        let found = relative_improvement(&triples(survey, method, baseline));
        if found.each.is_empty() {
            continue;
        }
        unstable |= found.unstable > 0;
        table.row([
            Cell::from(method),
            found.pairs.to_string().into(),
            found.each.len().to_string().into(),
            Cell::number(format!("{:.1} %", found.mean), Some(found.mean)),
            Cell::number(format!("{:.1} %", found.median), Some(found.median)),
            Cell::number(signed(found.gap, survey.task.score().unit), Some(found.gap)),
            found.unstable.to_string().into(),
        ]);
    }
    if table.rows.is_empty() {
        return Vec::new();
    }
    let mut text = format!(
        "Over `{baseline}`, as the CRD paper defines it: (method − `{baseline}`) / (`{baseline}` − student alone) in percent, \
         averaged over pairs that have the ratio; beside it the median, and the mean of method − `{baseline}` over all pairs, in \
         points."
    );
    if unstable {
        text += &format!(
            " Warning: on some pairs `{baseline}` is less than {NEAR_ZERO} point from the student alone. The ratio is \
             arbitrarily large there and its mean says nothing: read the median and the gap."
        );
    }
    vec![heading, Block::Text(text), Block::Table(table)]
}

fn contrast_rows(survey: &Survey) -> Vec<ContrastRow<'_>> {
    let mut rows = Vec::new();
    for contrast in contrasts(survey) {
        rows.push(ContrastRow {
            experiment: &contrast.study.experiment.name,
            method: contrast.method,
            baseline: &survey.baseline,
            seeds: contrast.difference.count,
            difference_mean: contrast.difference.mean,
            difference_deviation: contrast.difference.deviation,
            interval_half_width: contrast.difference.half_width(),
            p_t_test: contrast.t_test,
            p_sign_flips: contrast.sign_flip,
            p_corrected: contrast.corrected,
            claim: contrast.verdict(),
        });
    }
    rows
}

fn rank_rows(survey: &Survey) -> Vec<RankRow<'_>> {
    let Some((methods, ranking)) = ranking(survey) else { return Vec::new() };
    let mut rows = Vec::new();
    for (method, mean_rank) in methods.into_iter().zip(ranking.mean_ranks) {
        rows.push(RankRow {
            method,
            mean_rank,
            pairs: ranking.pairs,
            friedman: ranking.friedman.map(|(statistic, _)| statistic),
            p_friedman: ranking.friedman.map(|(_, p)| p),
            critical_difference: ranking.critical_difference,
        });
    }
    rows
}

fn improvement_rows(survey: &Survey) -> Vec<ImprovementRow<'_>> {
    let taught: Vec<&String> = survey.methods.iter().filter(|method| !is_alone(survey, method)).collect();
    let mut rows = Vec::new();
    for method in &taught {
        for over in taught.iter().filter(|over| *over != method) {
            let found = relative_improvement(&triples(survey, method, over));
            if !found.each.is_empty() {
                rows.push(ImprovementRow {
                    method,
                    over,
                    pairs: found.pairs,
                    ratios: found.each.len(),
                    mean_percent: found.mean,
                    median_percent: found.median,
                    mean_gap: found.gap,
                    near_zero_denominators: found.unstable,
                });
            }
        }
    }
    rows
}
