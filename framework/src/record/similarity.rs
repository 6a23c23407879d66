//! What a student has in common with its teachers: `similarity.json`.

use serde::{Deserialize, Serialize};

/// The version of [`Similarity`]'s format.
pub const SIMILARITY_FORMAT: u32 = 1;

/// What a finished student does on the test split besides being right, and what it has in common with the teachers of its
/// cohort: `similarity.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Similarity {
    /// [`SIMILARITY_FORMAT`]
    pub format: u32,
    /// Expected calibration error of the student, in percentage points; absent where targets are sets of classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration_error: Option<f64>,
    /// Every class, in the order of the labels.
    pub classes: Vec<ClassAccuracy>,
    /// Against each teacher of the cohort, whether the student's method asks it or not.
    pub teachers: Vec<TeacherSimilarity>,
}

/// A student on the test samples of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassAccuracy {
    /// The class.
    pub name: String,
    /// The test samples that have it.
    pub samples: usize,
    /// How many of them the first guess got right; absent where targets are sets of classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub right: Option<usize>,
    /// Its average precision in percent, where targets are sets of classes and a sample has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average_precision: Option<f64>,
}

impl ClassAccuracy {
    /// How good the student is at this class, in percent: the share of its samples that were guessed right, or its average
    /// precision. Nothing if no test sample has it.
    pub fn share(&self) -> Option<f64> {
        match self.right {
            Some(_) if self.samples == 0 => None,
            Some(right) => Some(100.0 * right as f64 / self.samples as f64),
            None => self.average_precision,
        }
    }
}

/// A student beside a teacher, on the same test samples. What compares one distribution over all classes is absent where
/// targets are sets of classes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TeacherSimilarity {
    /// The teacher's name in the experiment.
    pub name: String,
    /// [`TeacherRecord::digest`](super::TeacherRecord::digest)
    pub digest: String,
    /// Expected calibration error of the teacher, in percentage points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration_error: Option<f64>,
    /// Share of samples with the same first guess, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f64>,
    /// Mean KL(teacher ‖ student) at temperature 1, in nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence: Option<f64>,
    /// Mean absolute difference of the correlations of classes' logits.
    pub correlation_difference: f64,
    /// Alignment of the taps.
    pub taps: Vec<TapSimilarity>,
}

/// Linear CKA of a pair of taps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TapSimilarity {
    /// The student's tap.
    pub student: String,
    /// The teacher's tap.
    pub teacher: String,
    /// See [`Alignment`](crate::similarity::Alignment); absent where one of them does not vary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alignment: Option<f64>,
}
