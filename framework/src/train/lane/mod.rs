//! A lane: one student with its method and optimiser, its folder and its place in training.

mod epoch;
mod health;
mod meter;
mod plan;
mod running;
mod saved;
mod state;
pub mod step;

use std::path::PathBuf;

use indexmap::IndexMap;
use tch::{Device, Kind, Tensor, nn};

use self::epoch::{EpochPlan, Weight};
use self::health::Health;
use self::meter::Meter;
use self::plan::StagePlan;
use self::running::RunningStage;
use self::saved::Saved;
use super::config::LaneConfig;
use super::evaluate::Evaluation;
use super::stage::{Position, Stage};
use super::teacher::parameters;
use super::term::{Term, TermSite, build_terms, check_main_stage, is_within};
use crate::contracts::task::{Metrics, Task};
use crate::dataset::Batch;
use crate::error::{Error, Result};
use crate::event::{Event, LaneInfo};
use crate::experiment::TrainConfig;
use crate::model::{Features, Lent, Mode, Model, ModelSpec, Signature, TapRef, Taps};
use crate::optim::{Average, Variable};
use crate::precision::Precision;
use crate::record::{Accuracies, EpochAccuracy, EpochRecord, Timing};
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
    task: &'static dyn Task,
    /// The weight of the loss by the targets.
    cross_entropy: Weight,
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
    /// Rates and weights of the epoch of the last step.
    epoch_plan: Option<EpochPlan>,
    running: Option<RunningStage>,
    health: Health,
    meter: Meter,
    /// The newest checkpoint that is known to be whole.
    pub checkpoint: Option<PathBuf>,
    progress: Saved,
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
            task: site.task,
            cross_entropy: Weight::new(config.method.cross_entropy, site.device),
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
            epoch_plan: None,
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
        let mut all = Vec::new();
        for (name, tensor) in weights::variables(&self.store) {
            all.push((format!("student.{name}"), tensor));
        }
        for term in &self.terms {
            for (name, tensor) in weights::variables(&term.store) {
                all.push((format!("term.{}.{name}", term.label), tensor));
            }
        }
        all
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
        let mut at_work = Vec::new();
        for (index, term) in self.terms.iter().enumerate() {
            if self.main_loss[index]
                && let Some(weight) = term.weight_in(epoch, self.train.epochs)
            {
                at_work.push((index, weight));
            }
        }
        at_work
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
        let mut messages = Vec::new();
        for Term { label, taps, .. } in &self.terms {
            if !taps.dropped.is_empty() {
                messages.push(format!("{label}: taps without a partner are not used: {}", taps.dropped.join(", ")));
            }
        }
        messages
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

    /// Charges the lane with time.
    pub fn charge(&mut self, seconds: f64) {
        self.progress.seconds += seconds;
        self.progress.epoch_seconds += seconds;
    }

    /// The variables that may train in a stage.
    fn candidates(&self, plan: &StagePlan) -> Vec<Variable> {
        let mut candidates = Vec::new();
        for (name, tensor) in weights::variables(&self.store) {
            let trains = match &plan.initial {
                None => true,
                Some((_, stage)) => {
                    let group = self.student.signature().group_of(&name);
                    group.is_some_and(|group| stage.student_groups.contains(&group.name))
                }
            };
            if trains && tensor.requires_grad() {
                candidates.push(Variable { name: format!("student.{name}"), tensor });
            }
        }
        for (index, term) in self.terms.iter().enumerate() {
            for (name, tensor) in weights::variables(&term.store) {
                let trains = match &plan.initial {
                    None => true,
                    Some((of, stage)) => *of == index && stage.own.iter().any(|module| is_within(&name, module)),
                };
                if trains && tensor.requires_grad() {
                    candidates.push(Variable { name: format!("term.{}.{name}", term.label), tensor });
                }
            }
        }
        candidates
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

    /// Reads the health flag: an error names the step and the term. The parameters themselves are looked at too, since a
    /// finite gradient times a learning rate may overflow.
    pub fn verdict(&self) -> Result<()> {
        self.health.verdict()?;
        if let Some(running) = &self.running
            && running.flat.buffer().isfinite().all().int64_value(&[]) == 0
        {
            return Err(Error::run(format!("the parameters became non-finite by step {}", self.progress.step)));
        }
        Ok(())
    }

    /// Means of the epoch so far: every loss, and top-1 where there is one class a sample.
    fn means(&self) -> Result<(IndexMap<String, f64>, Option<f64>)> {
        let (losses, top1) = self.meter.read()?;
        Ok((losses, self.task.one_class().then_some(top1)))
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
            // What it found was asked for at the end of the epoch; steps count anew.
            self.health = Health::new(self.device);
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
        let on_validation = tested.iter().filter_map(|(record, test)| Some((record.validation?, *test)));
        let on_test = tested.iter().map(|(_, test)| (test.test, *test));
        Some(Accuracies {
            last: tested.last()?.1.test,
            best_on_validation: best(on_validation),
            best_on_test: best(on_test)?,
        })
    }

    /// Exchanges the student and its moving average, if there is one: before and after whatever is done with the average.
    pub fn swap_average(&mut self) {
        if let Some(average) = &mut self.average {
            average.swap(&weights::variables(&self.store));
        }
    }
}

/// The test accuracy at the epoch whose other measurement is the best, the first of equals.
fn best(epochs: impl Iterator<Item = (Metrics, EpochAccuracy)>) -> Option<EpochAccuracy> {
    let best = epochs.reduce(|best, epoch| if epoch.0.is_better_than(&best.0) { epoch } else { best });
    best.map(|(_, accuracy)| accuracy)
}
