//! `crd`: contrastive representation distillation.
//!
//! Tian, Krishnan, Isola. *Contrastive Representation Distillation*. ICLR 2020.
//!
//! Teacher and student should map one sample to representations that can be told, as a pair, from representations of two
//! samples. Two **heads** embed them on the unit sphere, v1 the student's and v2 the teacher's; a **critic** scores pairs;
//! two **banks** remember the last embedding of every training sample, memory_v1 the student's and memory_v2 the
//! teacher's; a **sampler** says which samples are the negatives of an anchor. For a sample i with negatives N(i),
//!
//! L = L_critic(v1ᵢ; memory_v2ᵢ, memory_v2[N(i)]) + L_critic(v2ᵢ; memory_v1ᵢ, memory_v1[N(i)]),
//!
//! where the positive is the bank's old row of the sample, from the last epoch (`positives = "relaxed"`: the row of a random
//! sample of its class). After the optimiser's step the banks move: row ← normalise(m · row + (1 − m) · v). Negatives
//! `in_batch` need no bank: positives and negatives are then embeddings of the same batch.
//!
//! Heads, critic, sampler and bank are settings of their own. The paper's method is `nce` with `other_class`. What makes no
//! sense together is refused while planning, with the reason.
//!
//! *Taps*: one pair, the pooled vectors unless the experiment file names another; flattened. *State*: the heads `embed_s` and
//! `embed_t`, trained with the student; `memory_v1`, `memory_v2`; the critic's. *Published weight*: 0.8, cross-entropy 1: the method `crd`; with
//! soft targets of weight 1 besides: `crd+kd`.
//!
//! *Cost*, for B anchors, K negatives, n samples, D wide: the paper's code gathers B · K bank rows and multiplies them,
//! 4 B K D bytes of traffic a side, over a gigabyte at the default sizes. A score that is a function of a dot product is
//! cheaper to compute for the whole bank in one matrix product, of which B · K are then gathered: the same numbers in a
//! tenth of the time. This is done where it pays, when B · K ≥ n.

use std::sync::Arc;

use limbeck::prelude::*;
use serde::{Deserialize, Serialize};

use crate::bank::{Bank, BankPrecision};
use crate::classes::Classes;
use crate::critics::nce::Nce;
use crate::embedding::{Head, HeadKind};
use crate::kd::Kd;
use crate::negatives::other_class::OtherClass;

limbeck::plugin! {
    distiller "crd": Crd,
    summary: "contrastive representation distillation: any critic, any sampler of negatives, two memory banks",
    citation: "Tian, Krishnan, Isola. Contrastive Representation Distillation. ICLR 2020",
    page: include_str!("crd.rs"),
    method "crd": MethodConfig::new(1.0).term(0.8, Crd::default()),
    summary: "contrastive representation distillation beside cross-entropy",
    method "crd+kd": MethodConfig::new(1.0).term(1.0, Kd::default()).term(0.8, Crd::default()),
    summary: "contrastive representation distillation, soft targets and cross-entropy",
}

/// Contrastive representation distillation.
#[derive(Clone, Debug, Settings)]
pub struct Crd {
    /// What tells a joint pair from an independent one.
    #[setting(default = Arc::new(Nce::default()))]
    pub critic: Arc<dyn CriticConfig>,
    /// Which samples an anchor is told apart from.
    #[setting(default = Arc::new(OtherClass::default()))]
    pub negatives: Arc<dyn NegativeSamplerConfig>,
    /// "exact": the sample itself; "relaxed": a random sample of its class.
    #[setting(default = Positives::Exact)]
    pub positives: Positives,
    /// "linear": Linear(F → D); "mlp": a hidden layer, as wide as the features, before it.
    #[setting(default = HeadKind::Linear)]
    pub head: HeadKind,
    /// D: what both sides are projected to.
    #[setting(default = 128, range = 1..=65_536)]
    pub embedding_width: i64,
    /// m: the share of its old row that a sample keeps in the bank.
    // At 1 the bank would never move.
    #[setting(default = 0.5, range = 0.0..1.0)]
    pub bank_momentum: f64,
    /// How rows are kept: "float32", "bfloat16" or "float16", 4 or 2 bytes a number.
    #[setting(default = BankPrecision::Float32)]
    pub bank_precision: BankPrecision,
}

/// More training samples than any reasonable number of negatives.
const PLENTY: i64 = 1 << 17;

/// Which sample an anchor is matched with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positives {
    /// The sample itself.
    Exact,
    /// A random sample of its class, itself among them.
    Relaxed,
}

#[typetag::serde(name = "crd")]
impl DistillerConfig for Crd {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        let pairs = site.pooled()?;
        pairs.single()?;
        Ok(pairs)
    }

    fn build(&self, site: &Site<'_>, params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        let (samples, width) = (site.samples(), self.embedding_width);
        let taps = self.taps(site)?;
        let pair = taps.single()?;
        let heads = [("embed_s", pair.student_shape), ("embed_t", pair.teacher_shape)]
            .map(|(name, shape)| Head::new(self.head, params / name, shape.elements(), width));
        let critic_site = CriticSite { embedding_width: width, samples };
        let critic = self.critic.build(&critic_site, params).map_err(|e| e.within("crd.critic"))?;
        let sampler = self.negatives.build(site);
        if sampler.is_err() {
            // That these data are too few must not hide what no data would help.
            let labels: Arc<[i64]> = (0..PLENTY).map(|row| row % site.classes.min(2)).collect();
            if let Ok(sampler) = self.negatives.build(&Site { labels: &labels, ..site.clone() }) {
                self.check_combination(critic.as_ref(), sampler.as_ref())?;
            }
        }
        let sampler = sampler.map_err(|e| e.within("crd.negatives"))?;
        self.check_combination(critic.as_ref(), sampler.as_ref())?;
        let banks = sampler.wants_bank().then(|| {
            ["memory_v1", "memory_v2"]
                .map(|name| Bank::new(params, name, samples, width, self.bank_momentum, self.bank_precision))
        });
        Ok(Box::new(LiveCrd {
            heads,
            critic,
            banks,
            sampler,
            classes: match self.positives {
                Positives::Exact => None,
                Positives::Relaxed => Some(Classes::new("crd", site)?),
            },
            embeddings: None,
        }))
    }
}

impl Crd {
    /// Refuses what makes no sense together.
    fn check_combination(&self, critic: &dyn Critic, sampler: &dyn NegativeSampler) -> Result<()> {
        let (of, by) = (self.negatives.typetag_name(), self.critic.typetag_name());
        if sampler.wants_scores() && !critic.factors() {
            return Err(Error::plan(format!(
                "crd: negatives `{of}` choose by the scores of the whole bank, which critic `{by}` cannot compute at \
                 once; take a critic whose score is a dot product, such as `info_nce`, or other negatives"
            )));
        }
        if sampler.wants_scores() && critic.needs_fair_negatives() {
            return Err(Error::plan(format!(
                "crd: the loss of critic `{by}` is about negatives drawn uniformly, and `{of}` are chosen by their \
                 scores; take `info_nce`, or other negatives"
            )));
        }
        if self.positives == Positives::Relaxed && !sampler.wants_bank() {
            return Err(Error::plan(format!(
                "crd: relaxed positives are rows of the bank, and negatives `{of}` keep none; take `other_class`, or \
                 positives = \"exact\""
            )));
        }
        if self.positives == Positives::Relaxed && !sampler.spares_class() {
            return Err(Error::plan(format!(
                "crd: a relaxed positive, a sample of the anchor's class, could be among negatives `{of}` too; take \
                 `other_class`, or positives = \"exact\""
            )));
        }
        let default = Crd::default();
        let of_bank = [
            ("bank_momentum", self.bank_momentum != default.bank_momentum),
            ("bank_precision", self.bank_precision != default.bank_precision),
        ];
        match of_bank.iter().find(|(_, set)| *set && !sampler.wants_bank()) {
            Some((name, _)) => {
                Err(Error::plan(format!("crd: negatives `{of}` keep no bank, so that {name} has no effect: remove it")))
            }
            None => Ok(()),
        }
    }
}

#[derive(Debug)]
struct LiveCrd {
    /// The student's and the teacher's.
    heads: [Head; 2],
    critic: Box<dyn Critic>,
    sampler: Box<dyn NegativeSampler>,
    /// memory_v1 and memory_v2, if negatives come from them.
    banks: Option<[Bank; 2]>,
    /// Where positives are relaxed.
    classes: Option<Classes>,
    /// v1 and v2 of this step, on their way from the loss to the banks.
    embeddings: Option<[Tensor; 2]>,
}

impl Distiller for LiveCrd {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let (student, teacher) = step.pair()?;
        let [v1, v2] = [self.heads[0].embed(student), self.heads[1].embed(teacher)];
        self.embeddings = Some([v1.detach(), v2.detach()]);

        let against_bank = match &self.banks {
            Some([_, memory_v2]) if self.sampler.wants_scores() => {
                Some(self.critic.score(Side::Student, &v1, &memory_v2.all())?)
            }
            _ => None,
        };
        let negatives = self.sampler.draw(&Draw {
            rows: step.rows,
            labels: step.labels,
            scores: against_bank.as_ref().map(Tensor::detach).as_ref(),
            seed: step.seed.stream("negatives"),
            device: v1.device(),
        })?;

        let chosen = Chosen { rows: step.rows.device(), positives: self.positives(step), negatives };
        let of_student = self.scores(Side::Student, [&v1, &v2], &chosen, against_bank)?;
        let of_teacher = self.scores(Side::Teacher, [&v2, &v1], &chosen, None)?;
        Ok(Terms::new()
            .absorb("student_", self.critic.loss(Side::Student, &of_student)?)
            .absorb("teacher_", self.critic.loss(Side::Teacher, &of_teacher)?))
    }

    fn after_step(&mut self, step: &Step<'_>) -> Result<()> {
        if let (Some(banks), Some(embeddings)) = (&mut self.banks, self.embeddings.take()) {
            for (bank, embedding) in banks.iter_mut().zip(embeddings) {
                bank.update(step.rows.device(), &embedding);
            }
        }
        Ok(())
    }
}

/// Who is compared with whom in a step.
struct Chosen<'a> {
    /// `[B]`: the anchors.
    rows: &'a Tensor,
    /// `[B]`: their positives.
    positives: Tensor,
    negatives: Negatives,
}

impl LiveCrd {
    /// The bank that the anchors of `side` are scored against: the other side's.
    fn bank(&self, side: Side) -> Result<&Bank> {
        match (&self.banks, side) {
            (Some([_, memory_v2]), Side::Student) => Ok(memory_v2),
            (Some([memory_v1, _]), Side::Teacher) => Ok(memory_v1),
            (None, _) => Err(Error::run("these negatives are rows of a bank, but their sampler wants none")),
        }
    }

    /// The rows of the anchors' positives, `[B]`.
    fn positives(&self, step: &Step<'_>) -> Tensor {
        let Some(classes) = &self.classes else { return step.rows.device().shallow_clone() };
        let seed = step.seed.stream("positives");
        let mut rows = Vec::with_capacity(step.rows.host().len());
        for row in step.rows.host() {
            let own = classes.of(*row as usize);
            let place = own.start + seed.at(*row as u64).rng().below(own.len() as u64) as usize;
            rows.push(i64::from(classes.rows()[place]));
        }
        Tensor::from_slice(&rows).to_device(step.rows.device().device())
    }

    /// The scores of the anchors of `side` with their positives and negatives among the other side's embeddings.
    ///
    /// `partners` are the other side's embeddings of this batch; `against_bank` the scores `[B, n]`, if already known.
    fn scores(
        &self,
        side: Side,
        [anchors, partners]: [&Tensor; 2],
        chosen: &Chosen<'_>,
        against_bank: Option<Tensor>,
    ) -> Result<Scores> {
        let matched = match &chosen.negatives {
            Negatives::Batch(_) => partners.shallow_clone(),
            _ => self.bank(side)?.at(&chosen.positives),
        };
        let (negative, mask) = match &chosen.negatives {
            Negatives::Rows(rows) => {
                (row_scores(self.critic.as_ref(), side, anchors, self.bank(side)?, rows, against_bank)?, None)
            }
            Negatives::Mask(mask) => (self.bank_scores(side, anchors, against_bank)?, Some(mask.shallow_clone())),
            Negatives::Others => {
                let scores = self.bank_scores(side, anchors, against_bank)?;
                let others = scores.ones_like().to_kind(Kind::Bool).scatter_value(1, &chosen.rows.unsqueeze(1), 0);
                (scores, Some(others))
            }
            Negatives::Batch(mask) => (self.critic.score(side, anchors, partners)?, Some(mask.shallow_clone())),
        };
        let positive = self.critic.score(side, anchors, &matched.unsqueeze(1))?.squeeze_dim(1);
        Ok(Scores { positive, negative, mask, fair: !self.sampler.wants_scores() })
    }

    /// The scores `[B, n]` of the anchors of `side` with the whole bank: `known`, if they are.
    fn bank_scores(&self, side: Side, anchors: &Tensor, known: Option<Tensor>) -> Result<Tensor> {
        match known {
            Some(scores) => Ok(scores),
            None => self.critic.score(side, anchors, &self.bank(side)?.all()),
        }
    }
}

/// The scores `[B, K]` of the anchors `[B, D]` of `side` with the rows `chosen` (`[B, K]`, int64) of the other side's bank.
///
/// Where the critic factors and B · K ≥ n, the whole bank is scored and the chosen are gathered; `against_bank` are the
/// scores `[B, n]` of the whole bank, if already known.
///
/// # Errors
/// If the critic cannot compute the scores.
pub fn row_scores(
    critic: &dyn Critic,
    side: Side,
    anchors: &Tensor,
    bank: &Bank,
    chosen: &Tensor,
    against_bank: Option<Tensor>,
) -> Result<Tensor> {
    if let Some(known) = against_bank {
        return Ok(known.gather(1, chosen, false));
    }
    if !critic.factors() || (chosen.numel() as i64) < bank.samples() {
        return critic.score(side, anchors, &bank.at(chosen));
    }
    Ok(critic.score(side, anchors, &bank.all())?.gather(1, chosen, false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::critics::LossKind;
    use crate::critics::bilinear::Bilinear;
    use crate::critics::info_nce::InfoNce;
    use crate::critics::mlp::Mlp;
    use crate::fixture::{Fixture, pooled, wave};
    use crate::negatives::hardest::Hardest;
    use crate::negatives::in_batch::InBatch;
    use crate::negatives::other_instance::OtherInstance;
    use crate::negatives::whole_bank::WholeBank;

    const SAMPLES: i64 = 40;
    const BATCH: i64 = 6;

    /// `nce` that denies being a dot product.
    #[derive(Clone, Debug, Default, Serialize, Deserialize)]
    struct Unfactored {}

    #[typetag::serde(name = "test_unfactored")]
    impl CriticConfig for Unfactored {
        fn build(&self, site: &CriticSite, params: &nn::Path<'_>) -> Result<Box<dyn Critic>> {
            Ok(Box::new(LiveUnfactored(Nce::default().build(site, params)?)))
        }
    }

    #[derive(Debug)]
    struct LiveUnfactored(Box<dyn Critic>);

    impl Critic for LiveUnfactored {
        fn factors(&self) -> bool {
            false
        }
        fn needs_fair_negatives(&self) -> bool {
            true
        }
        fn score(&self, side: Side, anchors: &Tensor, candidates: &Tensor) -> Result<Tensor> {
            self.0.score(side, anchors, candidates)
        }
        fn loss(&mut self, side: Side, scores: &Scores) -> Result<Terms> {
            self.0.loss(side, scores)
        }
    }

    /// The rows r + 1, …, r + 8, said in two ways.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    struct Next {
        mask: bool,
    }

    #[typetag::serde(name = "test_next")]
    impl NegativeSamplerConfig for Next {
        fn build(&self, _site: &Site<'_>) -> Result<Box<dyn NegativeSampler>> {
            Ok(Box::new(self.clone()))
        }
    }

    impl NegativeSampler for Next {
        fn draw(&mut self, draw: &Draw<'_>) -> Result<Negatives> {
            let next = draw.rows.device().unsqueeze(1) + Tensor::arange_start(1, 9, (Kind::Int64, Device::Cpu));
            let next = next.remainder(SAMPLES);
            let all_false = Tensor::zeros([BATCH, SAMPLES], (Kind::Bool, Device::Cpu));
            Ok(if self.mask { Negatives::Mask(all_false.scatter_value(1, &next, 1)) } else { Negatives::Rows(next) })
        }
    }

    struct Lane {
        fixture: Fixture,
        store: nn::VarStore,
        crd: Box<dyn Distiller>,
        taps: TapPairs,
    }

    fn config(critic: impl CriticConfig + 'static, negatives: impl NegativeSamplerConfig + 'static) -> Crd {
        Crd { critic: Arc::new(critic), negatives: Arc::new(negatives), embedding_width: 5, ..Crd::default() }
    }

    impl Lane {
        /// In float64, with fixed parameters and banks.
        fn new(config: &Crd) -> Self {
            let labels: Vec<i64> = (0..SAMPLES).map(|row| row % 4).collect();
            let fixture = Fixture::new(&labels, 7, 9);
            let mut store = nn::VarStore::new(Device::Cpu);
            let taps = config.taps(&fixture.site()).unwrap();
            let crd = config.build(&fixture.site(), &store.root()).unwrap();
            store.double();
            let _no_grad = limbeck::tch::no_grad_guard();
            for (name, mut tensor) in store.variables() {
                if !name.starts_with("z_") {
                    tensor.copy_(&wave(&tensor.size(), name.len() as f64));
                }
            }
            Lane { fixture, store, crd, taps }
        }

        fn rows(step: i64) -> Vec<i64> {
            (0..BATCH).map(|i| (7 * i + 3 * step) % SAMPLES).collect()
        }

        fn features(step: i64) -> (Tensor, Tensor) {
            let student = wave(&[BATCH, 7], 0.3 + step as f64).set_requires_grad(true);
            (student, wave(&[BATCH, 9], 1.9 * step as f64))
        }

        /// The loss of a step, the gradients of the student's features and of every parameter, and the named terms.
        fn step(&mut self, step: i64) -> (f64, Vec<Tensor>, Terms) {
            let (student, teacher) = Self::features(step);
            let (s, t) = (pooled(&student), pooled(&teacher));
            let mut named: Vec<(String, Tensor)> = self.store.variables().into_iter().collect();
            named.sort_by(|a, b| a.0.cmp(&b.0));
            let mut over = vec![student];
            over.extend(named.into_iter().map(|(_, tensor)| tensor).filter(Tensor::requires_grad));
            let crd = &mut self.crd;
            self.fixture.step(step as u64, &Self::rows(step), &s, &t, &self.taps, |step| {
                let terms = crd.loss(step).unwrap();
                let loss = terms.losses().iter().fold(Tensor::from(0.0), |sum, (_, loss)| sum + loss);
                let gradients = Tensor::run_backward(&[&loss], &over, false, false);
                crd.after_step(step).unwrap();
                (loss.double_value(&[]), gradients, terms)
            })
        }

        fn variable(&self, name: &str) -> Tensor {
            self.store.variables().remove(name).unwrap()
        }
    }

    /// Asserts that two settings are the same function, over three steps.
    fn assert_same(a: &Crd, b: &Crd) {
        let (mut a, mut b) = (Lane::new(a), Lane::new(b));
        for step in 0..3 {
            let ((loss_a, gradients_a, _), (loss_b, gradients_b, _)) = (a.step(step), b.step(step));
            assert!((loss_a - loss_b).abs() < 1e-10 * loss_a, "step {step}: {loss_a} and {loss_b}");
            assert_eq!((gradients_a.len(), gradients_b.len()), (5, 5));
            for (a, b) in gradients_a.iter().zip(&gradients_b) {
                let (distance, norm) = ((a - b).norm().double_value(&[]), a.norm().double_value(&[]));
                assert!(
                    norm > 1e-3 && distance < 1e-10 * norm,
                    "step {step}: gradients differ by {distance} of {norm}"
                );
            }
        }
    }

    #[test]
    fn scoring_the_whole_bank_and_gathering_rows_are_the_same_function() {
        for count in [25, 5] {
            let negatives = OtherClass { count };
            assert_same(&config(Nce::default(), negatives.clone()), &config(Unfactored {}, negatives));
        }
    }

    #[test]
    fn the_whole_bank_is_all_other_instances() {
        let all = OtherInstance { count: SAMPLES as usize - 1 };
        assert_same(&config(Nce::default(), WholeBank {}), &config(Nce::default(), all.clone()));
        assert_same(&config(InfoNce::default(), WholeBank {}), &config(InfoNce::default(), all));
    }

    #[test]
    fn a_mask_and_its_rows_are_the_same_negatives() {
        assert_same(&config(Nce::default(), Next { mask: false }), &config(Nce::default(), Next { mask: true }));
    }

    fn exp_score(anchor: &Tensor, candidate: &Tensor) -> f64 {
        (anchor.dot(candidate).double_value(&[]) / 0.07).exp()
    }

    /// InfoNCE of both sides, from embeddings: `positive` and `negative` of (side, anchor) are vectors.
    fn info_nce_by_hand(anchors: [&Tensor; 2], candidates: impl Fn(usize, i64) -> (Tensor, Vec<Tensor>)) -> f64 {
        let mut sum = 0.0;
        for (side, anchors) in anchors.iter().enumerate() {
            for i in 0..BATCH {
                let (anchor, (positive, negatives)) = (anchors.get(i), candidates(side, i));
                let against: f64 = negatives.iter().map(|negative| exp_score(&anchor, negative)).sum();
                let matched = exp_score(&anchor, &positive);
                sum -= (matched / (matched + against)).ln() / BATCH as f64;
            }
        }
        sum
    }

    fn embeddings(lane: &Lane, step: i64) -> [Tensor; 2] {
        let (student, teacher) = Lane::features(step);
        [("s", student), ("t", teacher)].map(|(side, x)| {
            let weight = lane.variable(&format!("embed_{side}.linear.weight"));
            let bias = lane.variable(&format!("embed_{side}.linear.bias"));
            let y = x.detach().matmul(&weight.tr()) + bias;
            &y / y.square().sum_dim_intlist(1, true, None).sqrt()
        })
    }

    #[test]
    fn the_batch_can_take_the_place_of_the_bank() {
        let mut lane = Lane::new(&config(InfoNce::default(), InBatch { other_class: false }));
        assert!(!lane.store.variables().keys().any(|name| name.starts_with("memory")), "nothing is remembered");
        let v = embeddings(&lane, 0);
        let expected = info_nce_by_hand([&v[0], &v[1]], |side, i| {
            let partners = &v[1 - side];
            (partners.get(i), (0..BATCH).filter(|j| *j != i).map(|j| partners.get(j)).collect())
        });
        let (loss, _, _) = lane.step(0);
        assert!((loss - expected).abs() < 1e-10 * expected, "{loss} {expected}");
    }

    /// The relaxed positive of a row in the first step. Classes are the remainders by 4, of 10 samples each.
    fn relaxed_positive(row: i64) -> i64 {
        let place = Seed::new(0).at(0).stream("positives").at(row as u64).rng().below(10) as i64;
        row % 4 + 4 * place
    }

    #[test]
    fn a_relaxed_positive_is_of_the_class_and_the_sample_itself_moves() {
        let relaxed = Crd { positives: Positives::Relaxed, ..config(InfoNce::default(), OtherClass { count: 30 }) };
        let mut lane = Lane::new(&relaxed);
        let v = embeddings(&lane, 0);
        let banks = [lane.variable("memory_v1").copy(), lane.variable("memory_v2").copy()];
        let rows = Lane::rows(0);
        assert!(rows.iter().any(|row| relaxed_positive(*row) != *row));
        // All 30 samples of the other classes are negatives.
        let expected = info_nce_by_hand([&v[0], &v[1]], |side, i| {
            let (bank, row) = (&banks[1 - side], rows[i as usize]);
            (bank.get(relaxed_positive(row)), (0..SAMPLES).filter(|r| r % 4 != row % 4).map(|r| bank.get(r)).collect())
        });
        let (loss, _, terms) = lane.step(0);
        assert!((loss - expected).abs() < 1e-10 * expected, "{loss} {expected}");
        let names: Vec<&str> = terms.losses().iter().chain(terms.metrics()).map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["student_info_nce", "teacher_info_nce", "student_mutual_information", "teacher_mutual_information"]
        );
        for (side, name) in ["memory_v1", "memory_v2"].into_iter().enumerate() {
            let bank = lane.variable(name);
            for row in 0..SAMPLES {
                let expected = match rows.iter().position(|r| *r == row) {
                    None => banks[side].get(row),
                    Some(i) => {
                        let moved = (banks[side].get(row) + v[side].get(i as i64)) * 0.5;
                        &moved / moved.norm()
                    }
                };
                assert!((bank.get(row) - expected).abs().max().double_value(&[]) < 1e-14, "{name}[{row}]");
            }
        }
    }

    #[test]
    fn the_hardest_score_highest_against_the_student_and_bound_nothing() {
        let hardest = Hardest { count: 8, other_class: false };
        let mut lane = Lane::new(&config(InfoNce::default(), hardest));
        let v = embeddings(&lane, 0);
        let banks = [lane.variable("memory_v1").copy(), lane.variable("memory_v2").copy()];
        let rows = Lane::rows(0);
        let own = Tensor::from_slice(&rows).unsqueeze(1);
        let others = v[0].matmul(&banks[1].tr()).scatter_value(1, &own, f64::NEG_INFINITY);
        let hardest = others.topk(8, 1, true, true).1;
        let expected = info_nce_by_hand([&v[0], &v[1]], |side, i| {
            let bank = &banks[1 - side];
            (bank.get(rows[i as usize]), (0..8).map(|k| bank.get(hardest.int64_value(&[i, k]))).collect())
        });
        let (loss, _, terms) = lane.step(0);
        assert!(terms.metrics().is_empty());
        assert!((loss - expected).abs() < 1e-10 * expected, "{loss} {expected}");
    }

    #[test]
    fn trained_scores_use_the_whole_bank_where_they_factor_and_rows_where_they_do_not() {
        let cosine = Lane::new(&config(InfoNce::default(), OtherClass { count: 25 })).step(0);
        // Its form begins as the identity; the lane overwrites it, so put that back.
        let mut lane = Lane::new(&config(Bilinear::default(), OtherClass { count: 25 }));
        limbeck::tch::no_grad(|| lane.variable("critic.weight").copy_(&Tensor::eye(5, (Kind::Double, Device::Cpu))));
        let (loss, gradients, _) = lane.step(0);
        assert!((loss - cosine.0).abs() < 1e-12 * loss);
        // The student's features, the form, and two heads with weights and biases.
        assert_eq!(gradients.len(), 6);
        assert!(gradients.iter().all(|gradient| gradient.norm().double_value(&[]) > 1e-3));
        for loss in [LossKind::Nce, LossKind::InfoNce] {
            let mlp = config(Mlp { loss, hidden: 9 }, OtherClass { count: 25 });
            let (value, gradients, terms) = Lane::new(&mlp).step(0);
            assert!(value > 0.0 && gradients.len() == 9 && terms.metrics().len() == 2);
            assert!(gradients.iter().all(|gradient| gradient.norm().double_value(&[]) > 1e-6));
            assert!(terms.metrics().iter().all(|(_, bound)| bound.double_value(&[]) < 26.0_f64.ln()));
        }
    }

    #[test]
    fn a_copy_of_the_registered_tensors_continues_bit_by_bit() {
        let config = config(Nce::default(), OtherClass { count: 25 });
        let (mut lane, mut resumed) = (Lane::new(&config), Lane::new(&config));
        lane.step(0);
        let _no_grad = limbeck::tch::no_grad_guard();
        for (name, mut tensor) in resumed.store.variables() {
            tensor.copy_(&lane.variable(&name));
        }
        drop(_no_grad);
        assert_eq!(lane.step(1).0, resumed.step(1).0);
        assert_eq!(lane.variable("memory_v1"), resumed.variable("memory_v1"));
    }

    #[test]
    fn what_is_registered_has_the_papers_names_and_only_heads_train() {
        let lane = Lane::new(&config(Nce::default(), OtherClass { count: 25 }));
        let mut names: Vec<(String, bool)> =
            lane.store.variables().into_iter().map(|(name, tensor)| (name, tensor.requires_grad())).collect();
        names.sort();
        let expected = [
            ("embed_s.linear.bias", true),
            ("embed_s.linear.weight", true),
            ("embed_t.linear.bias", true),
            ("embed_t.linear.weight", true),
            ("memory_v1", false),
            ("memory_v2", false),
            ("z_v1", false),
            ("z_v2", false),
        ];
        assert_eq!(names, expected.map(|(name, trains)| (name.to_owned(), trains)));
    }

    /// What building for four samples answers.
    fn refusal(config: &Crd) -> String {
        let fixture = Fixture::new(&[0, 1, 0, 1], 7, 9);
        config.build(&fixture.site(), &nn::VarStore::new(Device::Cpu).root()).unwrap_err().to_string()
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        // Four samples have not that many others, which is not the point.
        let hardest = Hardest { count: 1024, other_class: true };
        assert_eq!(
            refusal(&config(Mlp::default(), hardest.clone())),
            "crd: negatives `hardest` choose by the scores of the whole bank, which critic `mlp` cannot compute at once; \
             take a critic whose score is a dot product, such as `info_nce`, or other negatives"
        );
        assert_eq!(
            refusal(&config(Bilinear { loss: LossKind::Nce, ..Bilinear::default() }, hardest)),
            "crd: the loss of critic `bilinear` is about negatives drawn uniformly, and `hardest` are chosen by their \
             scores; take `info_nce`, or other negatives"
        );
        assert_eq!(
            refusal(&Crd { positives: Positives::Relaxed, ..config(InfoNce::default(), InBatch::default()) }),
            "crd: relaxed positives are rows of the bank, and negatives `in_batch` keep none; take `other_class`, or \
             positives = \"exact\""
        );
        assert_eq!(
            refusal(&Crd { positives: Positives::Relaxed, ..config(InfoNce::default(), WholeBank {}) }),
            "crd: a relaxed positive, a sample of the anchor's class, could be among negatives `whole_bank` too; take \
             `other_class`, or positives = \"exact\""
        );
        assert_eq!(
            refusal(&Crd { bank_momentum: 0.9, ..config(InfoNce::default(), InBatch::default()) }),
            "crd: negatives `in_batch` keep no bank, so that bank_momentum has no effect: remove it"
        );
    }
}
