//! `info_nce`: which of K + 1 candidates is the positive.
//!
//! Van den Oord, Li, Vinyals. *Representation Learning with Contrastive Predictive Coding*. arXiv:1807.03748, 2018,
//! equation 4.
//!
//! With unit embeddings v of the anchor and u of a candidate, s = v·u / τ,
//!
//! L = −1/B · Σ ln \[ exp(s⁺) / (exp(s⁺) + Σ exp(s⁻)) \].
//!
//! Against `nce`: the negatives compete with each other, so that the hard ones get most of the gradient, and there is no
//! constant Z to estimate.
//!
//! **Metric** `mutual_information`: ln(K + 1) − L in nats, a lower bound on the mutual information of both
//! representations (the paper's section 2.3); never above ln(K + 1).
//!
//! *Cost*: a few passes over `[B, K]` besides the scores. *State*: none.

use limbeck::prelude::*;

use super::scores::{negatives_per_anchor, products, with_bound};

limbeck::plugin! {
    critic "info_nce": InfoNce,
    summary: "picks the positive among all candidates at once: a softmax over K + 1",
    citation: "van den Oord, Li, Vinyals. Representation Learning with Contrastive Predictive Coding. arXiv:1807.03748, 2018",
    page: include_str!("info_nce.rs"),
}

/// The log-score of what is no candidate: its exponential is 0 in every kind, and unlike −∞ it has a gradient, 0.
const ABSENT: f64 = -1e30;

/// InfoNCE.
#[derive(Clone, Debug, Settings)]
pub struct InfoNce {
    /// τ: scores are cosines divided by it.
    #[setting(default = 0.07, range = positive)]
    pub temperature: f64,
}

#[typetag::serde(name = "info_nce")]
impl CriticConfig for InfoNce {
    fn build(&self, _site: &CriticSite, _params: &nn::Path<'_>) -> Result<Box<dyn Critic>> {
        Ok(Box::new(self.clone()))
    }
}

impl Critic for InfoNce {
    fn factors(&self) -> bool {
        true
    }

    fn score(&self, _side: Side, anchors: &Tensor, candidates: &Tensor) -> Result<Tensor> {
        Ok(products(&(anchors / self.temperature), candidates))
    }

    fn loss(&mut self, _side: Side, scores: &Scores) -> Result<Terms> {
        Ok(softmax(scores))
    }
}

/// The loss on scores.
pub(super) fn softmax(scores: &Scores) -> Terms {
    let against = match &scores.mask {
        Some(mask) => scores.negative.masked_fill(&mask.logical_not(), ABSENT).logsumexp(1, false),
        None => scores.negative.logsumexp(1, false),
    };
    // −ln eᵖ / (eᵖ + eᵃ) = ln(1 + eᵃ⁻ᵖ)
    let loss = (against - &scores.positive).softplus();
    let candidates = negatives_per_anchor(scores).squeeze_dim(1) + 1.0;
    with_bound(Terms::of("info_nce", loss.mean(None)), scores, || (candidates.log() - &loss).mean(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: CriticSite = CriticSite { embedding_width: 4, samples: 50 };

    #[test]
    fn the_loss_and_its_bound_are_the_papers() {
        let store = nn::VarStore::new(Device::Cpu);
        let mut critic = InfoNce::default().build(&SITE, &store.root()).unwrap();
        let (positive, negative) = ([2.0_f64, -1.0], [[0.5_f64, 3.0, -2.0], [1.0, 0.0, -0.5]]);
        for mask in [None, Some([[true, false, true], [true, true, true]])] {
            let scores = Scores {
                positive: Tensor::from_slice(&positive),
                negative: Tensor::from_slice(&negative.concat()).view([2, 3]),
                mask: mask.map(|mask| Tensor::from_slice(&mask.concat()).view([2, 3])),
                fair: true,
            };
            let mask = mask.unwrap_or([[true; 3]; 2]);
            let (mut loss, mut bound) = (0.0, 0.0);
            for i in 0..2 {
                let chosen: Vec<f64> = (0..3).filter(|j| mask[i][*j]).map(|j| negative[i][j].exp()).collect();
                let own = -(positive[i].exp() / (positive[i].exp() + chosen.iter().sum::<f64>())).ln();
                loss += own / 2.0;
                bound += ((chosen.len() as f64 + 1.0).ln() - own) / 2.0;
            }
            let terms = critic.loss(Side::Student, &scores).unwrap();
            assert!((terms.losses()[0].1.double_value(&[]) - loss).abs() < 1e-14);
            assert!((terms.metrics()[0].1.double_value(&[]) - bound).abs() < 1e-14);
            assert!(bound <= 4.0_f64.ln());
            let chosen_by_score = critic.loss(Side::Student, &Scores { fair: false, ..scores }).unwrap();
            assert!(chosen_by_score.metrics().is_empty(), "nothing is bounded then");
        }
    }

    #[test]
    fn an_anchor_without_negatives_costs_nothing_and_has_no_gradient() {
        let store = nn::VarStore::new(Device::Cpu);
        let mut critic = InfoNce::default().build(&SITE, &store.root()).unwrap();
        let negative = Tensor::from_slice(&[1.0_f32, 2.0]).view([1, 2]).set_requires_grad(true);
        let mask = Tensor::from_slice(&[false, false]).view([1, 2]);
        let scores = Scores {
            positive: Tensor::from_slice(&[3.0_f32]),
            negative: negative.shallow_clone(),
            mask: Some(mask),
            fair: true,
        };
        let loss = critic.loss(Side::Student, &scores).unwrap().losses()[0].1.shallow_clone();
        loss.backward();
        assert_eq!((loss.double_value(&[]), negative.grad().abs().sum(None).double_value(&[])), (0.0, 0.0));
    }
}
