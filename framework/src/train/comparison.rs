//! The last look at finished students: one pass over the test split with them and their teachers.

use std::path::Path;

use tch::{Device, Kind, Tensor, no_grad_guard};

use super::catch::catch;
use super::combined::CombinedTeacher;
use super::config::{CohortConfig, LoadedTeacher};
use super::evaluate::batches;
use super::file_names::{CORRELATIONS, SIMILARITY};
use super::lane::Lane;
use super::teacher::Teacher;
use crate::contracts::task::Truth;
use crate::dataset::{Batch, Split, Views};
use crate::error::{Error, Result};
use crate::files::write_atomically;
use crate::metric::calibration_error;
use crate::model::{Features, Signature, TapRef, Taps};
use crate::record::{SIMILARITY_FORMAT, Similarity, TapSimilarity, TeacherRecord, TeacherSimilarity};
use crate::similarity::{Alignment, Kernels, agreement, class_correlation, correlation_difference, divergence};
use crate::weights;

/// What was found, with the matrices that are too large for JSON.
pub(super) struct Findings {
    similarity: Similarity,
    /// Correlations of the classes' logits, `[C, C]`, float32: `student`, `teacher.NAME`.
    correlations: Vec<(String, Tensor)>,
}

impl Findings {
    pub fn save(&self, folder: &Path) -> Result<()> {
        let path = folder.join(SIMILARITY);
        let text = serde_json::to_string_pretty(&self.similarity).map_err(|e| Error::data(&path, e.to_string()))?;
        weights::save(&folder.join(CORRELATIONS), &self.correlations, None)?;
        write_atomically(&path, format!("{text}\n").as_bytes())
    }
}

/// The teachers that can be asked about the test split: not those that are known by their outputs alone.
fn asked<'a>(config: &CohortConfig<'a>) -> impl Iterator<Item = &'a LoadedTeacher> {
    config.teachers.iter().filter(|loaded| loaded.teacher.model().outputs().is_none())
}

/// The combined teachers whose members can all be asked.
fn together<'a>(config: &CohortConfig<'a>) -> impl Iterator<Item = &'a LoadedTeacher<CombinedTeacher>> {
    let networks: Vec<&str> = asked(config).map(|loaded| loaded.teacher.name.as_str()).collect();
    config
        .combined
        .iter()
        .filter(move |loaded| loaded.teacher.combination.teachers.iter().all(|name| networks.contains(&name.as_str())))
}

/// A teacher's logits of the whole test split.
struct Taught<'a> {
    record: &'a TeacherRecord,
    logits: Tensor,
}

/// Looks at each student beside each teacher. A student that fails or panics fails alone.
///
/// # Errors
/// If a batch cannot be read or a teacher fails, or [`Error::Stopped`].
pub(super) fn measure(config: &CohortConfig<'_>, students: &[&Lane]) -> Result<Vec<Result<Findings>>> {
    let _no_grad = no_grad_guard();
    let info = config.data.dataset.info();
    let views: Views = students
        .iter()
        .map(|lane| lane.view.clone())
        .chain(asked(config).map(|loaded| loaded.teacher.view.clone()))
        .collect();
    let rows: Vec<i64> = (0..info.test_labels.len() as i64).collect();
    let mut targets = Logits::default();
    let mut taught: Vec<Logits> = asked(config).map(|_| Logits::default()).collect();
    let mut seen: Vec<Result<Seen>> = students.iter().map(|_| Ok(Seen::new(config))).collect();
    for batch in batches(config.data, Split::Test, &rows, &views, config.device, config.stop) {
        let batch = batch?;
        batch.targets.iter().for_each(|found| targets.add(found));
        let mut kernels = Vec::new();
        for (LoadedTeacher { teacher, .. }, logits) in asked(config).zip(&mut taught) {
            let (theirs, of_taps) =
                catch(|| look(teacher, &batch)).map_err(|e| e.within(&format!("teacher {}", teacher.name)))?;
            logits.add(&theirs);
            kernels.push(of_taps);
        }
        for (student, state) in students.iter().zip(&mut seen) {
            if let Ok(seen) = state
                && let Err(error) = catch(|| seen.add(student, &batch, &kernels))
            {
                *state = Err(error);
            }
        }
    }
    let networks = asked(config).zip(taught);
    let mut taught: Vec<Taught<'_>> =
        networks.map(|(loaded, logits)| Taught { record: &loaded.record, logits: logits.all() }).collect();
    for LoadedTeacher { teacher, record } in together(config) {
        let logits = teacher.logits(|name| {
            let member = taught.iter().find(|taught| taught.record.name == name)?;
            Some(&member.logits)
        })?;
        taught.push(Taught { record, logits });
    }
    let (labels, targets) = (Tensor::from_slice(&info.test_labels), targets.gathered());
    let truth = Truth::new(&labels, targets.as_ref());
    let mut findings = Vec::new();
    for (student, seen) in students.iter().zip(seen) {
        findings.push(catch(|| seen?.findings(config, student, &taught, truth)));
    }
    Ok(findings)
}

/// Logits, or targets, of a whole split, gathered on the host: `[N, classes]`.
#[derive(Default)]
struct Logits(Vec<Tensor>);

impl Logits {
    fn add(&mut self, logits: &Tensor) {
        self.0.push(logits.to_device(Device::Cpu));
    }

    fn all(self) -> Tensor {
        Tensor::cat(&self.0, 0)
    }

    /// Those of a batch that has any.
    fn gathered(self) -> Option<Tensor> {
        if self.0.is_empty() { None } else { Some(self.all()) }
    }
}

/// A teacher's logits and the kernels of its taps.
fn look(teacher: &Teacher, batch: &Batch) -> Result<(Tensor, Kernels)> {
    let wanted = outputs(teacher.signature());
    let features = teacher.forward(batch.view(&teacher.view)?, &wanted)?;
    let kernels = kernels(&features, &wanted)?;
    Ok((features.logits, kernels))
}

/// The output of every tap.
fn outputs(signature: &Signature) -> Taps {
    signature.taps.iter().map(|tap| TapRef::output(&tap.name)).collect()
}

fn kernels(features: &Features, wanted: &Taps) -> Result<Kernels> {
    Ok(Kernels::of(&wanted.iter().map(|tap| features.tap(tap)).collect::<Result<Vec<_>>>()?))
}

/// What was seen of one student.
struct Seen {
    logits: Logits,
    /// With each teacher.
    alignments: Vec<Alignment>,
}

impl Seen {
    fn new(config: &CohortConfig<'_>) -> Self {
        let alignments = asked(config).map(|_| Alignment::new(config.device)).collect();
        Seen { logits: Logits::default(), alignments }
    }

    fn add(&mut self, student: &Lane, batch: &Batch, teachers: &[Kernels]) -> Result<()> {
        let wanted = if teachers.is_empty() { Taps::none() } else { outputs(student.signature()) };
        let features = student.features(batch, &wanted)?;
        self.logits.add(&features.logits);
        if !teachers.is_empty() {
            let own = kernels(&features, &wanted)?;
            self.alignments.iter_mut().zip(teachers).for_each(|(sums, teacher)| sums.add(&own, teacher));
        }
        Ok(())
    }

    fn findings(
        self,
        config: &CohortConfig<'_>,
        student: &Lane,
        taught: &[Taught<'_>],
        truth: Truth<'_>,
    ) -> Result<Findings> {
        let logits = self.logits.all();
        let info = config.data.dataset.info();
        let one_class = info.task.one_class();
        let correlation = class_correlation(&logits);
        let mut correlations = vec![("student".to_owned(), correlation.to_kind(Kind::Float))];
        let mut teachers = Vec::new();
        let taps = asked(config).zip(&self.alignments);
        let taps = taps.map(|(loaded, alignment)| taps_of(student.signature(), loaded.teacher.signature(), alignment));
        // Combined teachers come last, and have none.
        let mut taps = taps.collect::<Result<Vec<_>>>()?.into_iter();
        for Taught { record, logits: theirs } in taught {
            let their_correlation = class_correlation(theirs);
            teachers.push(TeacherSimilarity {
                name: record.name.clone(),
                digest: record.digest.clone(),
                calibration_error: one_class.then(|| calibration_error(theirs, truth.labels)).transpose()?,
                agreement: one_class.then(|| agreement(&logits, theirs)).transpose()?,
                divergence: one_class.then(|| divergence(&logits, theirs)).transpose()?,
                correlation_difference: correlation_difference(&correlation, &their_correlation)?,
                taps: taps.next().unwrap_or_default(),
            });
            correlations.push((format!("teacher.{}", record.name), their_correlation.to_kind(Kind::Float)));
        }
        let similarity = Similarity {
            format: SIMILARITY_FORMAT,
            calibration_error: one_class.then(|| calibration_error(&logits, truth.labels)).transpose()?,
            classes: info.task.by_class(&info.class_names, &logits, truth)?,
            teachers,
        };
        Ok(Findings { similarity, correlations })
    }
}

fn taps_of(student: &Signature, teacher: &Signature, alignment: &Alignment) -> Result<Vec<TapSimilarity>> {
    let mut pairs = Vec::new();
    for (student, row) in student.taps.iter().zip(alignment.read()?) {
        for (teacher, alignment) in teacher.taps.iter().zip(row) {
            let (student, teacher) = (student.name.clone(), teacher.name.clone());
            pairs.push(TapSimilarity { student, teacher, alignment });
        }
    }
    Ok(pairs)
}
