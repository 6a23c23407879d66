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
use tch::Reduction;

use crate::tensor::normalize;

limbeck::plugin! {
    distiller "rkd": Rkd,
    summary: "relational distillation: distances between samples, and angles among three",
    citation: "Park, Kim, Lu, Cho. Relational Knowledge Distillation. CVPR 2019, arXiv:1904.05068, equations 4 to 8",
    page: include_str!("rkd.rs"),
    method "rkd": MethodConfig::new(1.0).term(1.0, Rkd::default()),
    summary: "cross-entropy and relational knowledge distillation",
}

/// Relational knowledge distillation.
#[derive(Clone, Debug, Settings)]
pub struct Rkd {
    /// W_d: the weight of the distances.
    #[setting(default = 25.0, range = not_negative)]
    pub distance: f64,
    /// W_a: the weight of the angles.
    #[setting(default = 50.0, range = not_negative)]
    pub angle: f64,
}

#[typetag::serde(name = "rkd")]
impl DistillerConfig for Rkd {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        let taps = site.pooled()?;
        taps.single()?;
        Ok(taps)
    }

    fn build(&self, _site: &Site<'_>, _params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
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
        let mut terms = Terms::new();
        if self.config.distance > 0.0 {
            let loss = distances(&s).smooth_l1_loss(&distances(&t), Reduction::Mean, 1.0);
            terms = terms.loss("distance", loss * self.config.distance);
        }
        if self.config.angle > 0.0 {
            let loss = angles(&s).smooth_l1_loss(&angles(&t), Reduction::Mean, 1.0);
            terms = terms.loss("angle", loss * self.config.angle);
        }
        Ok(terms)
    }
}
