//! `ttm`: transformed teacher matching; with weights, `wttm`.
//!
//! Zheng, Yang. *Knowledge Distillation Based on Transformed Teacher Matching*. ICLR 2024, arXiv:2402.11148.
//!
//! The teacher alone has a temperature, as a power γ of its probabilities, and the student has none:
//!
//! p̃_i = (pᵗ_i)^γ / U, U = Σ_j (pᵗ_j)^γ, L = 1 / B · Σ KL(p̃ ‖ pˢ).
//!
//! That is soft targets at T = 1 / γ and a reward for the student's Rényi entropy, hence without the factor T². With
//! `weighted`, each sample counts U times: the smoother the teacher's distribution, the more.
//!
//! *Taps*: none, the logits alone. *Cost*: O(B · classes). *State*: none. *Published weights*: chosen for each pair of
//! networks, beside a cross-entropy of 1. The methods `ttm` (45, γ = 0.1, for VGG13 → VGG8) and `wttm` (4, γ = 0.2, for the
//! same pair, where it stood beside CRD) have those of the examples in its authors' code.

use limbeck::checks::same_classes;
use limbeck::prelude::*;

limbeck::plugin! {
    distiller "ttm": Ttm,
    summary: "transformed teacher matching: the teacher's probabilities to a power, the student's as they are",
    citation: "Zheng, Yang. Knowledge Distillation Based on Transformed Teacher Matching. ICLR 2024, arXiv:2402.11148",
    page: include_str!("ttm.rs"),
    method "ttm": MethodConfig::new(1.0).term(45.0, Ttm::default()),
    summary: "cross-entropy and transformed teacher matching",
    method "wttm": MethodConfig::new(1.0).term(4.0, Ttm { exponent: 0.2, weighted: true }),
    summary: "cross-entropy and weighted transformed teacher matching",
}

/// Transformed teacher matching.
#[derive(Clone, Debug, Settings)]
pub struct Ttm {
    /// γ: the power of the teacher's probabilities, 1 / its temperature.
    #[setting(default = 0.1, range = positive)]
    pub exponent: f64,
    /// Whether each sample is weighed by the sum U of those powers.
    #[setting(default = false)]
    pub weighted: bool,
}

#[typetag::serde(name = "ttm")]
impl DistillerConfig for Ttm {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        same_classes("ttm", site)?;
        site.one_class("ttm compares one distribution over all classes")?;
        site.logits_only()
    }

    fn build(&self, _site: &Site<'_>, _params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        Ok(Box::new(LiveTtm { config: self.clone() }))
    }
}

#[derive(Debug)]
struct LiveTtm {
    config: Ttm,
}

impl Distiller for LiveTtm {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let powers = step.teacher.logits.log_softmax(1, None) * self.config.exponent;
        let ln_sum = powers.logsumexp([1_i64].as_slice(), true);
        let (ln_t, ln_s) = (powers - &ln_sum, step.student.logits.log_softmax(1, None));
        let divergence = (ln_t.exp() * (&ln_t - ln_s)).sum_dim_intlist(1, true, None);
        let weighed = if self.config.weighted { divergence * ln_sum.exp() } else { divergence };
        Ok(Terms::of("divergence", weighed.mean(None::<Kind>)))
    }
}
