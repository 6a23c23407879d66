//! Metrics: sums that live on the device and are read once in a while, and what a task measures over a split.

use tch::{Device, Kind, Reduction, Tensor, no_grad_guard};

use crate::contracts::task::{Metrics, Task, TaskMeter, Truth};
use crate::dataset::UNLABELLED;
use crate::error::{Error, Result};

/// The number of rows of `logits` `[B, C]` whose largest entry is the label's, float32.
pub(crate) fn right_guesses(logits: &Tensor, labels: &Tensor) -> Tensor {
    logits.argmax(1, false).eq_tensor(labels).sum(Kind::Float)
}

/// The mean cross-entropy of `logits` `[B, C]` with `labels` `[B]`, in nats and in the logits' own precision.
///
/// The mean is over the samples that have a label; 0 if none has.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Tensor {
    let labelled = labels.ne(UNLABELLED).sum(logits.kind()).clamp_min(1.0);
    logits.cross_entropy_loss::<Tensor>(labels, None, Reduction::Sum, UNLABELLED, 0.0) / labelled
}

/// The expected calibration error of `logits` `[N, C]` for `labels` `[N]`, in percent: see [`CalibrationMeter`].
///
/// # Errors
/// If it is not finite: the logits overflowed.
pub fn calibration_error(logits: &Tensor, labels: &Tensor) -> Result<f64> {
    let mut meter = CalibrationMeter::new(logits.device());
    meter.add(logits, labels);
    meter.read()
}

/// What a task measures over a split, batch by batch.
#[derive(Debug)]
pub struct SplitMeter {
    task: &'static dyn Task,
    meter: Box<dyn TaskMeter>,
}

impl SplitMeter {
    /// Empty.
    pub fn new(task: &'static dyn Task, device: Device) -> Self {
        SplitMeter { task, meter: task.meter(device) }
    }

    /// Adds the logits of a batch.
    ///
    /// # Errors
    /// If the batch lacks the task's targets.
    pub fn add(&mut self, logits: &Tensor, truth: Truth<'_>) -> Result<()> {
        self.meter.add(logits, truth)
    }

    /// Reads the result.
    ///
    /// # Errors
    /// If the device fails, or what is measured is not defined.
    pub fn read(&self) -> Result<Metrics> {
        Metrics::new(self.task, &self.meter.read()?)
    }
}

/// The expected calibration error over a split, batch by batch, summed on the device: how far confidence, the largest
/// probability, is from being right, on average over [`CALIBRATION_BINS`] bins of equal width.
///
/// Source: Guo, Pleiss, Sun, Weinberger. On Calibration of Modern Neural Networks. ICML 2017, equation 3.
#[derive(Debug)]
pub struct CalibrationMeter {
    /// `[2, bins]`, float64: by bin, summed confidence and right guesses.
    sums: Tensor,
    samples: usize,
}

/// How many bins of confidence a [`CalibrationMeter`] has: bin m is (m / 15, (m + 1) / 15].
pub const CALIBRATION_BINS: i64 = 15;

impl CalibrationMeter {
    /// Empty.
    pub fn new(device: Device) -> Self {
        CalibrationMeter { sums: Tensor::zeros([2, CALIBRATION_BINS], (Kind::Double, device)), samples: 0 }
    }

    /// Adds a batch of logits `[B, C]` and labels `[B]`.
    pub fn add(&mut self, logits: &Tensor, labels: &Tensor) {
        let _no_grad = no_grad_guard();
        let (confidence, guess) = logits.to_kind(Kind::Double).softmax(1, None::<Kind>).max_dim(1, false);
        let bin = ((&confidence * CALIBRATION_BINS as f64).ceil() - 1.0).clamp(0.0, CALIBRATION_BINS as f64 - 1.0);
        let bin = bin.nan_to_num(0.0, None, None);
        let right = guess.eq_tensor(labels).to_kind(Kind::Double);
        let both = Tensor::stack(&[confidence, right], 0);
        self.sums = self.sums.index_add(1, &bin.to_kind(Kind::Int64), &both);
        self.samples += labels.size()[0] as usize;
    }

    /// Reads the result from the device, in percent: Σ |right − confidence| over the bins, by the number of samples.
    ///
    /// # Errors
    /// If it is not finite: the logits overflowed.
    pub fn read(&self) -> Result<f64> {
        let gaps = (self.sums.get(1) - self.sums.get(0)).abs().sum(Kind::Double);
        let error = 100.0 * gaps.double_value(&[]) / self.samples.max(1) as f64;
        if error.is_finite() { Ok(error) } else { Err(Error::run("the calibration error is not finite")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cross_entropy_is_the_mean_over_what_has_a_label() {
        fn loss(logits: &Tensor, labels: [i64; 3]) -> f64 {
            cross_entropy(logits, &Tensor::from_slice(&labels)).double_value(&[])
        }

        fn one(row: [f64; 3], label: usize) -> f64 {
            row.iter().map(|v| v.exp()).sum::<f64>().ln() - row[label]
        }

        let logits = Tensor::from_slice2(&[[2.0_f64, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 1.0, 1.0]]);
        let rows = [one([2.0, 1.0, 0.0], 0), one([0.0, 3.0, 1.0], 2), one([1.0, 1.0, 1.0], 1)];
        approx::assert_relative_eq!(loss(&logits, [0, 2, 1]), rows.iter().sum::<f64>() / 3.0, max_relative = 1e-14);
        approx::assert_relative_eq!(loss(&logits, [0, UNLABELLED, 1]), (rows[0] + rows[2]) / 2.0, max_relative = 1e-14);
        assert_eq!(loss(&logits, [UNLABELLED; 3]), 0.0);
    }

    #[test]
    fn calibration_compares_confidence_with_being_right_in_fifteen_bins() {
        // Logits of two classes with the given probability of class 0.
        fn of(p: f64) -> [f64; 2] {
            [p.ln(), (1.0 - p).ln()]
        }

        let mut meter = CalibrationMeter::new(Device::Cpu);
        // Two in the bin (0.8, 0.8667], one of them right; in two batches.
        meter.add(&Tensor::from_slice2(&[of(0.85), of(0.65)]), &Tensor::from_slice(&[0_i64, 0]));
        meter.add(&Tensor::from_slice2(&[of(0.83), of(0.05)]), &Tensor::from_slice(&[1_i64, 1]));
        let by_hand = [(1.0_f64 - 0.85 - 0.83).abs(), 1.0 - 0.65, 1.0 - 0.95].iter().sum::<f64>() / 4.0;
        approx::assert_relative_eq!(meter.read().unwrap(), 100.0 * by_hand, max_relative = 1e-12);
        assert_eq!(CalibrationMeter::new(Device::Cpu).read().unwrap(), 0.0);
        // Sure and right: no error. Sure and wrong: all of it. Not a number: none.
        let sure = Tensor::from_slice2(&[[1000.0_f32, 0.0]]);
        for (label, expected) in [(0_i64, 0.0), (1, 100.0)] {
            assert_eq!(calibration_error(&sure, &Tensor::from_slice(&[label])).unwrap(), expected);
        }
        let broken = calibration_error(&(sure * f64::NAN), &Tensor::from_slice(&[0_i64])).unwrap_err();
        assert_eq!(broken.to_string(), "the calibration error is not finite");
    }
}
