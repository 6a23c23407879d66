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

use limbeck::checks::{positive, same_classes};
use limbeck::prelude::*;
use serde::{Deserialize, Serialize};

use crate::tensor::kl_divergence;

limbeck::plugin! {
    method "lskd",
    summary: "soft targets of standardised logits beside a little cross-entropy",
    citation: "Sun, Ren, Yang, Yang, Lan, Cao. Logit Standardization in Knowledge Distillation. CVPR 2024, arXiv:2403.01427",
    settings: r#"
cross_entropy = 0.1   # the weight of the cross-entropy with the labels
terms = [{ weight = 9.0, distiller = { kind = "lskd", temperature = 2.0 } }]
"#,
    page: include_str!("lskd.rs"),
}

limbeck::plugin! {
    distiller "lskd",
    summary: "soft targets of logits with mean 0 and standard deviation 1",
    citation: "Sun, Ren, Yang, Yang, Lan, Cao. Logit Standardization in Knowledge Distillation. CVPR 2024, arXiv:2403.01427, algorithm 1",
    settings: r#"
temperature = 2.0   # T: both standardised logits are divided by it, and the loss is multiplied by T²
"#,
    page: include_str!("lskd.rs"),
}

/// Soft targets of standardised logits.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lskd {
    /// T
    pub temperature: f64,
}

impl Default for Lskd {
    fn default() -> Self {
        Lskd { temperature: 2.0 }
    }
}

#[typetag::serde(name = "lskd")]
impl DistillerConfig for Lskd {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        same_classes("lskd", site)?;
        site.one_class("lskd compares one distribution over all classes")?;
        site.logits_only()
    }

    fn build(&self, _site: &Site<'_>, _params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        positive("lskd", "temperature", self.temperature)?;
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
        let ln_q = |z: &Tensor| (standardise(z) / t).log_softmax(1, None);
        let kl = kl_divergence(&ln_q(&step.teacher.logits), &ln_q(&step.student.logits));
        Ok(Terms::of("kl", kl * (t * t / step.batch() as f64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Fixture, NARROW, WIDE, refusal};

    #[test]
    fn what_cannot_work_is_refused() {
        assert_eq!(
            refusal(&Lskd { temperature: 0.0 }, &NARROW, &WIDE, &[]),
            "lskd: temperature must be positive, not 0"
        );
        assert_eq!(
            refusal(&Lskd::default(), &NARROW, &WIDE, &[("pooled", "pooled")]),
            "this method uses the logits alone: remove `taps`"
        );
        let mut fixture = Fixture::new(&[0, 1], 4, 4);
        fixture.teacher.classes = 100;
        assert_eq!(
            Lskd::default().taps(&fixture.site()).unwrap_err().to_string(),
            "lskd compares class probabilities, but the student has 2 classes and the teacher 100"
        );
    }
}
