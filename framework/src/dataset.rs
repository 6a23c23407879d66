//! Data sets: rows, views and labels, delivered by the batch on the training device.

use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::Serialize;
use tch::{Device, Tensor};

use crate::error::{Error, Result};
use crate::experiment::Division;
use crate::record::Measure;
use crate::seed::Seed;

/// The recipe of a data set, as the experiment file has it. Register it with [`plugin!`](crate::plugin).
#[typetag::serde(tag = "kind")]
pub trait DatasetConfig: fmt::Debug + Send + Sync {
    /// Reads the data and puts it where training will want it.
    ///
    /// # Errors
    /// If a file is missing or not what it should be: the message names file, offset and expectation.
    fn build(&self, device: Device) -> Result<Box<dyn Dataset>>;
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
    /// What the targets are, and so what is measured: one class a sample, its label; or, measured by
    /// [`Measure::MeanAveragePrecision`], a set of classes, which every [`Batch`] has as its `targets`.
    pub measure: Measure,
    /// The label of every row of the training part, or [`UNLABELLED`], on the host: samplers need it there. Where targets are
    /// sets of classes, the one that stands for the sample when rows are held out or told apart by class.
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
    /// `[B, C]`, float32: 1 for each class that a sample has and 0 for the others; absent where it has one, its label.
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
}

/// Divides the rows of the training part, the same for every seed of an experiment.
///
/// Both parts are stratified: every class has its share, to within one sample. They are taken from the two ends of one
/// order of the rows, so that a smaller part is a subset of a larger one, and neither changes with the other. Rows without
/// label are never held out; among those that are trained on they have their share as if they were a class.
///
/// Returns (training rows, validation rows), both ascending.
///
/// # Errors
/// If nothing is left to train on, or fewer samples than are asked for.
pub(crate) fn divide(labels: &[i64], classes: i64, division: Division) -> Result<(Vec<i64>, Vec<i64>)> {
    let Division { validation: held_out, train_samples } = division;
    let labelled = labels.iter().filter(|label| **label != UNLABELLED).count();
    if held_out > 0 && held_out >= labelled {
        return Err(Error::plan(format!(
            "validation: {held_out} samples leave nothing to train on: the training part has {labelled} with a label"
        )));
    }
    let left = labels.len() - held_out;
    if let Some(wanted) = train_samples.filter(|wanted| !(1..=left).contains(wanted)) {
        return Err(Error::plan(format!(
            "train_samples: it must be at least 1 and at most {left}, the training samples that are not held out, not {wanted}"
        )));
    }
    let order = stratified(labels, classes);
    let is_labelled = |row: &i64| labels[*row as usize] != UNLABELLED;
    let mut validation: Vec<i64> = order.iter().copied().filter(is_labelled).take(held_out).collect();
    validation.sort_unstable();
    let is_left = |row: &i64| validation.binary_search(row).is_err();
    let mut train: Vec<i64> = order.into_iter().rev().filter(is_left).take(train_samples.unwrap_or(left)).collect();
    train.sort_unstable();
    Ok((train, validation))
}

/// All rows in an order of which every beginning and every end has each class's share of them, to within one sample: those
/// of a class, shuffled, lie evenly spread. Rows without label are one class more.
fn stratified(labels: &[i64], classes: i64) -> Vec<i64> {
    let mut by_class: Vec<Vec<i64>> = vec![Vec::new(); classes as usize + 1];
    for (row, label) in labels.iter().enumerate() {
        let class = if *label == UNLABELLED { classes } else { *label };
        by_class[class as usize].push(row as i64);
    }
    let mut placed = Vec::with_capacity(labels.len());
    for (class, rows) in by_class.iter_mut().enumerate() {
        Seed::new(0).stream("validation").at(class as u64).rng().shuffle(rows);
        placed.extend(rows.iter().enumerate().map(|(rank, row)| (2 * rank + 1, rows.len(), *row)));
    }
    // The middle of the `rank`-th of a class's equal parts is at (2 rank + 1) / (2 size); the sort is stable.
    placed.sort_by(|(a, of_a, _), (b, of_b, _)| (a * of_b).cmp(&(b * of_a)));
    placed.into_iter().map(|(_, _, row)| row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold_out(validation: usize) -> Division {
        Division { validation, train_samples: None }
    }

    #[test]
    fn fewer_samples_are_stratified_and_nested_and_apart_from_validation() {
        // Four classes of 400, 300, 200 and 100 samples.
        let labels: Vec<i64> = (0..1000).map(|i| [0, 0, 0, 0, 1, 1, 1, 2, 2, 3][i % 10]).collect();
        let parts =
            |validation, wanted| divide(&labels, 4, Division { validation, train_samples: Some(wanted) }).unwrap();
        let (mut smaller, validation) = (Vec::new(), parts(150, 1).1);
        for wanted in 1..=850 {
            let (train, held_out) = parts(150, wanted);
            assert_eq!((train.len(), &held_out), (wanted, &validation));
            assert!(train.is_sorted() && train.iter().all(|row| validation.binary_search(row).is_err()));
            assert!(smaller.iter().all(|row| train.binary_search(row).is_ok()), "{wanted} samples hold not all fewer");
            for class in 0..4 {
                let found = train.iter().filter(|row| labels[**row as usize] == class).count();
                let share = wanted as f64 * (0.4 - 0.1 * class as f64);
                assert!((found as f64 - share).abs() <= 1.0, "{found} of class {class} among {wanted}");
            }
            smaller = train;
        }
        assert_eq!(parts(0, 500).0, parts(150, 500).0, "what is held out changes nothing, while it is not needed");
        assert_eq!(parts(150, 850), divide(&labels, 4, hold_out(150)).unwrap());
        for wanted in [0, 851] {
            let message = divide(&labels, 4, Division { validation: 150, train_samples: Some(wanted) });
            assert_eq!(
                message.unwrap_err().to_string(),
                format!(
                    "train_samples: it must be at least 1 and at most 850, the training samples that are not held out, not \
                     {wanted}"
                )
            );
        }
    }

    #[test]
    fn rows_without_label_have_their_share_of_fewer_samples() {
        let labels: Vec<i64> = (0..100).map(|i| if i % 4 == 0 { i % 3 } else { UNLABELLED }).collect();
        let (train, _) = divide(&labels, 3, Division { validation: 5, train_samples: Some(40) }).unwrap();
        let labelled = train.iter().filter(|row| labels[**row as usize] != UNLABELLED).count();
        assert_eq!((train.len(), labelled), (40, 10));
    }

    #[test]
    fn validation_is_stratified_and_disjoint() {
        let labels: Vec<i64> = (0..1000).map(|i| i % 7).collect();
        let (train, validation) = divide(&labels, 7, hold_out(100)).unwrap();
        assert_eq!((train.len(), validation.len()), (900, 100));
        assert!(train.iter().all(|row| !validation.contains(row)));
        for class in 0..7 {
            let count = validation.iter().filter(|row| labels[**row as usize] == class).count();
            assert!((14..=15).contains(&count), "class {class} has {count}");
        }
        let message = divide(&labels, 7, hold_out(1000)).unwrap_err().to_string();
        assert_eq!(
            message,
            "validation: 1000 samples leave nothing to train on: the training part has 1000 with a label"
        );
    }

    #[test]
    fn rows_without_label_are_never_held_out() {
        let labels: Vec<i64> = (0..100).map(|i| if i % 2 == 0 { UNLABELLED } else { i % 3 }).collect();
        let (train, validation) = divide(&labels, 3, hold_out(20)).unwrap();
        assert_eq!((train.len(), validation.len()), (80, 20));
        assert!(validation.iter().all(|row| row % 2 == 1));
        let message = divide(&labels, 3, hold_out(50)).unwrap_err().to_string();
        assert_eq!(message, "validation: 50 samples leave nothing to train on: the training part has 50 with a label");
        assert_eq!(divide(&[UNLABELLED; 4], 3, hold_out(0)).unwrap(), (vec![0, 1, 2, 3], vec![]));
    }
}
