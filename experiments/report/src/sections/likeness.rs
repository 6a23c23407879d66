//! What the students took from the teacher: agreement, divergence, calibration, alignment, correlations, and the bound on
//! the mutual information.

use indexmap::IndexSet;
use limbeck::record::{TapSimilarity, TeacherRecord, TeacherSimilarity};
use limbeck::task::Unit;
use serde::Serialize;
use tch::{Kind, Tensor};

use crate::chart::Heat;
use crate::csv::{self, CsvFile};
use crate::document::{Block, Figure};
use crate::numbers::spread_cell;
use crate::run::Run;
use crate::statistics::Spread;
use crate::study::{Method, Study};
use crate::survey::Survey;
use crate::table::{Cell, Table};

use super::mutual_information;

/// Matrices of more classes than this are drawn without names and numbers.
const NAMED_CLASSES: usize = 16;

/// The students beside their teachers.
pub const SIMILARITY: CsvFile = CsvFile {
    name: "similarity.csv",
    about: |_| "every run beside every teacher".to_owned(),
    text: |survey| csv::text(similarity_rows(survey)),
};

/// The alignment of taps.
pub const ALIGNMENT: CsvFile = CsvFile {
    name: "alignment.csv",
    about: |_| "CKA of every pair of taps, mean over seeds".to_owned(),
    text: |survey| csv::text(alignment_rows(survey)),
};

/// The correlations of classes.
pub const CORRELATIONS: CsvFile = CsvFile {
    name: "correlations.csv",
    about: |_| "differences of the correlations of every two classes, mean over seeds".to_owned(),
    text: |survey| csv::text(correlation_rows(survey)),
};

/// A run beside a teacher.
#[derive(Serialize)]
struct SimilarityRow<'a> {
    experiment: &'a str,
    method: &'a str,
    seed: u64,
    teacher: &'a str,
    agreement: Option<f64>,
    divergence: Option<f64>,
    calibration_error: Option<f64>,
    teacher_calibration_error: Option<f64>,
    correlation_difference: f64,
}

/// Two taps of a method's students and of a teacher.
#[derive(Serialize)]
struct AlignmentRow<'a> {
    experiment: &'a str,
    method: &'a str,
    teacher: &'a str,
    student_tap: &'a str,
    teacher_tap: &'a str,
    cka: Option<f64>,
}

/// Two different classes of a method's students and of a teacher.
#[derive(Serialize)]
struct CorrelationRow<'a> {
    experiment: &'a str,
    method: &'a str,
    teacher: &'a str,
    class: String,
    other_class: String,
    difference: f64,
}

/// Everything.
pub fn blocks(survey: &Survey) -> Vec<Block> {
    let mut blocks = numbers(survey);
    blocks.extend(alignments(survey));
    blocks.extend(correlations(survey));
    blocks.extend(mutual_information::blocks(survey));
    blocks
}

/// A method beside a teacher, over its seeds.
struct Pairing<'a> {
    study: &'a Study,
    method: &'a Method,
    teacher: &'a TeacherRecord,
    /// What the runs that were measured with this teacher found.
    found: Vec<(&'a Run, &'a TeacherSimilarity)>,
}

impl<'a> Pairing<'a> {
    /// Something over the runs.
    fn spread(&self, value: impl Fn(&Run, &TeacherSimilarity) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.found.iter().filter_map(|(run, found)| value(run, found)))
    }

    /// The mean over seeds of the alignment of each pair of taps, in the order of the first run.
    fn taps(&self) -> Vec<(&'a TapSimilarity, Option<f64>)> {
        let Some((_, first)) = self.found.first() else { return Vec::new() };
        let mut taps = Vec::new();
        for tap in &first.taps {
            let alignment = self.spread(|_, found| alignment(found, tap));
            taps.push((tap, alignment.map(|spread| spread.mean)));
        }
        taps
    }

    /// The mean over seeds of the absolute differences of the classes' correlations, `[C][C]`.
    fn correlations(&self) -> Option<Vec<Vec<f64>>> {
        let mut matrices = self.found.iter().filter_map(|(run, _)| run.correlation_difference(self.teacher));
        let first = matrices.next()?;
        let size = first.size();
        let alike: Vec<Tensor> = matrices.filter(|matrix| matrix.size() == size).chain([first]).collect();
        Vec::try_from(Tensor::stack(&alike, 0).mean_dim(0, false, Kind::Double)).ok()
    }

    /// The names of the classes.
    fn class_names(&self) -> Vec<String> {
        let similarity = self.found.iter().find_map(|(run, _)| run.similarity.as_ref());
        similarity.map(|found| found.classes.iter().map(|class| class.name.clone()).collect()).unwrap_or_default()
    }

    /// `kd`; with pair and teacher where there are several.
    fn title(&self, survey: &Survey) -> String {
        let teacher =
            if self.study.teachers.len() > 1 { format!(", teacher {}", self.teacher.name) } else { String::new() };
        format!("{}{}{teacher}", survey.place(self.study), self.method.name)
    }
}

/// How alike the same two taps are in another run.
fn alignment(found: &TeacherSimilarity, tap: &TapSimilarity) -> Option<f64> {
    let mut taps = found.taps.iter();
    taps.find(|other| (&other.student, &other.teacher) == (&tap.student, &tap.teacher))?.alignment
}

/// Every method beside every teacher, where that was measured.
fn pairings(survey: &Survey) -> Vec<Pairing<'_>> {
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
    let of_labels = survey.task.one_class();
    let mut header: Vec<&str> = survey.study_column().into_iter().collect();
    header.extend(several.then_some("teacher"));
    header.push("method");
    let left = header.len();
    if of_labels {
        header.extend(["agreement", "divergence", "calibration"]);
    }
    header.extend(["correlations", "CKA of the last taps"]);
    let mut table = Table::new(header).left(left);
    let mut teachers: IndexSet<String> = IndexSet::new();
    for pairing in &pairings {
        let mut row: Vec<Cell> = survey.study_cell(pairing.study).into_iter().collect();
        row.extend(several.then(|| pairing.teacher.name.as_str().into()));
        row.push(pairing.method.name.as_str().into());
        if of_labels {
            row.push(spread_cell(pairing.spread(|_, found| found.agreement), Unit::PERCENT));
            row.push(mean_cell(pairing.spread(|_, found| found.divergence)));
            let calibration = pairing.spread(|run, _| run.similarity.as_ref()?.calibration_error);
            row.push(spread_cell(calibration, Unit::PERCENT));
        }
        row.push(mean_cell(pairing.spread(|_, found| Some(found.correlation_difference))));
        row.push(mean_cell(pairing.spread(|_, found| found.taps.last()?.alignment)));
        table.row(row);
        if let Some(error) = pairing.spread(|_, found| found.calibration_error) {
            teachers.insert(format!("{:.2} points for {} ({})", error.mean, pairing.teacher.name, pairing.study.label));
        }
    }
    let about = if of_labels {
        format!(
            "Agreement: samples with the same first guess, in percent. Divergence: KL(teacher ‖ student) at temperature 1, in \
             nats. Calibration: expected calibration error over 15 bins, in percentage points; of the teacher: {}.",
            teachers.into_iter().collect::<Vec<_>>().join(", ")
        )
    } else {
        format!(
            "Agreement, divergence and calibration error are of one distribution over all classes, and left out where targets \
             are {}.",
            survey.task.targets()
        )
    };
    let text = format!(
        "Measured once at the end of every run, with the final weights on the test split. {about} Correlations: mean absolute \
         difference of the correlations of the classes' logits. CKA: linear, unbiased, over batches. Means over seeds. Of a \
         student whose method asks no teacher these numbers say what two networks share anyway."
    );
    vec![Block::Text(text), Block::Table(table)]
}

/// A mean to three digits.
fn mean_cell(value: Option<Spread>) -> Cell {
    Cell::maybe(value.map(|value| value.mean), |mean| format!("{mean:.3}"))
}

fn alignments(survey: &Survey) -> Vec<Block> {
    let mut figures = Vec::new();
    for pairing in pairings(survey) {
        let taps = pairing.taps();
        // A teacher that combines others has none.
        if taps.is_empty() {
            continue;
        }
        let students: IndexSet<&String> = taps.iter().map(|(tap, _)| &tap.student).collect();
        let teachers: IndexSet<&String> = taps.iter().map(|(tap, _)| &tap.teacher).collect();
        let columns = teachers.len().max(1);
        let values = taps.chunks(columns).map(|row| row.iter().map(|(_, value)| *value).collect()).collect();
        let names = [students, teachers].map(|names| names.into_iter().cloned().collect());
        let caption = pairing.title(survey);
        let title = format!("CKA of the taps of student and teacher, {caption}");
        let svg = Heat { title: &title, names, sides: ["student", "teacher"], values, most: 1.0 }.draw();
        figures.push(Figure { caption, svg, legend: Vec::new(), numbers: ALIGNMENT.name_if_written(survey) });
    }
    if figures.is_empty() {
        return Vec::new();
    }
    let text = "Linear CKA of every tap of the student with every tap of the teacher, mean over seeds: 1 where they arrange \
                the samples alike, about 0 where they have nothing in common.";
    vec![Block::Heading("Alignment of the taps".to_owned()), text.into(), Block::Figures(figures)]
}

fn correlations(survey: &Survey) -> Vec<Block> {
    let pairings = pairings(survey);
    let mut matrices: Vec<(&Pairing<'_>, Vec<Vec<f64>>)> = Vec::new();
    for pairing in &pairings {
        matrices.extend(pairing.correlations().map(|matrix| (pairing, matrix)));
    }
    let mut figures = Vec::new();
    for (pairing, matrix) in &matrices {
        let of_study = matrices.iter().filter(|(other, _)| std::ptr::eq(other.study, pairing.study));
        let most = of_study.flat_map(|(_, matrix)| matrix.iter().flatten()).copied().fold(1e-9, f64::max);
        let names = if matrix.len() <= NAMED_CLASSES { pairing.class_names() } else { Vec::new() };
        let caption = pairing.title(survey);
        let title = format!("Difference of the class correlations of teacher and student, {caption}");
        let values = matrix.iter().map(|row| row.iter().copied().map(Some).collect()).collect();
        let svg = Heat { title: &title, names: [names.clone(), names], sides: ["class", "class"], values, most }.draw();
        figures.push(Figure { caption, svg, legend: Vec::new(), numbers: CORRELATIONS.name_if_written(survey) });
    }
    if figures.is_empty() {
        return Vec::new();
    }
    let text = "How the logits of two classes are correlated over the test split: the absolute difference between teacher and \
                student, mean over seeds, on one scale for all methods of a pair. Dark is good: the student has taken over which classes \
                the teacher confuses.";
    vec![Block::Heading("Correlations of the classes".to_owned()), text.into(), Block::Figures(figures)]
}

fn similarity_rows(survey: &Survey) -> Vec<SimilarityRow<'_>> {
    let mut rows = Vec::new();
    for pairing in pairings(survey) {
        for (run, found) in &pairing.found {
            rows.push(SimilarityRow {
                experiment: &pairing.study.experiment.name,
                method: &run.cell.method,
                seed: run.cell.seed,
                teacher: &pairing.teacher.name,
                agreement: found.agreement,
                divergence: found.divergence,
                calibration_error: run.similarity.as_ref().and_then(|similarity| similarity.calibration_error),
                teacher_calibration_error: found.calibration_error,
                correlation_difference: found.correlation_difference,
            });
        }
    }
    rows
}

fn alignment_rows(survey: &Survey) -> Vec<AlignmentRow<'_>> {
    let mut rows = Vec::new();
    for pairing in pairings(survey) {
        for (tap, cka) in pairing.taps() {
            rows.push(AlignmentRow {
                experiment: &pairing.study.experiment.name,
                method: &pairing.method.name,
                teacher: &pairing.teacher.name,
                student_tap: &tap.student,
                teacher_tap: &tap.teacher,
                cka,
            });
        }
    }
    rows
}

fn correlation_rows(survey: &Survey) -> Vec<CorrelationRow<'_>> {
    let mut rows = Vec::new();
    for pairing in pairings(survey) {
        let (names, matrix) = (pairing.class_names(), pairing.correlations().unwrap_or_default());
        for (at, (class, row)) in names.iter().zip(&matrix).enumerate() {
            for (other_class, difference) in names.iter().zip(row).skip(at + 1) {
                rows.push(CorrelationRow {
                    experiment: &pairing.study.experiment.name,
                    method: &pairing.method.name,
                    teacher: &pairing.teacher.name,
                    class: class.clone(),
                    other_class: other_class.clone(),
                    difference: *difference,
                });
            }
        }
    }
    rows
}
