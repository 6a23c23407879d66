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

use limbeck::checks::{positive, same_classes};
use limbeck::prelude::*;
use serde::{Deserialize, Serialize};

use crate::tensor::kl_divergence;

limbeck::plugin! {
    method "dkd",
    summary: "cross-entropy and decoupled soft targets",
    citation: "Zhao, Cui, Song, Qiu, Liang. Decoupled Knowledge Distillation. CVPR 2022, arXiv:2203.08679",
    settings: r#"
cross_entropy = 1.0   # the weight of the cross-entropy with the labels

[[terms]]
weight = 1.0
schedule = { warmup_epochs = 20 }   # rises linearly over these epochs
distiller = { kind = "dkd", alpha = 1.0, beta = 8.0, temperature = 4.0 }
"#,
    page: include_str!("dkd.rs"),
}

limbeck::plugin! {
    distiller "dkd",
    summary: "decoupled soft targets: the target's probability, and the others' among themselves",
    citation: "Zhao, Cui, Song, Qiu, Liang. Decoupled Knowledge Distillation. CVPR 2022, arXiv:2203.08679, equations 5 to 7",
    settings: r#"
alpha = 1.0          # α: the weight of the target's part
beta = 8.0           # β: the weight of the other classes' part
temperature = 4.0    # T: both logits are divided by it, and the loss is multiplied by T²
"#,
    page: include_str!("dkd.rs"),
}

/// Decoupled soft targets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dkd {
    /// α: the weight of the target's part.
    pub alpha: f64,
    /// β: the weight of the other classes' part.
    pub beta: f64,
    /// T
    pub temperature: f64,
}

impl Default for Dkd {
    fn default() -> Self {
        Dkd { alpha: 1.0, beta: 8.0, temperature: 4.0 }
    }
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
        positive("dkd", "temperature", self.temperature)?;
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

        let binary = |z: &Tensor| ln_target_and_rest(&z.log_softmax(1, None), &labels, &mask);
        let tckd = kl_divergence(&binary(&teacher), &binary(&student));
        let others = |z: &Tensor| (z - &mask * OUT_OF_THE_WAY).log_softmax(1, None);
        let nckd = kl_divergence(&others(&teacher), &others(&student));

        let scale = t * t / step.batch() as f64;
        Ok(Terms::new().loss("target", tckd * (alpha * scale)).loss("others", nckd * (beta * scale)))
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
            refusal(&Dkd { temperature: 0.0, ..Dkd::default() }, &NARROW, &WIDE, &[]),
            "dkd: temperature must be positive, not 0"
        );
        assert_eq!(
            refusal(&Dkd::default(), &NARROW, &WIDE, &[("pooled", "pooled")]),
            "this method uses the logits alone: remove `taps`"
        );
        let mut fixture = Fixture::new(&[0, 1], 4, 4);
        fixture.teacher.classes = 100;
        assert_eq!(
            Dkd::default().taps(&fixture.site()).unwrap_err().to_string(),
            "dkd compares class probabilities, but the student has 2 classes and the teacher 100"
        );
    }

    #[test]
    fn samples_without_label_are_refused() {
        let fixture = Fixture::new(&[0, UNLABELLED, 1, UNLABELLED], 4, 4);
        assert_eq!(
            Dkd::default().taps(&fixture.site()).unwrap_err().to_string(),
            "dkd sets the class of the label apart, and 2 of the 4 training samples have no label: leave them out, or take a method \
             that does without"
        );
    }
}
