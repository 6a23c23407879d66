//! `kd`: soft targets.
//!
//! Hinton, Vinyals, Dean. *Distilling the Knowledge in a Neural Network*. arXiv:1503.02531, 2015, section 2.
//!
//! With logits z, the softened probabilities of both networks are q = softmax(z / T), and
//!
//! L = T² / B · Σᵢ KL(qᵗᵢ ‖ qˢᵢ) = T² / B · Σᵢ Σ_c qᵗ_ic (ln qᵗ_ic − ln qˢ_ic).
//!
//! The factor T² keeps the size of the gradients, which fall as 1/T², when the temperature changes.
//!
//! *Taps*: none, the logits alone. *Cost*: O(B · classes). *State*: none. *Published weights*: 0.9, with a
//! cross-entropy of 0.1, at T = 4 (the benchmark of the CRD paper): the method `kd`.

use limbeck::checks::same_classes;
use limbeck::prelude::*;

use crate::tensor::kl_divergence;

limbeck::plugin! {
    distiller "kd": Kd,
    summary: "soft targets: the teacher's softened class probabilities",
    citation: "Hinton, Vinyals, Dean. Distilling the Knowledge in a Neural Network. arXiv:1503.02531, 2015",
    page: include_str!("kd.rs"),
    method "kd": MethodConfig::new(0.1).term(0.9, Kd::default()),
    summary: "soft targets beside a little cross-entropy",
}

/// Soft targets.
#[derive(Clone, Debug, Settings)]
pub struct Kd {
    /// T: both logits are divided by it, and the loss is multiplied by T².
    #[setting(default = 4.0, range = positive)]
    pub temperature: f64,
}

#[typetag::serde(name = "kd")]
impl DistillerConfig for Kd {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        same_classes("kd", site)?;
        site.one_class("kd compares one distribution over all classes")?;
        site.logits_only()
    }

    fn build(&self, _site: &Site<'_>, _params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        Ok(Box::new(LiveKd { temperature: self.temperature }))
    }
}

#[derive(Debug)]
struct LiveKd {
    temperature: f64,
}

impl Distiller for LiveKd {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let t = self.temperature;
        let [student, teacher] = [step.student, step.teacher].map(|side| (&side.logits / t).log_softmax(-1, None));
        let kl = kl_divergence(&teacher, &student);
        Ok(Terms::of("kl", kl * (t * t / step.batch() as f64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;

    /// Two samples' logits.
    fn features(rows: &[[f64; 2]; 2]) -> Features {
        Features::new(Tensor::from_slice(&rows.concat()).view([2, 2]), Default::default())
    }

    /// The softmax of z / 4.
    fn q(z: &[f64; 2]) -> [f64; 2] {
        let e = z.map(|z| (z / 4.0).exp());
        e.map(|x| x / (e[0] + e[1]))
    }

    #[test]
    fn agreement_costs_nothing_and_the_loss_is_the_papers_sum() {
        let fixture = Fixture::new(&[0, 1, 0, 1], 8, 8);
        let mut kd = Kd::default().build(&fixture.site(), &nn::VarStore::new(Device::Cpu).root()).unwrap();
        let student = [[1.0_f64, -2.0], [0.5, 3.0]];
        let teacher = [[-1.0_f64, 2.5], [0.0, 1.0]];
        let agreement = fixture.logits_loss(kd.as_mut(), &features(&teacher), &features(&teacher));
        assert!(agreement.abs() < 1e-15);
        let by_hand: f64 = (0..2)
            .map(|i| q(&teacher[i]).iter().zip(q(&student[i])).map(|(t, s)| t * (t / s).ln()).sum::<f64>())
            .sum::<f64>()
            * 16.0
            / 2.0;
        let loss = fixture.logits_loss(kd.as_mut(), &features(&student), &features(&teacher));
        assert!((loss - by_hand).abs() < 1e-14);
    }
}
