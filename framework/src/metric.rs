//! Metrics: sums that live on the device and are read once in a while, and whole-split accuracy.

use indexmap::IndexMap;
use tch::{Device, Kind, Reduction, Tensor, no_grad_guard};

use crate::dataset::{Batch, UNLABELLED};
use crate::error::{Error, Result};
use crate::measure::{Accuracy, Measure};

/// Means over an epoch's samples, summed on the device so that no step waits for it.
#[derive(Debug)]
pub(crate) struct Meter {
    names: Vec<String>,
    /// `[names + 2]`, float64: the sums weighted by samples, then right guesses, then samples.
    sums: Tensor,
}

impl Meter {
    /// Empty: the names come with the first step.
    pub fn new(device: Device) -> Self {
        Meter { names: Vec::new(), sums: Tensor::zeros([2], (Kind::Double, device)) }
    }

    /// A meter as it was saved: `sums` is `[names + 2]`, float64.
    pub fn restore(names: Vec<String>, sums: &Tensor, device: Device) -> Self {
        Meter { names, sums: sums.to_device(device) }
    }

    /// The names and the sums `[names + 2]`: what is saved.
    pub fn state(&self) -> (&[String], &Tensor) {
        (&self.names, &self.sums)
    }

    /// Adds a step: scalars `[]` that are means over the batch, and the number of right guesses, `[]`.
    ///
    /// # Errors
    /// If the names differ from those of the epoch's first step.
    pub fn add(&mut self, named: &[(String, Tensor)], right: &Tensor, samples: i64) -> Result<()> {
        let _no_grad = no_grad_guard();
        if self.names.is_empty() {
            self.names = named.iter().map(|(name, _)| name.clone()).collect();
            self.sums = Tensor::zeros([named.len() as i64 + 2], (Kind::Double, self.sums.device()));
        }
        if self.names.len() != named.len() || self.names.iter().zip(named).any(|(expected, (name, _))| expected != name)
        {
            let names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
            return Err(Error::run(format!(
                "the terms changed within an epoch: {} became {}",
                self.names.join(", "),
                names.join(", ")
            )));
        }
        let options = (Kind::Double, self.sums.device());
        let mut values: Vec<Tensor> =
            named.iter().map(|(_, value)| value.detach().to_kind(Kind::Double).reshape([]) * samples as f64).collect();
        values.push(right.to_kind(Kind::Double).reshape([]));
        values.push(Tensor::full([] as [i64; 0], samples as f64, options));
        self.sums = &self.sums + Tensor::stack(&values, 0);
        Ok(())
    }

    /// Reads the means from the device: every name, and top-1 in percent.
    ///
    /// # Errors
    /// If the device fails.
    pub fn read(&self) -> Result<(IndexMap<String, f64>, f64)> {
        let sums: Vec<f64> = Vec::try_from(&self.sums)?;
        let [means @ .., right, samples] = sums.as_slice() else { return Ok(Default::default()) };
        let samples = samples.max(1.0);
        let means = self.names.iter().cloned().zip(means.iter().map(|sum| sum / samples)).collect();
        Ok((means, 100.0 * right / samples))
    }

    /// Starts the next epoch.
    pub fn clear(&mut self) {
        *self = Meter::new(self.sums.device());
    }
}

/// The number of rows of `logits` `[B, C]` whose largest entry is the label's.
pub(crate) fn right_guesses(logits: &Tensor, labels: &Tensor) -> Tensor {
    logits.argmax(1, false).eq_tensor(labels).sum(Kind::Int64)
}

/// The mean cross-entropy of `logits` `[B, C]` with `labels` `[B]`, in nats and in the logits' own precision.
///
/// The mean is over the samples that have a label; 0 if none has.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Tensor {
    let labelled = labels.ne(UNLABELLED).sum(logits.kind()).clamp_min(1.0);
    logits.cross_entropy_loss::<Tensor>(labels, None, Reduction::Sum, UNLABELLED, 0.0) / labelled
}

/// The mean binary cross-entropy of `logits` `[B, C]` with `targets` `[B, C]` of 0 and 1, in nats: over samples and classes
/// alike, −t·ln σ(z) − (1 − t)·ln(1 − σ(z)), as PyTorch's `BCEWithLogitsLoss` defines it.
pub fn binary_cross_entropy(logits: &Tensor, targets: &Tensor) -> Tensor {
    let targets = targets.to_kind(logits.kind());
    logits.binary_cross_entropy_with_logits::<Tensor>(&targets, None, None, Reduction::Mean)
}

/// The loss of `logits` `[B, C]` by the targets of a batch, under the name of [`Measure::loss`].
pub fn loss_by_targets(logits: &Tensor, batch: &Batch) -> (&'static str, Tensor) {
    match &batch.targets {
        None => (Measure::Top1.loss(), cross_entropy(logits, &batch.labels)),
        Some(targets) => (Measure::MeanAveragePrecision.loss(), binary_cross_entropy(logits, targets)),
    }
}

/// The average precision of `scores` for the samples that are `present`, in [0, 1], not interpolated: the mean over them of
/// the precision among all samples with at least their score. Samples of equal score are ranked together, so that their
/// order does not matter. Nothing if none is present.
///
/// Source: Zhu. Recall, Precision and Average Precision. University of Waterloo, 2004, in the form Σ (Rₙ − Rₙ₋₁) Pₙ over
/// thresholds, which scikit-learn's `average_precision_score` has too.
pub fn average_precision(scores: &[f64], present: &[bool]) -> Option<f64> {
    let mut ranked: Vec<(f64, bool)> = scores.iter().copied().zip(present.iter().copied()).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut sum, mut found, mut seen) = (0.0, 0_usize, 0_usize);
    for tied in ranked.chunk_by(|a, b| a.0 == b.0) {
        let here = tied.iter().filter(|(_, present)| *present).count();
        seen += tied.len();
        found += here;
        sum += here as f64 * found as f64 / seen as f64;
    }
    (found > 0).then(|| sum / found as f64)
}

/// The [average precision](average_precision) of every class, by `scores` `[N, C]` and `targets` `[N, C]` of 0 and 1.
///
/// # Errors
/// If a score is not a number.
pub fn average_precisions(scores: &Tensor, targets: &Tensor) -> Result<Vec<Option<f64>>> {
    if scores.isnan().any().int64_value(&[]) != 0 {
        return Err(Error::run("the average precision is not defined: a logit is not a number"));
    }
    let by_class = |tensor: &Tensor| tensor.to_device(Device::Cpu).to_kind(Kind::Double).tr().contiguous();
    let (scores, targets) = (by_class(scores), by_class(&targets.gt(0.5)));
    let class = |class: i64| {
        let scores: Vec<f64> = Vec::try_from(scores.get(class))?;
        let present: Vec<f64> = Vec::try_from(targets.get(class))?;
        let present: Vec<bool> = present.into_iter().map(|value| value > 0.5).collect();
        Ok(average_precision(&scores, &present))
    };
    (0..scores.size()[0]).map(class).collect()
}

/// The mean of the [average precision](average_precision) over the classes that occur, in percent: the macro mean, in which
/// a rare class counts as much as a frequent one. Classes that no sample has are left out.
///
/// # Errors
/// If a score is not a number, or no class occurs.
pub fn mean_average_precision(scores: &Tensor, targets: &Tensor) -> Result<f64> {
    let each: Vec<f64> = average_precisions(scores, targets)?.into_iter().flatten().collect();
    if each.is_empty() {
        return Err(Error::run("the mean average precision is not defined: no class occurs among these samples"));
    }
    Ok(100.0 * each.iter().sum::<f64>() / each.len() as f64)
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

/// Accuracy over a split, batch by batch, summed on the device.
#[derive(Debug)]
pub struct AccuracyMeter {
    /// `[3]`, float64: right at first, right among five, summed cross-entropy.
    sums: Tensor,
    samples: usize,
}

impl AccuracyMeter {
    /// Empty.
    pub fn new(device: Device) -> Self {
        AccuracyMeter { sums: Tensor::zeros([3], (Kind::Double, device)), samples: 0 }
    }

    /// Adds a batch of logits `[B, C]` and labels `[B]`.
    pub fn add(&mut self, logits: &Tensor, labels: &Tensor) {
        let _no_grad = no_grad_guard();
        let five = logits.size()[1].min(5);
        let (_, guesses) = logits.topk(five, 1, true, true);
        let hits = guesses.eq_tensor(&labels.unsqueeze(1));
        let loss =
            logits.to_kind(Kind::Float).cross_entropy_loss::<Tensor>(labels, None, Reduction::Sum, UNLABELLED, 0.0);
        self.sums = &self.sums
            + Tensor::stack(
                &[hits.narrow(1, 0, 1).sum(Kind::Double), hits.sum(Kind::Double), loss.to_kind(Kind::Double)],
                0,
            );
        self.samples += labels.size()[0] as usize;
    }

    /// Reads the result from the device.
    ///
    /// # Errors
    /// If the device fails.
    pub fn read(&self) -> Result<Accuracy> {
        let sums: Vec<f64> = Vec::try_from(&self.sums)?;
        let share = |sum: f64| 100.0 * sum / self.samples.max(1) as f64;
        Ok(Accuracy::SingleLabel {
            top1: share(sums[0]),
            top5: share(sums[1]),
            loss: sums[2] / self.samples.max(1) as f64,
        })
    }
}

/// Mean average precision over a split, batch by batch. It depends on the order of all samples: logits and targets are kept,
/// on the host, until it is read.
#[derive(Debug, Default)]
pub struct PrecisionMeter {
    logits: Vec<Tensor>,
    targets: Vec<Tensor>,
}

impl PrecisionMeter {
    /// Adds a batch of logits and targets, `[B, C]` each.
    pub fn add(&mut self, logits: &Tensor, targets: &Tensor) {
        let _no_grad = no_grad_guard();
        self.logits.push(logits.to_device(Device::Cpu));
        self.targets.push(targets.to_device(Device::Cpu));
    }

    /// Computes the result.
    ///
    /// # Errors
    /// As for [`mean_average_precision`].
    pub fn read(&self) -> Result<Accuracy> {
        if self.logits.is_empty() {
            return Err(Error::run("the mean average precision is not defined: there is no sample"));
        }
        let (logits, targets) = (Tensor::cat(&self.logits, 0), Tensor::cat(&self.targets, 0));
        let loss = binary_cross_entropy(&logits.to_kind(Kind::Double), &targets).double_value(&[]);
        let mean_average_precision = mean_average_precision(&logits, &targets)?;
        Ok(Accuracy::MultiLabel { mean_average_precision, binary_cross_entropy: loss })
    }
}

/// What is measured over a split, whatever the targets are.
#[derive(Debug)]
pub enum SplitMeter {
    /// One class a sample.
    SingleLabel(AccuracyMeter),
    /// A set of classes a sample.
    MultiLabel(PrecisionMeter),
}

impl SplitMeter {
    /// Empty.
    pub fn new(measure: Measure, device: Device) -> Self {
        match measure {
            Measure::Top1 => SplitMeter::SingleLabel(AccuracyMeter::new(device)),
            Measure::MeanAveragePrecision => SplitMeter::MultiLabel(PrecisionMeter::default()),
        }
    }

    /// Adds the logits `[B, C]` of a batch.
    ///
    /// # Errors
    /// If targets are sets of classes and the batch has none.
    pub fn add(&mut self, logits: &Tensor, batch: &Batch) -> Result<()> {
        match (self, &batch.targets) {
            (SplitMeter::SingleLabel(meter), _) => meter.add(logits, &batch.labels),
            (SplitMeter::MultiLabel(meter), Some(targets)) => meter.add(logits, targets),
            (SplitMeter::MultiLabel(_), None) => return Err(Error::run("the batch has no `targets`")),
        }
        Ok(())
    }

    /// Reads the result.
    ///
    /// # Errors
    /// If the device fails, or what is measured is not defined.
    pub fn read(&self) -> Result<Accuracy> {
        match self {
            SplitMeter::SingleLabel(meter) => meter.read(),
            SplitMeter::MultiLabel(meter) => meter.read(),
        }
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
    fn a_meter_weighs_batches_by_their_samples() {
        let mut meter = Meter::new(Device::Cpu);
        let scalar = |v: f32| Tensor::from(v);
        meter.add(&[("loss".into(), scalar(1.0))], &Tensor::from(3_i64), 4).unwrap();
        meter.add(&[("loss".into(), scalar(4.0))], &Tensor::from(0_i64), 2).unwrap();
        let (means, top1) = meter.read().unwrap();
        assert_eq!((means["loss"], top1), (2.0, 50.0));
        let error = meter.add(&[("other".into(), scalar(0.0))], &Tensor::from(0_i64), 1).unwrap_err();
        assert_eq!(error.to_string(), "the terms changed within an epoch: loss became other");
    }

    #[test]
    fn the_cross_entropy_is_the_mean_over_what_has_a_label() {
        let logits = Tensor::from_slice2(&[[2.0_f64, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 1.0, 1.0]]);
        let loss = |labels: [i64; 3]| cross_entropy(&logits, &Tensor::from_slice(&labels)).double_value(&[]);
        let one = |row: [f64; 3], label: usize| row.iter().map(|v| v.exp()).sum::<f64>().ln() - row[label];
        let rows = [one([2.0, 1.0, 0.0], 0), one([0.0, 3.0, 1.0], 2), one([1.0, 1.0, 1.0], 1)];
        approx::assert_relative_eq!(loss([0, 2, 1]), rows.iter().sum::<f64>() / 3.0, max_relative = 1e-14);
        approx::assert_relative_eq!(loss([0, UNLABELLED, 1]), (rows[0] + rows[2]) / 2.0, max_relative = 1e-14);
        assert_eq!(loss([UNLABELLED; 3]), 0.0);
    }

    #[test]
    fn accuracy_counts_first_and_first_five() {
        // Row i has its classes ranked i, i+1, …: label 0 is first in row 0, last of six in row 1, fifth in row 2.
        let logits = Tensor::from_slice2(&[
            [6.0_f32, 5.0, 4.0, 3.0, 2.0, 1.0],
            [1.0, 6.0, 5.0, 4.0, 3.0, 2.0],
            [2.0, 1.0, 6.0, 5.0, 4.0, 3.0],
            [3.0, 2.0, 1.0, 6.0, 5.0, 4.0],
        ]);
        let mut meter = AccuracyMeter::new(Device::Cpu);
        meter.add(&logits, &Tensor::from_slice(&[0_i64, 0, 0, 0]));
        let accuracy = meter.read().unwrap();
        assert_eq!((accuracy.score(), accuracy.top5()), (25.0, Some(75.0)));
        let by_hand: f64 = [6.0_f64, 1.0, 2.0, 3.0]
            .iter()
            .map(|label| (1..=6).map(|v| f64::from(v).exp()).sum::<f64>().ln() - label)
            .sum::<f64>()
            / 4.0;
        approx::assert_relative_eq!(accuracy.loss(), by_hand, max_relative = 1e-6);
    }

    #[test]
    fn the_binary_cross_entropy_is_the_mean_over_samples_and_classes() {
        let (logits, targets) = ([[2.0_f64, -1.0, 0.5], [0.0, 3.0, -40.0]], [[1.0_f64, 0.0, 1.0], [0.0, 0.0, 1.0]]);
        let one = |z: f64, t: f64| (1.0 + (-z).exp()).ln() + (1.0 - t) * z;
        let pairs = logits.iter().flatten().zip(targets.iter().flatten());
        let by_hand = pairs.map(|(z, t)| one(*z, *t)).sum::<f64>() / 6.0;
        let loss = binary_cross_entropy(&Tensor::from_slice2(&logits), &Tensor::from_slice2(&targets));
        approx::assert_relative_eq!(loss.double_value(&[]), by_hand, max_relative = 1e-12);
        // ln 2 where nothing is known, and the logit itself where it is wrong by far.
        approx::assert_relative_eq!(one(0.0, 0.0), std::f64::consts::LN_2, max_relative = 1e-15);
        approx::assert_relative_eq!(one(-40.0, 1.0), 40.0, max_relative = 1e-12);
    }

    #[test]
    fn average_precision_is_the_mean_precision_at_what_is_present() {
        let of = |scores: &[f64], present: &[u8]| {
            let present: Vec<bool> = present.iter().map(|p| *p == 1).collect();
            average_precision(scores, &present)
        };
        // Present at ranks 1, 3 and 4: (1/1 + 2/3 + 3/4) / 3.
        let ranked = of(&[0.9, 0.8, 0.7, 0.6, 0.5], &[1, 0, 1, 1, 0]).unwrap();
        approx::assert_relative_eq!(ranked, (1.0 + 2.0 / 3.0 + 0.75) / 3.0, max_relative = 1e-15);
        assert_eq!(of(&[0.5, 0.7, 0.9, 0.6, 0.8], &[0, 1, 1, 1, 0]), Some(ranked));
        // The second to the fourth have one score: two of them are present, at a precision of 3/4 both, in any order.
        let tied = (1.0 + 0.75 + 0.75) / 3.0;
        for present in [[1, 1, 1, 0, 0], [1, 1, 0, 1, 0], [1, 0, 1, 1, 0]] {
            approx::assert_relative_eq!(of(&[3.0, 2.0, 2.0, 2.0, 1.0], &present).unwrap(), tied, max_relative = 1e-15);
        }
        // All of one score: the share of what is present, as of a guess.
        assert_eq!(of(&[1.0; 4], &[0, 1, 0, 0]), Some(0.25));
        assert_eq!(of(&[1.0, 0.0], &[1, 0]), Some(1.0));
        assert_eq!(of(&[f64::INFINITY, f64::NEG_INFINITY], &[0, 1]), Some(0.5));
        assert_eq!(of(&[1.0, 0.0], &[0, 0]), None);
    }

    #[test]
    fn the_mean_is_over_the_classes_that_occur() {
        let logits = Tensor::from_slice2(&[[0.9_f32, 0.1, 5.0], [0.2, 0.8, 4.0], [0.3, 0.3, 3.0]]);
        let targets = Tensor::from_slice2(&[[1.0_f32, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]);
        let mut meter = PrecisionMeter::default();
        meter.add(&logits.narrow(0, 0, 2), &targets.narrow(0, 0, 2));
        meter.add(&logits.narrow(0, 2, 1), &targets.narrow(0, 2, 1));
        // Class 0 is first of three: 1. Class 1 is second: 1/2. Class 2 does not occur.
        let found = meter.read().unwrap();
        assert_eq!((found.measure(), found.score(), found.top5()), (Measure::MeanAveragePrecision, 75.0, None));
        let expected = binary_cross_entropy(&logits.to_kind(Kind::Double), &targets).double_value(&[]);
        assert_eq!(found.loss(), expected);
        let nothing = mean_average_precision(&logits, &targets.zeros_like()).unwrap_err().to_string();
        assert_eq!(nothing, "the mean average precision is not defined: no class occurs among these samples");
        let broken = mean_average_precision(&(logits * f64::NAN), &targets).unwrap_err().to_string();
        assert_eq!(broken, "the average precision is not defined: a logit is not a number");
        let written = serde_json::to_string(&found).unwrap();
        assert!(written.starts_with("{\"mean_average_precision\":75.0,\"binary_cross_entropy\":"), "{written}");
        assert_eq!(serde_json::from_str::<Accuracy>(&written).unwrap(), found);
    }

    #[test]
    fn calibration_compares_confidence_with_being_right_in_fifteen_bins() {
        // Logits of two classes with the given probability of class 0.
        let of = |p: f64| [p.ln(), (1.0 - p).ln()];
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
