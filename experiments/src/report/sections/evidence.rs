//! What may be said of the differences: intervals and tests by pair, ranks over pairs, relative improvement.

use std::path::Path;

use indexmap::IndexMap;

use crate::report::document::{Block, Figure};
use crate::report::numbers::{probability, signed};
use crate::report::picture;
use crate::report::statistics::{LEVEL, ROUNDING, Ranking, Spread, holm, median, sign_flip_test};
use crate::report::study::Study;
use crate::report::table::{Cell, Mark, NONE, Table};
use crate::report::{ENOUGH_PAIRS, ENOUGH_SEEDS, Survey};
use crate::words::plural;

use super::{distinct, of_study, study_column};

/// Relative improvements whose denominator is nearer to 0 than this, in points, say little.
const NEAR_ZERO: f64 = 1.0;

/// Everything.
pub fn blocks(survey: &Survey) -> Vec<Block> {
    let mut blocks = by_pair(survey);
    blocks.extend(over_pairs(survey));
    blocks.extend(relative(survey));
    blocks
}

/// A method against the baseline on one pair.
pub struct Contrast<'a> {
    pub study: &'a Study,
    pub method: &'a str,
    pub difference: Spread,
    /// Of the paired t test; absent where there are too few seeds or they do not scatter.
    pub t_test: Option<f64>,
    /// Of the exact sign-flip test.
    pub sign_flip: Option<f64>,
    /// Of the t test, corrected for all contrasts of the report.
    pub corrected: Option<f64>,
}

impl<'a> Contrast<'a> {
    /// The folders of the students of both methods.
    fn students(&self, survey: &Survey) -> [Vec<&'a Path>; 2] {
        let study = self.study;
        let folders = |name: &str| {
            let runs = study.method(name).into_iter().flat_map(|method| &method.runs);
            runs.map(|run| run.path.as_path()).collect()
        };
        [folders(self.method), folders(&survey.baseline)]
    }

    /// What is claimed.
    pub fn verdict(&self) -> &'static str {
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
pub fn contrasts(survey: &Survey) -> Vec<Contrast<'_>> {
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
    let mut header: Vec<&str> = study_column(survey).into_iter().chain(["method", "seeds", "difference"]).collect();
    header.extend(["95 % interval", "p, t test", "p, sign flips", "p, corrected", "claim"]);
    let mut table = Table::new(header).left(if survey.single().is_some() { 1 } else { 2 });
    let or_none = |p: Option<f64>| Cell::number(p.map_or_else(|| NONE.to_owned(), probability), p);
    for contrast in &contrasts {
        let Spread { count, mean, .. } = contrast.difference;
        let half = contrast.difference.half_width().filter(|_| count >= ENOUGH_SEEDS);
        let interval =
            half.map_or_else(|| NONE.to_owned(), |half| format!("{} … {}", signed(mean - half), signed(mean + half)));
        let interval = Cell::number(interval, half.map(|half| mean - half));
        let mark = match contrast.verdict() {
            "above" => Some(Mark::Above),
            "below" => Some(Mark::Below),
            _ => None,
        };
        let mut row: Vec<Cell> = of_study(survey, &contrast.study.label).into_iter().collect();
        row.extend([contrast.method.into(), count.to_string().into(), Cell::number(signed(mean), Some(mean))]);
        row.extend([interval, or_none(contrast.t_test), or_none(contrast.sign_flip)]);
        row.extend([or_none(contrast.corrected), Cell::from(contrast.verdict()).marked(mark)]);
        table.row(row);
    }
    let most = contrasts.iter().map(|contrast| contrast.difference.count).max().unwrap_or(0);
    let fewest = contrasts.iter().map(|contrast| contrast.difference.count).min().unwrap_or(0);
    let tested = tests(survey, &contrasts).len();
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
    vec![Block::Heading(format!("Differences to {}", survey.baseline)), Block::Text(text), Block::Table(table)]
}

/// Whether studies can stand for independent pairs of networks: those that differ in settings alone cannot.
fn are_pairs(survey: &Survey) -> bool {
    let data = |study: &Study| study.summaries().next().map(|summary| summary.dataset.clone());
    let pairs: Vec<_> = survey.studies.iter().map(|study| (data(study), study.networks())).collect();
    distinct(pairs.iter()).len() == pairs.len()
}

/// The methods that every study has a mean of, and their ranking over studies.
pub fn ranking(survey: &Survey) -> Option<(Vec<&str>, Ranking)> {
    if !are_pairs(survey) {
        return None;
    }
    let everywhere = |name: &&String| survey.studies.iter().all(|study| study.mean(name).is_some());
    let methods: Vec<&str> = survey.methods.iter().filter(everywhere).map(String::as_str).collect();
    let scores: Vec<Vec<f64>> =
        survey.studies.iter().map(|study| methods.iter().filter_map(|name| study.mean(name)).collect()).collect();
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
    let (count, enough) = (ranking.pairs, ranking.pairs >= ENOUGH_PAIRS);
    let claim = match ranking.friedman {
        _ if !enough => format!(
            "With {count} pairs the approximations behind these tests are poor and nothing is claimed; {ENOUGH_PAIRS} or more are needed."
        ),
        Some((_, p)) if p < LEVEL => {
            "The methods differ. Two of them do where their mean ranks are further apart than the critical difference."
                .to_owned()
        }
        _ => "It is not shown that the methods differ at all, so no two of them are compared.".to_owned(),
    };
    let friedman = ranking.friedman.map_or_else(
        || "every pair ranks all methods equal".to_owned(),
        |(statistic, p)| format!("Friedman's χ² = {statistic:.2}, p = {}", probability(p)),
    );
    let seeds = methods.iter().flat_map(|name| survey.studies.iter().filter_map(|study| study.method(name)?.score));
    let fewest = seeds.map(|score| score.count).min().unwrap_or(0);
    let noise = if fewest < ENOUGH_SEEDS {
        format!(" Some of these means are of {}, so that chance is in the ranks.", plural(fewest as u64, "seed"))
    } else {
        String::new()
    };
    let text = format!(
        "Ranks of the mean {} over seeds, 1 for the highest, averaged over {count} pairs: {friedman}; Nemenyi's critical \
         difference at {LEVEL} is {:.2}. {claim}{noise}",
        survey.measure.short(),
        ranking.critical_difference
    );
    let mut table = Table::new(["method", "mean rank"]);
    let mut order: Vec<(String, f64)> =
        methods.iter().map(|name| (*name).to_owned()).zip(ranking.mean_ranks.iter().copied()).collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    order.iter().for_each(|(name, rank)| table.row([name.into(), Cell::number(format!("{rank:.2}"), Some(*rank))]));
    let title = "Mean ranks; a bar joins methods that differ by less than the critical difference";
    let figure = Figure {
        caption: title.to_owned(),
        svg: picture::ranks(title, &order, ranking.critical_difference),
        legend: Vec::new(),
        numbers: survey.csv.then_some("ranks.csv"),
    };
    vec![heading, Block::Text(text), Block::Table(table), Block::Figures(vec![figure])]
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
    let ratio = |[ours, theirs, alone]: &[f64; 3]| {
        let gain = theirs - alone;
        (gain.abs() > ROUNDING).then(|| 100.0 * (ours - theirs) / gain)
    };
    let each: Vec<f64> = pairs.iter().filter_map(ratio).collect();
    let mean = |values: &[f64]| Spread::of(values.iter().copied()).map_or(f64::NAN, |spread| spread.mean);
    Improvement {
        mean: mean(&each),
        median: median(&each).unwrap_or(f64::NAN),
        gap: mean(&pairs.iter().map(|[ours, theirs, _]| ours - theirs).collect::<Vec<f64>>()),
        pairs: pairs.len(),
        unstable: pairs.iter().filter(|[_, theirs, alone]| (theirs - alone).abs() < NEAR_ZERO).count(),
        each,
    }
}

/// The accuracies of `method`, `other` and the student alone, on every pair that has all three.
pub fn triples(survey: &Survey, method: &str, other: &str) -> Vec<[f64; 3]> {
    if !are_pairs(survey) {
        return Vec::new();
    }
    let of = |study: &Study| Some([study.mean(method)?, study.mean(other)?, study.scratch()?.score?.mean]);
    survey.studies.iter().filter_map(of).collect()
}

/// Whether a method is the student alone, which has no relative improvement over itself.
pub fn is_alone(survey: &Survey, method: &str) -> bool {
    survey.studies.iter().any(|study| study.scratch().is_some_and(|scratch| scratch.name == method))
}

fn relative(survey: &Survey) -> Vec<Block> {
    let baseline = &survey.baseline;
    let is_alone_known = |study: &Study| study.scratch().is_some_and(|scratch| scratch.score.is_some());
    if !are_pairs(survey) || !survey.studies.iter().any(is_alone_known) {
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
        let percent = |value: f64| Cell::number(format!("{value:.1} %"), Some(value));
        let mut row: Vec<Cell> =
            vec![method.into(), found.pairs.to_string().into(), found.each.len().to_string().into()];
        row.extend([percent(found.mean), percent(found.median), Cell::number(signed(found.gap), Some(found.gap))]);
        row.push(found.unstable.to_string().into());
        table.row(row);
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
    if table.rows.is_empty() { Vec::new() } else { vec![heading, Block::Text(text), Block::Table(table)] }
}
