//! The contract of a distillation method.
//!
//! A method is two types. Its [`DistillerConfig`] is what the experiment file says: immutable, serialisable. It builds a
//! [`Distiller`]: live, owning what it trains or remembers. One distiller serves one term of one method for one
//! teacher; an ensemble is several distillers.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use tch::{Device, Tensor, nn};

use crate::contracts::task::Task;
use crate::dataset::{Rows, UNLABELLED};
use crate::error::{Error, Result};
use crate::model::{BatchNormInfo, ClassifierInfo, Features, Form, Mode, Signature, TapInfo, TapRef, TapShape};
use crate::seed::Seed;

/// The recipe of a method. Register it with [`plugin!`](crate::plugin).
#[typetag::serde(tag = "kind")]
pub trait DistillerConfig: fmt::Debug + Send + Sync {
    /// Which features to record on both sides, in pairs. Called while planning: check shapes here and say the remedy.
    ///
    /// # Errors
    /// If student and teacher do not fit this method.
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs>;

    /// Builds the live method. Everything that it trains or keeps between steps is registered on `params`: trainable
    /// variables become part of the student's optimiser, all are part of the checkpoint, and they are only ever
    /// changed in place. libtorch's generator has been seeded for the initialisers. `params` is on the CPU while this
    /// builds and is moved to the site's device afterwards: initial values do not depend on the device.
    ///
    /// # Errors
    /// If a setting is out of range.
    fn build(&self, site: &Site<'_>, params: &nn::Path<'_>) -> Result<Box<dyn Distiller>>;
}

/// A method at work.
pub trait Distiller: fmt::Debug + Send {
    /// A stage of training before the main one, if the method has one. Its loss is [`initial_loss`](Self::initial_loss).
    fn initial_stage(&self) -> Option<InitialStage> {
        None
    }

    /// The loss of a step in the initial stage, which minimises it alone: the configured weight does not apply.
    ///
    /// # Errors
    /// If the method has no initial stage.
    fn initial_loss(&mut self, _step: &Step<'_>) -> Result<Terms> {
        Err(Error::run(format!("{self:?} has an initial stage without a loss")))
    }

    /// The loss of a step: named scalars with the method's inner coefficients, without the configured weight.
    ///
    /// Gradients are on; the teacher's features carry none.
    ///
    /// # Errors
    /// If the step cannot be computed; it ends this lane and no other.
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms>;

    /// Whether the loss depends on the order of the samples in a batch, as that of a method does that compares neighbours.
    fn order_matters(&self) -> bool {
        false
    }

    /// Called after the optimiser's step, without gradients: the place where memory banks move.
    ///
    /// # Errors
    /// As for [`loss`](Self::loss).
    fn after_step(&mut self, _step: &Step<'_>) -> Result<()> {
        Ok(())
    }
}

/// What a method may know when it is planned and built.
#[derive(Clone, Debug)]
pub struct Site<'a> {
    /// The student.
    pub student: &'a Signature,
    /// The teacher of this term.
    pub teacher: &'a Signature,
    /// The teacher's name in the experiment.
    pub teacher_name: &'a str,
    /// The label of every training sample, by position: `labels.len()` is n, the number of training samples.
    pub labels: &'a Arc<[i64]>,
    /// The number of classes.
    pub classes: i64,
    /// The task of the data.
    pub task: &'static dyn Task,
    /// The pairs that the experiment file names for this term, in place of the method's own.
    pub configured_pairs: Option<&'a [(TapRef, TapRef)]>,
    /// Where tensors live.
    pub device: Device,
}

impl Site<'_> {
    /// The number of training samples.
    pub fn samples(&self) -> i64 {
        self.labels.len() as i64
    }

    /// Refuses data whose task is not of [one class a sample](Task::one_class), for a method that supposes it: `why` says in
    /// what way, as in "kd compares one distribution over all classes".
    ///
    /// # Errors
    /// If it is not.
    pub fn one_class(&self, why: &str) -> Result<()> {
        if self.task.one_class() {
            return Ok(());
        }
        Err(Error::plan(format!(
            "{why}, and the targets of these data are {}: take a method that compares features, or data with one class a \
             sample",
            self.task.targets()
        )))
    }

    /// Refuses data of which some training samples have no label, for a method whose loss looks labels up: `why` says what
    /// for, as in "dkd sets the label's class apart".
    ///
    /// # Errors
    /// If there are such samples.
    pub fn labelled(&self, why: &str) -> Result<()> {
        match self.labels.iter().filter(|label| **label == UNLABELLED).count() {
            0 => Ok(()),
            some => Err(Error::plan(format!(
                "{why}, and {some} of the {} training samples have no label: leave them out, or take a method that does \
                 without",
                self.samples()
            ))),
        }
    }

    /// No taps: a method of logits. A configured pairing is refused.
    ///
    /// # Errors
    /// If the file pairs taps for this term.
    pub fn logits_only(&self) -> Result<TapPairs> {
        match self.configured_pairs {
            None => Ok(TapPairs::default()),
            Some(_) => Err(Error::plan("this method uses the logits alone: remove `taps`")),
        }
    }

    /// The stages, paired by position, or the configured pairs.
    ///
    /// # Errors
    /// If a configured tap does not exist.
    pub fn stages(&self, form: Form) -> Result<TapPairs> {
        self.pair(self.student.stages(), self.teacher.stages(), form)
    }

    /// The last stage of both, or the configured pairs.
    ///
    /// # Errors
    /// If a configured tap does not exist.
    pub fn last_stage(&self) -> Result<TapPairs> {
        self.pair(last(self.student.stages()), last(self.teacher.stages()), Form::Output)
    }

    /// The stem and the stages, paired by position, or the configured pairs. A stem that one side alone has is paired with
    /// nothing, rather than every tap with the one after its own.
    ///
    /// # Errors
    /// If a configured tap does not exist.
    pub fn layers(&self, form: Form) -> Result<TapPairs> {
        let lone = match (self.student.stem(), self.teacher.stem()) {
            (Some(stem), None) => format!("student {}", stem.name),
            (None, Some(stem)) => format!("teacher {}", stem.name),
            _ => return self.pair(self.student.layers(), self.teacher.layers(), form),
        };
        let mut pairs = self.stages(form)?;
        if self.configured_pairs.is_none() {
            pairs.dropped.insert(0, lone);
        }
        Ok(pairs)
    }

    /// The pooled features (the last tap) of both, or the configured pairs.
    ///
    /// # Errors
    /// If a configured tap does not exist.
    pub fn pooled(&self) -> Result<TapPairs> {
        self.pair(last(&self.student.taps), last(&self.teacher.taps), Form::Output)
    }

    /// The student's classifier, by the names of its parameters; a step lends them
    /// ([`Features::classifier`], [`Features::classify`]).
    ///
    /// # Errors
    /// If the student lends none.
    pub fn student_classifier(&self) -> Result<&ClassifierInfo> {
        self.student.lent_classifier().map_err(|e| e.within("student"))
    }

    /// The teacher's, likewise.
    ///
    /// # Errors
    /// If the teacher lends none.
    pub fn teacher_classifier(&self) -> Result<&ClassifierInfo> {
        self.teacher.lent_classifier().map_err(|e| e.within(&format!("teacher {}", self.teacher_name)))
    }

    /// The BatchNorm that the value of the student's tap before the activation comes out of, by the names of its parameters;
    /// a step lends them ([`Features::batch_norm`]).
    ///
    /// # Errors
    /// If there is no such tap, or the student lends none there.
    pub fn student_batch_norm(&self, tap: &TapRef) -> Result<&BatchNormInfo> {
        self.student.lent_batch_norm(tap).map_err(|e| e.within("student"))
    }

    /// The teacher's, likewise.
    ///
    /// # Errors
    /// If there is no such tap, or the teacher lends none there.
    pub fn teacher_batch_norm(&self, tap: &TapRef) -> Result<&BatchNormInfo> {
        self.teacher.lent_batch_norm(tap).map_err(|e| e.within(&format!("teacher {}", self.teacher_name)))
    }

    /// Pairs two lists of taps by position, both in one form, as [`pair_taps`](Self::pair_taps) does.
    ///
    /// # Errors
    /// If a tap does not exist in that form.
    pub fn pair(&self, student: &[TapInfo], teacher: &[TapInfo], form: Form) -> Result<TapPairs> {
        let named =
            |taps: &[TapInfo]| taps.iter().map(|tap| TapRef { name: tap.name.clone(), form }).collect::<Vec<_>>();
        self.pair_taps(&named(student), &named(teacher))
    }

    /// Pairs two lists of taps by position, unless the experiment file pairs them itself. What has no partner is kept
    /// in [`TapPairs::dropped`], which the plan warns of.
    ///
    /// # Errors
    /// If a tap does not exist in that form.
    pub fn pair_taps(&self, student: &[TapRef], teacher: &[TapRef]) -> Result<TapPairs> {
        let chosen: Vec<(TapRef, TapRef)> = match self.configured_pairs {
            Some(pairs) => pairs.to_vec(),
            None => student.iter().cloned().zip(teacher.iter().cloned()).collect(),
        };
        let mut pairs = TapPairs::default();
        for (s, t) in chosen {
            let student_shape = self.student.shape(&s).map_err(|e| e.within("student"))?;
            let teacher_shape = self.teacher.shape(&t).map_err(|e| e.within("teacher"))?;
            pairs.pairs.push(TapPair { student: s, teacher: t, student_shape, teacher_shape });
        }
        if self.configured_pairs.is_none() {
            let n = pairs.pairs.len();
            pairs.dropped.extend(student[n..].iter().map(|tap| format!("student {tap}")));
            pairs.dropped.extend(teacher[n..].iter().map(|tap| format!("teacher {tap}")));
        }
        Ok(pairs)
    }
}

/// The last of these taps, if there is one.
fn last(taps: &[TapInfo]) -> &[TapInfo] {
    &taps[taps.len().saturating_sub(1)..]
}

/// One feature of the student beside one of the teacher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapPair {
    /// The student's.
    pub student: TapRef,
    /// The teacher's.
    pub teacher: TapRef,
    /// The student's shape without the batch.
    pub student_shape: TapShape,
    /// The teacher's shape without the batch.
    pub teacher_shape: TapShape,
}

/// The pairs of a term, in the method's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TapPairs {
    /// The pairs.
    pub pairs: Vec<TapPair>,
    /// Taps left without a partner because the lists differ in length.
    pub dropped: Vec<String>,
}

impl TapPairs {
    /// The one pair of a method that uses one.
    ///
    /// # Errors
    /// If there is another number of pairs.
    pub fn single(&self) -> Result<&TapPair> {
        match self.pairs.as_slice() {
            [pair] => Ok(pair),
            pairs => Err(Error::plan(format!(
                "this method takes one pair of taps, not {}: name it with `taps = [[STUDENT'S, TEACHER'S]]`",
                pairs.len()
            ))),
        }
    }
}

/// A stage of training before the main one (AB, FT, FSP).
#[derive(Clone, Debug, PartialEq)]
pub struct InitialStage {
    /// How long it lasts.
    pub epochs: u64,
    /// Its constant learning rate; absent: the experiment's.
    pub learning_rate: Option<f64>,
    /// The student's groups that train (see [`Signature::feature_groups`]); the rest is in evaluation mode and frozen.
    pub student_groups: Vec<String>,
    /// Which of the method's own parameters train, by name or by the name of a module; empty: none.
    pub own: BTreeSet<String>,
    /// Whether the method has a loss in the main stage too. If not, neither [`Distiller::loss`] nor the teacher is asked.
    pub then_loss: bool,
}

/// One step as a method sees it.
#[derive(Debug)]
pub struct Step<'a> {
    /// The student's logits and taps, with gradients.
    pub student: &'a Features,
    /// The teacher's logits and taps, without.
    pub teacher: &'a Features,
    /// The pairs that [`DistillerConfig::taps`] gave.
    pub taps: &'a TapPairs,
    /// `[B]`, int64.
    pub labels: &'a Tensor,
    /// The samples' positions in the training set, 0 ≤ position < [`Site::samples`]: rows of a bank.
    pub rows: &'a Rows,
    /// From 1.
    pub epoch: u64,
    /// From 0, over all epochs of the stage.
    pub step: u64,
    /// The randomness of this term in this step.
    pub seed: Seed,
    /// The mode of the student.
    pub mode: Mode<'a>,
}

impl Step<'_> {
    /// The recorded features, pair by pair: (student, teacher), each `[B, …]`.
    ///
    /// # Errors
    /// If a tap was not recorded.
    pub fn pairs(&self) -> Result<Vec<(&Tensor, &Tensor)>> {
        let mut features = Vec::new();
        for pair in &self.taps.pairs {
            features.push((self.student.tap(&pair.student)?, self.teacher.tap(&pair.teacher)?));
        }
        Ok(features)
    }

    /// The only pair: (student, teacher), each `[B, …]`.
    ///
    /// # Errors
    /// If there is another number of pairs.
    pub fn pair(&self) -> Result<(&Tensor, &Tensor)> {
        let pair = self.taps.single()?;
        Ok((self.student.tap(&pair.student)?, self.teacher.tap(&pair.teacher)?))
    }

    /// The number of samples.
    pub fn batch(&self) -> i64 {
        self.rows.len() as i64
    }
}

/// Named scalars: what is minimised, and what is only watched.
#[derive(Debug, Default)]
pub struct Terms {
    losses: Vec<(String, Tensor)>,
    metrics: Vec<(String, Tensor)>,
}

impl Terms {
    /// Nothing yet.
    pub fn new() -> Self {
        Terms::default()
    }

    /// A single loss: one element, `[]` or `[1]`, without the weight of the experiment.
    pub fn of(name: &str, value: Tensor) -> Self {
        Terms::new().loss(name, value)
    }

    /// Adds a scalar `[]` to be minimised, without the weight of the experiment.
    #[must_use]
    pub fn loss(mut self, name: &str, value: Tensor) -> Self {
        self.losses.push((name.to_owned(), value));
        self
    }

    /// Adds a scalar `[]` to be averaged over the epoch and reported, in units of its own.
    #[must_use]
    pub fn metric(mut self, name: &str, value: Tensor) -> Self {
        self.metrics.push((name.to_owned(), value.detach()));
        self
    }

    /// Takes over everything from `other`, each name behind `prefix`.
    #[must_use]
    pub fn absorb(mut self, prefix: &str, other: Terms) -> Self {
        self.losses.extend(other.losses.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)));
        self.metrics.extend(other.metrics.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)));
        self
    }

    /// What is minimised: name and scalar.
    pub fn losses(&self) -> &[(String, Tensor)] {
        &self.losses
    }

    /// What is watched: name and scalar.
    pub fn metrics(&self) -> &[(String, Tensor)] {
        &self.metrics
    }
}
