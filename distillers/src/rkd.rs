//! `rkd`: relational knowledge distillation.
//!
//! Park, Kim, Lu, Cho. *Relational Knowledge Distillation*. CVPR 2019, arXiv:1904.05068, equations 4 to 8.
//!
//! Distances: ψ_ij = ‖fᵢ − fⱼ‖ over the mean of the positive ones. Angles: with e_ij the unit vector along fⱼ − fᵢ, all B³
//! products ⟨e_ij, e_ik⟩, the degenerate ones included. Both are compared by the smooth L1 loss l (β = 1), and
//!
//! L = w_d · mean l(ψᵗ, ψˢ) + w_a · mean l(angleᵗ, angleˢ).
//!
//! *Taps*: the pooled features. *Cost*: O(B³ + B² · D). *State*: none. *Published weights*: w_d = 25, w_a = 50, beside a
//! cross-entropy of 1: the method `rkd`.

use limbeck::prelude::*;
use serde::{Deserialize, Serialize};
use tch::Reduction;

use crate::tensor::normalize;

limbeck::plugin! {
    method "rkd",
    summary: "cross-entropy and relational knowledge distillation",
    citation: "Park, Kim, Lu, Cho. Relational Knowledge Distillation. CVPR 2019, arXiv:1904.05068",
    settings: r#"
cross_entropy = 1.0   # the weight of the cross-entropy with the labels
terms = [{ weight = 1.0, distiller = { kind = "rkd", distance = 25.0, angle = 50.0 } }]
"#,
    page: include_str!("rkd.rs"),
}

limbeck::plugin! {
    distiller "rkd",
    summary: "relational distillation: distances between samples, and angles among three",
    citation: "Park, Kim, Lu, Cho. Relational Knowledge Distillation. CVPR 2019, arXiv:1904.05068, equations 4 to 8",
    settings: r#"
distance = 25.0   # w_d: the weight of the distances
angle = 50.0      # w_a: the weight of the angles
"#,
    page: include_str!("rkd.rs"),
}

/// Relational knowledge distillation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rkd {
    /// w_d: the weight of the distances.
    pub distance: f64,
    /// w_a: the weight of the angles.
    pub angle: f64,
}

impl Default for Rkd {
    fn default() -> Self {
        Rkd { distance: 25.0, angle: 50.0 }
    }
}

#[typetag::serde(name = "rkd")]
impl DistillerConfig for Rkd {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        let taps = site.pooled()?;
        taps.single()?;
        Ok(taps)
    }

    fn build(&self, _site: &Site<'_>, _params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        for (name, weight) in [("distance", self.distance), ("angle", self.angle)] {
            if !(weight >= 0.0 && weight.is_finite()) {
                return Err(Error::plan(format!("rkd: {name} must not be negative, not {weight}")));
            }
        }
        if self.distance == 0.0 && self.angle == 0.0 {
            return Err(Error::plan("rkd: distance and angle are both 0: give at least one a weight"));
        }
        Ok(Box::new(LiveRkd { config: self.clone() }))
    }
}

#[derive(Debug)]
struct LiveRkd {
    config: Rkd,
}

/// `[B, D]` → `[B, B]`: distances over the mean of the positive ones; the squares are at least 1e-12 before the root.
fn distances(f: &Tensor) -> Tensor {
    let squares = f.square().sum_dim_intlist(1, false, None::<Kind>);
    let squared = squares.unsqueeze(1) + squares.unsqueeze(0) - f.matmul(&f.tr()) * 2.0;
    let off_diagonal = Tensor::eye(f.size()[0], (f.kind(), f.device())).neg() + 1.0;
    let distance = squared.clamp_min(1e-12).sqrt() * off_diagonal;
    let positive = distance.gt(0.0).sum(f.kind());
    let mean = distance.sum(None::<Kind>) / positive;
    distance / mean
}

/// `[B, D]` → `[B, B, B]`: the cosine of the angle at i between j and k.
fn angles(f: &Tensor) -> Tensor {
    let along = normalize(&(f.unsqueeze(0) - f.unsqueeze(1)), 2);
    along.bmm(&along.transpose(1, 2))
}

impl Distiller for LiveRkd {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let (student, teacher) = step.pair()?;
        let (s, t) = (student.flatten(1, -1), teacher.flatten(1, -1));
        let compare = |s: Tensor, t: Tensor| s.smooth_l1_loss(&t, Reduction::Mean, 1.0);
        let mut terms = Terms::new();
        if self.config.distance > 0.0 {
            terms = terms.loss("distance", compare(distances(&s), distances(&t)) * self.config.distance);
        }
        if self.config.angle > 0.0 {
            terms = terms.loss("angle", compare(angles(&s), angles(&t)) * self.config.angle);
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
        let pairs = [("pooled", "pooled"), ("stage1", "stage1")];
        assert_eq!(
            refusal(&Rkd::default(), &NARROW, &WIDE, &pairs),
            "this method takes one pair of taps, not 2: name it with `taps = [[STUDENT'S, TEACHER'S]]`"
        );
        assert_eq!(
            refusal(&Rkd { angle: -1.0, ..Rkd::default() }, &NARROW, &WIDE, &[]),
            "rkd: angle must not be negative, not -1"
        );
        assert_eq!(
            refusal(&Rkd { distance: 0.0, angle: 0.0 }, &NARROW, &WIDE, &[]),
            "rkd: distance and angle are both 0: give at least one a weight"
        );
    }
}
