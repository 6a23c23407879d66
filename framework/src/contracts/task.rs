//! The contract of a task: what a network learns from the targets of a data set, and how it is judged.
//!
//! A data set says which task its targets are for ([`DatasetInfo::task`](crate::dataset::DatasetInfo::task)). The framework
//! trains by the task's loss, evaluates with its meter and records its metrics under their keys. Nothing outside a task's
//! own file knows which task it is: whoever shows a number asks.
//!
//! To add a task, write one file with a type that implements [`Task`] and a [`TaskMeter`], and register it with
//! [`plugin!`](crate::plugin); [`classification`](crate::task::Classification) and [`presence`](crate::task::Presence) are
//! the examples.
//!
//! # Showing what was measured
//!
//! [`Metrics`] are what a network is worth on a split. They know their task, so that a report needs nothing else:
//!
//! | what is shown | what to ask |
//! |---|---|
//! | the number by which networks are compared | [`Metrics::score`], described by `task.score()` |
//! | which of two networks is better | [`Metrics::is_better_than`]; of two means, `task.score().better.is_better(a, b)` |
//! | the highest or the lowest of a column | [`Better::best`]: "highest", "lowest" |
//! | numbers with a column of their own beside it (top-5) | [`Metrics::beside`], described by `task.beside()` |
//! | the loss over the split | [`Metrics::loss`], described by `task.split_loss()` |
//! | columns of a CSV file | [`dyn Task::metrics`](trait.Task.html#method.metrics) for the header, [`Metrics::named`] for a row |
//! | a column's title, an axis, a caption | [`MetricInfo::short`], [`MetricInfo::axis`], [`MetricInfo::title`] |
//! | a number with its unit | [`MetricInfo::show`]; `task.score().unit` has the unit of differences and the decimals |
//! | what the score is, in a sentence | [`dyn Task::measured`](trait.Task.html#method.measured) |
//! | the score on the test split or on the samples held out, in a sentence | [`Task::score_on`] |
//! | scores by class | [`ClassScore::score`], described by [`Task::class_metric`]; none where that is `None` |
//! | whether agreement, divergence, calibration and right guesses in training exist | [`Task::one_class`] |
//! | what the targets are, in a sentence | [`Task::targets`]; [`dyn Task::is_usual`](trait.Task.html#method.is_usual) where it need not be said |

use std::fmt;

use indexmap::IndexMap;
use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tch::{Device, Tensor};

use crate::error::{Error, Result};

/// A task. Register it with [`plugin!`](crate::plugin).
pub trait Task: fmt::Debug + Send + Sync {
    /// The name under which it is registered.
    fn name(&self) -> &'static str;

    /// What the targets are, in the plural and in a sentence: "sets of classes".
    fn targets(&self) -> &'static str;

    /// Checks that the targets of some samples of a data set with that many `classes` are what this task learns from.
    ///
    /// # Errors
    /// With what is wrong, as it follows "the batch has": "no `targets`".
    fn check(&self, truth: Truth<'_>, classes: i64) -> Result<()>;

    /// Whether every sample has exactly one class, its label, and logits are of one distribution over the classes, `[B, C]`.
    ///
    /// Only then are there right guesses in training, calibration, agreement with a teacher and divergence from it, the mean
    /// of several networks' probabilities, and the methods that compare distributions.
    fn one_class(&self) -> bool;

    /// Whether it trains with samples that have no label ([`UNLABELLED`](crate::dataset::UNLABELLED)) beside others.
    fn takes_unlabelled(&self) -> bool {
        false
    }

    /// Whether logits are `[B, C]`, of whole samples, so that a linear classifier of pooled features can learn it too.
    fn of_whole_samples(&self) -> bool {
        true
    }

    /// The loss of `logits` by the targets of a batch: a scalar `[]`, in the logits' own precision.
    ///
    /// # Errors
    /// If the batch lacks targets.
    fn loss(&self, logits: &Tensor, truth: Truth<'_>) -> Result<Tensor>;

    /// The key of that loss among the losses of a step.
    fn loss_key(&self) -> &'static str;

    /// An empty meter of a split.
    fn meter(&self, device: Device) -> Box<dyn TaskMeter>;

    /// The number by which networks are compared. Its key is no other task's: files are told apart by it.
    fn score(&self) -> &'static MetricInfo;

    /// The numbers that are shown beside it.
    fn beside(&self) -> &'static [MetricInfo] {
        &[]
    }

    /// The loss over a split. Its name is that of the loss: "binary cross-entropy".
    fn split_loss(&self) -> &'static MetricInfo;

    /// What [`by_class`](Self::by_class) measures; absent where there is no score by class.
    fn class_metric(&self) -> Option<&'static MetricInfo> {
        None
    }

    /// The score of every class, in the order of `classes`, by the logits and the targets of a whole split.
    ///
    /// # Errors
    /// If it is not defined.
    fn by_class(&self, _classes: &[String], _logits: &Tensor, _truth: Truth<'_>) -> Result<Vec<ClassScore>> {
        Ok(Vec::new())
    }

    /// So many samples with so many classes as they may come, with the logits of some network: conformance tries the task with
    /// them. libtorch's generator is seeded; every class should occur.
    fn example(&self, samples: i64, classes: i64) -> Example;

    /// What was measured on a part of the data, in a sentence; `name` is the name of the metric, more or less of it.
    fn score_on(&self, part: Part, name: &str) -> String {
        match part {
            Part::Test => format!("{name} on the test split"),
            Part::HeldOut => format!("{name} on the samples held out"),
        }
    }
}

/// What follows for every task.
impl dyn Task + '_ {
    /// Everything that is recorded of a split, in the order of files: the score, what is shown beside it, the loss.
    pub fn metrics(&self) -> impl Iterator<Item = &'static MetricInfo> + use<> {
        std::iter::once(self.score()).chain(self.beside()).chain([self.split_loss()])
    }

    /// Whether it is the task of a data set that does not say which: plans and reports do not mention it.
    pub fn is_usual(&self) -> bool {
        self.name() == <&dyn Task>::default().name()
    }

    /// What the score is, such that it is not taken for the usual one: "top-1 accuracy", "mean average precision (mAP, not
    /// top-1: targets are sets of classes)".
    pub fn measured(&self) -> String {
        let score = self.score();
        if self.is_usual() {
            return score.name.to_owned();
        }
        let usual = <&dyn Task>::default().score().short;
        format!("{} ({}, not {usual}: targets are {})", score.name, score.short, self.targets())
    }

    /// The task of that name among those that are linked into this binary.
    pub fn find(name: &str) -> Option<&'static dyn Task> {
        all().find(|task| task.name() == name)
    }

    /// Checks that the task of that name can be told from the others by what it records.
    pub(crate) fn check_linked(name: &str) -> Result<(), String> {
        let task = <dyn Task>::find(name).ok_or_else(|| format!("its `Task::name` is another: it must be `{name}`"))?;
        let count = task.metrics().count();
        if count > MOST {
            return Err(format!("it has {count} metrics, and at most {MOST} are recorded"));
        }
        let key = task.score().key;
        match all().find(|other| other.name() != name && other.metrics().any(|metric| metric.key == key)) {
            None => Ok(()),
            Some(other) => Err(format!(
                "its score has the key `{key}`, which is one of the task `{}` too: files could not be told apart",
                other.name()
            )),
        }
    }
}

impl PartialEq for dyn Task {
    fn eq(&self, other: &dyn Task) -> bool {
        self.name() == other.name()
    }
}

/// A task that is linked into this binary. Made by [`plugin!`](crate::plugin).
#[derive(Debug)]
pub struct LinkedTask(
    /// The task.
    pub &'static dyn Task,
);

inventory::collect!(LinkedTask);

fn all() -> impl Iterator<Item = &'static dyn Task> {
    inventory::iter::<LinkedTask>.into_iter().map(|linked| linked.0)
}

/// What is right about some samples: a batch, or a whole split.
#[derive(Clone, Copy, Debug)]
pub struct Truth<'a> {
    /// `[B]`, int64: the label of each sample.
    pub labels: &'a Tensor,
    /// The targets, where a label does not say it all; their shape is the task's.
    targets: Option<&'a Tensor>,
}

impl<'a> Truth<'a> {
    /// Labels, `[B]`, int64, and targets, `[B, …]`, where the task has any.
    pub fn new(labels: &'a Tensor, targets: Option<&'a Tensor>) -> Self {
        Truth { labels, targets }
    }

    /// The targets, for a task that needs them.
    ///
    /// # Errors
    /// If there are none.
    pub fn targets(&self) -> Result<&'a Tensor> {
        self.targets.ok_or_else(|| Error::run("the batch has no `targets`"))
    }

    /// Whether there are targets beside the labels.
    pub fn has_targets(&self) -> bool {
        self.targets.is_some()
    }
}

/// Samples to try a task with.
#[derive(Debug)]
pub struct Example {
    /// `[B, C]`, or `[B, C, …]` of a task that is not of whole samples.
    pub logits: Tensor,
    /// `[B]`, int64.
    pub labels: Tensor,
    /// `[B, …]`, where the task has targets beside the labels.
    pub targets: Option<Tensor>,
}

/// Gathers what a task measures over a split, batch by batch. What can be summed is summed on the device: reading it is
/// what waits.
pub trait TaskMeter: fmt::Debug {
    /// Adds the logits of a batch.
    ///
    /// # Errors
    /// If the batch lacks targets.
    fn add(&mut self, logits: &Tensor, truth: Truth<'_>) -> Result<()>;

    /// Reads the values of the task's metrics, in their order: the score, what is shown beside it, the loss.
    ///
    /// # Errors
    /// If the device fails, or one of them is not defined.
    fn read(&self) -> Result<Vec<f64>>;
}

/// A part of the data on which a network is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The test split.
    Test,
    /// The training samples that are held out.
    HeldOut,
}

/// What there is to know of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricInfo {
    /// Its name in files for programs: `mean_average_precision`.
    pub key: &'static str,
    /// Its name beside a number and above a column: "mAP".
    pub short: &'static str,
    /// Its name in a sentence: "mean average precision".
    pub name: &'static str,
    /// What stands behind the number where one network is evaluated; may be empty.
    pub note: &'static str,
    /// How it is defined, for those who read a report; may be empty.
    pub definition: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// Which of two values is better.
    pub better: Better,
}

impl MetricInfo {
    /// Its name in a sentence, with the short one: "top-1 accuracy", "mean average precision (mAP)".
    pub fn full(&self) -> String {
        if self.name.contains(self.short) { self.name.to_owned() } else { format!("{} ({})", self.name, self.short) }
    }

    /// The same with a capital letter: "Mean average precision (mAP)".
    pub fn title(&self) -> String {
        capitalized(&self.full())
    }

    /// Its name in a caption that has little room: "top-1 accuracy", "mAP".
    pub fn label(&self) -> &'static str {
        if self.name.contains(self.short) { self.name } else { self.short }
    }

    /// Its name at an axis: "mAP %".
    pub fn axis(&self) -> String {
        format!("{} {}", self.short, self.unit.symbol).trim_end().to_owned()
    }

    /// A value with its unit: "71.25 %".
    pub fn show(&self, value: f64) -> String {
        format!("{value:.*} {}", self.unit.decimals, self.unit.symbol).trim_end().to_owned()
    }
}

/// The text with a capital letter.
pub fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// The unit of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Behind a number: "%"; may be empty.
    pub symbol: &'static str,
    /// In a sentence, after "in": "percent".
    pub words: &'static str,
    /// That of a difference: "points".
    pub difference: &'static str,
    /// The decimals that are shown.
    pub decimals: usize,
}

impl Unit {
    /// Percent, with two decimals.
    pub const PERCENT: Unit = Unit { symbol: "%", words: "percent", difference: "points", decimals: 2 };
    /// Nats, with four decimals.
    pub const NATS: Unit = Unit { symbol: "nats", words: "nats", difference: "nats", decimals: 4 };
}

/// Which of two values is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// The higher one.
    Higher,
    /// The lower one.
    Lower,
}

impl Better {
    /// Whether `value` is better than `other`; equal ones are not, nor is what is not a number.
    pub fn is_better(self, value: f64, other: f64) -> bool {
        match self {
            Better::Higher => value > other,
            Better::Lower => value < other,
        }
    }

    /// The best value, in a word: "highest", "lowest".
    pub fn best(self) -> &'static str {
        match self {
            Better::Higher => "highest",
            Better::Lower => "lowest",
        }
    }
}

/// How many metrics a task may have: few, so that [`Metrics`] are copied like a number.
const MOST: usize = 8;

/// What a network is worth on a whole split: the values of a task's metrics. In files an object of keys and numbers; the key
/// of the score says of which task they are.
#[derive(Clone, Copy)]
pub struct Metrics {
    task: &'static dyn Task,
    values: [f64; MOST],
}

impl Metrics {
    /// The values of a task's metrics, in their order.
    ///
    /// # Errors
    /// If there are more or fewer than the task has.
    pub fn new(task: &'static dyn Task, values: &[f64]) -> Result<Self> {
        let expected = task.metrics().count();
        let mut all = [0.0; MOST];
        if values.len() != expected || expected > MOST {
            let (name, found) = (task.name(), values.len());
            return Err(Error::run(format!(
                "the task `{name}` has {expected} metrics, and its meter gave {found} values"
            )));
        }
        all[..expected].copy_from_slice(values);
        Ok(Metrics { task, values: all })
    }

    /// The task.
    pub fn task(&self) -> &'static dyn Task {
        self.task
    }

    /// The number by which networks are compared.
    pub fn score(&self) -> f64 {
        self.values[0]
    }

    /// The numbers that are shown beside it.
    pub fn beside(&self) -> impl Iterator<Item = (&'static MetricInfo, f64)> + use<> {
        self.task.beside().iter().zip(self.values.into_iter().skip(1))
    }

    /// The loss.
    pub fn loss(&self) -> f64 {
        self.values[1 + self.task.beside().len()]
    }

    /// Every number with its description, in the order of files.
    pub fn named(&self) -> impl Iterator<Item = (&'static MetricInfo, f64)> + use<> {
        self.task.metrics().zip(self.values)
    }

    /// Whether the score is better than that of `other`; equal ones are not.
    pub fn is_better_than(&self, other: &Metrics) -> bool {
        self.task.score().better.is_better(self.score(), other.score())
    }

    /// The score where it stands alone: "71.25 %" of the usual task, "mAP 71.25 %" of another.
    pub fn show(&self) -> String {
        let score = self.task.score();
        let shown = score.show(self.score());
        if self.task.is_usual() { shown } else { format!("{} {shown}", score.short) }
    }

    /// What is shown of it in a sentence: "71.25 % top-1, 92.00 % top-5".
    pub fn in_words(&self) -> String {
        let all = std::iter::once((self.task.score(), self.score())).chain(self.beside());
        let each: Vec<String> = all.map(|(metric, value)| format!("{} {}", metric.show(value), metric.short)).collect();
        each.join(", ")
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.named().map(|(metric, value)| (metric.key, value))).finish()
    }
}

impl PartialEq for Metrics {
    fn eq(&self, other: &Metrics) -> bool {
        self.task == other.task && self.values == other.values
    }
}

impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.task.metrics().count()))?;
        for (metric, value) in self.named() {
            map.serialize_entry(metric.key, &value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Metrics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = IndexMap::<String, f64>::deserialize(deserializer)?;
        let Some(task) = all().find(|task| found.contains_key(task.score().key)) else {
            let keys: Vec<&str> = found.keys().map(String::as_str).collect();
            return Err(D::Error::custom(format!(
                "the numbers {} are of no task that is linked into this binary: is its crate linked?",
                keys.join(", ")
            )));
        };
        let mut values = Vec::new();
        for metric in task.metrics() {
            values.push(*found.get(metric.key).ok_or_else(|| D::Error::missing_field(metric.key))?);
        }
        Metrics::new(task, &values).map_err(D::Error::custom)
    }
}

/// A student on the test samples of one class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    /// The class.
    pub name: String,
    /// The test samples that have it.
    pub samples: usize,
    /// How many of them the first guess got right, where every sample has one class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub right: Option<usize>,
    /// Else the score under the key of [`Task::class_metric`], where it is defined.
    #[serde(flatten)]
    measured: IndexMap<String, f64>,
}

impl ClassScore {
    /// A class of a task in which every sample has one: `right` of its `samples` were guessed.
    pub fn counted(name: &str, samples: usize, right: usize) -> Self {
        ClassScore { name: name.to_owned(), samples, right: Some(right), measured: IndexMap::new() }
    }

    /// A class with what `metric` says of it, if that is defined.
    pub fn measured(name: &str, samples: usize, metric: &MetricInfo, value: Option<f64>) -> Self {
        let measured = value.map(|value| (metric.key.to_owned(), value)).into_iter().collect();
        ClassScore { name: name.to_owned(), samples, right: None, measured }
    }

    /// How good the student is at this class: the share of its samples that were guessed right, in percent, or what the task
    /// measures. Nothing if no test sample has it.
    pub fn score(&self) -> Option<f64> {
        match self.right {
            Some(_) if self.samples == 0 => None,
            Some(right) => Some(100.0 * right as f64 / self.samples as f64),
            None => self.measured.values().next().copied(),
        }
    }
}
