//! `wsld`: weighted soft labels.
//!
//! Zhou, Song, Chen, Zhou, Wang, Yuan, Zhang. *Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance Tradeoff
//! Perspective*. ICLR 2021, arXiv:2102.00650.
//!
//! With H(p, q) the cross-entropy of two distributions of one sample, CEˢ and CEᵗ the cross-entropies of student and
//! teacher with the label, and q_T = softmax(z / T),
//!
//! w = 1 − exp(−CEˢ / (CEᵗ + 10⁻⁷)), L = T² / B · Σ w · H(qᵗ_T, qˢ_T).
//!
//! A sample that the student has learnt better than the teacher says less; w has no gradient. The least loss is not 0: it
//! is a cross-entropy, not a divergence.
//!
//! *Taps*: none, the logits alone. *Cost*: O(B · classes). *State*: none. *Published weights*: 2.25, beside a cross-entropy
//! of 1, at T = 4 (CIFAR-100): the method `wsld`; 2.5 at T = 2 on ImageNet.

use limbeck::checks::{positive, same_classes};
use limbeck::prelude::*;
use serde::{Deserialize, Serialize};


limbeck::plugin! {
    method "wsld",
    summary: "cross-entropy and weighted soft labels",
    citation: "Zhou, Song, Chen, Zhou, Wang, Yuan, Zhang. Rethinking Soft Labels for Knowledge Distillation. ICLR 2021, arXiv:2102.00650",
    settings: r#"
cross_entropy = 1.0   # the weight of the cross-entropy with the labels
terms = [{ weight = 2.25, distiller = { kind = "wsld", temperature = 4.0 } }]
"#,
    page: include_str!("wsld.rs"),
}

limbeck::plugin! {
    distiller "wsld",
    summary: "weighted soft labels: less of them where the student is ahead of the teacher",
    citation: "Zhou, Song, Chen, Zhou, Wang, Yuan, Zhang. Rethinking Soft Labels for Knowledge Distillation. ICLR 2021, arXiv:2102.00650",
    settings: r#"
temperature = 4.0   # T: both logits are divided by it, and the loss is multiplied by T²
"#,
    page: include_str!("wsld.rs"),
}

/// Weighted soft labels.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wsld {
    /// T
    pub temperature: f64,
}

impl Default for Wsld {
    fn default() -> Self {
        Wsld { temperature: 4.0 }
    }
}

#[typetag::serde(name = "wsld")]
impl DistillerConfig for Wsld {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        same_classes("wsld", site)?;
        site.one_class("wsld compares one distribution over all classes")?;
        site.labelled("wsld weighs a sample by its loss")?;
        site.logits_only()
    }

    fn build(&self, _site: &Site<'_>, _params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        positive("wsld", "temperature", self.temperature)?;
        Ok(Box::new(LiveWsld { temperature: self.temperature }))
    }
}

#[derive(Debug)]
struct LiveWsld {
    temperature: f64,
}

impl Distiller for LiveWsld {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let t = self.temperature;
        let labels = step.labels.unsqueeze(1);
        let (student, teacher) = (&step.student.logits, &step.teacher.logits);
        // `[B]`
        let with_label = |z: &Tensor| -z.detach().log_softmax(1, None).gather(1, &labels, false).squeeze_dim(1);
        let weight = -(-with_label(student) / (with_label(teacher) + 1e-7)).expm1();
        let soft = (teacher / t).softmax(1, None) * (student / t).log_softmax(1, None);
        let cross_entropy = -soft.sum_dim_intlist(1, false, None);
        let terms = Terms::of("soft", (&weight * cross_entropy).mean(None::<Kind>) * (t * t));
        Ok(terms.metric("weight", weight.mean(None::<Kind>)))
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
            refusal(&Wsld { temperature: -4.0 }, &NARROW, &WIDE, &[]),
            "wsld: temperature must be positive, not -4"
        );
        assert_eq!(
            refusal(&Wsld::default(), &NARROW, &WIDE, &[("pooled", "pooled")]),
            "this method uses the logits alone: remove `taps`"
        );
    }

    #[test]
    fn samples_without_label_are_refused() {
        let fixture = Fixture::new(&[0, UNLABELLED, 1, UNLABELLED], 4, 4);
        assert_eq!(
            Wsld::default().taps(&fixture.site()).unwrap_err().to_string(),
            "wsld weighs a sample by its loss, and 2 of the 4 training samples have no label: leave them out, or take a method \
             that does without"
        );
    }
}
