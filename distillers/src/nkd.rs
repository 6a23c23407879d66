//! `nkd`: normalized knowledge distillation.
//!
//! Yang, Zeng, Li, Zhang, Yuan, Li. *From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with
//! Normalized Loss and Customized Soft Labels*. ICCV 2023, arXiv:2303.13005.
//!
//! With q = softmax(z), y the label, and q̂ the distribution over the other classes alone, that is, the softmax of their
//! logits divided by T,
//!
//! L = −1 / B · Σ (qᵗ_y ln qˢ_y + γ · T² · Σ_{i ≠ y} q̂ᵗ_i ln q̂ˢ_i).
//!
//! The other classes' probabilities have one sum in student and teacher, so that their cross-entropy can become the
//! teacher's entropy, which it could not without that. Both parts are cross-entropies: the least loss is not 0. (One
//! version of its authors' code masks nothing, so that the second sum has the label's class too; this is the paper's.)
//!
//! *Taps*: none, the logits alone. *Cost*: O(B · classes). *State*: none. *Published weights*: 1, beside a cross-entropy of
//! 1, with γ = 1.5 and T = 1 (ImageNet): the method `nkd`. On CIFAR-100 its authors take γ = 3.5 and T = 3.

use limbeck::checks::same_classes;
use limbeck::prelude::*;

limbeck::plugin! {
    distiller "nkd": Nkd,
    summary: "normalized soft targets: the target's probability, and the others' made to sum to 1",
    citation: "Yang, Zeng, Li, Zhang, Yuan, Li. From Knowledge Distillation to Self-Knowledge Distillation. ICCV 2023, arXiv:2303.13005",
    page: include_str!("nkd.rs"),
    method "nkd": MethodConfig::new(1.0).term(1.0, Nkd::default()),
    summary: "cross-entropy and normalized soft targets",
}

/// Normalized soft targets.
#[derive(Clone, Debug, Settings)]
pub struct Nkd {
    /// γ: the weight of the other classes' part.
    #[setting(default = 1.5, range = positive)]
    pub gamma: f64,
    /// T: the other classes' logits are divided by it, and their part is multiplied by T².
    #[setting(default = 1.0, range = positive)]
    pub temperature: f64,
}

#[typetag::serde(name = "nkd")]
impl DistillerConfig for Nkd {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        same_classes("nkd", site)?;
        site.one_class("nkd compares one distribution over all classes")?;
        site.labelled("nkd sets the class of the label apart")?;
        site.logits_only()
    }

    fn build(&self, site: &Site<'_>, _params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        if site.classes < 2 {
            return Err(Error::plan("nkd needs other classes than the target: the data have one class"));
        }
        Ok(Box::new(LiveNkd { config: self.clone() }))
    }
}

#[derive(Debug)]
struct LiveNkd {
    config: Nkd,
}

/// What the target's logit is lowered by, so that its probability among the others is 0.
const OUT_OF_THE_WAY: f64 = 1e4;

/// ln q of the target, `[B, 1]`.
fn ln_target(z: &Tensor, labels: &Tensor) -> Tensor {
    z.log_softmax(1, None).gather(1, labels, false)
}

/// ln q among the classes that the mask leaves, `[B, C]`.
fn ln_others(z: &Tensor, temperature: f64, mask: &Tensor) -> Tensor {
    (z / temperature - mask).log_softmax(1, None)
}

impl Distiller for LiveNkd {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let Nkd { gamma, temperature: t } = self.config;
        let labels = step.labels.unsqueeze(1);
        let (student, teacher) = (&step.student.logits, &step.teacher.logits);
        let target = (ln_target(teacher, &labels).exp() * ln_target(student, &labels)).sum(None::<Kind>);

        let mask = student.detach().zeros_like().scatter_value(1, &labels, OUT_OF_THE_WAY);
        let others = (ln_others(teacher, t, &mask).exp() * ln_others(student, t, &mask)).sum(None::<Kind>);

        let scale = -1.0 / step.batch() as f64;
        Ok(Terms::new().loss("target", target * scale).loss("others", others * (gamma * t * t * scale)))
    }
}
