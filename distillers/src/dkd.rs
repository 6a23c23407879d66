//! `dkd`: decoupled knowledge distillation.
//!
//! Zhao, Cui, Song, Qiu, Liang. *Decoupled Knowledge Distillation*. CVPR 2022, arXiv:2203.08679, equations 5 to 7.
//!
//! With q = softmax(z / T) and y the label, b = (q_y, 1 − q_y) is the distribution over "target" and "all others", and q̂
//! that over the other classes alone:
//!
//! TCKD = T² / B · Σ KL(bᵗ ‖ bˢ), NCKD = T² / B · Σ KL(q̂ᵗ ‖ q̂ˢ), L = α · TCKD + β · NCKD.
//!
//! The target's logit is lowered by 1000 for q̂, as in the original, so that it takes no part.
//!
//! *Taps*: none, the logits alone. *Cost*: O(B · classes). *State*: none. *Published weights*: α = 1, β = 8 (6 for WRN and
//! VGG pairs), T = 4, beside a cross-entropy of 1, with a linear warm-up over 20 epochs: the method `dkd`.

use limbeck::checks::same_classes;
use limbeck::prelude::*;

use crate::tensor::kl_divergence;

limbeck::plugin! {
    distiller "dkd": Dkd,
    summary: "decoupled soft targets: the target's probability, and the others' among themselves",
    citation: "Zhao, Cui, Song, Qiu, Liang. Decoupled Knowledge Distillation. CVPR 2022, arXiv:2203.08679, equations 5 to 7",
    page: include_str!("dkd.rs"),
    method "dkd": MethodConfig::new(1.0).with(TermConfig::new(1.0, Dkd::default()).warm_up(20)),
    summary: "cross-entropy and decoupled soft targets",
}

/// Decoupled soft targets.
#[derive(Clone, Debug, Settings)]
pub struct Dkd {
    /// α: the weight of the target's part.
    #[setting(default = 1.0)]
    pub alpha: f64,
    /// β: the weight of the other classes' part.
    #[setting(default = 8.0)]
    pub beta: f64,
    /// T: both logits are divided by it, and the loss is multiplied by T².
    #[setting(default = 4.0, range = positive)]
    pub temperature: f64,
}

#[typetag::serde(name = "dkd")]
impl DistillerConfig for Dkd {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        same_classes("dkd", site)?;
        site.one_class("dkd compares one distribution over all classes")?;
        site.labelled("dkd sets the class of the label apart")?;
        site.logits_only()
    }

    fn build(&self, site: &Site<'_>, _params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        if site.classes < 2 {
            return Err(Error::plan("dkd needs other classes than the target: the data have one class"));
        }
        Ok(Box::new(LiveDkd { config: self.clone() }))
    }
}

#[derive(Debug)]
struct LiveDkd {
    config: Dkd,
}

/// What the target's logit is lowered by.
const OUT_OF_THE_WAY: f64 = 1000.0;

/// ln b: `[B, 2]`.
fn ln_target_and_rest(ln_q: &Tensor, labels: &Tensor, mask: &Tensor) -> Tensor {
    let target = ln_q.gather(1, labels, false);
    let rest = (ln_q - mask * OUT_OF_THE_WAY).logsumexp([1_i64].as_slice(), true);
    Tensor::cat(&[target, rest], 1)
}

impl Distiller for LiveDkd {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let Dkd { alpha, beta, temperature: t } = self.config;
        let labels = step.labels.unsqueeze(1);
        let mask = step.student.logits.detach().zeros_like().scatter_value(1, &labels, 1.0);
        let [student, teacher] = [step.student, step.teacher].map(|side| &side.logits / t);

        let [b_teacher, b_student] =
            [&teacher, &student].map(|z| ln_target_and_rest(&z.log_softmax(1, None), &labels, &mask));
        let tckd = kl_divergence(&b_teacher, &b_student);
        let [others_teacher, others_student] =
            [&teacher, &student].map(|z| (z - &mask * OUT_OF_THE_WAY).log_softmax(1, None));
        let nckd = kl_divergence(&others_teacher, &others_student);

        let scale = t * t / step.batch() as f64;
        Ok(Terms::new().loss("target", tckd * (alpha * scale)).loss("others", nckd * (beta * scale)))
    }
}
