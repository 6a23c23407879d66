//! What several plugins refuse, in the same words: numbers out of range, networks and taps that do not fit a method.
//!
//! `method` is the plugin's name, with which the messages begin.

use crate::distiller::{Site, TapPairs};
use crate::error::{Error, Result};

/// Refuses a setting that must be positive and is not.
///
/// # Errors
/// If `value` is not finite, or not above 0.
pub fn positive(method: &str, name: &str, value: f64) -> Result<()> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(Error::plan(format!("{method}: {name} must be positive, not {value}")))
}

/// Refuses a student and a teacher that tell different numbers of classes apart.
///
/// # Errors
/// If they do.
pub fn same_classes(method: &str, site: &Site<'_>) -> Result<()> {
    let (student, teacher) = (site.student.classes, site.teacher.classes);
    if student == teacher {
        return Ok(());
    }
    Err(Error::plan(format!(
        "{method} compares class probabilities, but the student has {student} classes and the teacher {teacher}"
    )))
}

/// Refuses taps that are no maps `[C, H, W]`.
///
/// # Errors
/// If there is one on either side.
pub fn only_maps(method: &str, taps: TapPairs) -> Result<TapPairs> {
    for pair in &taps.pairs {
        for (side, tap, shape) in
            [("student", &pair.student, &pair.student_shape), ("teacher", &pair.teacher, &pair.teacher_shape)]
        {
            if !shape.is_map() {
                let remedy = if shape.is_vector() { "choose a stage" } else { "choose a map, or take another method" };
                return Err(Error::plan(format!(
                    "{method} compares maps, but the {side}'s tap `{tap}` is {}: {remedy}",
                    shape.name()
                )));
            }
        }
    }
    Ok(taps)
}

/// Refuses a pairing of nothing.
///
/// # Errors
/// If there are no pairs.
pub fn not_empty(method: &str, taps: TapPairs) -> Result<TapPairs> {
    if taps.pairs.is_empty() {
        return Err(Error::plan(format!(
            "{method} needs at least one pair of taps: name it with `taps = [[STUDENT'S, TEACHER'S]]`"
        )));
    }
    Ok(taps)
}

/// Refuses a single pair, for a method that compares consecutive ones.
///
/// # Errors
/// If there are fewer than two pairs.
pub fn consecutive(method: &str, taps: TapPairs) -> Result<TapPairs> {
    if taps.pairs.len() < 2 {
        return Err(Error::plan(format!(
            "{method} needs at least two consecutive pairs of taps: name them with \
             `taps = [[STUDENT'S, TEACHER'S], [STUDENT'S, TEACHER'S]]`"
        )));
    }
    Ok(taps)
}

/// Refuses taps with another number of channels on the one side than on the other.
///
/// # Errors
/// If there is such a pair.
pub fn same_channels(method: &str, taps: TapPairs) -> Result<TapPairs> {
    for pair in &taps.pairs {
        let (s, t) = (pair.student_shape.channels(), pair.teacher_shape.channels());
        if s != t {
            return Err(Error::plan(format!(
                "{method} needs as many channels on both sides, but the student's `{}` has {s} and the teacher's `{}` {t}: \
                 choose networks of one width, or other taps with `taps`",
                pair.student, pair.teacher
            )));
        }
    }
    Ok(taps)
}
