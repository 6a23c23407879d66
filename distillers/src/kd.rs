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

use limbeck::checks::{positive, same_classes};
use limbeck::prelude::*;
use serde::{Deserialize, Serialize};

use crate::tensor::kl_divergence;

limbeck::plugin! {
    method "kd",
    summary: "soft targets beside a little cross-entropy",
    citation: "Hinton, Vinyals, Dean. Distilling the Knowledge in a Neural Network. arXiv:1503.02531, 2015",
    settings: r#"
cross_entropy = 0.1   # the weight of the cross-entropy with the labels
terms = [{ weight = 0.9, distiller = { kind = "kd", temperature = 4.0 } }]
"#,
    page: include_str!("kd.rs"),
}

limbeck::plugin! {
    distiller "kd",
    summary: "soft targets: the teacher's softened class probabilities",
    citation: "Hinton, Vinyals, Dean. Distilling the Knowledge in a Neural Network. arXiv:1503.02531, 2015",
    settings: r#"
temperature = 4.0   # T: both logits are divided by it, and the loss is multiplied by T²
"#,
    page: include_str!("kd.rs"),
}

/// Soft targets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kd {
    /// T
    pub temperature: f64,
}

impl Default for Kd {
    fn default() -> Self {
        Kd { temperature: 4.0 }
    }
}

#[typetag::serde(name = "kd")]
impl DistillerConfig for Kd {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        same_classes("kd", site)?;
        site.one_class("kd compares one distribution over all classes")?;
        site.logits_only()
    }

    fn build(&self, _site: &Site<'_>, _params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        positive("kd", "temperature", self.temperature)?;
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

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let mut fixture = Fixture::new(&[0, 1, 0, 1], 8, 8);
        let build = |kd: Kd| kd.build(&fixture.site(), &nn::VarStore::new(Device::Cpu).root()).unwrap_err().to_string();
        assert_eq!(build(Kd { temperature: 0.0 }), "kd: temperature must be positive, not 0");
        assert_eq!(build(Kd { temperature: f64::NAN }), "kd: temperature must be positive, not NaN");
        fixture.teacher.classes = 100;
        assert_eq!(
            Kd::default().taps(&fixture.site()).unwrap_err().to_string(),
            "kd compares class probabilities, but the student has 2 classes and the teacher 100"
        );
    }

    #[test]
    fn agreement_costs_nothing_and_the_loss_is_the_papers_sum() {
        let fixture = Fixture::new(&[0, 1, 0, 1], 8, 8);
        let mut kd = Kd::default().build(&fixture.site(), &nn::VarStore::new(Device::Cpu).root()).unwrap();
        let student = [[1.0_f64, -2.0], [0.5, 3.0]];
        let teacher = [[-1.0_f64, 2.5], [0.0, 1.0]];
        let logits = |rows: &[[f64; 2]; 2]| Tensor::from_slice(&rows.concat()).view([2, 2]);
        let features = |rows| Features::new(logits(rows), Default::default());
        let mut loss = |s, t| fixture.logits_loss(kd.as_mut(), &features(s), &features(t));
        assert!(loss(&teacher, &teacher).abs() < 1e-15);
        let q = |z: &[f64; 2]| {
            let e = z.map(|z| (z / 4.0).exp());
            e.map(|x| x / (e[0] + e[1]))
        };
        let by_hand: f64 = (0..2)
            .map(|i| q(&teacher[i]).iter().zip(q(&student[i])).map(|(t, s)| t * (t / s).ln()).sum::<f64>())
            .sum::<f64>()
            * 16.0
            / 2.0;
        assert!((loss(&student, &teacher) - by_hand).abs() < 1e-14);
    }
}
