//! `cc`: correlation congruence.
//!
//! Peng, Jin, Liu, Zhou, Wu, Liu, Zhang, Liu. *Correlation Congruence for Knowledge Distillation*. ICCV 2019,
//! arXiv:1904.01802; in the form that the benchmark of the CRD paper uses.
//!
//! Both pooled features pass a linear layer of their own, trained with the student. With δ_i = |sᵢ − tᵢ| (element by
//! element) of the embedded sample i,
//!
//! L = 1 / (B − 1) · Σᵢ ⟨δᵢ, δᵢ₊₁⟩.
//!
//! *Taps*: the pooled features. *Cost*: O(B · D). *State*: two linear layers. *Published weight*: 0.02, beside a
//! cross-entropy of 1: the method `cc`.

use limbeck::prelude::*;

limbeck::plugin! {
    distiller "cc": Cc,
    summary: "correlation congruence: how differences of neighbours in a batch go together",
    citation: "Peng et al. Correlation Congruence for Knowledge Distillation. ICCV 2019, arXiv:1904.01802",
    page: include_str!("cc.rs"),
    method "cc": MethodConfig::new(1.0).term(0.02, Cc::default()),
    summary: "cross-entropy and correlation congruence",
}

/// Correlation congruence.
#[derive(Clone, Debug, Settings)]
pub struct Cc {
    /// D: what both features are embedded into.
    #[setting(default = 128, range = 1..)]
    pub embedding_width: i64,
}

#[typetag::serde(name = "cc")]
impl DistillerConfig for Cc {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        site.pooled()
    }

    fn build(&self, site: &Site<'_>, params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        let taps = self.taps(site)?;
        let pair = taps.single()?;
        let width = self.embedding_width;
        Ok(Box::new(LiveCc {
            embed_student: nn::linear(params / "embed_s" / "linear", pair.student_shape.elements(), width),
            embed_teacher: nn::linear(params / "embed_t" / "linear", pair.teacher_shape.elements(), width),
        }))
    }
}

#[derive(Debug)]
struct LiveCc {
    embed_student: nn::Linear,
    embed_teacher: nn::Linear,
}

impl Distiller for LiveCc {
    fn order_matters(&self) -> bool {
        true
    }

    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let (student, teacher) = step.pair()?;
        let s = student.flatten(1, -1).apply(&self.embed_student);
        let t = teacher.flatten(1, -1).apply(&self.embed_teacher);
        let delta = (s - t).abs();
        // A batch of one has no neighbours: the sum over them is 0.
        let pairs = step.batch() - 1;
        let sum = (delta.narrow(0, 0, pairs) * delta.narrow(0, 1, pairs)).sum(None::<Kind>);
        Ok(Terms::of("congruence", sum / pairs.max(1) as f64))
    }
}
