//! Data sets: rows, views and labels, delivered by the batch on the training device.

use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::Serialize;
use tch::{Device, Tensor};

use crate::contracts::task::{Task, Truth};
use crate::error::{Error, Result};
use crate::seed::Seed;

/// The recipe of a data set, as the experiment file has it. Register it with [`plugin!`](crate::plugin).
#[typetag::serde(tag = "kind")]
pub trait DatasetConfig: fmt::Debug + Send + Sync {
    /// Reads the data and puts it where training will want it.
    ///
    /// # Errors
    /// If a file is missing or not what it should be: the message names file, offset and expectation.
    fn build(&self, device: Device) -> Result<Box<dyn Dataset>>;

    /// [`build`](Self::build) that reads every file, whatever is known of it from earlier: a disk that loses bits changes
    /// neither sizes nor times. For `limbeck data verify`; a data set that keeps nothing between calls has no need of it.
    ///
    /// # Errors
    /// As for [`build`](Self::build).
    fn build_afresh(&self, device: Device) -> Result<Box<dyn Dataset>> {
        self.build(device)
    }
}

/// A data set: live, usually resident on the device.
pub trait Dataset: fmt::Debug + Send {
    /// Sizes, labels, class names and views.
    fn info(&self) -> &DatasetInfo;

    /// The rows' `views`, ready for a network, with their labels.
    ///
    /// `draw` is the randomness of this epoch; an image's augmentation is a function of it and of the image's row alone.
    /// Without `draw` nothing is augmented: evaluation.
    ///
    /// # Errors
    /// If a view does not exist or a row cannot be read.
    fn batch(&self, split: Split, rows: &Rows, views: &Views, draw: Option<Seed>) -> Result<Batch>;

    /// A hint that this batch will be asked for next. It changes nothing but time: a data set that reads from a disk
    /// begins with it meanwhile. What is wrong is said when the batch is asked for.
    fn prefetch(&self, _split: Split, _rows: &[i64], _views: &Views, _draw: Option<Seed>) {}
}

/// The two parts that a data set comes in. Validation rows are training rows that are not trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// The training part.
    Train,
    /// The test part.
    Test,
}

/// The label of a training sample that has none: no class, left out of the cross-entropy and never held out.
pub const UNLABELLED: i64 = -100;

/// One view of every sample: an image, its luminance, its depth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ViewInfo {
    /// Its name.
    pub name: String,
    /// `[C, H, W]`
    pub shape: [i64; 3],
}

/// What a data set says of itself.
#[derive(Clone, Debug, Default)]
pub struct DatasetInfo {
    /// A name for reports.
    pub name: String,
    /// Everything that determines the batches, and nothing else: a digest of the content and the settings that matter, but
    /// not where the files lie. Runs are identified by it.
    pub identity: String,
    /// The classes, in the order of the labels.
    pub class_names: Vec<String>,
    /// The task that the targets are for: what is learned from them, and what is measured. The default is
    /// [`Classification`](crate::task::Classification), of one class a sample, its label; a task that learns from more has it
    /// as the `targets` of every [`Batch`].
    pub task: &'static dyn Task,
    /// The label of every row of the training part, or [`UNLABELLED`], on the host: samplers need it there. Where it does not
    /// say it all, the class that stands for the sample when rows are held out or told apart by class.
    pub train_labels: Arc<[i64]>,
    /// The label of every row of the test part.
    pub test_labels: Arc<[i64]>,
    /// Its views; the first is what a network sees that names none.
    pub views: Vec<ViewInfo>,
    /// What somebody who reads the plan should know, a line each: samples that were left out, for example.
    pub notes: Vec<String>,
}

impl DatasetInfo {
    /// The number of classes.
    pub fn classes(&self) -> i64 {
        self.class_names.len() as i64
    }

    /// The labels of a part.
    pub fn labels(&self, split: Split) -> &Arc<[i64]> {
        match split {
            Split::Train => &self.train_labels,
            Split::Test => &self.test_labels,
        }
    }

    /// The view of that name, or the first.
    ///
    /// # Errors
    /// If there is no such view; the message lists those that exist.
    pub fn view(&self, name: Option<&str>) -> Result<&ViewInfo> {
        let found = match name {
            None => self.views.first(),
            Some(name) => self.views.iter().find(|view| view.name == name),
        };
        found.ok_or_else(|| {
            let names: Vec<&str> = self.views.iter().map(|view| view.name.as_str()).collect();
            let name = name.unwrap_or_default();
            Error::plan(format!("data set {} has no view `{name}`; it has {}", self.name, names.join(", ")))
        })
    }
}

/// Sample numbers, on the host and on the device: neither side has to wait for the other.
#[derive(Debug)]
pub struct Rows {
    host: Vec<i64>,
    device: Tensor,
}

impl Rows {
    /// Rows given on the host.
    pub fn new(host: Vec<i64>, device: Device) -> Self {
        let tensor = Tensor::from_slice(&host).to_device(device);
        Rows { host, device: tensor }
    }

    /// Rows given on both sides, e.g. a slice of an epoch's order. They must agree.
    pub(crate) fn from_parts(host: Vec<i64>, device: Tensor) -> Self {
        debug_assert_eq!(device.size(), [host.len() as i64]);
        Rows { host, device }
    }

    /// On the host.
    pub fn host(&self) -> &[i64] {
        &self.host
    }

    /// On the device: `[B]`, int64.
    pub fn device(&self) -> &Tensor {
        &self.device
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.host.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.host.is_empty()
    }
}

/// The names of the views that a step needs, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Views(Vec<String>);

impl Views {
    /// The names, in the order in which they were first asked for.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl<S: Into<String>> FromIterator<S> for Views {
    fn from_iter<I: IntoIterator<Item = S>>(iter: I) -> Self {
        let mut names: Vec<String> = Vec::new();
        for name in iter.into_iter().map(Into::into) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Views(names)
    }
}

/// A batch: the same rows in every view.
#[derive(Debug)]
pub struct Batch {
    /// View name → `[B, C, H, W]`, float32, normalised, in channels_last memory order.
    pub views: IndexMap<String, Tensor>,
    /// `[B]`, int64.
    pub labels: Tensor,
    /// `[B, …]`: what the task learns from, where the label does not say it all; [`Task::check`] says what it must be. Of
    /// [`Presence`](crate::task::Presence) `[B, C]`, float32: 1 for each class that a sample has and 0 for the others.
    pub targets: Option<Tensor>,
}

impl Batch {
    /// A view of this batch.
    ///
    /// # Errors
    /// If it was not asked for.
    pub fn view(&self, name: &str) -> Result<&Tensor> {
        self.views.get(name).ok_or_else(|| Error::run(format!("view `{name}` is not in the batch")))
    }

    /// What is right about its samples.
    pub fn truth(&self) -> Truth<'_> {
        Truth::new(&self.labels, self.targets.as_ref())
    }
}
