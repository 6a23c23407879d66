//! What the students took from the teacher: agreement, divergence, calibration, alignment, correlations, and the bound on
//! the mutual information.

use limbeck::record::{Measure, TapSimilarity, TeacherRecord, TeacherSimilarity};
use tch::{Kind, Tensor};

use crate::report::Survey;
use crate::report::document::{Block, Figure};
use crate::report::numbers::spread;
use crate::report::picture::{self, Heat, Series};
use crate::report::statistics::Spread;
use crate::report::study::{Method, Run, Study};
use crate::report::table::{Cell, NONE, Table};

use super::{of_study, study_column};

/// Where in a metric's name the bound on the mutual information is found.
pub const MUTUAL_INFORMATION: &str = "mutual_information";

/// More epochs than this are thinned out in tables; all of them are in `curves.csv`.
const SHOWN_EPOCHS: usize = 12;

/// Matrices of more classes than this are drawn without names and numbers.
const NAMED_CLASSES: usize = 16;

/// Everything.
pub fn blocks(survey: &Survey) -> Vec<Block> {
    let mut blocks = numbers(survey);
    blocks.extend(alignments(survey));
    blocks.extend(correlations(survey));
    blocks.extend(mutual_information(survey));
    blocks
}

/// A method beside a teacher, over its seeds.
pub struct Pairing<'a> {
    pub study: &'a Study,
    pub method: &'a Method,
    pub teacher: &'a TeacherRecord,
    /// What the runs that were measured with this teacher found.
    pub found: Vec<(&'a Run, &'a TeacherSimilarity)>,
}

impl Pairing<'_> {
    /// Something over the runs.
    pub fn spread(&self, of: impl Fn(&Run, &TeacherSimilarity) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.found.iter().filter_map(|(run, found)| of(run, found)))
    }

    /// The mean over seeds of the alignment of each pair of taps, in the order of the first run.
    pub fn taps(&self) -> Vec<(&TapSimilarity, Option<f64>)> {
        let Some((_, first)) = self.found.first() else { return Vec::new() };
        let mean = |tap: &TapSimilarity| {
            let same = |other: &&TapSimilarity| (&other.student, &other.teacher) == (&tap.student, &tap.teacher);
            self.spread(|_, found| found.taps.iter().find(same)?.alignment).map(|spread| spread.mean)
        };
        first.taps.iter().map(|tap| (tap, mean(tap))).collect()
    }

    /// The mean over seeds of the absolute differences of the classes' correlations, `[C][C]`.
    pub fn correlations(&self) -> Option<Vec<Vec<f64>>> {
        let mut matrices = self.found.iter().filter_map(|(run, _)| run.correlation_difference(self.teacher));
        let first = matrices.next()?;
        let size = first.size();
        let alike: Vec<Tensor> = matrices.filter(|matrix| matrix.size() == size).chain([first]).collect();
        Vec::try_from(Tensor::stack(&alike, 0).mean_dim(0, false, Kind::Double)).ok()
    }

    /// `kd`; with pair and teacher where there are several.
    fn title(&self, survey: &Survey) -> String {
        let teacher =
            if self.study.teachers.len() > 1 { format!(", teacher {}", self.teacher.name) } else { String::new() };
        let study = if survey.single().is_some() { String::new() } else { format!("{}: ", self.study.label) };
        format!("{study}{}{teacher}", self.method.name)
    }
}

/// Every method beside every teacher, where that was measured.
pub fn pairings(survey: &Survey) -> Vec<Pairing<'_>> {
    let mut pairings = Vec::new();
    for study in &survey.studies {
        for teacher in &study.teachers {
            for method in &study.methods {
                let runs = method.runs.iter();
                let found: Vec<_> = runs.filter_map(|run| Some((run, run.beside(teacher)?))).collect();
                if !found.is_empty() {
                    pairings.push(Pairing { study, method, teacher, found });
                }
            }
        }
    }
    pairings
}

fn numbers(survey: &Survey) -> Vec<Block> {
    let pairings = pairings(survey);
    if pairings.is_empty() {
        return Vec::new();
    }
    let several = survey.studies.iter().any(|study| study.teachers.len() > 1);
    let mut header: Vec<&str> = study_column(survey).into_iter().collect();
    header.extend(several.then_some("teacher"));
    let of_labels = survey.measure == Measure::Top1;
    header.push("method");
    let left = header.len();
    header.extend(["agreement", "divergence", "calibration"].into_iter().filter(|_| of_labels));
    header.extend(["correlations", "CKA of the last taps"]);
    let mut table = Table::new(header).left(left);
    let number = |value: Option<Spread>| Cell::number(spread(value), value.map(|value| value.mean));
    let fine = |value: Option<Spread>| {
        Cell::number(value.map_or_else(|| NONE.to_owned(), |value| format!("{:.3}", value.mean)), value.map(|v| v.mean))
    };
    let mut teachers: Vec<String> = Vec::new();
    for pairing in &pairings {
        let mut row: Vec<Cell> = of_study(survey, &pairing.study.label).into_iter().collect();
        row.extend(several.then(|| pairing.teacher.name.as_str().into()));
        row.push(pairing.method.name.as_str().into());
        if of_labels {
            row.push(number(pairing.spread(|_, found| found.agreement)));
            row.push(fine(pairing.spread(|_, found| found.divergence)));
            row.push(number(pairing.spread(|run, _| run.similarity.as_ref()?.calibration_error)));
        }
        row.push(fine(pairing.spread(|_, found| Some(found.correlation_difference))));
        row.push(fine(pairing.spread(|_, found| found.taps.last()?.alignment)));
        table.row(row);
        if let Some(calibration) = pairing.spread(|_, found| found.calibration_error) {
            let own = format!("{:.2} points for {} ({})", calibration.mean, pairing.teacher.name, pairing.study.label);
            if !teachers.contains(&own) {
                teachers.push(own);
            }
        }
    }
    let about = if of_labels {
        format!(
            "Agreement: samples with the same first guess, in percent. Divergence: KL(teacher ‖ student) at temperature 1, in \
             nats. Calibration: expected calibration error over 15 bins, in percentage points; of the teacher: {}.",
            teachers.join(", ")
        )
    } else {
        "Agreement, divergence and calibration error are of one distribution over all classes, and left out where targets are \
         sets of classes."
            .to_owned()
    };
    let text = format!(
        "Measured once at the end of every run, with the final weights on the test split. {about} Correlations: mean absolute \
         difference of the correlations of the classes' logits. CKA: linear, unbiased, over batches. Means over seeds. Of a \
         student whose method asks no teacher these numbers say what two networks share anyway."
    );
    vec![Block::Text(text), Block::Table(table)]
}

fn alignments(survey: &Survey) -> Vec<Block> {
    let mut figures = Vec::new();
    for pairing in pairings(survey) {
        let taps = pairing.taps();
        // A teacher that combines others has none.
        if taps.is_empty() {
            continue;
        }
        let mut names: [Vec<String>; 2] = Default::default();
        for (tap, _) in &taps {
            for (names, name) in names.iter_mut().zip([&tap.student, &tap.teacher]) {
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
        }
        let columns = names[1].len().max(1);
        let values = taps.chunks(columns).map(|row| row.iter().map(|(_, value)| *value).collect()).collect();
        let caption = pairing.title(survey);
        let title = format!("CKA of the taps of student and teacher, {caption}");
        let svg = Heat { title: &title, names, sides: ["student", "teacher"], values, most: 1.0 }.draw();
        figures.push(Figure { caption, svg, legend: Vec::new(), numbers: survey.csv.then_some("alignment.csv") });
    }
    if figures.is_empty() {
        return Vec::new();
    }
    let text = "Linear CKA of every tap of the student with every tap of the teacher, mean over seeds: 1 where they arrange \
                the samples alike, about 0 where they have nothing in common.";
    vec![Block::Heading("Alignment of the taps".to_owned()), text.into(), Block::Figures(figures)]
}

fn correlations(survey: &Survey) -> Vec<Block> {
    let matrices: Vec<(Pairing<'_>, Vec<Vec<f64>>)> = pairings(survey)
        .into_iter()
        .filter_map(|pairing| pairing.correlations().map(|matrix| (pairing, matrix)))
        .collect();
    let figure = |(pairing, matrix): &(Pairing<'_>, Vec<Vec<f64>>)| {
        let of_pair = matrices.iter().filter(|(other, _)| std::ptr::eq(other.study, pairing.study));
        let most = of_pair.flat_map(|(_, matrix)| matrix.iter().flatten()).copied().fold(1e-9, f64::max);
        let names: Vec<String> = if matrix.len() <= NAMED_CLASSES { class_names(pairing) } else { Vec::new() };
        let caption = pairing.title(survey);
        let title = format!("Difference of the class correlations of teacher and student, {caption}");
        let values = matrix.iter().map(|row| row.iter().copied().map(Some).collect()).collect();
        let svg = Heat { title: &title, names: [names.clone(), names], sides: ["class", "class"], values, most }.draw();
        Figure { caption, svg, legend: Vec::new(), numbers: survey.csv.then_some("correlations.csv") }
    };
    let figures: Vec<Figure> = matrices.iter().map(figure).collect();
    if figures.is_empty() {
        return Vec::new();
    }
    let text = "How the logits of two classes are correlated over the test split: the absolute difference between teacher and \
                student, mean over seeds, on one scale for all methods of a pair. Dark is good: the student has taken over which classes \
                the teacher confuses.";
    vec![Block::Heading("Correlations of the classes".to_owned()), text.into(), Block::Figures(figures)]
}

/// The names of the classes.
pub fn class_names(pairing: &Pairing<'_>) -> Vec<String> {
    let similarity = pairing.found.iter().find_map(|(run, _)| run.similarity.as_ref());
    similarity.map(|found| found.classes.iter().map(|class| class.name.clone()).collect()).unwrap_or_default()
}

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
        let study = if survey.single().is_some() { String::new() } else { format!("{}: ", self.study.label) };
        format!("{study}{}: {}", self.method.name, self.metric)
    }
}

fn mutual_information(survey: &Survey) -> Vec<Block> {
    let mut bounds: Vec<Bound<'_>> = Vec::new();
    for study in &survey.studies {
        for method in &study.methods {
            for metric in method.finished().flat_map(|summary| &summary.history).flat_map(|epoch| epoch.train.keys()) {
                let known = |b: &Bound<'_>| std::ptr::eq(b.method, method) && b.metric == metric;
                if metric.contains(MUTUAL_INFORMATION) && !bounds.iter().any(known) {
                    bounds.push(Bound { study, method, metric });
                }
            }
        }
    }
    if bounds.is_empty() {
        return Vec::new();
    }
    let histories = bounds.iter().flat_map(|bound| bound.method.finished()).flat_map(|summary| &summary.history);
    let last = histories.filter(|record| record.stage == "main").map(|record| record.epoch).max().unwrap_or(0);
    let names: Vec<String> = bounds.iter().map(|bound| bound.name(survey)).collect();
    let mut table = Table::new(std::iter::once("epoch".to_owned()).chain(names.iter().cloned()));
    let shown = thinned(last);
    for epoch in &shown {
        let cell = |bound: &Bound<'_>| bound.at(*epoch).map_or_else(|| NONE.to_owned(), |b| format!("{:.3}", b.mean));
        table.row(std::iter::once(epoch.to_string()).chain(bounds.iter().map(cell)));
    }
    let series: Vec<Series> = bounds
        .iter()
        .zip(&names)
        .enumerate()
        .map(|(index, (bound, name))| {
            let point = |epoch| bound.at(epoch).map(|spread| (epoch as f64, spread.mean, spread.deviation));
            Series { name: name.clone(), index, points: (1..=last).filter_map(point).collect() }
        })
        .collect();
    let title = "Bound on the mutual information by epoch";
    let figure = Figure {
        caption: title.to_owned(),
        svg: picture::lines(title, "epoch", "nats", &series),
        legend: names,
        numbers: survey.csv.then_some("curves.csv"),
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
