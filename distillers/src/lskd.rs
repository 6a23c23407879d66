//! `lskd`: soft targets of standardised logits.
//!
//! Sun, Ren, Yang, Yang, Lan, Cao. *Logit Standardization in Knowledge Distillation*. CVPR 2024, arXiv:2403.01427,
//! algorithm 1.
//!
//! Each sample's logits are standardised, ẑ = (z − mean z) / (10⁻⁷ + std z) with the unbiased standard deviation, and
//!
//! L = T² / B · Σ KL(softmax(ẑᵗ / T) ‖ softmax(ẑˢ / T)).
//!
//! The student need not match the teacher's mean and range any more, only the relations.
//!
//! *Taps*: none, the logits alone. *Cost*: O(B · classes). *State*: none. *Published weights*: 9, with a cross-entropy of
//! 0.1, at T = 2: the method `lskd`.

use limbeck::checks::same_classes;
use limbeck::prelude::*;

use crate::tensor::kl_divergence;

limbeck::plugin! {
    distiller "lskd": Lskd,
    summary: "soft targets of logits with mean 0 and standard deviation 1",
    citation: "Sun, Ren, Yang, Yang, Lan, Cao. Logit Standardization in Knowledge Distillation. CVPR 2024, arXiv:2403.01427, algorithm 1",
    page: include_str!("lskd.rs"),
    method "lskd": MethodConfig::new(0.1).term(9.0, Lskd::default()),
    summary: "soft targets of standardised logits beside a little cross-entropy",
}

/// Soft targets of standardised logits.
#[derive(Clone, Debug, Settings)]
pub struct Lskd {
    /// T: both standardised logits are divided by it, and the loss is multiplied by T².
    #[setting(default = 2.0, range = positive)]
    pub temperature: f64,
}

#[typetag::serde(name = "lskd")]
impl DistillerConfig for Lskd {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        same_classes("lskd", site)?;
        site.one_class("lskd compares one distribution over all classes")?;
        site.logits_only()
    }

    fn build(&self, _site: &Site<'_>, _params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        Ok(Box::new(LiveLskd { temperature: self.temperature }))
    }
}

#[derive(Debug)]
struct LiveLskd {
    temperature: f64,
}

fn standardise(z: &Tensor) -> Tensor {
    let mean = z.mean_dim([1_i64].as_slice(), true, None::<Kind>);
    (z - mean) / (z.std_dim([1_i64].as_slice(), true, true) + 1e-7)
}

impl Distiller for LiveLskd {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let t = self.temperature;
        let [teacher, student] =
            [step.teacher, step.student].map(|side| (standardise(&side.logits) / t).log_softmax(1, None));
        let kl = kl_divergence(&teacher, &student);
        Ok(Terms::of("kl", kl * (t * t / step.batch() as f64)))
    }
}
