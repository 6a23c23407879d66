//! Tensor functions that several methods share.

use limbeck::prelude::*;

/// `x` over its L2 norm along `dim`, the norm at least 1e-12: PyTorch's `normalize`.
pub(crate) fn normalize(x: &Tensor, dim: i64) -> Tensor {
    x / x.norm_scalaropt_dim(2.0, [dim], true).clamp_min(1e-12)
}

/// Two maps `[B, C, H, W]` at one height: the higher is adaptively average-pooled to the other's.
pub(crate) fn match_heights(student: &Tensor, teacher: &Tensor) -> (Tensor, Tensor) {
    let (s, t) = (student.size()[2], teacher.size()[2]);
    let pooled = |x: &Tensor, height: i64| x.adaptive_avg_pool2d([height, height]);
    match s.cmp(&t) {
        std::cmp::Ordering::Greater => (pooled(student, t), teacher.shallow_clone()),
        std::cmp::Ordering::Less => (student.shallow_clone(), pooled(teacher, s)),
        std::cmp::Ordering::Equal => (student.shallow_clone(), teacher.shallow_clone()),
    }
}

/// KL(p ‖ q) = Σ p (ln p − ln q), summed over everything, of two tensors of log-probabilities. Where p is 0, so is the term.
pub(crate) fn kl_divergence(ln_p: &Tensor, ln_q: &Tensor) -> Tensor {
    (ln_p.exp() * (ln_p - ln_q)).sum(None::<Kind>)
}

/// Refuses taps that are no maps.
pub(crate) fn only_maps(method: &str, taps: TapPairs) -> Result<TapPairs> {
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

/// The last stage of both, or the configured pairs.
pub(crate) fn last_stages(site: &Site<'_>) -> Result<TapPairs> {
    fn last(stages: &[TapInfo]) -> &[TapInfo] {
        &stages[stages.len().saturating_sub(1)..]
    }
    site.pair(last(site.student.stages()), last(site.teacher.stages()), Form::Output)
}

/// Refuses a pairing of nothing.
pub(crate) fn not_empty(method: &str, taps: TapPairs) -> Result<TapPairs> {
    match taps.pairs.is_empty() {
        true => Err(Error::plan(format!(
            "{method} needs at least one pair of taps: name it with `taps = [[STUDENT'S, TEACHER'S]]`"
        ))),
        false => Ok(taps),
    }
}

/// Refuses a single pair, for a method that compares consecutive ones.
pub(crate) fn consecutive(method: &str, taps: TapPairs) -> Result<TapPairs> {
    match taps.pairs.len() {
        0 | 1 => Err(Error::plan(format!(
            "{method} needs at least two consecutive pairs of taps: name them with \
             `taps = [[STUDENT'S, TEACHER'S], [STUDENT'S, TEACHER'S]]`"
        ))),
        _ => Ok(taps),
    }
}

/// Refuses a student and a teacher that tell different numbers of classes apart.
pub(crate) fn same_classes(method: &str, site: &Site<'_>) -> Result<()> {
    match site.student.classes == site.teacher.classes {
        true => Ok(()),
        false => Err(Error::plan(format!(
            "{method} compares class probabilities, but the student has {} classes and the teacher {}",
            site.student.classes, site.teacher.classes
        ))),
    }
}

/// Refuses a setting that must be positive and is not.
pub(crate) fn positive(method: &str, name: &str, value: f64) -> Result<()> {
    match value > 0.0 && value.is_finite() {
        true => Ok(()),
        false => Err(Error::plan(format!("{method}: {name} must be positive, not {value}"))),
    }
}
