//! A data set with its division into training and validation.

use std::sync::Arc;

use crate::dataset::{Dataset, Split, UNLABELLED};
use crate::division::{Division, divide};
use crate::error::{Error, Result};
use crate::model::ModelSpec;
use crate::record::SampleCounts;

/// A data set with its division into training and validation.
#[derive(Debug)]
pub struct Data {
    /// The data set.
    pub dataset: Box<dyn Dataset>,
    /// The rows that are trained on; a sample's position is its place in this list.
    pub train_rows: Vec<i64>,
    /// The training rows that are held out.
    pub validation_rows: Vec<i64>,
    /// The labels of the training samples, by position.
    pub labels: Arc<[i64]>,
    /// A digest of the rows that are trained on, where they are not all: BLAKE3 in hexadecimal.
    pub part: Option<String>,
}

impl Data {
    /// How many samples are trained on, held out and tested on.
    pub fn sample_counts(&self) -> SampleCounts {
        SampleCounts {
            train: self.train_rows.len(),
            validation: self.validation_rows.len(),
            test: self.dataset.info().test_labels.len(),
        }
    }

    /// Divides the training part, the same share of every class for each part, the same for every seed of an experiment;
    /// samples without label are never held out.
    ///
    /// # Errors
    /// If nothing is left to train on or less than is asked for, or samples lack the targets that the task needs.
    pub fn new(dataset: Box<dyn Dataset>, division: Division) -> Result<Self> {
        let info = dataset.info();
        let all = &info.train_labels;
        if !info.task.takes_unlabelled() && all.contains(&UNLABELLED) {
            return Err(Error::plan(format!(
                "data set {} has training samples without a target, and its targets are {}: leave them out",
                info.name,
                info.task.targets()
            )));
        }
        let (train_rows, validation_rows) = divide(all, info.classes(), division)?;
        let labels = train_rows.iter().map(|row| all[*row as usize]).collect();
        let mut part = None;
        if train_rows.len() < all.len() {
            let bytes: Vec<u8> = train_rows.iter().flat_map(|row: &i64| row.to_le_bytes()).collect();
            part = Some(blake3::hash(&bytes).to_hex().to_string());
        }
        Ok(Data { dataset, train_rows, validation_rows, labels, part })
    }

    /// What a network is built for that sees `view`.
    ///
    /// # Errors
    /// If there is no such view.
    pub fn spec(&self, view: Option<&str>) -> Result<ModelSpec> {
        let info = self.dataset.info();
        Ok(ModelSpec { input: info.view(view)?.shape, classes: info.classes() })
    }

    /// The rows of a part that have a target, of the training part without what is held out.
    ///
    /// # Errors
    /// If there is none.
    pub fn labelled(&self, split: Split) -> Result<Vec<i64>> {
        let labels = self.dataset.info().labels(split);
        let (all, part): (Vec<i64>, _) = match split {
            Split::Train => (self.train_rows.clone(), "training"),
            Split::Test => ((0..labels.len() as i64).collect(), "test"),
        };
        let rows: Vec<i64> = all.into_iter().filter(|row| labels[*row as usize] != UNLABELLED).collect();
        if rows.is_empty() {
            return Err(Error::plan(format!("the {part} part has no sample with a label: a probe needs them")));
        }
        Ok(rows)
    }

    /// Steps of one epoch; the last batch may be smaller.
    pub fn steps_per_epoch(&self, batch: usize) -> u64 {
        self.train_rows.len().div_ceil(batch) as u64
    }
}
