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

use limbeck::checks::{positive, same_classes};
use limbeck::prelude::*;
use serde::{Deserialize, Serialize};


limbeck::plugin! {
    method "nkd",
    summary: "cross-entropy and normalized soft targets",
    citation: "Yang, Zeng, Li, Zhang, Yuan, Li. From Knowledge Distillation to Self-Knowledge Distillation. ICCV 2023, arXiv:2303.13005",
    settings: r#"
cross_entropy = 1.0   # the weight of the cross-entropy with the labels
terms = [{ weight = 1.0, distiller = { kind = "nkd", gamma = 1.5, temperature = 1.0 } }]
"#,
    page: include_str!("nkd.rs"),
}

limbeck::plugin! {
    distiller "nkd",
    summary: "normalized soft targets: the target's probability, and the others' made to sum to 1",
    citation: "Yang, Zeng, Li, Zhang, Yuan, Li. From Knowledge Distillation to Self-Knowledge Distillation. ICCV 2023, arXiv:2303.13005",
    settings: r#"
gamma = 1.5         # γ: the weight of the other classes' part
temperature = 1.0   # T: the other classes' logits are divided by it, and their part is multiplied by T²
"#,
    page: include_str!("nkd.rs"),
}

/// Normalized soft targets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Nkd {
    /// γ: the weight of the other classes' part.
    pub gamma: f64,
    /// T
    pub temperature: f64,
}

impl Default for Nkd {
    fn default() -> Self {
        Nkd { gamma: 1.5, temperature: 1.0 }
    }
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
        positive("nkd", "temperature", self.temperature)?;
        positive("nkd", "gamma", self.gamma)?;
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

impl Distiller for LiveNkd {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let Nkd { gamma, temperature: t } = self.config;
        let labels = step.labels.unsqueeze(1);
        let (student, teacher) = (&step.student.logits, &step.teacher.logits);
        let of_target = |z: &Tensor| z.log_softmax(1, None).gather(1, &labels, false);
        let target = (of_target(teacher).exp() * of_target(student)).sum(None::<Kind>);

        let mask = student.detach().zeros_like().scatter_value(1, &labels, OUT_OF_THE_WAY);
        let ln_others = |z: &Tensor| (z / t - &mask).log_softmax(1, None);
        let others = (ln_others(teacher).exp() * ln_others(student)).sum(None::<Kind>);

        let scale = -1.0 / step.batch() as f64;
        Ok(Terms::new().loss("target", target * scale).loss("others", others * (gamma * t * t * scale)))
    }
}

#[cfg(test)]
mod tests {
    use limbeck::dataset::UNLABELLED;

    use super::*;
    use crate::fixture::{Fixture, NARROW, WIDE, refusal};

    #[test]
    fn what_cannot_work_is_refused() {
        assert_eq!(
            refusal(&Nkd { temperature: 0.0, ..Nkd::default() }, &NARROW, &WIDE, &[]),
            "nkd: temperature must be positive, not 0"
        );
        assert_eq!(
            refusal(&Nkd { gamma: -1.0, ..Nkd::default() }, &NARROW, &WIDE, &[]),
            "nkd: gamma must be positive, not -1"
        );
        assert_eq!(
            refusal(&Nkd::default(), &NARROW, &WIDE, &[("pooled", "pooled")]),
            "this method uses the logits alone: remove `taps`"
        );
        let mut fixture = Fixture::new(&[0, 1], 4, 4);
        fixture.teacher.classes = 100;
        assert_eq!(
            Nkd::default().taps(&fixture.site()).unwrap_err().to_string(),
            "nkd compares class probabilities, but the student has 2 classes and the teacher 100"
        );
    }

    #[test]
    fn samples_without_label_are_refused() {
        let fixture = Fixture::new(&[0, UNLABELLED, 1, UNLABELLED], 4, 4);
        assert_eq!(
            Nkd::default().taps(&fixture.site()).unwrap_err().to_string(),
            "nkd sets the class of the label apart, and 2 of the 4 training samples have no label: leave them out, or take a method \
             that does without"
        );
    }
}
