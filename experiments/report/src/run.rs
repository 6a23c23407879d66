//! A cell of an experiment and what became of it, as its folder says.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use limbeck::record::{
    Accuracies, Outcome, SIMILARITY_FORMAT, SUMMARY_FORMAT, Similarity, Summary, TeacherRecord, TeacherSimilarity,
};
use limbeck::{cohort, weights};
use tch::{Kind, Tensor};

use crate::store::{self, CellEntry};

/// A cell and what became of it.
#[derive(Debug)]
pub struct Run {
    pub cell: CellEntry,
    /// Its folder.
    pub path: PathBuf,
    /// What it says of itself; absent if it has not ended or cannot be read.
    pub summary: Option<Summary>,
    /// What it has in common with its teachers; absent if that was not measured.
    pub similarity: Option<Similarity>,
    /// `finished`, `failed` or `missing`.
    pub status: &'static str,
    /// Why it has no result; empty if it has one.
    pub reason: String,
    /// The three accuracies, if it has a result.
    pub accuracies: Option<Accuracies>,
}

impl Run {
    /// One that has no summary.
    pub fn missing(cell: CellEntry, path: PathBuf, reason: String) -> Run {
        Run { cell, path, summary: None, similarity: None, status: "missing", reason, accuracies: None }
    }

    /// Reads its folder, below `dir`.
    pub fn read(dir: &Path, cell: CellEntry) -> Run {
        let path = dir.join(&cell.folder);
        let summary = match read_summary(&path, &cell) {
            Ok(summary) => summary,
            Err(reason) => return Run::missing(cell, path, reason),
        };
        if let Outcome::Failed { reason, .. } = &summary.outcome {
            let reason = reason.clone();
            return Run { summary: Some(summary), status: "failed", ..Run::missing(cell, path, reason) };
        }
        let Some(accuracies) = summary.accuracy.clone() else {
            return Run::missing(cell, path, "its summary.json has no accuracy".to_owned());
        };
        let similarity: Option<Similarity> = store::read_json(&path.join(cohort::SIMILARITY)).ok();
        Run {
            summary: Some(summary),
            similarity: similarity.filter(|found| found.format == SIMILARITY_FORMAT),
            status: "finished",
            accuracies: Some(accuracies),
            ..Run::missing(cell, path, String::new())
        }
    }

    /// What it has in common with a teacher, provided that it was measured with these weights.
    pub fn beside(&self, teacher: &TeacherRecord) -> Option<&TeacherSimilarity> {
        let mut teachers = self.similarity.as_ref()?.teachers.iter();
        teachers.find(|found| (&found.name, &found.digest) == (&teacher.name, &teacher.digest))
    }

    /// The absolute difference of the correlations of the classes' logits, student's and teacher's: `[C, C]`, float64.
    pub fn correlation_difference(&self, teacher: &TeacherRecord) -> Option<Tensor> {
        self.beside(teacher)?;
        let tensors = weights::read(&self.path.join(cohort::CORRELATIONS)).ok()?.tensors;
        let (student, theirs) = (tensors.get("student")?, tensors.get(&format!("teacher.{}", teacher.name))?);
        if student.size() != theirs.size() || student.dim() != 2 {
            return None;
        }
        Some((theirs.to_kind(Kind::Double) - student.to_kind(Kind::Double)).abs())
    }
}

/// The summary in a cell's folder; else why it is of no use.
fn read_summary(path: &Path, cell: &CellEntry) -> Result<Summary, String> {
    let text = fs::read_to_string(path.join(cohort::SUMMARY)).map_err(|error| match error.kind() {
        ErrorKind::NotFound => "it has not ended; run the experiment again and it goes on".to_owned(),
        _ => format!("its summary.json cannot be read: {error}"),
    })?;
    let summary: Summary =
        serde_json::from_str(&text).map_err(|error| format!("its summary.json is damaged: {error}"))?;
    if summary.format != SUMMARY_FORMAT {
        let found = summary.format;
        return Err(format!("its summary.json has format {found}; this version reads format {SUMMARY_FORMAT}"));
    }
    if (&summary.method, summary.seed) != (&cell.method, cell.seed) {
        return Err(format!("its summary.json is of {}, seed {}", summary.method, summary.seed));
    }
    Ok(summary)
}
