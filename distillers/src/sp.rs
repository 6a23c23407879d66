//! `sp`: similarity-preserving distillation.
//!
//! Tung, Mori. *Similarity-Preserving Knowledge Distillation*. ICCV 2019, arXiv:1907.09682, equations 1 to 4.
//!
//! With the features of a batch flattened to Q `[B, C·H·W]`, the similarities are G = Q Qᵀ, each row divided by its L2
//! norm, and
//!
//! L = 1 / B² · ‖Gᵗ − Gˢ‖²_F.
//!
//! *Taps*: the last stage of both. *Cost*: O(B² · C · H · W). *State*: none. *Published weight*: 3000, beside a
//! cross-entropy of 1: the method `sp`.

use limbeck::checks::not_empty;
use limbeck::prelude::*;

use crate::tensor::normalize;

limbeck::plugin! {
    distiller "sp": Sp,
    summary: "similarity preserving: which samples of a batch are alike",
    citation: "Tung, Mori. Similarity-Preserving Knowledge Distillation. ICCV 2019, arXiv:1907.09682, equations 1 to 4",
    page: include_str!("sp.rs"),
    method "sp": MethodConfig::new(1.0).term(3000.0, Sp::default()),
    summary: "cross-entropy and similarity-preserving distillation",
}

/// Similarity-preserving distillation.
#[derive(Clone, Debug, Settings)]
pub struct Sp {}

#[typetag::serde(name = "sp")]
impl DistillerConfig for Sp {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        not_empty("sp", site.last_stage()?)
    }

    fn build(&self, _site: &Site<'_>, _params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        Ok(Box::new(LiveSp {}))
    }
}

#[derive(Debug)]
struct LiveSp {}

/// `[B, …]` → `[B, B]`
fn similarities(f: &Tensor) -> Tensor {
    let q = f.flatten(1, -1);
    normalize(&q.matmul(&q.tr()), 1)
}

impl Distiller for LiveSp {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let (b, mut terms) = (step.batch() as f64, Terms::new());
        for (i, (student, teacher)) in step.pairs()?.into_iter().enumerate() {
            let distance = (similarities(teacher) - similarities(student)).square().sum(None::<Kind>);
            terms = terms.loss(&format!("pair{}", i + 1), distance / (b * b));
        }
        Ok(terms)
    }
}
