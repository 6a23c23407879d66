//! `crd`: contrastive representation distillation.
//!
//! Tian, Krishnan, Isola. *Contrastive Representation Distillation*. ICLR 2020.
//!
//! Teacher and student should map one sample to representations that can be told, as a pair, from representations of two
//! samples. A **critic** embeds both sides (v1 the student's, v2 the teacher's) and scores pairs; two **banks** remember
//! the last embedding of every training sample, memory_v1 the student's and memory_v2 the teacher's; a **sampler** says
//! which samples are the negatives of an anchor. For a sample i with negatives N(i),
//!
//! L = L_critic(v1ᵢ; memory_v2ᵢ, memory_v2[N(i)]) + L_critic(v2ᵢ; memory_v1ᵢ, memory_v1[N(i)]),
//!
//! where the positive is the bank's old row of the sample, from the last epoch. After the optimiser's step the banks move:
//! row ← normalise(m · row + (1 − m) · v).
//!
//! Critic, sampler and bank are independent of each other: each is a setting. The paper's method is `nce` with
//! `other_class`.
//!
//! *Taps*: one pair, the pooled vectors unless the experiment file names another; flattened. *State*: the critic's heads,
//! trained with the student; `memory_v1`, `memory_v2`. *Published weight*: 0.8, cross-entropy 1: the method `crd`; with
//! soft targets of weight 1 besides: `crd+kd`.
//!
//! *Cost*, for B anchors, K negatives, n samples, D wide: the paper's code gathers B · K bank rows and multiplies them,
//! 4 B K D bytes of traffic a side, over a gigabyte at the default sizes. A score that is a function of a dot product is
//! cheaper to compute for the whole bank in one matrix product, of which B · K are then gathered: the same numbers in a
//! tenth of the time. This is done where it pays, when B · K ≥ n.

use std::sync::Arc;

use limbeck::prelude::*;
use serde::{Deserialize, Serialize};

use crate::bank::Bank;
use crate::critics::nce::Nce;
use crate::negatives::other_class::OtherClass;

limbeck::plugin! {
    method "crd",
    summary: "contrastive representation distillation beside cross-entropy",
    citation: "Tian, Krishnan, Isola. Contrastive Representation Distillation. ICLR 2020",
    settings: r#"
cross_entropy = 1.0   # the weight of the cross-entropy with the labels

[[terms]]
weight = 0.8
[terms.distiller]
kind = "crd"
critic = { kind = "nce", temperature = 0.07 }
negatives = { kind = "other_class", count = 16384 }
embedding_width = 128
bank_momentum = 0.5
"#,
}

limbeck::plugin! {
    method "crd+kd",
    summary: "contrastive representation distillation, soft targets and cross-entropy",
    citation: "Tian, Krishnan, Isola. Contrastive Representation Distillation. ICLR 2020",
    settings: r#"
cross_entropy = 1.0   # the weight of the cross-entropy with the labels

[[terms]]
weight = 1.0
distiller = { kind = "kd", temperature = 4.0 }

[[terms]]
weight = 0.8
[terms.distiller]
kind = "crd"
critic = { kind = "nce", temperature = 0.07 }
negatives = { kind = "other_class", count = 16384 }
embedding_width = 128
bank_momentum = 0.5
"#,
}

limbeck::plugin! {
    distiller "crd",
    summary: "contrastive representation distillation: any critic, any sampler of negatives, two memory banks",
    citation: "Tian, Krishnan, Isola. Contrastive Representation Distillation. ICLR 2020",
    settings: r#"
critic = { kind = "nce", temperature = 0.07 }         # what tells a joint pair from an independent one
negatives = { kind = "other_class", count = 16384 }   # which samples an anchor is told apart from
embedding_width = 128                                 # D: what both sides are projected to
bank_momentum = 0.5                                   # m: the share of its old row that a sample keeps in the bank
"#,
}

/// Contrastive representation distillation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Crd {
    /// What tells a joint pair from an independent one.
    pub critic: Arc<dyn CriticConfig>,
    /// Which samples an anchor is told apart from.
    pub negatives: Arc<dyn NegativeSamplerConfig>,
    /// D
    pub embedding_width: i64,
    /// m
    pub bank_momentum: f64,
}

impl Default for Crd {
    fn default() -> Self {
        Crd {
            critic: Arc::new(Nce::default()),
            negatives: Arc::new(OtherClass::default()),
            embedding_width: 128,
            bank_momentum: 0.5,
        }
    }
}

#[typetag::serde(name = "crd")]
impl DistillerConfig for Crd {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        let pairs = site.pooled()?;
        pairs.single()?;
        Ok(pairs)
    }

    fn build(&self, site: &Site<'_>, params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        if !(1..=65_536).contains(&self.embedding_width) {
            return Err(Error::plan(format!(
                "crd: embedding_width must be in 1..=65536, not {}",
                self.embedding_width
            )));
        }
        if !(0.0..=1.0).contains(&self.bank_momentum) {
            return Err(Error::plan(format!("crd: bank_momentum must be in 0..=1, not {}", self.bank_momentum)));
        }
        let taps = self.taps(site)?;
        let pair = taps.single()?;
        let critic_site = CriticSite {
            student_width: pair.student_shape.iter().product(),
            teacher_width: pair.teacher_shape.iter().product(),
            embedding_width: self.embedding_width,
            samples: site.samples(),
        };
        let critic = self.critic.build(&critic_site, params).map_err(|e| e.within("crd.critic"))?;
        let sampler = self.negatives.build(site).map_err(|e| e.within("crd.negatives"))?;
        if sampler.wants_scores() && !critic.factors() {
            return Err(Error::plan(format!(
                "crd: negatives `{}` choose by the scores of the whole bank, which critic `{}` cannot compute at once; \
                 take a critic whose score is a dot product, such as `nce`, or other negatives",
                self.negatives.typetag_name(),
                self.critic.typetag_name()
            )));
        }
        let bank = |name| Bank::new(params, name, site.samples(), self.embedding_width, self.bank_momentum);
        Ok(Box::new(LiveCrd {
            critic,
            sampler,
            memory_v1: bank("memory_v1"),
            memory_v2: bank("memory_v2"),
            embeddings: None,
        }))
    }
}

#[derive(Debug)]
struct LiveCrd {
    critic: Box<dyn Critic>,
    sampler: Box<dyn NegativeSampler>,
    memory_v1: Bank,
    memory_v2: Bank,
    /// v1 and v2 of this step, on their way from the loss to the banks.
    embeddings: Option<[Tensor; 2]>,
}

impl Distiller for LiveCrd {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let (student, teacher) = step.pair()?;
        let v1 = self.critic.embed(Side::Student, student)?;
        let v2 = self.critic.embed(Side::Teacher, teacher)?;
        self.embeddings = Some([v1.detach(), v2.detach()]);

        let against_bank = match self.sampler.wants_scores() {
            true => Some(self.critic.score(Side::Student, &v1, self.memory_v2.all())?),
            false => None,
        };
        let negatives = self.sampler.draw(&Draw {
            rows: step.rows,
            labels: step.labels,
            scores: against_bank.as_ref().map(Tensor::detach).as_ref(),
            seed: step.seed.stream("negatives"),
            device: v1.device(),
        })?;

        let rows = step.rows.device();
        let of_student = self.scores(Side::Student, &v1, &v2, rows, &negatives, against_bank)?;
        let of_teacher = self.scores(Side::Teacher, &v2, &v1, rows, &negatives, None)?;
        Ok(Terms::new()
            .absorb("student_", self.critic.loss(Side::Student, &of_student)?)
            .absorb("teacher_", self.critic.loss(Side::Teacher, &of_teacher)?))
    }

    fn after_step(&mut self, step: &Step<'_>) -> Result<()> {
        if let Some([v1, v2]) = self.embeddings.take() {
            self.memory_v1.update(step.rows.device(), &v1);
            self.memory_v2.update(step.rows.device(), &v2);
        }
        Ok(())
    }
}

impl LiveCrd {
    /// The scores of the anchors of `side` with their positives and negatives among the other side's embeddings.
    ///
    /// `partners` are the other side's embeddings of this batch; `against_bank` the scores `[B, n]`, if already known.
    fn scores(
        &self,
        side: Side,
        anchors: &Tensor,
        partners: &Tensor,
        rows: &Tensor,
        negatives: &Negatives,
        against_bank: Option<Tensor>,
    ) -> Result<Scores> {
        let bank = match side {
            Side::Student => &self.memory_v2,
            Side::Teacher => &self.memory_v1,
        };
        let score = |candidates: &Tensor| self.critic.score(side, anchors, candidates);
        let pairwise = |candidates: Tensor| -> Result<Tensor> { Ok(score(&candidates.unsqueeze(1))?.squeeze_dim(1)) };
        let whole_bank = |known: Option<Tensor>| known.map_or_else(|| score(bank.all()), Ok);
        let positive = match (&negatives.positives, &negatives.candidates) {
            (Some(positives), _) => pairwise(bank.at(positives))?,
            (None, Candidates::Batch(_)) => pairwise(partners.shallow_clone())?,
            (None, _) => pairwise(bank.at(rows))?,
        };
        let (negative, mask) = match &negatives.candidates {
            Candidates::Rows(chosen) => {
                (row_scores(self.critic.as_ref(), side, anchors, bank, chosen, against_bank)?, None)
            }
            Candidates::Mask(mask) => (whole_bank(against_bank)?, Some(mask.shallow_clone())),
            Candidates::Others => {
                let scores = whole_bank(against_bank)?;
                let others = scores.ones_like().to_kind(Kind::Bool).scatter_value(1, &rows.unsqueeze(1), 0);
                (scores, Some(others))
            }
            Candidates::Batch(mask) => (score(partners)?, Some(mask.shallow_clone())),
        };
        Ok(Scores { positive, negative, mask })
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
    if !critic.factors() || (chosen.numel() as i64) < bank.all().size()[0] {
        return critic.score(side, anchors, &bank.at(chosen));
    }
    let whole_bank = against_bank.map_or_else(|| critic.score(side, anchors, bank.all()), Ok)?;
    Ok(whole_bank.gather(1, chosen, false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::critics::info_nce::InfoNce;
    use crate::fixture::{Fixture, pooled};
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
        fn embed(&self, side: Side, features: &Tensor) -> Result<Tensor> {
            self.0.embed(side, features)
        }
        fn factors(&self) -> bool {
            false
        }
        fn score(&self, side: Side, anchors: &Tensor, candidates: &Tensor) -> Result<Tensor> {
            self.0.score(side, anchors, candidates)
        }
        fn loss(&mut self, side: Side, scores: &Scores) -> Result<Terms> {
            self.0.loss(side, scores)
        }
    }

    /// The shapes of an answer that no sampler of this crate gives.
    #[derive(Clone, Copy, Debug, Serialize, Deserialize)]
    enum Answer {
        /// The rows r + 1, …, r + 8.
        Rows,
        /// The same as a mask.
        Mask,
        /// Everyone else in the batch.
        Batch,
        /// As `Rows`, with the sample r + 20 as positive.
        Relaxed,
        /// The eight highest scores.
        Hardest,
    }

    #[derive(Clone, Debug, Serialize, Deserialize)]
    struct Prescribed {
        answer: Answer,
    }

    #[typetag::serde(name = "test_prescribed")]
    impl NegativeSamplerConfig for Prescribed {
        fn build(&self, _site: &Site<'_>) -> Result<Box<dyn NegativeSampler>> {
            Ok(Box::new(self.clone()))
        }
    }

    impl NegativeSampler for Prescribed {
        fn wants_scores(&self) -> bool {
            matches!(self.answer, Answer::Hardest)
        }

        fn draw(&mut self, draw: &Draw<'_>) -> Result<Negatives> {
            let rows = draw.rows.device();
            let next = (rows.unsqueeze(1) + Tensor::arange_start(1, 9, (Kind::Int64, Device::Cpu))).remainder(SAMPLES);
            let all_false = Tensor::zeros([BATCH, SAMPLES], (Kind::Bool, Device::Cpu));
            Ok(match self.answer {
                Answer::Rows => Negatives::new(Candidates::Rows(next)),
                Answer::Mask => Negatives::new(Candidates::Mask(all_false.scatter_value(1, &next, 1))),
                Answer::Batch => {
                    Negatives::new(Candidates::Batch(Tensor::eye(BATCH, (Kind::Bool, Device::Cpu)).logical_not()))
                }
                Answer::Relaxed => {
                    Negatives { candidates: Candidates::Rows(next), positives: Some((rows + 20).remainder(SAMPLES)) }
                }
                Answer::Hardest => {
                    let scores = draw.scores.unwrap();
                    assert_eq!((scores.size(), scores.requires_grad()), (vec![BATCH, SAMPLES], false));
                    Negatives::new(Candidates::Rows(scores.topk(8, 1, true, true).1))
                }
            })
        }
    }

    struct Lane {
        fixture: Fixture,
        store: nn::VarStore,
        crd: Box<dyn Distiller>,
        taps: TapPairs,
    }

    fn wave(shape: &[i64], phase: f64) -> Tensor {
        let count = shape.iter().product::<i64>();
        (Tensor::arange(count, (Kind::Double, Device::Cpu)) * 0.731 + phase).sin().view(shape)
    }

    fn config(critic: impl CriticConfig + 'static, negatives: impl NegativeSamplerConfig + 'static) -> Crd {
        Crd { critic: Arc::new(critic), negatives: Arc::new(negatives), embedding_width: 5, bank_momentum: 0.5 }
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
        let prescribed = |answer| config(Nce::default(), Prescribed { answer });
        assert_same(&prescribed(Answer::Rows), &prescribed(Answer::Mask));
    }

    /// InfoNCE of both sides, from embeddings: `positive` and `negative` of (side, anchor) are vectors.
    fn info_nce_by_hand(anchors: [&Tensor; 2], candidates: impl Fn(usize, i64) -> (Tensor, Vec<Tensor>)) -> f64 {
        let mut sum = 0.0;
        for (side, anchors) in anchors.iter().enumerate() {
            for i in 0..BATCH {
                let score = |candidate: &Tensor| (anchors.get(i).dot(candidate).double_value(&[]) / 0.07).exp();
                let (positive, negatives) = candidates(side, i);
                let against: f64 = negatives.iter().map(score).sum();
                sum -= (score(&positive) / (score(&positive) + against)).ln() / BATCH as f64;
            }
        }
        sum
    }

    fn embeddings(lane: &Lane, step: i64) -> [Tensor; 2] {
        let (student, teacher) = Lane::features(step);
        let embed = |x: Tensor, side: &str| {
            let linear = |part| lane.variable(&format!("embed_{side}.linear.{part}"));
            let y = x.detach().matmul(&linear("weight").tr()) + linear("bias");
            &y / y.square().sum_dim_intlist(1, true, None).sqrt()
        };
        [embed(student, "s"), embed(teacher, "t")]
    }

    #[test]
    fn the_batch_can_take_the_place_of_the_bank() {
        let mut lane = Lane::new(&config(InfoNce::default(), Prescribed { answer: Answer::Batch }));
        let v = embeddings(&lane, 0);
        let expected = info_nce_by_hand([&v[0], &v[1]], |side, i| {
            let partners = &v[1 - side];
            (partners.get(i), (0..BATCH).filter(|j| *j != i).map(|j| partners.get(j)).collect())
        });
        let (loss, _, _) = lane.step(0);
        assert!((loss - expected).abs() < 1e-10 * expected, "{loss} {expected}");
    }

    #[test]
    fn another_sample_can_be_the_positive_and_the_sample_itself_moves() {
        let mut lane = Lane::new(&config(InfoNce::default(), Prescribed { answer: Answer::Relaxed }));
        let v = embeddings(&lane, 0);
        let banks = [lane.variable("memory_v1").copy(), lane.variable("memory_v2").copy()];
        let rows = Lane::rows(0);
        let expected = info_nce_by_hand([&v[0], &v[1]], |side, i| {
            let row = |offset| banks[1 - side].get((rows[i as usize] + offset) % SAMPLES);
            (row(20), (1..9).map(row).collect())
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
    fn a_sampler_that_wants_scores_gets_the_students() {
        let mut lane = Lane::new(&config(InfoNce::default(), Prescribed { answer: Answer::Hardest }));
        let v = embeddings(&lane, 0);
        let banks = [lane.variable("memory_v1").copy(), lane.variable("memory_v2").copy()];
        let hardest = v[0].matmul(&banks[1].tr()).topk(8, 1, true, true).1;
        let rows = Lane::rows(0);
        let expected = info_nce_by_hand([&v[0], &v[1]], |side, i| {
            let bank = &banks[1 - side];
            (bank.get(rows[i as usize]), (0..8).map(|k| bank.get(hardest.int64_value(&[i, k]))).collect())
        });
        let (loss, _, _) = lane.step(0);
        assert!((loss - expected).abs() < 1e-10 * expected, "{loss} {expected}");
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

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let build = |config: Crd| {
            let fixture = Fixture::new(&[0, 1, 0, 1], 7, 9);
            config.build(&fixture.site(), &nn::VarStore::new(Device::Cpu).root()).unwrap_err().to_string()
        };
        assert_eq!(
            build(Crd { embedding_width: 0, ..Crd::default() }),
            "crd: embedding_width must be in 1..=65536, not 0"
        );
        assert_eq!(build(Crd { bank_momentum: 1.5, ..Crd::default() }), "crd: bank_momentum must be in 0..=1, not 1.5");
        assert_eq!(
            build(config(Nce { temperature: 0.0 }, OtherClass::default())),
            "crd.critic: nce: temperature must be positive, not 0"
        );
        assert_eq!(
            build(config(Nce::default(), OtherClass { count: 0 })),
            "crd.negatives: other_class: count must be at least 1"
        );
        assert_eq!(
            build(config(Unfactored {}, Prescribed { answer: Answer::Hardest })),
            "crd: negatives `test_prescribed` choose by the scores of the whole bank, which critic `test_unfactored` \
             cannot compute at once; take a critic whose score is a dot product, such as `nce`, or other negatives"
        );
    }
}
