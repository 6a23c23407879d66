//! Evaluation: test and validation accuracy of several lanes over the same batches.

use tch::{Device, Tensor, no_grad_guard};

use super::catch::catch;
use super::data::Data;
use super::stop::Stop;
use crate::contracts::task::Metrics;
use crate::dataset::{Batch, Rows, Split, Views};
use crate::error::{Error, Result};
use crate::metric::SplitMeter;

/// The samples of an evaluation batch. It changes speed and memory, and the last bits of nothing that is trained.
const BATCH: usize = 250;

/// What an epoch's evaluation found; nothing where the epoch is not evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// On the samples held out, if there are any.
    pub validation: Option<Metrics>,
    /// On the test split.
    pub test: Option<Metrics>,
}

/// The batches of an evaluation: the given rows of a split in order, without augmentation; once a stop was asked for,
/// [`Error::Stopped`] in place of the next.
pub(crate) fn batches<'a>(
    data: &'a Data,
    split: Split,
    rows: &'a [i64],
    views: &'a Views,
    device: Device,
    stop: &'a Stop,
) -> impl Iterator<Item = Result<Batch>> + 'a {
    let mut chunks = rows.chunks(BATCH).peekable();
    std::iter::from_fn(move || {
        let chunk = chunks.next()?;
        if stop.is_requested() {
            return Some(Err(Error::Stopped));
        }
        data.dataset.prefetch(split, chunks.peek().copied().unwrap_or_default(), views, None);
        Some(data.dataset.batch(split, &Rows::new(chunk.to_vec(), device), views, None))
    })
}

/// A network in evaluation mode: a batch's logits `[B, classes]`.
pub type Classifier<'a> = &'a dyn Fn(&Batch) -> Result<Tensor>;

/// What each network is worth, by the data's [task](crate::task::Task), on the given rows of a split, without
/// augmentation. A network that fails or panics fails alone.
///
/// # Errors
/// If a batch cannot be read, or [`Error::Stopped`].
pub fn accuracy(
    data: &Data,
    split: Split,
    rows: &[i64],
    views: &Views,
    networks: &[Classifier<'_>],
    device: Device,
    stop: &Stop,
) -> Result<Vec<Result<Metrics>>> {
    let _no_grad = no_grad_guard();
    let task = data.dataset.info().task;
    let mut meters: Vec<Result<SplitMeter>> = networks.iter().map(|_| Ok(SplitMeter::new(task, device))).collect();
    for batch in batches(data, split, rows, views, device, stop) {
        let batch = batch?;
        for (network, state) in networks.iter().zip(&mut meters) {
            if let Ok(meter) = state
                && let Err(error) = catch(|| meter.add(&network(&batch)?, batch.truth()))
            {
                *state = Err(error);
            }
        }
    }
    Ok(meters.into_iter().map(|meter| meter?.read()).collect())
}

/// Test accuracy, and validation accuracy where samples are held out, of each network.
///
/// # Errors
/// As for [`accuracy`].
pub fn evaluate(
    data: &Data,
    views: &Views,
    networks: &[Classifier<'_>],
    device: Device,
    stop: &Stop,
) -> Result<Vec<Result<Evaluation>>> {
    let all: Vec<i64> = (0..data.dataset.info().test_labels.len() as i64).collect();
    let test = accuracy(data, Split::Test, &all, views, networks, device, stop)?;
    if data.validation_rows.is_empty() {
        return Ok(test.into_iter().map(|test| Ok(Evaluation { validation: None, test: Some(test?) })).collect());
    }
    let validation = accuracy(data, Split::Train, &data.validation_rows, views, networks, device, stop)?;
    let both = test.into_iter().zip(validation);
    Ok(both.map(|(test, validation)| Ok(Evaluation { validation: Some(validation?), test: Some(test?) })).collect())
}
