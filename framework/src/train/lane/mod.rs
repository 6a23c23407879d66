//! A lane: one student with its method and optimiser, its folder and its place in training.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, nn, no_grad_guard};

use super::checkpoint;
use super::clock::Clock;
use super::config::LaneConfig;
use super::evaluate::Evaluation;
use super::file_names::STUDENT;
use super::observers::Observers;
use super::stage::{Position, Stage};
use super::teacher::parameters;
use super::term::{Term, TermSite, build_terms, check_main_stage, is_within};
use crate::dataset::{Batch, Rows};
use crate::device;
use crate::distiller::{InitialStage, Step, TapPairs};
use crate::error::{Error, Result};
use crate::event::{Event, LaneInfo};
use crate::experiment::TrainConfig;
use crate::measure::Measure;
use crate::metric::{Meter, loss_by_targets, right_guesses};
use crate::model::{Features, Lent, Mode, Model, ModelSpec, Signature, TapRef, Taps};
use crate::optim::{Average, FlatParameters, Optimizer, Progress, Variable};
use crate::precision::Precision;
use crate::record::{Accuracies, Environment, EpochAccuracy, EpochRecord, Timing};
use crate::seed::Seed;
use crate::weights;

/// One student being trained.
#[derive(Debug)]
pub(super) struct Lane {
    pub info: LaneInfo,
    seed: u64,
    pub model_kind: String,
    pub view: String,
    identity: String,
    measure: Measure,
    /// The weight of the loss by the targets.
    cross_entropy: f64,
    student: Box<dyn Model>,
    pub precision: Precision,
    store: nn::VarStore,
    /// What methods may use of the student.
    lent: Lent,
    /// The moving average of the student, if the training asks for one.
    average: Option<Average>,
    terms: Vec<Term>,
    /// Whether each term has a loss in the main stage.
    main_loss: Vec<bool>,
    taps: Taps,
    train: TrainConfig,
    device: Device,
    /// The stages that it goes through, initial ones first.
    stages: Vec<StagePlan>,
    running: Option<RunningStage>,
    health: Health,
    meter: Meter,
    /// The newest checkpoint that is known to be whole.
    pub checkpoint: Option<PathBuf>,
    progress: Saved,
}

/// A stage as planned: what trains, how long, how fast.
#[derive(Debug)]
struct StagePlan {
    stage: Stage,
    name: String,
    epochs: u64,
    /// The initial stage's term and description; absent in the main stage.
    initial: Option<(usize, InitialStage)>,
}

/// What exists while a stage trains: created by its first step, or from a checkpoint.
#[derive(Debug)]
struct RunningStage {
    flat: FlatParameters,
    optimizer: Box<dyn Optimizer>,
    /// `[P]`: factors on the learning rate, where groups have rates of their own.
    rates: Option<Tensor>,
    /// `[P]`: the sum of the gradients since the last update, where several steps make one.
    accumulated: Option<Tensor>,
}

/// Names in a checkpoint begin with this where they are the running stage's.
const STAGE_STATE: &str = "stage.";

impl RunningStage {
    fn new(flat: FlatParameters, train: &TrainConfig, student: &Signature) -> Result<Self> {
        let mut optimizer = train.optimizer.build(flat.buffer())?;
        if train.no_decay {
            // What methods train beside the student decays in full.
            let spared = |name: &str| name.strip_prefix("student.").is_some_and(|name| student.is_spared(name));
            optimizer.decay_only(&flat.spread(|name| if spared(name) { 0.0 } else { 1.0 }))?;
        }
        let rate = |name: &str| train.rate_of(student, name.strip_prefix("student."));
        let rates = if train.rates.is_empty() { None } else { Some(flat.spread(rate)) };
        let accumulated = if train.accumulate > 1 { Some(flat.buffer().zeros_like()) } else { None };
        Ok(RunningStage { flat, optimizer, rates, accumulated })
    }

    /// What moves with the stage, by its name in the checkpoint; loading copies into these tensors.
    fn state(&self) -> Vec<(String, Tensor)> {
        let optimizer =
            self.optimizer.state().into_iter().map(|(name, t)| (format!("{STAGE_STATE}optimizer.{name}"), t));
        let accumulated = self.accumulated.iter().map(|t| (format!("{STAGE_STATE}accumulated"), t.shallow_clone()));
        optimizer.chain(accumulated).collect()
    }
}

/// The state of a lane that is not a tensor.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Saved {
    identity: String,
    threads: usize,
    device: String,
    libtorch: String,
    stage: usize,
    step: u64,
    /// The variables in the flat buffer, in order; empty before a stage's first step.
    trained: Vec<String>,
    meter: Vec<String>,
    history: Vec<EpochRecord>,
    timing: Timing,
    seconds: f64,
    epoch_seconds: f64,
    learning_rate: f64,
}

/// Whether every number was finite so far, recorded on the device and read once in a while.
#[derive(Debug)]
struct Health {
    /// The first step with a non-finite value, or −1.
    step: Tensor,
    /// The index of the value in `names`.
    term: Tensor,
    names: Vec<String>,
}

impl Health {
    fn new(device: Device) -> Self {
        let unset = || Tensor::full([] as [i64; 0], -1, (Kind::Int64, device));
        Health { step: unset(), term: unset(), names: Vec::new() }
    }

    /// Records the first non-finite value; returns whether the lane is still sound, as a scalar bool on the device.
    fn check<'v>(&mut self, named: impl Iterator<Item = (&'v str, &'v Tensor)>, step: u64) -> Tensor {
        let (names, values): (Vec<&str>, Vec<Tensor>) =
            named.map(|(name, value)| (name, value.detach().to_kind(Kind::Float))).unzip();
        if self.names != names {
            self.names = names.into_iter().map(str::to_owned).collect();
        }
        let bad = Tensor::stack(&values, 0).isfinite().logical_not();
        let first = bad.any().logical_and(&self.step.lt(0));
        let here = Tensor::full([] as [i64; 0], step as i64, (Kind::Int64, self.step.device()));
        self.term = bad.to_kind(Kind::Int64).argmax(0, false).where_self(&first, &self.term);
        self.step = here.where_self(&first, &self.step);
        self.step.lt(0)
    }

    /// Reads the flag from the device.
    fn verdict(&self) -> Result<(), String> {
        match self.step.int64_value(&[]) {
            -1 => Ok(()),
            step => {
                let term = self.names.get(self.term.int64_value(&[]) as usize).map_or("?", String::as_str);
                Err(format!("`{term}` became non-finite at step {step}"))
            }
        }
    }
}

/// What the cohort computed for everyone in this step.
pub(super) struct Shared<'a> {
    pub batch: &'a Batch,
    pub teachers: &'a IndexMap<String, Features>,
    pub rows: &'a Rows,
    pub steps_per_epoch: u64,
}

/// Where a step is, for the terms.
struct Place<'a> {
    epoch: u64,
    step: u64,
    seed: Seed,
    mode: Mode<'a>,
    /// Whether the stage is an initial one.
    initial: bool,
    /// The terms at work, by index, with what their losses are multiplied by.
    terms: Vec<(usize, f64)>,
}

impl<'a> Place<'a> {
    /// The step as one term sees it.
    fn of(
        &self,
        index: usize,
        teacher: &str,
        taps: &'a TapPairs,
        student: &'a Features,
        shared: &Shared<'a>,
    ) -> Result<Step<'a>> {
        let teacher =
            shared.teachers.get(teacher).ok_or_else(|| Error::run(format!("teacher {teacher} was not asked")))?;
        Ok(Step {
            student,
            teacher,
            taps,
            labels: &shared.batch.labels,
            rows: shared.rows,
            epoch: self.epoch,
            step: self.step,
            seed: self.seed.stream("term").at(index as u64),
            mode: self.mode,
        })
    }
}

/// What a step minimises.
struct Objective {
    /// The weighted sum.
    total: Tensor,
    /// Each loss, unweighted.
    losses: Vec<(String, Tensor)>,
    /// What is only watched.
    metrics: Vec<(String, Tensor)>,
}

impl Objective {
    /// Everything that is averaged over the epoch: the total under the name `loss`, then losses and metrics.
    fn reported(&self) -> Vec<(String, Tensor)> {
        let parts = self.losses.iter().chain(&self.metrics).map(|(name, value)| (name.clone(), value.shallow_clone()));
        std::iter::once(("loss".to_owned(), self.total.shallow_clone())).chain(parts).collect()
    }
}

impl Lane {
    pub fn new(
        config: &LaneConfig,
        info: LaneInfo,
        spec: &ModelSpec,
        site: &TermSite<'_>,
        train: &TrainConfig,
    ) -> Result<Self> {
        // Drawn by the CPU's generator and moved: a student begins with the same weights on every device.
        let mut store = nn::VarStore::new(Device::Cpu);
        let student = {
            let _drawing = Seed::new(site.seed).stream("student").seed_libtorch();
            config.student.build(&store.root(), spec)?
        };
        store.set_device(site.device);
        weights::check_names(&store)?;
        train.check_groups(student.signature())?;
        config.precision.check(site.device)?;
        let terms = build_terms(&config.method, student.signature(), site)?;
        check_main_stage(&config.method, &terms, train.epochs)?;
        let taps = terms.iter().flat_map(|term| term.taps.pairs.iter().map(|pair| pair.student.clone())).collect();
        let lent = Lent::of(student.signature(), &weights::variables(&store), config.precision)?;
        let mut stages: Vec<StagePlan> = Vec::new();
        let mut main_loss = vec![true; terms.len()];
        for (index, term) in terms.iter().enumerate() {
            if let Some(initial) = term.initial_stage() {
                main_loss[index] = initial.then_loss;
                let name = format!("initial:{}", term.label);
                let stage = Stage::Initial(stages.len() as u64);
                stages.push(StagePlan { stage, name, epochs: initial.epochs, initial: Some((index, initial)) });
            }
        }
        stages.push(StagePlan { stage: Stage::Main, name: "main".to_owned(), epochs: train.epochs, initial: None });
        let lane = Lane {
            info,
            seed: site.seed,
            model_kind: config.student.typetag_name().to_owned(),
            view: config.view.clone(),
            identity: config.identity.clone(),
            measure: site.measure,
            cross_entropy: config.method.cross_entropy,
            student,
            precision: config.precision,
            average: train.average.map(|config| Average::new(config, &weights::variables(&store))),
            store,
            lent,
            terms,
            main_loss,
            taps,
            train: train.clone(),
            device: site.device,
            stages,
            running: None,
            health: Health::new(site.device),
            meter: Meter::new(site.device),
            checkpoint: None,
            progress: Saved::default(),
        };
        weights::separate(&lane.variables());
        Ok(lane)
    }

    /// Every variable of the lane under its name in the checkpoint; the tensors are the lane's own.
    fn variables(&self) -> Vec<(String, Tensor)> {
        let named = |prefix: String, store: &nn::VarStore| {
            weights::variables(store).into_iter().map(move |(name, tensor)| (format!("{prefix}.{name}"), tensor))
        };
        let student = named("student".to_owned(), &self.store);
        student.chain(self.terms.iter().flat_map(|term| named(format!("term.{}", term.label), &term.store))).collect()
    }

    fn stage(&self) -> Option<&StagePlan> {
        self.stages.get(self.progress.stage)
    }

    /// Where the lane stands; `None` once it is through.
    pub fn position(&self) -> Option<Position> {
        self.stage().map(|plan| Position { stage: plan.stage, step: self.progress.step })
    }

    /// The stage that it trained in last, and the steps done in it: where its events are.
    fn place(&self, steps_per_epoch: u64) -> Option<(&StagePlan, u64)> {
        match self.progress.step {
            0 => {
                let plan = self.stages.get(self.progress.stage.checked_sub(1)?)?;
                Some((plan, plan.epochs * steps_per_epoch))
            }
            step => Some((self.stage()?, step)),
        }
    }

    /// The terms at work in the next step, by index, with what their losses are multiplied by: one in an initial stage,
    /// which minimises it alone, else all that have a loss and have not ended.
    fn at_work(&self, steps_per_epoch: u64) -> Vec<(usize, f64)> {
        if let Some((term, _)) = self.stage().and_then(|plan| plan.initial.as_ref()) {
            return vec![(*term, 1.0)];
        }
        let epoch = self.progress.step / steps_per_epoch + 1;
        let weight = |index: usize| Some((index, self.terms[index].weight_in(epoch, self.train.epochs)?));
        (0..self.terms.len()).filter(|index| self.main_loss[*index]).filter_map(weight).collect()
    }

    /// The teachers whose features this lane wants in its next step, with the taps.
    pub fn wanted(&self, steps_per_epoch: u64) -> impl Iterator<Item = (&str, impl Iterator<Item = &TapRef>)> {
        self.at_work(steps_per_epoch).into_iter().map(|(index, _)| {
            let term = &self.terms[index];
            (term.teacher.as_str(), term.taps.pairs.iter().map(|pair| &pair.teacher))
        })
    }

    /// What the reader of the results must know of the pairing.
    pub fn dropped(&self) -> Vec<String> {
        let dropped = |term: &Term| (term.label.clone(), term.taps.dropped.join(", "));
        let terms = self.terms.iter().map(dropped).filter(|(_, taps)| !taps.is_empty());
        terms.map(|(label, taps)| format!("{label}: taps without a partner are not used: {taps}")).collect()
    }

    /// Whether nothing has been trained yet.
    pub fn is_new(&self) -> bool {
        self.progress.stage == 0 && self.progress.step == 0
    }

    /// The name of the stage that it is in.
    pub fn stage_name(&self) -> String {
        self.stage().map_or_else(|| "main".to_owned(), |plan| plan.name.clone())
    }

    /// The names of the teachers that it asks.
    pub fn teachers(&self) -> Vec<String> {
        self.terms.iter().map(|term| term.teacher.clone()).collect()
    }

    pub fn student_parameters(&self) -> i64 {
        parameters(&self.store)
    }

    pub fn student_multiply_adds(&self) -> Option<i64> {
        self.student.multiply_adds()
    }

    pub fn method_parameters(&self) -> i64 {
        self.terms.iter().map(Term::parameters).sum()
    }

    pub fn history(&self) -> &[EpochRecord] {
        &self.progress.history
    }

    pub fn timing(&self) -> Timing {
        let mut mean = self.progress.timing;
        let steps = mean.steps.max(1) as f64;
        for part in [&mut mean.data, &mut mean.teacher, &mut mean.student, &mut mean.loss, &mut mean.optimizer] {
            *part /= steps;
        }
        mean
    }

    pub fn seconds(&self) -> f64 {
        self.progress.seconds
    }

    /// Books time on the lane.
    pub fn book(&mut self, seconds: f64) {
        self.progress.seconds += seconds;
        self.progress.epoch_seconds += seconds;
    }

    /// The variables that may train in a stage.
    fn candidates(&self, plan: &StagePlan) -> Vec<Variable> {
        let trains = |owner: Option<usize>, name: &str| match (&plan.initial, owner) {
            (None, _) => true,
            (Some((_, stage)), None) => {
                self.student.signature().group_of(name).is_some_and(|group| stage.student_groups.contains(&group.name))
            }
            (Some((index, stage)), Some(term)) => {
                *index == term && stage.own.iter().any(|module| is_within(name, module))
            }
        };
        let mut result = Vec::new();
        let mut collect = |owner: Option<usize>, prefix: String, store: &nn::VarStore| {
            for (name, tensor) in weights::variables(store) {
                if tensor.requires_grad() && trains(owner, &name) {
                    result.push(Variable { name: format!("{prefix}.{name}"), tensor });
                }
            }
        };
        collect(None, "student".to_owned(), &self.store);
        for (index, term) in self.terms.iter().enumerate() {
            collect(Some(index), format!("term.{}", term.label), &term.store);
        }
        result
    }

    /// The student's logits and taps, float32, computed in its own precision, with what the network lends.
    fn forward(&self, batch: &Batch, want: &Taps, mode: Mode<'_>) -> Result<Features> {
        let _selected = self.precision.select(self.device)?;
        let autocast = self.precision.autocast(self.device)?;
        let features = self.student.forward(batch.view(&self.view)?, want, mode)?;
        let cast = autocast.is_some();
        drop(autocast);
        let features = if cast { features.map(|value| value.to_kind(Kind::Float)) } else { features };
        Ok(features.with(self.lent.shallow_clone()))
    }

    /// One step of training.
    pub fn step(&mut self, shared: &Shared<'_>, clock: &Clock<'_>, observers: &mut Observers<'_>) -> Result<()> {
        let Some(plan) = self.stages.get(self.progress.stage) else { return Ok(()) };
        let step = self.progress.step;
        let seed = plan.stage.seed(self.seed).at(step);
        let _drawing = seed.stream("libtorch").seed_libtorch();
        let initial = plan.initial.as_ref().map(|(term, stage)| (*term, stage.student_groups.clone()));
        let mode = initial.as_ref().map_or(Mode::Train, |(_, groups)| Mode::TrainGroups(groups));
        let (epoch, terms) = (step / shared.steps_per_epoch + 1, self.at_work(shared.steps_per_epoch));
        let place = Place { epoch, step, seed, mode, initial: initial.is_some(), terms };

        let started = Instant::now();
        let features = self.forward(shared.batch, &self.taps, mode)?;
        let forward = clock.since(started);

        let started = Instant::now();
        let objective = self.objective(&features, shared, &place)?;
        let losses = clock.since(started);

        let started = Instant::now();
        let ended = !place.initial && place.terms.len() < self.main_loss.iter().filter(|has_loss| **has_loss).count();
        let (gradient, unreached) = {
            let _selected = self.precision.select(self.device)?;
            self.gradient(&objective.total, ended)?
        };
        let backward = clock.since(started);

        let _no_grad = no_grad_guard();
        let started = Instant::now();
        self.progress.learning_rate = self.learning_rate(self.progress.stage, step, shared.steps_per_epoch);
        let sound = self.examine(&gradient, &objective, step);
        self.update(gradient, &sound, step, shared.steps_per_epoch)?;
        let optimizer = clock.since(started);

        let started = Instant::now();
        if !place.initial {
            for &(index, _) in &place.terms {
                let term = &mut self.terms[index];
                term.distiller.after_step(&place.of(index, &term.teacher, &term.taps, &features, shared)?)?;
            }
        }
        let after = clock.since(started);

        let right = right_guesses(&features.logits, &shared.batch.labels);
        self.meter.add(&objective.reported(), &right, shared.rows.len() as i64)?;
        if clock.timed {
            let asked: BTreeSet<&str> =
                place.terms.iter().map(|(index, _)| self.terms[*index].teacher.as_str()).collect();
            let timing = &mut self.progress.timing;
            timing.steps += 1;
            timing.data += clock.data;
            timing.teacher += clock.seconds_of(&asked);
            timing.student += forward + backward;
            timing.loss += losses + after;
            timing.optimizer += optimizer;
        }
        if let (Some(unreached), Some(plan)) = (unreached, self.stage()) {
            let (stage, epochs, steps_per_epoch) = (plan.name.clone(), plan.epochs, shared.steps_per_epoch);
            observers.tell(&self.info, Event::StageStarted { stage, epochs, steps_per_epoch, unreached });
        }
        self.progress.step += 1;
        Ok(())
    }

    /// Every loss of the step, and their weighted sum.
    fn objective(&mut self, features: &Features, shared: &Shared<'_>, place: &Place<'_>) -> Result<Objective> {
        let mut weighted: Vec<Tensor> = Vec::new();
        let (mut losses, mut metrics) = (Vec::new(), Vec::new());
        if !place.initial && self.cross_entropy != 0.0 {
            let (name, loss) = loss_by_targets(&features.logits, shared.batch);
            weighted.push(&loss * self.cross_entropy);
            losses.push((name.to_owned(), loss));
        }
        for &(index, weight) in &place.terms {
            let term = &mut self.terms[index];
            let step = place.of(index, &term.teacher, &term.taps, features, shared)?;
            let terms = if place.initial { term.distiller.initial_loss(&step)? } else { term.distiller.loss(&step)? };
            if terms.losses().is_empty() {
                return Err(Error::run(format!("term {} gave no loss", term.label)));
            }
            for (name, loss) in terms.losses() {
                if loss.numel() != 1 {
                    return Err(Error::run(format!(
                        "`{}.{name}` has shape {:?}, a loss is a scalar",
                        term.label,
                        loss.size()
                    )));
                }
                weighted.push(loss.reshape([]) * weight);
                losses.push((format!("{}.{name}", term.label), loss.reshape([])));
            }
            metrics.extend(
                terms.metrics().iter().map(|(name, value)| (format!("{}.{name}", term.label), value.shallow_clone())),
            );
        }
        let total = weighted.into_iter().reduce(|sum, loss| sum + loss);
        let total = total.ok_or_else(|| Error::run("this method has nothing to minimise"))?;
        if !total.requires_grad() {
            return Err(Error::run("the loss does not depend on anything that is trained"));
        }
        Ok(Objective { total, losses, metrics })
    }

    /// The gradient in the order of the flat buffer. A stage's first step finds out what the loss reaches, makes the
    /// buffer of it, and returns the names of what is left out.
    ///
    /// `ended`: a term of this stage takes no part any more, so what only it reached has a gradient of zero.
    fn gradient(&mut self, total: &Tensor, ended: bool) -> Result<(Tensor, Option<Vec<String>>)> {
        if let Some(running) = &self.running {
            let lost = |names: Vec<String>| {
                Error::run(format!("the loss no longer reaches {}, which trained before", names.join(", ")))
            };
            return Ok((running.flat.gradient(total, ended).map_err(lost)?, None));
        }
        let candidates = self.stage().map(|plan| self.candidates(plan)).unwrap_or_default();
        let (flat, gradient, unreached) = FlatParameters::first(total, candidates)
            .ok_or_else(|| Error::run("the loss reaches none of the parameters that this stage trains"))?;
        self.running = Some(RunningStage::new(flat, &self.train, self.student.signature())?);
        Ok((gradient, Some(unreached)))
    }

    /// Records the first non-finite loss or gradient; returns whether there was none so far, as a scalar on the device.
    fn examine(&mut self, gradient: &Tensor, objective: &Objective, step: u64) -> Tensor {
        let sum = gradient.sum(Kind::Float);
        let named = objective.losses.iter().map(|(name, loss)| (name.as_str(), loss));
        self.health.check(named.chain([("the gradient", &sum)]), step)
    }

    /// The optimiser's update, if one is due; it changes nothing once a loss or the gradient was non-finite.
    fn update(&mut self, gradient: Tensor, sound: &Tensor, step: u64, steps_per_epoch: u64) -> Result<()> {
        let every = self.train.accumulate;
        let plan = self.stages.get(self.progress.stage).ok_or_else(|| Error::run("no stage is running"))?;
        let running = self.running.as_mut().ok_or_else(|| Error::run("no stage is running"))?;
        let gathered = step % every + 1;
        let due = gathered == every || step + 1 == plan.epochs * steps_per_epoch;
        let mut gradient = gradient.where_self(sound, &gradient.zeros_like());
        if let Some(sum) = &mut running.accumulated {
            let _ = sum.g_add_(&gradient);
            if !due {
                return Ok(());
            }
            gradient = &*sum / gathered as f64;
            let _ = sum.zero_();
        }
        if let Some(limit) = self.train.clip_norm {
            // ε as in PyTorch's clip_grad_norm_.
            let scale = ((gradient.norm() + 1e-6).reciprocal() * limit).clamp_max(1.0);
            let _ = gradient.g_mul_(&scale);
        }
        let rate = Tensor::full([] as [i64; 0], self.progress.learning_rate, (gradient.kind(), self.device));
        let rate = rate * sound.to_kind(gradient.kind());
        let rate = running.rates.as_ref().map_or_else(|| rate.shallow_clone(), |factors| factors * &rate);
        running.optimizer.step(running.flat.buffer_mut(), &mut gradient, &rate);
        if let (Some(average), Stage::Main) = (&mut self.average, plan.stage) {
            average.update(&weights::variables(&self.store), step / every);
        }
        Ok(())
    }

    fn learning_rate(&self, stage: usize, step: u64, steps_per_epoch: u64) -> f64 {
        let base = self.train.learning_rate;
        if let Some((_, initial)) = &self.stages[stage].initial {
            return initial.learning_rate.unwrap_or(base);
        }
        let progress = Progress { epoch: step / steps_per_epoch + 1, epochs: self.train.epochs, step, steps_per_epoch };
        let warmup_steps = self.train.warmup_epochs * steps_per_epoch as f64;
        let warmup = if warmup_steps > 0.0 { ((step + 1) as f64 / warmup_steps).min(1.0) } else { 1.0 };
        base * warmup * self.train.schedule.factor(&progress)
    }

    /// Reads the health flag: an error names the step and the term. The parameters themselves are looked at too, since a
    /// finite gradient times a learning rate may overflow.
    pub fn verdict(&self) -> Result<()> {
        self.health.verdict().map_err(Error::run)?;
        let sound = |running: &RunningStage| running.flat.buffer().isfinite().all().int64_value(&[]) != 0;
        match self.running.as_ref().is_none_or(sound) {
            true => Ok(()),
            false => Err(Error::run(format!("the parameters became non-finite by step {}", self.progress.step))),
        }
    }

    /// Means of the epoch so far: every loss, and top-1 where there is one class a sample.
    fn means(&self) -> Result<(IndexMap<String, f64>, Option<f64>)> {
        let (losses, top1) = self.meter.read()?;
        Ok((losses, (self.measure == Measure::Top1).then_some(top1)))
    }

    /// The event of a step at which the device is read anyway.
    pub fn step_event(&self, steps_per_epoch: u64, samples_per_second: f64) -> Result<Event> {
        let (train, train_top1) = self.means()?;
        let stage = self.stage().map(|plan| plan.name.clone()).unwrap_or_default();
        let step = self.progress.step;
        let learning_rate = self.progress.learning_rate;
        let epoch = (step.max(1) - 1) / steps_per_epoch + 1;
        Ok(Event::Step { stage, epoch, step, train, train_top1, learning_rate, samples_per_second })
    }

    /// Whether the last step of an epoch is done that was not closed: it was stopped while it was evaluated.
    pub fn has_open_epoch(&self, steps_per_epoch: u64) -> bool {
        let (Some(plan), step) = (self.stage(), self.progress.step) else { return false };
        let epoch = step / steps_per_epoch;
        let closed = self.progress.history.last().is_some_and(|last| last.stage == plan.name && last.epoch == epoch);
        step > 0 && step.is_multiple_of(steps_per_epoch) && !closed
    }

    /// Whether the epoch that was just completed is evaluated.
    pub fn evaluates(&self, epoch: u64) -> bool {
        self.stage().is_some_and(|plan| {
            plan.stage == Stage::Main && (epoch == plan.epochs || epoch.is_multiple_of(self.train.evaluate_epochs))
        })
    }

    /// Closes an epoch: its record joins the history and the meter starts anew.
    pub fn end_epoch(&mut self, epoch: u64, accuracy: Evaluation) -> Result<EpochRecord> {
        let (train, train_top1) = self.means()?;
        self.meter.clear();
        let record = EpochRecord {
            stage: self.stage().map(|plan| plan.name.clone()).unwrap_or_default(),
            epoch,
            step: self.progress.step,
            learning_rate: self.progress.learning_rate,
            train,
            train_top1,
            validation: accuracy.validation,
            test: accuracy.test,
            seconds: std::mem::take(&mut self.progress.epoch_seconds),
        };
        self.progress.history.push(record.clone());
        Ok(record)
    }

    /// Goes on to the next stage if this one is through. The layout of all parameters is then that of a fresh start, so
    /// that a run resumed at this point computes the same bits.
    pub fn end_stage(&mut self, steps_per_epoch: u64) -> bool {
        let through = self.stage().is_some_and(|plan| self.progress.step >= plan.epochs * steps_per_epoch);
        if through {
            self.progress.stage += 1;
            self.progress.step = 0;
            self.running = None;
            self.meter.clear();
            weights::separate(&self.variables());
        }
        through
    }

    /// The student's logits and taps, in evaluation mode.
    pub fn features(&self, batch: &Batch, want: &Taps) -> Result<Features> {
        self.forward(batch, want, Mode::Eval)
    }

    /// What the student's network offers.
    pub fn signature(&self) -> &Signature {
        self.student.signature()
    }

    /// The three accuracies of the history.
    pub fn accuracies(&self) -> Option<Accuracies> {
        let tested: Vec<(&EpochRecord, EpochAccuracy)> = self
            .progress
            .history
            .iter()
            .filter_map(|record| record.test.map(|test| (record, EpochAccuracy { epoch: record.epoch, test })))
            .collect();
        let best = |score: &dyn Fn(&EpochRecord) -> Option<f64>| {
            let mut best: Option<(f64, EpochAccuracy)> = None;
            for (record, accuracy) in &tested {
                if let Some(value) = score(record)
                    && best.is_none_or(|(highest, _)| value > highest)
                {
                    best = Some((value, *accuracy));
                }
            }
            best.map(|(_, accuracy)| accuracy)
        };
        Some(Accuracies {
            last: tested.last()?.1.test,
            best_on_validation: best(&|record| record.validation.map(|v| v.score())),
            best_on_test: best(&|record| record.test.map(|t| t.score()))?,
        })
    }

    /// Writes a checkpoint; call only after a sound [`verdict`](Self::verdict), and not before the first step.
    pub fn save(
        &mut self,
        environment: &Environment,
        steps_per_epoch: u64,
        observers: &mut Observers<'_>,
    ) -> Result<()> {
        let mut tensors = self.variables();
        let (names, sums) = self.meter.state();
        tensors.push(("meter".to_owned(), sums.shallow_clone()));
        let mut saved = Saved {
            identity: self.identity.clone(),
            threads: environment.threads,
            device: device::family(self.device).to_owned(),
            libtorch: environment.libtorch.clone(),
            meter: names.to_vec(),
            // Not what a checkpoint said that this lane was resumed from: its stage may be over.
            trained: Vec::new(),
            ..self.progress.clone()
        };
        if let Some(running) = &self.running {
            saved.trained = running.flat.variables().iter().map(|variable| variable.name.clone()).collect();
            tensors.extend(running.state());
        }
        tensors.extend(self.average.iter().map(|average| ("average".to_owned(), average.state())));
        let path = checkpoint::write(&self.info.folder, &saved, &tensors)?;
        self.checkpoint = Some(path.clone());
        if let Some((plan, step)) = self.place(steps_per_epoch) {
            let (stage, open) = (plan.name.clone(), self.has_open_epoch(steps_per_epoch));
            observers.tell(&self.info, Event::Checkpoint { stage, step, open, path });
        }
        Ok(())
    }

    /// Goes on where the newest checkpoint of the folder stands, if there is one.
    pub fn resume(
        &mut self,
        environment: &Environment,
        steps_per_epoch: u64,
        observers: &mut Observers<'_>,
    ) -> Result<()> {
        let Some(loaded) = checkpoint::read::<Saved>(&self.info.folder)? else { return Ok(()) };
        let folder = self.info.folder.display();
        let device = device::family(self.device);
        let saved = loaded.state;
        if saved.identity != self.identity {
            return Err(Error::plan(format!(
                "{folder} belongs to another configuration: choose another folder with --out"
            )));
        }
        let threads = environment.threads;
        if (saved.threads, saved.device.as_str()) != (threads, device) {
            return Err(Error::plan(format!(
                "{folder} was begun on {} with threads = {} and cannot go on exactly on {device} with threads = {threads}: \
                 use --device {} --set threads={}, or another folder with --out",
                saved.device, saved.threads, saved.device, saved.threads
            )));
        }
        if saved.libtorch != environment.libtorch {
            return Err(Error::plan(format!(
                "{folder} was begun with libtorch {} and cannot go on exactly with {}: use that version, or another folder with --out",
                saved.libtorch, environment.libtorch
            )));
        }
        let damaged = |what: String| Error::data(&loaded.path, what);
        let mut tensors = loaded.tensors;
        let meter = tensors.swap_remove("meter").ok_or_else(|| damaged("it has no meter".to_owned()))?;
        if let Some(average) = &self.average {
            let saved = tensors.swap_remove("average").ok_or_else(|| damaged("it has no average".to_owned()))?;
            let expected = [("average".to_owned(), average.state())];
            weights::copy_into(&expected, &IndexMap::from([("average".to_owned(), saved)]), &loaded.path)?;
        }
        let (state, own): (IndexMap<_, _>, IndexMap<_, _>) =
            tensors.into_iter().partition(|(name, _)| name.starts_with(STAGE_STATE));
        weights::copy_into(&self.variables(), &own, &loaded.path)?;
        weights::separate(&self.variables());
        self.meter = Meter::restore(saved.meter.clone(), &meter, self.device);
        self.progress = saved;
        if !self.progress.trained.is_empty() {
            let plan = self.stage().ok_or_else(|| damaged("its stage does not exist".to_owned()))?;
            let mut candidates: IndexMap<String, Variable> =
                self.candidates(plan).into_iter().map(|variable| (variable.name.clone(), variable)).collect();
            let trained = self
                .progress
                .trained
                .iter()
                .map(|name| {
                    candidates.swap_remove(name).ok_or_else(|| damaged(format!("`{name}` does not train here")))
                })
                .collect::<Result<Vec<_>>>()?;
            let running = RunningStage::new(FlatParameters::new(trained), &self.train, self.student.signature())?;
            weights::copy_into(&running.state(), &state, &loaded.path)?;
            self.running = Some(running);
        }
        let (plan, step) = self.place(steps_per_epoch).ok_or_else(|| damaged("it has no step".to_owned()))?;
        let (stage, epochs, path) = (plan.name.clone(), plan.epochs, loaded.path);
        self.checkpoint = Some(path.clone());
        let open = self.has_open_epoch(steps_per_epoch);
        observers.tell(&self.info, Event::Resumed { stage, epochs, steps_per_epoch, step, open, path });
        if let Some(why) = loaded.passed_over {
            observers.tell(&self.info, Event::Warning { message: format!("an older checkpoint is used: {why}") });
        }
        Ok(())
    }

    /// Exchanges the student and its moving average, if there is one: before and after whatever is done with the average.
    pub fn swap_average(&mut self) {
        if let Some(average) = &mut self.average {
            average.swap(&weights::variables(&self.store));
        }
    }

    /// Writes the student's weights alone, as they are.
    pub fn export(&self) -> Result<()> {
        weights::save(&self.info.folder.join(STUDENT), &weights::variables(&self.store), None)
    }
}
