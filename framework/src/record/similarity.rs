//! What a student has in common with its teachers: `similarity.json`.

use serde::{Deserialize, Serialize};

use crate::contracts::task::ClassScore;

/// The version of [`Similarity`]'s format.
pub const SIMILARITY_FORMAT: u32 = 1;

/// What a finished student does on the test split besides being right, and what it has in common with the teachers of its
/// cohort: `similarity.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Similarity {
    /// [`SIMILARITY_FORMAT`]
    pub format: u32,
    /// Expected calibration error of the student, in percentage points; absent where samples have not [one class](crate::task::Task::one_class).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration_error: Option<f64>,
    /// Every class, in the order of the labels; none where the task has no score by class.
    pub classes: Vec<ClassScore>,
    /// Against each teacher of the cohort, whether the student's method asks it or not.
    pub teachers: Vec<TeacherSimilarity>,
}

/// A student beside a teacher, on the same test samples. What compares one distribution over all classes is absent where
/// samples have not [one class](crate::task::Task::one_class).
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
