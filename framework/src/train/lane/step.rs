//! One step of a lane, in three parts: what it computes with ([`StepInputs`]), what is computed on the device
//! ([`Lane::compute`]), and what the host keeps account of ([`Lane::book`]).

use std::collections::BTreeSet;
use std::time::Instant;

use indexmap::IndexMap;
use tch::{Kind, Tensor, no_grad_guard};

use super::Lane;
use super::epoch::EpochPlan;
use super::running::RunningStage;
use crate::dataset::{Batch, Rows};
use crate::distiller::{Step, TapPairs};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::metric::right_guesses;
use crate::model::{Features, Mode};
use crate::optim::{FlatParameters, Progress};
use crate::seed::Seed;
use crate::train::clock::Clock;
use crate::train::observers::Observers;
use crate::train::stage::Stage;
use crate::weights;

/// What the cohort computed for everyone in this step.
pub struct Shared<'a> {
    pub batch: &'a Batch,
    pub teachers: &'a IndexMap<String, Features>,
    /// The samples' positions in the training set.
    pub rows: &'a Rows,
    pub steps_per_epoch: u64,
}

/// All that a step of a lane computes with, beside the lane itself.
struct StepInputs<'a> {
    shared: &'a Shared<'a>,
    /// From 1.
    epoch: u64,
    /// From 0, over all epochs of the stage.
    step: u64,
    seed: Seed,
    /// The groups of the student that an initial stage trains; absent in the main stage.
    groups: Option<&'a [String]>,
    /// The terms at work and their weights.
    plan: &'a EpochPlan,
    /// The learning rate: `[]`, float32, on the device.
    rate: Tensor,
    /// How many steps' gradients make an update after this one; nothing if it makes none.
    gathered: Option<u64>,
    /// Whether a term of this stage takes no part any more, so that what only it reached has a gradient of zero.
    ended: bool,
}

impl<'a> StepInputs<'a> {
    /// Whether the stage is an initial one.
    fn is_initial(&self) -> bool {
        self.groups.is_some()
    }

    fn mode(&self) -> Mode<'a> {
        self.groups.map_or(Mode::Train, Mode::TrainGroups)
    }

    /// The step as one term sees it.
    fn of(&self, index: usize, teacher: &str, taps: &'a TapPairs, student: &'a Features) -> Result<Step<'a>> {
        let Some(teacher) = self.shared.teachers.get(teacher) else {
            return Err(Error::run(format!("teacher {teacher} was not asked")));
        };
        Ok(Step {
            student,
            teacher,
            taps,
            labels: &self.shared.batch.labels,
            rows: self.shared.rows,
            epoch: self.epoch,
            step: self.step,
            seed: self.seed.stream("term").at(index as u64),
            mode: self.mode(),
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
    /// The names of everything that is averaged over the epoch: the total as `loss`, then losses and metrics.
    fn reported(&self) -> impl Iterator<Item = &str> + Clone {
        std::iter::once("loss").chain(self.losses.iter().chain(&self.metrics).map(|(name, _)| name.as_str()))
    }

    /// What must be finite, with its place among the [`Scalars`]: every loss, and the gradient.
    fn judged(&self) -> impl Iterator<Item = (&str, i64)> + Clone {
        let losses = self.losses.iter().map(|(name, _)| name.as_str()).zip(2..);
        losses.chain([("the gradient", 0)])
    }
}

/// All scalars of a step in one tensor: the sum of the gradient, those that are [reported](Objective::reported), and the
/// number of right guesses.
struct Scalars {
    float: Tensor,
    double: Tensor,
}

impl Scalars {
    fn new(gradient: Tensor, objective: &Objective, right: Tensor) -> Self {
        let mut values = vec![gradient, objective.total.detach()];
        for (_, value) in objective.losses.iter().chain(&objective.metrics) {
            values.push(value.detach().reshape([]));
        }
        values.push(right);
        if values.iter().all(|value| value.kind() == Kind::Float) {
            let float = Tensor::stack(&values, 0);
            return Scalars { double: float.to_kind(Kind::Double), float };
        }
        let values: Vec<Tensor> = values.iter().map(|value| value.to_kind(Kind::Double)).collect();
        let double = Tensor::stack(&values, 0);
        Scalars { float: double.to_kind(Kind::Float), double }
    }

    /// What is reported and the number of right guesses, `[names + 1]`, float64.
    fn reported(&self) -> Tensor {
        self.double.narrow(0, 1, self.double.size()[0] - 1)
    }
}

/// What the host must know of a step that was computed.
struct Computed {
    /// The parameters that the loss does not reach, if this was the stage's first step.
    unreached: Option<Vec<String>>,
    /// Of the student's passes.
    student_seconds: f64,
    /// Of the losses, and of what terms do after the update.
    loss_seconds: f64,
    optimizer_seconds: f64,
}

impl Lane {
    /// One step of training.
    pub fn step(&mut self, shared: &Shared<'_>, clock: &Clock<'_>, observers: &mut Observers<'_>) -> Result<()> {
        let Some(plan) = self.stages.get(self.progress.stage) else { return Ok(()) };
        let (stage, step, steps_per_epoch) = (self.progress.stage, self.progress.step, shared.steps_per_epoch);
        let epoch = step / steps_per_epoch + 1;
        let seed = plan.stage.seed(self.seed).at(step);
        let groups = plan.initial.as_ref().map(|(_, initial)| initial.student_groups.clone());
        let last = step + 1 == plan.epochs * steps_per_epoch;
        let epoch_plan = match self.epoch_plan.take() {
            Some(found) if (found.stage, found.epoch) == (stage, epoch) => found,
            _ => self.plan_epoch(epoch, steps_per_epoch),
        };
        let (learning_rate, rate) = epoch_plan.rate((step % steps_per_epoch) as usize);
        let every = self.train.accumulate;
        let gathered = step % every + 1;
        let with_loss = self.main_loss.iter().filter(|has_loss| **has_loss).count();
        let inputs = StepInputs {
            shared,
            epoch,
            step,
            seed,
            groups: groups.as_deref(),
            rate,
            gathered: if gathered == every || last { Some(gathered) } else { None },
            ended: groups.is_none() && epoch_plan.terms.len() < with_loss,
            plan: &epoch_plan,
        };
        let computed = {
            let _drawing = seed.stream("libtorch").seed_libtorch();
            self.compute(&inputs, clock)?
        };
        self.progress.learning_rate = learning_rate;
        self.book(&inputs, computed, clock, observers);
        self.epoch_plan = Some(epoch_plan);
        Ok(())
    }

    /// Learning rates and weights of an epoch of the stage that runs.
    fn plan_epoch(&self, epoch: u64, steps_per_epoch: u64) -> EpochPlan {
        let stage = self.progress.stage;
        let steps = (epoch - 1) * steps_per_epoch..epoch * steps_per_epoch;
        let rates = steps.map(|step| self.learning_rate(stage, step, steps_per_epoch)).collect();
        EpochPlan::new(stage, epoch, rates, self.at_work(steps_per_epoch), self.device)
    }

    /// Everything that a step does on the device, where all of the lane's state is written in place. Nothing is read from the
    /// device here.
    fn compute(&mut self, inputs: &StepInputs<'_>, clock: &Clock<'_>) -> Result<Computed> {
        let started = Instant::now();
        let features = self.forward(inputs.shared.batch, &self.taps, inputs.mode())?;
        let forward = clock.since(started);

        let started = Instant::now();
        let objective = self.objective(&features, inputs)?;
        let losses = clock.since(started);

        let started = Instant::now();
        let (gradient, unreached) = {
            let _selected = self.precision.select(self.device)?;
            self.gradient(&objective.total, inputs.ended)?
        };
        let backward = clock.since(started);

        let _no_grad = no_grad_guard();
        let started = Instant::now();
        let bad = self.examine(&objective, &gradient, &features, inputs)?;
        self.update(gradient, &bad, inputs)?;
        let optimizer_seconds = clock.since(started);

        let started = Instant::now();
        if !inputs.is_initial() {
            for at_work in &inputs.plan.terms {
                let term = &mut self.terms[at_work.index];
                term.distiller.after_step(&inputs.of(at_work.index, &term.teacher, &term.taps, &features)?)?;
            }
        }
        let after = clock.since(started);
        Ok(Computed { unreached, student_seconds: forward + backward, loss_seconds: losses + after, optimizer_seconds })
    }

    /// Keeps account of a step on the host: samples, time, and the event of a stage's beginning.
    fn book(&mut self, inputs: &StepInputs<'_>, computed: Computed, clock: &Clock<'_>, observers: &mut Observers<'_>) {
        self.meter.count(inputs.shared.rows.len());
        self.health.count();
        if clock.timed {
            let mut asked = BTreeSet::new();
            for at_work in &inputs.plan.terms {
                asked.insert(self.terms[at_work.index].teacher.as_str());
            }
            let timing = &mut self.progress.timing;
            timing.steps += 1;
            timing.data += clock.data;
            timing.teacher += clock.seconds_of(&asked);
            timing.student += computed.student_seconds;
            timing.loss += computed.loss_seconds;
            timing.optimizer += computed.optimizer_seconds;
        }
        if let (Some(unreached), Some(plan)) = (computed.unreached, self.stage()) {
            let (stage, epochs, steps_per_epoch) = (plan.name.clone(), plan.epochs, inputs.shared.steps_per_epoch);
            observers.tell(&self.info, Event::StageStarted { stage, epochs, steps_per_epoch, unreached });
        }
        self.progress.step += 1;
    }

    /// Every loss of the step, and their weighted sum.
    fn objective(&mut self, features: &Features, inputs: &StepInputs<'_>) -> Result<Objective> {
        let mut weighted: Vec<Tensor> = Vec::new();
        let (mut losses, mut metrics) = (Vec::new(), Vec::new());
        if !inputs.is_initial() && !self.cross_entropy.is_zero() {
            let loss = self.task.loss(&features.logits, inputs.shared.batch.truth())?;
            weighted.push(self.cross_entropy.times(&loss));
            losses.push((self.task.loss_key().to_owned(), loss));
        }
        for at_work in &inputs.plan.terms {
            let term = &mut self.terms[at_work.index];
            let step = inputs.of(at_work.index, &term.teacher, &term.taps, features)?;
            let initial = inputs.is_initial();
            let terms = if initial { term.distiller.initial_loss(&step)? } else { term.distiller.loss(&step)? };
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
                let loss = loss.reshape([]);
                weighted.push(at_work.weight.times(&loss));
                losses.push((format!("{}.{name}", term.label), loss));
            }
            for (name, value) in terms.metrics() {
                metrics.push((format!("{}.{name}", term.label), value.shallow_clone()));
            }
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
            return match running.flat.gradient(total, ended) {
                Ok(gradient) => Ok((gradient, None)),
                Err(names) => {
                    let names = names.join(", ");
                    Err(Error::run(format!("the loss no longer reaches {names}, which trained before")))
                }
            };
        }
        let candidates = self.stage().map(|plan| self.candidates(plan)).unwrap_or_default();
        let (flat, gradient, unreached) = FlatParameters::first(total, candidates)
            .ok_or_else(|| Error::run("the loss reaches none of the parameters that this stage trains"))?;
        self.running = Some(RunningStage::new(flat, &self.train, self.student.signature())?);
        Ok((gradient, Some(unreached)))
    }

    /// Adds the step's scalars to the epoch's means, and looks for losses and gradients that are not finite: whether there was
    /// one so far, as a scalar bool on the device.
    fn examine(
        &mut self,
        objective: &Objective,
        gradient: &Tensor,
        features: &Features,
        inputs: &StepInputs<'_>,
    ) -> Result<Tensor> {
        self.meter.expect(objective.reported())?;
        self.health.expect(objective.judged(), inputs.step);
        let right = if self.task.one_class() {
            right_guesses(&features.logits, &inputs.shared.batch.labels)
        } else {
            Tensor::zeros([] as [i64; 0], (Kind::Float, self.device))
        };
        let scalars = Scalars::new(gradient.sum(Kind::Float), objective, right);
        self.meter.add(&scalars.reported(), inputs.shared.rows.len());
        Ok(self.health.check(&scalars.float))
    }

    /// The optimiser's update, if one is due; it changes nothing if a loss or a gradient was not finite so far (`bad`).
    fn update(&mut self, mut gradient: Tensor, bad: &Tensor, inputs: &StepInputs<'_>) -> Result<()> {
        let plan = self.stages.get(self.progress.stage).ok_or_else(|| Error::run("no stage is running"))?;
        let running = self.running.as_mut().ok_or_else(|| Error::run("no stage is running"))?;
        let _ = gradient.masked_fill_(bad, 0.0);
        if let Some(sum) = &mut running.accumulated {
            let _ = sum.g_add_(&gradient);
        }
        let Some(gathered) = inputs.gathered else { return Ok(()) };
        if let Some(sum) = &mut running.accumulated {
            gradient = &*sum / gathered as f64;
            let _ = sum.zero_();
        }
        if let Some(limit) = self.train.clip_norm {
            // ε as in PyTorch's clip_grad_norm_.
            let scale = ((gradient.norm() + 1e-6).reciprocal() * limit).clamp_max(1.0);
            let _ = gradient.g_mul_(&scale);
        }
        let mut rate = inputs.rate.to_kind(gradient.kind()).masked_fill(bad, 0.0);
        if let Some(factors) = &running.rates {
            rate = factors * &rate;
        }
        running.optimizer.step(running.flat.buffer_mut(), &mut gradient, &rate);
        if let (Some(average), Stage::Main) = (&mut self.average, plan.stage) {
            average.update(&weights::variables(&self.store), inputs.step / self.train.accumulate);
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
}
