//! `classification`: one class a sample, its label. The loss is the cross-entropy; networks are compared by top-1 accuracy,
//! the share of samples whose largest logit is the label's, and shown with top-5 accuracy beside it.
//!
//! It is the task of a data set that does not say which.

use tch::{Device, Kind, Reduction, Tensor, no_grad_guard};

use crate::contracts::task::{Better, ClassScore, Example, MetricInfo, Part, Task, TaskMeter, Truth, Unit};
use crate::dataset::UNLABELLED;
use crate::error::{Error, Result};
use crate::metric::cross_entropy;

crate::plugin! {
    task "classification" = Classification,
    summary: "one class a sample: cross-entropy, measured by top-1 and top-5 accuracy",
    citation: "",
    page: include_str!("classification.rs"),
}

/// One class a sample: its label.
#[derive(Clone, Copy, Debug)]
pub struct Classification;

impl Default for &'static dyn Task {
    fn default() -> Self {
        &Classification
    }
}

const TOP1: MetricInfo = MetricInfo {
    key: "top1",
    short: "top-1",
    name: "top-1 accuracy",
    note: "",
    definition: "",
    unit: Unit::PERCENT,
    better: Better::Higher,
};

const TOP5: MetricInfo = MetricInfo { key: "top5", short: "top-5", name: "top-5 accuracy", ..TOP1 };

/// Top-1 accuracy among the samples of a class: what other words call its recall.
const OF_CLASS: MetricInfo = MetricInfo { name: "accuracy", ..TOP1 };

const LOSS: MetricInfo =
    MetricInfo { key: "loss", short: "loss", name: "cross-entropy", unit: Unit::NATS, better: Better::Lower, ..TOP1 };

impl Task for Classification {
    fn name(&self) -> &'static str {
        "classification"
    }

    fn targets(&self) -> &'static str {
        "one class a sample"
    }

    fn check(&self, truth: Truth<'_>, _classes: i64) -> Result<()> {
        if truth.has_targets() {
            return Err(Error::run("`targets`, and by its information one class a sample"));
        }
        Ok(())
    }

    fn one_class(&self) -> bool {
        true
    }

    fn takes_unlabelled(&self) -> bool {
        true
    }

    fn loss(&self, logits: &Tensor, truth: Truth<'_>) -> Result<Tensor> {
        Ok(cross_entropy(logits, truth.labels))
    }

    fn loss_key(&self) -> &'static str {
        "cross_entropy"
    }

    fn meter(&self, device: Device) -> Box<dyn TaskMeter> {
        Box::new(AccuracyMeter::new(device))
    }

    fn score(&self) -> &'static MetricInfo {
        &TOP1
    }

    fn beside(&self) -> &'static [MetricInfo] {
        &[TOP5]
    }

    fn split_loss(&self) -> &'static MetricInfo {
        &LOSS
    }

    fn class_metric(&self) -> Option<&'static MetricInfo> {
        Some(&OF_CLASS)
    }

    fn by_class(&self, classes: &[String], logits: &Tensor, truth: Truth<'_>) -> Result<Vec<ClassScore>> {
        let labels: Vec<i64> = Vec::try_from(truth.labels)?;
        let guesses: Vec<i64> = Vec::try_from(logits.argmax(1, false))?;
        let mut counts = vec![(0, 0); classes.len()];
        for (label, guess) in labels.iter().zip(&guesses) {
            if let Some((samples, right)) = usize::try_from(*label).ok().and_then(|class| counts.get_mut(class)) {
                *samples += 1;
                *right += usize::from(guess == label);
            }
        }
        let each = classes.iter().zip(counts);
        Ok(each.map(|(name, (samples, right))| ClassScore::counted(name, samples, right)).collect())
    }

    fn example(&self, samples: i64, classes: i64) -> Example {
        let labels = Tensor::arange(samples, (Kind::Int64, Device::Cpu)).remainder(classes);
        let logits = Tensor::randn([samples, classes], (Kind::Float, Device::Cpu));
        Example { logits, labels, targets: None }
    }

    /// The metric goes without saying.
    fn score_on(&self, part: Part, _name: &str) -> String {
        match part {
            Part::Test => "test accuracy".to_owned(),
            Part::HeldOut => "validation accuracy".to_owned(),
        }
    }
}

/// Top-1, top-5 and cross-entropy over a split, summed on the device.
#[derive(Debug)]
struct AccuracyMeter {
    /// `[3]`, float64: right at first, right among five, summed cross-entropy.
    sums: Tensor,
    samples: usize,
}

impl AccuracyMeter {
    fn new(device: Device) -> Self {
        AccuracyMeter { sums: Tensor::zeros([3], (Kind::Double, device)), samples: 0 }
    }
}

impl TaskMeter for AccuracyMeter {
    fn add(&mut self, logits: &Tensor, truth: Truth<'_>) -> Result<()> {
        let _no_grad = no_grad_guard();
        let labels = truth.labels;
        let five = logits.size()[1].min(5);
        let (_, guesses) = logits.topk(five, 1, true, true);
        let hits = guesses.eq_tensor(&labels.unsqueeze(1));
        let loss =
            logits.to_kind(Kind::Float).cross_entropy_loss::<Tensor>(labels, None, Reduction::Sum, UNLABELLED, 0.0);
        let right = [hits.narrow(1, 0, 1).sum(Kind::Double), hits.sum(Kind::Double)];
        let [first, among_five] = right;
        self.sums = &self.sums + Tensor::stack(&[first, among_five, loss.to_kind(Kind::Double)], 0);
        self.samples += labels.size()[0] as usize;
        Ok(())
    }

    fn read(&self) -> Result<Vec<f64>> {
        let sums: Vec<f64> = Vec::try_from(&self.sums)?;
        let samples = self.samples.max(1) as f64;
        Ok(vec![100.0 * sums[0] / samples, 100.0 * sums[1] / samples, sums[2] / samples])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Metrics;

    #[test]
    fn accuracy_counts_first_and_first_five() {
        // Row i has its classes ranked i, i+1, …: label 0 is first in row 0, last of six in row 1, fifth in row 2.
        let logits = Tensor::from_slice2(&[
            [6.0_f32, 5.0, 4.0, 3.0, 2.0, 1.0],
            [1.0, 6.0, 5.0, 4.0, 3.0, 2.0],
            [2.0, 1.0, 6.0, 5.0, 4.0, 3.0],
            [3.0, 2.0, 1.0, 6.0, 5.0, 4.0],
        ]);
        let mut meter = Classification.meter(Device::Cpu);
        meter.add(&logits, Truth::new(&Tensor::from_slice(&[0_i64, 0, 0, 0]), None)).unwrap();
        let found = Metrics::new(&Classification, &meter.read().unwrap()).unwrap();
        assert_eq!((found.score(), found.beside().next().unwrap().1), (25.0, 75.0));
        let by_hand: f64 = [6.0_f64, 1.0, 2.0, 3.0]
            .iter()
            .map(|label| (1..=6).map(|v| f64::from(v).exp()).sum::<f64>().ln() - label)
            .sum::<f64>()
            / 4.0;
        approx::assert_relative_eq!(found.loss(), by_hand, max_relative = 1e-6);
        let written = serde_json::to_string(&found).unwrap();
        assert!(written.starts_with("{\"top1\":25.0,\"top5\":75.0,\"loss\":"), "{written}");
        assert_eq!(serde_json::from_str::<Metrics>(&written).unwrap(), found);
        assert_eq!((found.show(), found.in_words()), ("25.00 %".to_owned(), "25.00 % top-1, 75.00 % top-5".to_owned()));
    }

    #[test]
    fn every_class_has_its_samples_and_those_guessed_right() {
        let logits = Tensor::from_slice2(&[[2.0_f32, 1.0, 0.0], [2.0, 1.0, 0.0], [0.0, 1.0, 0.0]]);
        let labels = Tensor::from_slice(&[0_i64, 1, 1]);
        let names = ["cat", "dog", "owl"].map(str::to_owned);
        let found = Classification.by_class(&names, &logits, Truth::new(&labels, None)).unwrap();
        let expected = [("cat", 1, 1), ("dog", 2, 1), ("owl", 0, 0)];
        assert_eq!(found, expected.map(|(name, samples, right)| ClassScore::counted(name, samples, right)));
        assert_eq!(found.iter().map(ClassScore::score).collect::<Vec<_>>(), [Some(100.0), Some(50.0), None]);
        let written = serde_json::to_string(&found[1]).unwrap();
        assert_eq!(written, r#"{"name":"dog","samples":2,"right":1}"#);
        assert_eq!(serde_json::from_str::<ClassScore>(&written).unwrap(), found[1]);
    }
}
