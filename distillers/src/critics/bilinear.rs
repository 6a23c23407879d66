//! `bilinear`: a trained bilinear form of both embeddings.
//!
//! Van den Oord, Li, Vinyals. *Representation Learning with Contrastive Predictive Coding*. arXiv:1807.03748, 2018,
//! equation 3, whose density ratio is exp(zᵀ W c).
//!
//! With unit embeddings v1 of the student and v2 of the teacher,
//!
//! s = v1ᵀ W v2 / τ,
//!
//! one W `[D, D]` for the anchors of both sides. It begins as the identity, where this is the cosine of `nce` and
//! `info_nce`. The loss on the scores is either's, with its bound on the mutual information. Nothing bounds W: under `nce`,
//! whose Z stays as the first batch sets it, training diverged on CIFAR-100 at the rate of the CRD paper.
//!
//! *Cost*: B · D² for Wᵀ times the anchors; after that a dot product, so that a whole bank is scored at once. *State*:
//! `critic.weight`; with `loss = "nce"` that critic's Z.

use limbeck::prelude::*;

use super::scores::products;
use super::{Loss, LossKind};

limbeck::plugin! {
    critic "bilinear": Bilinear,
    summary: "a trained bilinear form of both embeddings",
    citation: "van den Oord, Li, Vinyals. Representation Learning with Contrastive Predictive Coding. arXiv:1807.03748, 2018, equation 3",
    page: include_str!("bilinear.rs"),
}

/// A bilinear form.
#[derive(Clone, Debug, Settings)]
pub struct Bilinear {
    /// "info_nce" or "nce": the loss of the critic of that name.
    #[setting(default = LossKind::InfoNce)]
    pub loss: LossKind,
    /// τ: the form is divided by it.
    #[setting(default = 0.07, range = positive)]
    pub temperature: f64,
}

#[typetag::serde(name = "bilinear")]
impl CriticConfig for Bilinear {
    fn build(&self, site: &CriticSite, params: &nn::Path<'_>) -> Result<Box<dyn Critic>> {
        let weight = (params / "critic").zeros("weight", &[site.embedding_width; 2]);
        limbeck::tch::no_grad(|| {
            weight.shallow_clone().copy_(&Tensor::eye(site.embedding_width, (Kind::Float, Device::Cpu)))
        });
        Ok(Box::new(LiveBilinear { weight, loss: Loss::new(self.loss, site, params), temperature: self.temperature }))
    }
}

#[derive(Debug)]
struct LiveBilinear {
    weight: Tensor,
    loss: Loss,
    temperature: f64,
}

impl Critic for LiveBilinear {
    fn factors(&self) -> bool {
        true
    }

    fn needs_fair_negatives(&self) -> bool {
        self.loss.needs_fair_negatives()
    }

    fn score(&self, side: Side, anchors: &Tensor, candidates: &Tensor) -> Result<Tensor> {
        let turned = match side {
            Side::Student => anchors.matmul(&self.weight),
            Side::Teacher => anchors.matmul(&self.weight.tr()),
        };
        Ok(products(&(turned / self.temperature), candidates))
    }

    fn loss(&mut self, side: Side, scores: &Scores) -> Result<Terms> {
        Ok(self.loss.terms(side, scores))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::wave;

    const SITE: CriticSite = CriticSite { embedding_width: 4, samples: 50 };

    fn distance(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn the_form_is_one_for_both_sides_and_begins_as_the_cosine() {
        let mut store = nn::VarStore::new(Device::Cpu);
        let critic = Bilinear::default().build(&SITE, &store.root()).unwrap();
        store.double();
        let (v1, v2) = (wave(&[3, 4], 0.2), wave(&[5, 4], 1.1));
        let cosine = critic.score(Side::Student, &v1, &v2).unwrap();
        assert!(distance(&cosine, &(v1.matmul(&v2.tr()) / 0.07)) < 1e-12);

        let weight = wave(&[4, 4], 0.7);
        limbeck::tch::no_grad(|| store.variables()["critic.weight"].shallow_clone().copy_(&weight));
        let expected = v1.matmul(&weight).matmul(&v2.tr()) / 0.07;
        let of_student = critic.score(Side::Student, &v1, &v2).unwrap();
        assert!(distance(&of_student, &expected) < 1e-12);
        let of_teacher = critic.score(Side::Teacher, &v2, &v1).unwrap();
        assert!(distance(&of_teacher, &expected.tr()) < 1e-12, "the same pairs from the other side");
        let each = v2.unsqueeze(0).expand([3, 5, 4], false).contiguous();
        let gathered = critic.score(Side::Student, &v1, &each).unwrap();
        assert!(distance(&gathered, &expected) < 1e-12, "gathered candidates");
    }
}
