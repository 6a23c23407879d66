//! `pkt`: probabilistic knowledge transfer.
//!
//! Passalis, Tefas. *Learning Deep Representations with Probabilistic Knowledge Transfer*. ECCV 2018, arXiv:1803.10837,
//! equations 4 to 6, with the cosine kernel.
//!
//! With rows divided by their norms (plus ε), the similarities K = (x xᵀ + 1) / 2, divided by the sum of their row, are
//! the conditional probabilities p of a sample given another, and
//!
//! L = 1 / B² · Σ pᵗ · ln((pᵗ + ε) / (pˢ + ε)), ε = 10⁻⁷.
//!
//! *Taps*: the pooled features. *Cost*: O(B² · D). *State*: none. *Published weight*: 30 000, beside a cross-entropy of 1:
//! the method `pkt`.

use limbeck::prelude::*;

limbeck::plugin! {
    distiller "pkt": Pkt,
    summary: "probabilistic knowledge transfer: the probability of a sample given another",
    citation: "Passalis, Tefas. Learning Deep Representations with Probabilistic Knowledge Transfer. ECCV 2018, arXiv:1803.10837",
    page: include_str!("pkt.rs"),
    method "pkt": MethodConfig::new(1.0).term(30_000.0, Pkt::default()),
    summary: "cross-entropy and probabilistic knowledge transfer",
}

const EPSILON: f64 = 1e-7;

/// Probabilistic knowledge transfer.
#[derive(Clone, Debug, Settings)]
pub struct Pkt {}

#[typetag::serde(name = "pkt")]
impl DistillerConfig for Pkt {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        let taps = site.pooled()?;
        taps.single()?;
        Ok(taps)
    }

    fn build(&self, _site: &Site<'_>, _params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        Ok(Box::new(LivePkt {}))
    }
}

#[derive(Debug)]
struct LivePkt {}

/// `[B, …]` → `[B, B]`, rows that sum to 1
fn probabilities(f: &Tensor) -> Tensor {
    let f = f.flatten(1, -1);
    // A norm and not a root of squares: where a sample has no feature at all, its gradient is 0 and not 0/0.
    let unit = &f / (f.norm_scalaropt_dim(2.0, [1], true) + EPSILON);
    let similarity = (unit.matmul(&unit.tr()) + 1.0) / 2.0;
    &similarity / similarity.sum_dim_intlist(1, true, None::<Kind>)
}

impl Distiller for LivePkt {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let (student, teacher) = step.pair()?;
        let (p_s, p_t) = (probabilities(student), probabilities(teacher));
        let divergence = (&p_t * ((&p_t + EPSILON) / (p_s + EPSILON)).log()).mean(None::<Kind>);
        Ok(Terms::of("divergence", divergence))
    }
}
