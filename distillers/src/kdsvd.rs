//! `kdsvd`: knowledge distillation by singular value decomposition.
//!
//! Lee, Kim, Song. *Self-supervised Knowledge Distillation Using Singular Value Decomposition*. ECCV 2018,
//! arXiv:1807.06819, equations 2 to 7; in the form that the benchmark of the CRD paper uses.
//!
//! Each sample's map is a matrix of H·W rows and C columns, M = U Σ Vᵀ. Of the teacher the first k right singular vectors are
//! taken, of the student the first k + 3, each divided by its L2 norm; so are the singular values that are taken. For each
//! vector of the teacher, the student's with the largest |cosine| is taken with the sign of that cosine. All are multiplied by
//! the teacher's σ. With R = exp(−(a − b)² / 8) of all pairs of entries a, b of the vectors of consecutive stages,
//!
//! L = Σ_stages Σ (Rˢ − Rᵗ)² / B, non-finite entries as 0.
//!
//! *Taps*: the stages, with as many channels on both sides. *Cost*: one SVD a sample and stage, by far the slowest method.
//! *State*: none. *Published weight*: 1, beside a cross-entropy of 1, k = 1: the method `kdsvd`.

use limbeck::prelude::*;
use serde::{Deserialize, Serialize};

use crate::tensor::{normalize, only_maps};

limbeck::plugin! {
    method "kdsvd",
    summary: "cross-entropy and singular vectors",
    citation: "Lee, Kim, Song. Self-supervised Knowledge Distillation Using Singular Value Decomposition. ECCV 2018, arXiv:1807.06819",
    settings: r#"
cross_entropy = 1.0   # the weight of the cross-entropy with the labels
terms = [{ weight = 1.0, distiller = { kind = "kdsvd", k = 1 } }]
"#,
    page: include_str!("kdsvd.rs"),
}

limbeck::plugin! {
    distiller "kdsvd",
    summary: "singular vectors: how the main patterns of consecutive stages relate",
    citation: "Lee, Kim, Song. Self-supervised Knowledge Distillation Using Singular Value Decomposition. ECCV 2018, arXiv:1807.06819, equations 2 to 7",
    settings: r#"
k = 1   # how many singular vectors of the teacher are taken
"#,
    page: include_str!("kdsvd.rs"),
}

/// How many more of the student's vectors are looked at.
const SPARE: i64 = 3;

/// Singular vectors.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KdSvd {
    /// How many singular vectors of the teacher are taken.
    pub k: i64,
}

impl Default for KdSvd {
    fn default() -> Self {
        KdSvd { k: 1 }
    }
}

#[typetag::serde(name = "kdsvd")]
impl DistillerConfig for KdSvd {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        let taps = only_maps("kdsvd", site.stages(Form::Output)?)?;
        if taps.pairs.len() < 2 {
            return Err(Error::plan("kdsvd needs at least two consecutive pairs of taps"));
        }
        for pair in &taps.pairs {
            let (s, t) = (pair.student_shape[0], pair.teacher_shape[0]);
            if s != t {
                return Err(Error::plan(format!(
                    "kdsvd needs as many channels on both sides, but the student's `{}` has {s} and the teacher's `{}` {t}: \
                     choose networks of one width, or other taps with `taps`",
                    pair.student, pair.teacher
                )));
            }
        }
        Ok(taps)
    }

    fn build(&self, site: &Site<'_>, _params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        let rank = |shape: &[i64]| shape[0].min(shape[1..].iter().product());
        let taps = self.taps(site)?;
        let most = taps.pairs.iter().map(|pair| rank(&pair.teacher_shape).min(rank(&pair.student_shape))).min();
        match most {
            Some(most) if (1..=most).contains(&self.k) => Ok(Box::new(LiveKdSvd { k: self.k })),
            _ => Err(Error::plan(format!("kdsvd: k must be between 1 and {}, not {}", most.unwrap_or(1), self.k))),
        }
    }
}

#[derive(Debug)]
struct LiveKdSvd {
    k: i64,
}

/// The first `n` right singular vectors, `[B, C, n]`, and singular values, `[B, n]`.
fn decompose(map: &Tensor, n: i64) -> (Tensor, Tensor) {
    // A map of zeros has no direction, hence no gradient: libtorch's would be 0/0.
    let map = map.where_self(&map.abs().amax([1_i64, 2, 3].as_slice(), true).gt(0.0), &map.detach());
    let (_, values, vectors) = map.flatten(2, -1).transpose(1, 2).svd(true, true);
    let n = n.min(values.size()[1]);
    (normalize(&vectors.narrow(2, 0, n), 1), normalize(&values.narrow(1, 0, n), 1))
}

/// For each vector of the teacher the student's that is nearest to it in direction, `[B, C, k]`.
fn align(student: &Tensor, teacher: &Tensor) -> Tensor {
    let cosine = student.transpose(1, 2).bmm(teacher);
    let nearest = cosine.abs().amax([1_i64].as_slice(), true);
    let mask = cosine.sign() * cosine.abs().eq_tensor(&nearest).to_kind(cosine.kind());
    student.bmm(&mask)
}

/// R of the vectors of two stages: `[B, C, k]`, `[B, D, k]` → `[B, C, D, k]`
fn relation(upper: &Tensor, lower: &Tensor) -> Tensor {
    ((upper.unsqueeze(2) - lower.unsqueeze(1)).square() / -8.0).exp()
}

impl Distiller for LiveKdSvd {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let (batch, mut terms) = (step.batch() as f64, Terms::new());
        let mut below: Option<(Tensor, Tensor)> = None;
        for (i, (student, teacher)) in step.pairs()?.into_iter().enumerate() {
            let (v_t, sigma) = decompose(teacher, self.k);
            let (v_s, _) = decompose(student, self.k + SPARE);
            let sigma = sigma.unsqueeze(1);
            let (v_s, v_t) = (align(&v_s, &v_t) * &sigma, v_t * &sigma);
            if let Some((s, t)) = &below {
                let squares = (relation(&v_s, s) - relation(&v_t, t)).square();
                let finite = squares.where_self(&squares.isfinite(), &squares.zeros_like());
                terms = terms.loss(&format!("relation{i}"), finite.sum(None::<Kind>) / batch);
            }
            below = Some((v_s, v_t));
        }
        Ok(terms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{NARROW, WIDE, refusal};

    #[test]
    fn what_cannot_work_is_refused() {
        assert_eq!(
            refusal(&KdSvd::default(), &NARROW, &WIDE, &[]),
            "kdsvd needs as many channels on both sides, but the student's `stage1` has 16 and the teacher's `stage1` 32: \
             choose networks of one width, or other taps with `taps`"
        );
        assert_eq!(
            refusal(&KdSvd::default(), &NARROW, &NARROW, &[("stage1", "stage1")]),
            "kdsvd needs at least two consecutive pairs of taps"
        );
        assert_eq!(refusal(&KdSvd { k: 17 }, &NARROW, &NARROW, &[]), "kdsvd: k must be between 1 and 16, not 17");
    }
}
