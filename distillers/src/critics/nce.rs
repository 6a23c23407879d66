//! `nce`: binary noise-contrastive estimation, the critic of the CRD paper.
//!
//! Tian, Krishnan, Isola. *Contrastive Representation Distillation*. ICLR 2020, section 3.1; the estimator is that of
//! Gutmann, Hyvärinen. *Noise-contrastive estimation*. AISTATS 2010, its normalisation that of Wu et al., CVPR 2018.
//!
//! Of K + 1 candidates one, the positive, was seen by both networks, and K are noise. With unit embeddings v of the
//! anchor and u of a candidate, s = v·u / τ, and P = exp(s) / Z, the critic's belief that the pair is a joint one is
//!
//! h = P / (P + K/n + ε),  ε = 1e-7,
//!
//! where 1/n is the noise density over the n training samples. It is trained, and the networks with it, by
//!
//! L = −1/B · \[ Σ ln h⁺ + Σ ln (K/n) / (P⁻ + K/n + ε) \].
//!
//! **Z** is not learnt: Z = n · mean exp(s) over the first batch, one for the anchors of each side, then frozen. It is
//! state (`z_v1` for the student's anchors, `z_v2` for the teacher's), 0 until it is set.
//!
//! **In floating point.** With the logit ℓ = s − ln Z − ln(K/n + ε) these are logarithms of a logistic function,
//! ln h⁺ = ln σ(ℓ⁺) and ln (K/n)/(P⁻ + K/n + ε) = ln σ(−ℓ⁻) − ln(1 + ε n/K), which neither overflow nor cancel. That
//! matters: most terms are near 1 − h = 1 − 1e-4, and float32 would keep three digits of their logarithm.
//!
//! **Metric** `mutual_information`: ln K + mean ln h⁺ in nats, the paper's lower bound on the mutual information of both
//! representations; never above ln K.
//!
//! *Cost*: a few passes over `[B, K]` besides the scores.

use limbeck::prelude::*;

use super::scores::{negatives_per_anchor, products, with_bound};

limbeck::plugin! {
    critic "nce": Nce,
    summary: "tells the positive from each negative on its own: the loss of the CRD paper",
    citation: "Tian, Krishnan, Isola. Contrastive Representation Distillation. ICLR 2020; Gutmann, Hyvärinen. Noise-contrastive estimation. AISTATS 2010",
    page: include_str!("nce.rs"),
}

const EPSILON: f64 = 1e-7;

/// Binary noise-contrastive estimation.
#[derive(Clone, Debug, Settings)]
pub struct Nce {
    /// τ: scores are cosines divided by it (the paper's text says 0.1 for CIFAR, its code 0.07).
    #[setting(default = 0.07, range = positive)]
    pub temperature: f64,
}

#[typetag::serde(name = "nce")]
impl CriticConfig for Nce {
    fn build(&self, site: &CriticSite, params: &nn::Path<'_>) -> Result<Box<dyn Critic>> {
        Ok(Box::new(LiveNce { contrast: NoiseContrast::new(site, params), temperature: self.temperature }))
    }
}

#[derive(Debug)]
struct LiveNce {
    contrast: NoiseContrast,
    temperature: f64,
}

impl Critic for LiveNce {
    fn factors(&self) -> bool {
        true
    }

    fn needs_fair_negatives(&self) -> bool {
        true
    }

    fn score(&self, _side: Side, anchors: &Tensor, candidates: &Tensor) -> Result<Tensor> {
        Ok(products(&(anchors / self.temperature), candidates))
    }

    fn loss(&mut self, side: Side, scores: &Scores) -> Result<Terms> {
        Ok(self.contrast.terms(side, scores))
    }
}

/// The loss on scores, with its normalising constants `z_v1` and `z_v2`.
#[derive(Debug)]
pub(super) struct NoiseContrast {
    z_v1: Tensor,
    z_v2: Tensor,
    samples: f64,
    /// Of the last step in which every anchor had all negatives: mostly that of the next one.
    noise: Option<Noise>,
}

/// What the loss makes of the numbers of negatives alone.
#[derive(Debug)]
struct Noise {
    /// `[B, K]` of the scores, with their kind.
    of: (Vec<i64>, Kind),
    /// K of each anchor, `[B, 1]`.
    k: Tensor,
    /// ln K, of at least one.
    ln_k: Tensor,
    /// ln (K/n + ε)
    ln_density: Tensor,
    /// Σ K ln (1 + ε n/K) over the anchors: a scalar.
    offset: Tensor,
}

impl Noise {
    fn new(scores: &Scores, samples: f64) -> Self {
        let k = negatives_per_anchor(scores);
        // An anchor may have none where negatives come from the batch.
        let at_least_one = k.clamp_min(1.0);
        let density = &at_least_one / samples;
        Noise {
            of: (scores.negative.size(), scores.negative.kind()),
            ln_k: at_least_one.log(),
            ln_density: (&density + EPSILON).log(),
            offset: (&k * (EPSILON / density).log1p()).sum(None),
            k,
        }
    }

    /// Whether it is that of these scores, too.
    fn is_of(&self, scores: &Scores) -> bool {
        scores.mask.is_none()
            && self.of == (scores.negative.size(), scores.negative.kind())
            && self.k.device() == scores.negative.device()
    }
}

impl NoiseContrast {
    pub fn new(site: &CriticSite, params: &nn::Path<'_>) -> Self {
        NoiseContrast {
            z_v1: params.zeros_no_train("z_v1", &[]),
            z_v2: params.zeros_no_train("z_v2", &[]),
            samples: site.samples as f64,
            noise: None,
        }
    }

    pub fn terms(&mut self, side: Side, scores: &Scores) -> Terms {
        let noise = match self.noise.take() {
            Some(noise) if noise.is_of(scores) => noise,
            _ => Noise::new(scores, self.samples),
        };
        let ln_z = self.normaliser(side, scores, &noise.k).log();
        let threshold = ln_z + &noise.ln_density;
        let ln_h = (scores.positive.unsqueeze(1) - &threshold).log_sigmoid();
        let mut accepted = (&scores.negative - &threshold).softplus();
        if let Some(mask) = &scores.mask {
            accepted = accepted.masked_fill(&mask.logical_not(), 0.0);
        }
        let loss = (accepted.sum(None) + &noise.offset - ln_h.sum(None)) / scores.positive.size()[0] as f64;
        let terms = with_bound(Terms::of("nce", loss), scores, || (&noise.ln_k + ln_h).mean(None));
        if scores.mask.is_none() {
            self.noise = Some(noise);
        }
        terms
    }

    /// Z of this side's anchors, after setting it from `scores` if this is the first batch: a scalar.
    ///
    /// Whether it is the first is asked of the tensor itself, so that a restored Z stays; on a GPU the answer is used
    /// there, because the host would have to wait for it.
    fn normaliser(&mut self, side: Side, scores: &Scores, k: &Tensor) -> &Tensor {
        let z = match side {
            Side::Student => &mut self.z_v1,
            Side::Teacher => &mut self.z_v2,
        };
        if z.device() == Device::Cpu && z.double_value(&[]) > 0.0 {
            return z;
        }
        let _no_grad = limbeck::tch::no_grad_guard();
        let mut negative = scores.negative.exp();
        if let Some(mask) = &scores.mask {
            negative = negative.masked_fill(&mask.logical_not(), 0.0);
        }
        let count = k.sum(None) + scores.positive.size()[0];
        let first = (scores.positive.exp().sum(None) + negative.sum(None)) / count * self.samples;
        let set = z.gt(0.0);
        z.copy_(&z.where_self(&set, &first));
        z
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: CriticSite = CriticSite { embedding_width: 4, samples: 50 };

    /// Numbers between −3 and 3 without a pattern.
    fn spread(shape: &[i64]) -> Tensor {
        let count = shape.iter().product::<i64>();
        (Tensor::arange(count, (Kind::Double, Device::Cpu)) * 1.7).sin().view(shape) * 3.0
    }

    fn scores(mask: Option<Tensor>) -> Scores {
        Scores { positive: spread(&[3]) + 2.0, negative: spread(&[3, 5]), mask, fair: true }
    }

    fn build(store: &mut nn::VarStore) -> Box<dyn Critic> {
        let critic = Nce::default().build(&SITE, &store.root()).unwrap();
        store.double();
        critic
    }

    /// The equations of the paper, literally.
    fn by_hand(scores: &Scores, z: f64) -> f64 {
        let (b, k) = (scores.positive.size()[0], scores.negative.size()[1]);
        let mut sum = 0.0;
        for i in 0..b {
            let mut chosen: Vec<i64> = (0..k).collect();
            if let Some(mask) = &scores.mask {
                chosen.retain(|j| mask.int64_value(&[i, *j]) == 1);
            }
            let noise = chosen.len() as f64 / 50.0;
            let p = scores.positive.double_value(&[i]).exp() / z;
            sum += (p / (p + noise + 1e-7)).ln();
            for j in chosen {
                let p = scores.negative.double_value(&[i, j]).exp() / z;
                sum += (noise / (p + noise + 1e-7)).ln();
            }
        }
        -sum / b as f64
    }

    #[test]
    fn the_logistic_form_is_the_papers_and_z_is_frozen_after_the_first_batch() {
        let mask = Tensor::from_slice(&[
            true, true, false, true, false, false, false, true, false, false, true, true, true, true, true,
        ]);
        for mask in [None, Some(mask.view([3, 5]))] {
            let mut store = nn::VarStore::new(Device::Cpu);
            let mut critic = build(&mut store);
            let first = scores(mask.as_ref().map(Tensor::copy));
            let chosen = mask
                .as_ref()
                .map_or(Tensor::ones([3, 5], (Kind::Double, Device::Cpu)), |mask| mask.to_kind(Kind::Double));
            let total = (first.positive.exp().sum(None) + (first.negative.exp() * &chosen).sum(None)).double_value(&[]);
            let z = total / (3.0 + chosen.sum(None).double_value(&[])) * 50.0;
            let loss = critic.loss(Side::Student, &first).unwrap().losses()[0].1.double_value(&[]);
            assert!((store.variables()["z_v1"].double_value(&[]) - z).abs() < 1e-10 * z);
            assert_eq!(store.variables()["z_v2"].double_value(&[]), 0.0, "the other side's is its own");
            assert!((loss - by_hand(&first, z)).abs() < 1e-12, "{loss} {}", by_hand(&first, z));
            let second = Scores { positive: &first.positive * 0.5, negative: &first.negative * 1.5, ..first };
            let loss = critic.loss(Side::Student, &second).unwrap().losses()[0].1.double_value(&[]);
            assert!((loss - by_hand(&second, z)).abs() < 1e-12);
        }
    }

    #[test]
    fn the_bound_on_the_mutual_information_is_log_k_at_most() {
        let mut store = nn::VarStore::new(Device::Cpu);
        let mut critic = build(&mut store);
        for sharp in [1.0, 10.0, 100.0] {
            let scores = Scores {
                positive: scores(None).positive.abs() * sharp,
                negative: scores(None).negative * sharp,
                mask: None,
                fair: true,
            };
            let terms = critic.loss(Side::Teacher, &scores).unwrap();
            let (name, bound) = &terms.metrics()[0];
            assert_eq!(name, "mutual_information");
            assert!(bound.double_value(&[]) <= 5.0_f64.ln() && bound.double_value(&[]).is_finite());
        }
    }

    /// The loss with 16 384 negatives that the critic tells apart well.
    fn loss_of_many(kind: Kind) -> f64 {
        let (n, k) = (50_000, 16_384_i64);
        let site = CriticSite { samples: n, ..SITE };
        let store = nn::VarStore::new(Device::Cpu);
        let mut critic = Nce::default().build(&site, &store.root()).unwrap();
        store.root().set_kind(kind);
        let negative = (Tensor::arange(k, (Kind::Double, Device::Cpu)) * 0.37).sin().view([1, k]) * 2.0 - 9.0;
        let scores = Scores {
            positive: Tensor::from_slice(&[14.0]).to_kind(kind),
            negative: negative.to_kind(kind),
            mask: None,
            fair: true,
        };
        // A Z of a first batch whose scores were higher: now P is small.
        let _ = store.variables().get_mut("z_v1").unwrap().fill_(1e6);
        critic.loss(Side::Student, &scores).unwrap().losses()[0].1.double_value(&[])
    }

    #[test]
    fn float32_keeps_the_terms_that_are_almost_zero() {
        let (single, double) = (loss_of_many(Kind::Float), loss_of_many(Kind::Double));
        assert!((single - double).abs() < 1e-6 * double, "{single} {double}");
    }

    #[test]
    fn an_anchor_without_negatives_has_only_its_positive_term() {
        let mut store = nn::VarStore::new(Device::Cpu);
        let mut critic = build(&mut store);
        let _ = store.variables().get_mut("z_v1").unwrap().fill_(40.0);
        let none = Tensor::zeros([3, 5], (Kind::Bool, Device::Cpu));
        let scores = scores(Some(none));
        let loss = critic.loss(Side::Student, &scores).unwrap().losses()[0].1.double_value(&[]);
        let p = scores.positive.exp() / 40.0;
        let expected = -(&p / (&p + 1.0 / 50.0 + 1e-7)).log().mean(None).double_value(&[]);
        assert!((loss - expected).abs() < 1e-12, "{loss} {expected}");
    }
}
