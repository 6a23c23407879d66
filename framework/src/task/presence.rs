//! `presence`: a set of classes a sample, those that are present. The loss is the binary cross-entropy, the mean over samples
//! and classes alike; networks are compared by mean average precision (mAP), the mean over the classes that occur of how
//! well the logit of a class ranks the samples that have it before the others.

use tch::{Device, Kind, Reduction, Tensor, no_grad_guard};

use crate::contracts::task::{Better, ClassScore, Example, MetricInfo, Task, TaskMeter, Truth, Unit};
use crate::error::{Error, Result};

crate::plugin! {
    task "presence" = Presence,
    summary: "a set of classes a sample: binary cross-entropy, measured by mean average precision (mAP)",
    citation: "",
    page: include_str!("presence.rs"),
}

/// A set of classes a sample: targets are `[B, C]`, float32, 1 for each class that a sample has and 0 for the others.
#[derive(Clone, Copy, Debug)]
pub struct Presence;

const MEAN_AVERAGE_PRECISION: MetricInfo = MetricInfo {
    key: "mean_average_precision",
    short: "mAP",
    name: "mean average precision",
    note: "mean average precision, over classes that occur",
    definition: "over the classes that occur in the test split, not interpolated, samples of equal score ranked together",
    unit: Unit::PERCENT,
    better: Better::Higher,
};

const OF_CLASS: MetricInfo = MetricInfo {
    key: "average_precision",
    short: "AP",
    name: "average precision",
    note: "",
    definition: "",
    ..MEAN_AVERAGE_PRECISION
};

const LOSS: MetricInfo = MetricInfo {
    key: "binary_cross_entropy",
    short: "loss",
    name: "binary cross-entropy",
    note: "binary cross-entropy",
    definition: "",
    unit: Unit::NATS,
    better: Better::Lower,
};

impl Task for Presence {
    fn name(&self) -> &'static str {
        "presence"
    }

    fn targets(&self) -> &'static str {
        "sets of classes"
    }

    fn check(&self, truth: Truth<'_>, classes: i64) -> Result<()> {
        if !truth.has_targets() {
            return Err(Error::run("no `targets`"));
        }
        let targets = truth.targets()?;
        let (expected, shape, kind) = ([truth.labels.size()[0], classes], targets.size(), targets.kind());
        if shape != expected || kind != Kind::Float {
            return Err(Error::run(format!("`targets` {shape:?} of kind {kind:?} instead of {expected:?} of Float")));
        }
        if targets.eq(0.0).logical_or(&targets.eq(1.0)).all().int64_value(&[]) == 0 {
            return Err(Error::run("`targets` other than 0 and 1"));
        }
        Ok(())
    }

    fn one_class(&self) -> bool {
        false
    }

    fn loss(&self, logits: &Tensor, truth: Truth<'_>) -> Result<Tensor> {
        Ok(binary_cross_entropy(logits, truth.targets()?))
    }

    fn loss_key(&self) -> &'static str {
        "binary_cross_entropy"
    }

    fn meter(&self, _device: Device) -> Box<dyn TaskMeter> {
        Box::new(PrecisionMeter::default())
    }

    fn score(&self) -> &'static MetricInfo {
        &MEAN_AVERAGE_PRECISION
    }

    fn split_loss(&self) -> &'static MetricInfo {
        &LOSS
    }

    fn class_metric(&self) -> Option<&'static MetricInfo> {
        Some(&OF_CLASS)
    }

    fn by_class(&self, classes: &[String], logits: &Tensor, truth: Truth<'_>) -> Result<Vec<ClassScore>> {
        let targets = truth.targets()?;
        let samples: Vec<f64> = Vec::try_from(targets.sum_dim_intlist([0_i64].as_slice(), false, Kind::Double))?;
        let mut scores = Vec::new();
        for ((name, samples), found) in classes.iter().zip(samples).zip(average_precisions(logits, targets)?) {
            let percent = found.map(|share| 100.0 * share);
            scores.push(ClassScore::measured(name, samples as usize, &OF_CLASS, percent));
        }
        Ok(scores)
    }

    fn example(&self, samples: i64, classes: i64) -> Example {
        let labels = Tensor::arange(samples, (Kind::Int64, Device::Cpu)).remainder(classes);
        let drawn = Tensor::rand([samples, classes], (Kind::Float, Device::Cpu)).gt(0.7).to_kind(Kind::Float);
        let targets = drawn.scatter_value(1, &labels.unsqueeze(1), 1.0);
        let logits = Tensor::randn([samples, classes], (Kind::Float, Device::Cpu));
        Example { logits, labels, targets: Some(targets) }
    }
}

/// The mean binary cross-entropy of `logits` `[B, C]` with `targets` `[B, C]` of 0 and 1, in nats: over samples and classes
/// alike, −t·ln σ(z) − (1 − t)·ln(1 − σ(z)), as PyTorch's `BCEWithLogitsLoss` defines it.
pub fn binary_cross_entropy(logits: &Tensor, targets: &Tensor) -> Tensor {
    let targets = targets.to_kind(logits.kind());
    logits.binary_cross_entropy_with_logits::<Tensor>(&targets, None, None, Reduction::Mean)
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
    let (scores, targets) = (class_by_class(scores), class_by_class(&targets.gt(0.5)));
    let mut precisions = Vec::new();
    for class in 0..scores.size()[0] {
        let scores: Vec<f64> = Vec::try_from(scores.get(class))?;
        let present: Vec<f64> = Vec::try_from(targets.get(class))?;
        let present: Vec<bool> = present.into_iter().map(|value| value > 0.5).collect();
        precisions.push(average_precision(&scores, &present));
    }
    Ok(precisions)
}

/// `[N, C]` as `[C, N]`, float64, on the host.
fn class_by_class(tensor: &Tensor) -> Tensor {
    tensor.to_device(Device::Cpu).to_kind(Kind::Double).tr().contiguous()
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

/// Mean average precision over a split. It depends on the order of all samples: logits and targets are kept, on the host,
/// until it is read.
#[derive(Debug, Default)]
struct PrecisionMeter {
    logits: Vec<Tensor>,
    targets: Vec<Tensor>,
}

impl TaskMeter for PrecisionMeter {
    fn add(&mut self, logits: &Tensor, truth: Truth<'_>) -> Result<()> {
        let _no_grad = no_grad_guard();
        self.logits.push(logits.to_device(Device::Cpu));
        self.targets.push(truth.targets()?.to_device(Device::Cpu));
        Ok(())
    }

    fn read(&self) -> Result<Vec<f64>> {
        if self.logits.is_empty() {
            return Err(Error::run("the mean average precision is not defined: there is no sample"));
        }
        let (logits, targets) = (Tensor::cat(&self.logits, 0), Tensor::cat(&self.targets, 0));
        let loss = binary_cross_entropy(&logits.to_kind(Kind::Double), &targets).double_value(&[]);
        Ok(vec![mean_average_precision(&logits, &targets)?, loss])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Metrics;

    #[test]
    fn the_binary_cross_entropy_is_the_mean_over_samples_and_classes() {
        fn one(z: f64, t: f64) -> f64 {
            (1.0 + (-z).exp()).ln() + (1.0 - t) * z
        }

        let (logits, targets) = ([[2.0_f64, -1.0, 0.5], [0.0, 3.0, -40.0]], [[1.0_f64, 0.0, 1.0], [0.0, 0.0, 1.0]]);
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
        fn of(scores: &[f64], present: &[u8]) -> Option<f64> {
            let present: Vec<bool> = present.iter().map(|p| *p == 1).collect();
            average_precision(scores, &present)
        }

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
        let mut meter = Presence.meter(Device::Cpu);
        let labels = Tensor::zeros([3], (Kind::Int64, Device::Cpu));
        for (first, count) in [(0, 2), (2, 1)] {
            let part = targets.narrow(0, first, count);
            meter
                .add(&logits.narrow(0, first, count), Truth::new(&labels.narrow(0, first, count), Some(&part)))
                .unwrap();
        }
        // Class 0 is first of three: 1. Class 1 is second: 1/2. Class 2 does not occur.
        let found = Metrics::new(&Presence, &meter.read().unwrap()).unwrap();
        assert_eq!((found.task().name(), found.score(), found.beside().count()), ("presence", 75.0, 0));
        let expected = binary_cross_entropy(&logits.to_kind(Kind::Double), &targets).double_value(&[]);
        assert_eq!(found.loss(), expected);
        let nothing = mean_average_precision(&logits, &targets.zeros_like()).unwrap_err().to_string();
        assert_eq!(nothing, "the mean average precision is not defined: no class occurs among these samples");
        let broken = mean_average_precision(&(logits * f64::NAN), &targets).unwrap_err().to_string();
        assert_eq!(broken, "the average precision is not defined: a logit is not a number");
        let written = serde_json::to_string(&found).unwrap();
        assert!(written.starts_with("{\"mean_average_precision\":75.0,\"binary_cross_entropy\":"), "{written}");
        assert_eq!(serde_json::from_str::<Metrics>(&written).unwrap(), found);
    }

    #[test]
    fn a_class_has_its_average_precision_where_it_occurs() {
        let logits = Tensor::from_slice2(&[[0.9_f32, 0.1], [0.2, 0.8], [0.3, 0.3]]);
        let targets = Tensor::from_slice2(&[[0.0_f32, 0.0], [1.0, 0.0], [1.0, 0.0]]);
        let labels = Tensor::zeros([3], (Kind::Int64, Device::Cpu));
        let names = ["chair", "lamp"].map(str::to_owned);
        let found = Presence.by_class(&names, &logits, Truth::new(&labels, Some(&targets))).unwrap();
        let written = found.iter().map(|class| serde_json::to_string(class).unwrap()).collect::<Vec<_>>();
        assert_eq!(
            written,
            [r#"{"name":"chair","samples":2,"average_precision":58.33333333333333}"#, r#"{"name":"lamp","samples":0}"#]
        );
        assert_eq!(serde_json::from_str::<ClassScore>(&written[0]).unwrap(), found[0]);
        assert_eq!((found[0].score(), found[1].score()), (Some(58.33333333333333), None));
    }
}
