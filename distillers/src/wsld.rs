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

use limbeck::checks::same_classes;
use limbeck::prelude::*;

limbeck::plugin! {
    distiller "wsld": Wsld,
    summary: "weighted soft labels: less of them where the student is ahead of the teacher",
    citation: "Zhou, Song, Chen, Zhou, Wang, Yuan, Zhang. Rethinking Soft Labels for Knowledge Distillation. ICLR 2021, arXiv:2102.00650",
    page: include_str!("wsld.rs"),
    method "wsld": MethodConfig::new(1.0).term(2.25, Wsld::default()),
    summary: "cross-entropy and weighted soft labels",
}

/// Weighted soft labels.
#[derive(Clone, Debug, Settings)]
pub struct Wsld {
    /// T: both logits are divided by it, and the loss is multiplied by T².
    #[setting(default = 4.0, range = positive)]
    pub temperature: f64,
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
        Ok(Box::new(LiveWsld { temperature: self.temperature }))
    }
}

#[derive(Debug)]
struct LiveWsld {
    temperature: f64,
}

/// −ln q of the label, `[B]`, without a gradient.
fn label_loss(z: &Tensor, labels: &Tensor) -> Tensor {
    -z.detach().log_softmax(1, None).gather(1, labels, false).squeeze_dim(1)
}

impl Distiller for LiveWsld {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let t = self.temperature;
        let labels = step.labels.unsqueeze(1);
        let (student, teacher) = (&step.student.logits, &step.teacher.logits);
        // `[B]`
        let weight = -(-label_loss(student, &labels) / (label_loss(teacher, &labels) + 1e-7)).expm1();
        let soft = (teacher / t).softmax(1, None) * (student / t).log_softmax(1, None);
        let cross_entropy = -soft.sum_dim_intlist(1, false, None);
        let terms = Terms::of("soft", (&weight * cross_entropy).mean(None::<Kind>) * (t * t));
        Ok(terms.metric("weight", weight.mean(None::<Kind>)))
    }
}
