//! What a task must do.

use std::collections::HashSet;

use limbeck::dataset::UNLABELLED;
use limbeck::error::{Error, Result};
use limbeck::registry::Plugin;
use limbeck::seed::Seed;
use limbeck::task::{Example, Metrics, Task, Truth};
use tch::{Device, Kind, Tensor};

use crate::tensors::{distance, is_finite, same};
use crate::trial::{Trial, ensure};

/// How many samples an example has, and of how many classes: more than five, so that being among the first five says
/// something.
const SAMPLES: i64 = 24;
const CLASSES: i64 = 7;

pub fn check(trial: &mut Trial, plugin: &Plugin) {
    let found = trial.value("it is known by its name and by the key of its score", || {
        plugin.check()?;
        <dyn Task>::find(plugin.name).ok_or_else(|| Error::run(format!("no task calls itself `{}`", plugin.name)))
    });
    let Some(task) = found else { return };
    let subject = TaskTrial { task };
    if !trial.check("its metrics have names, and keys of their own", || subject.names()) {
        return;
    }
    if !trial.check("it knows its targets", || subject.targets()) {
        return;
    }
    // Before the loss is looked at: of logits that it changes, two losses differ.
    if !trial.check("logits and targets are left as they are", || subject.changes_nothing()) {
        return;
    }
    let losses = "its loss is a finite scalar of the logits' kind, and learns from every sample";
    if !trial.check(losses, || subject.loss()) {
        return;
    }
    trial.check("samples without a label have no part in the loss", || subject.unlabelled());
    if !trial.check("its meter gives every metric", || subject.meter()) {
        return;
    }
    trial.check("neither batches nor the order of the samples matter to the meter", || subject.sums());
    trial.check("the loss over a split is the loss", || subject.split_loss());
    trial.check("whoever learns by the loss gets the better score", || subject.direction());
    trial.check("scores by class are of all classes, in order", || subject.classes());
}

struct TaskTrial {
    task: &'static dyn Task,
}

impl TaskTrial {
    /// The same samples each time.
    fn example(&self) -> Example {
        let _drawing = Seed::new(0).stream("example").seed_libtorch();
        self.task.example(SAMPLES, CLASSES)
    }

    fn names(&self) -> Result<()> {
        let mut seen = HashSet::new();
        for metric in self.task.metrics().chain(self.task.class_metric()) {
            let key = metric.key;
            let is_key =
                !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            ensure(is_key, || format!("`{key}` is no key: take lower-case letters, digits and `_`"))?;
            ensure(!metric.short.is_empty() && !metric.name.is_empty(), || {
                format!("the metric `{key}` has no name to be shown by")
            })?;
        }
        let repeated = self.task.metrics().find(|metric| !seen.insert(metric.key));
        ensure(repeated.is_none(), || {
            format!("two of its metrics have the key `{}`", repeated.map_or("", |metric| metric.key))
        })?;
        ensure(!self.task.targets().is_empty() && !self.task.loss_key().is_empty(), || {
            "its targets and its loss must have names".to_owned()
        })
    }

    /// Whether `truth` is accepted.
    fn accepts(&self, truth: Truth<'_>) -> bool {
        self.task.check(truth, CLASSES).is_ok()
    }

    fn targets(&self) -> Result<()> {
        let Example { logits, labels, targets } = self.example();
        let truth = Truth::new(&labels, targets.as_ref());
        self.task.check(truth, CLASSES).map_err(|e| Error::run(format!("its own example has {e}")))?;
        let shape = (logits.size(), labels.size());
        ensure(shape.0.starts_with(&[SAMPLES, CLASSES]) && shape.1 == [SAMPLES], || {
            format!("its example has logits {:?} and labels {:?} instead of {SAMPLES} samples", shape.0, shape.1)
        })?;
        let of_samples = self.task.of_whole_samples();
        ensure(of_samples == (logits.dim() == 2), || {
            format!("logits are {:?}, and `of_whole_samples` is {of_samples}", logits.size())
        })?;
        ensure(!self.task.one_class() || of_samples, || {
            "`one_class` is true, and logits are not of whole samples".to_owned()
        })?;
        let Some(targets) = &targets else {
            let unwanted = labels.shallow_clone();
            return ensure(!self.accepts(Truth::new(&labels, Some(&unwanted))), || {
                "it accepts `targets` that it does not read: refuse them in `check`".to_owned()
            });
        };
        ensure(!self.accepts(Truth::new(&labels, None)), || {
            "it accepts samples without `targets`: refuse them in `check`".to_owned()
        })?;
        let fewer = targets.narrow(0, 0, SAMPLES - 1);
        ensure(!self.accepts(Truth::new(&labels, Some(&fewer))), || {
            "it accepts `targets` of fewer samples: compare shapes in `check`".to_owned()
        })?;
        let bare = Truth::new(&labels, None);
        ensure(self.task.loss(&logits, bare).is_err(), || {
            "its loss does without `targets`: take them by `Truth::targets`".to_owned()
        })?;
        ensure(self.task.meter(Device::Cpu).add(&logits, bare).is_err(), || {
            "its meter does without `targets`: take them by `Truth::targets`".to_owned()
        })
    }

    fn loss(&self) -> Result<()> {
        let Example { logits, labels, targets } = self.example();
        let truth = Truth::new(&labels, targets.as_ref());
        let mut values = Vec::new();
        for kind in [Kind::Float, Kind::Double] {
            let logits = logits.detach().to_kind(kind).set_requires_grad(true);
            let loss = self.task.loss(&logits, truth)?;
            ensure(loss.size().is_empty() && loss.kind() == kind, || {
                format!(
                    "of logits of kind {kind:?} the loss is {:?} of kind {:?}, not a scalar",
                    loss.size(),
                    loss.kind()
                )
            })?;
            ensure(is_finite(&loss), || "the loss of its example is not finite".to_owned())?;
            ensure(loss.requires_grad(), || "the loss does not depend on the logits".to_owned())?;
            loss.backward();
            let gradient = logits.grad().flatten(1, -1).abs().amax([1_i64].as_slice(), false);
            ensure(is_finite(&gradient) && gradient.gt(0.0).all().int64_value(&[]) != 0, || {
                "a sample of its example has no gradient, or one that is not finite".to_owned()
            })?;
            values.push(loss.detach());
        }
        let apart = distance(&values[0], &values[1], 1.0);
        ensure(apart < 1e-4, || {
            format!("the losses in float32 and in float64 are {apart:.1e} apart where 1e-4 is allowed")
        })
    }

    fn changes_nothing(&self) -> Result<()> {
        let Example { logits, labels, targets } = self.example();
        let before = self.example();
        let truth = Truth::new(&labels, targets.as_ref());
        drop(self.task.loss(&logits, truth)?);
        let mut meter = self.task.meter(Device::Cpu);
        meter.add(&logits, truth)?;
        meter.read()?;
        self.task.by_class(&class_names(), &logits, truth)?;
        let kept = match (&targets, &before.targets) {
            (Some(now), Some(before)) => same(now, before),
            _ => true,
        };
        ensure(same(&logits, &before.logits), || "the logits were changed".to_owned())?;
        ensure(kept && same(&labels, &before.labels), || "the labels or targets were changed".to_owned())
    }

    fn unlabelled(&self) -> Result<()> {
        if !self.task.takes_unlabelled() {
            return Ok(());
        }
        let Example { logits, labels, targets } = self.example();
        let half = SAMPLES / 2;
        let without = labels.copy();
        let _ = without.narrow(0, half, SAMPLES - half).fill_(UNLABELLED);
        let of_all = self.task.loss(&logits, Truth::new(&without, targets.as_ref()))?;
        let first = targets.as_ref().map(|targets| targets.narrow(0, 0, half));
        let labelled = Truth::new(&labels.narrow(0, 0, half), first.as_ref()).labels.shallow_clone();
        let of_half = self.task.loss(&logits.narrow(0, 0, half), Truth::new(&labelled, first.as_ref()))?;
        let apart = distance(&of_all, &of_half, 1.0);
        ensure(apart < 1e-5, || {
            "it takes samples without a label, and they change the loss of the others: take the mean over those that have one"
                .to_owned()
        })
    }

    /// The metrics of the example, in batches of so many samples, in the order of `rows`.
    fn measure(&self, logits: &Tensor, example: &Example, rows: &Tensor, batch: usize) -> Result<Metrics> {
        let mut meter = self.task.meter(Device::Cpu);
        let count = rows.size()[0];
        for start in (0..count).step_by(batch) {
            let rows = rows.narrow(0, start, (batch as i64).min(count - start));
            let targets = example.targets.as_ref().map(|targets| targets.index_select(0, &rows));
            let labels = example.labels.index_select(0, &rows);
            meter.add(&logits.index_select(0, &rows), Truth::new(&labels, targets.as_ref()))?;
        }
        Metrics::new(self.task, &meter.read()?)
    }

    fn whole(&self) -> Result<Metrics> {
        let example = self.example();
        self.measure(&example.logits, &example, &in_order(), SAMPLES as usize)
    }

    fn meter(&self) -> Result<()> {
        for (metric, value) in self.whole()?.named() {
            ensure(value.is_finite(), || format!("`{}` of its example is {value}", metric.key))?;
        }
        Ok(())
    }

    fn sums(&self) -> Result<()> {
        let (example, whole) = (self.example(), self.whole()?);
        for (what, rows) in [("in batches of five", in_order()), ("in another order", in_order().flip([0]))] {
            let found = self.measure(&example.logits, &example, &rows, 5)?;
            for ((metric, value), (_, expected)) in found.named().zip(whole.named()) {
                ensure((value - expected).abs() <= 1e-5 * expected.abs().max(1.0), || {
                    format!("{what} `{}` is {value} instead of {expected}: sum over samples", metric.key)
                })?;
            }
        }
        Ok(())
    }

    fn split_loss(&self) -> Result<()> {
        let Example { logits, labels, targets } = self.example();
        let loss =
            self.task.loss(&logits.to_kind(Kind::Double), Truth::new(&labels, targets.as_ref()))?.double_value(&[]);
        let found = self.whole()?.loss();
        ensure((found - loss).abs() <= 1e-4 * loss.abs().max(1.0), || {
            format!("`{}` is {found}, and the loss of the same samples is {loss}", self.task.split_loss().key)
        })
    }

    /// The metrics after 50 steps along the gradient of the loss: down for a `sign` of 1, up for −1.
    fn after_steps(&self, example: &Example, sign: f64) -> Result<Metrics> {
        let truth = Truth::new(&example.labels, example.targets.as_ref());
        let mut logits = example.logits.detach().to_kind(Kind::Double);
        for _ in 0..50 {
            let moving = logits.detach().set_requires_grad(true);
            self.task.loss(&moving, truth)?.backward();
            let gradient = moving.grad();
            logits = &logits - &gradient * (sign / gradient.abs().max().clamp_min(1e-12) * 0.2);
        }
        self.measure(&logits.to_kind(Kind::Float), example, &in_order(), SAMPLES as usize)
    }

    /// Logits that follow the gradient of the loss end with a better score than those that flee from it.
    fn direction(&self) -> Result<()> {
        let example = self.example();
        let (learned, fled) = (self.after_steps(&example, 1.0)?, self.after_steps(&example, -1.0)?);
        ensure(learned.is_better_than(&fled), || {
            let score = self.task.score();
            format!(
                "`{}` is {} after steps down the loss and {} after steps up, and {:?} is said to be better",
                score.key,
                learned.score(),
                fled.score(),
                score.better
            )
        })
    }

    fn classes(&self) -> Result<()> {
        let Example { logits, labels, targets } = self.example();
        let names = class_names();
        let found = self.task.by_class(&names, &logits, Truth::new(&labels, targets.as_ref()))?;
        if self.task.class_metric().is_none() {
            return ensure(found.is_empty(), || {
                "it has scores by class, and no `class_metric` that says what they are".to_owned()
            });
        }
        let listed: Vec<&String> = found.iter().map(|class| &class.name).collect();
        ensure(listed == names.iter().collect::<Vec<_>>(), || {
            format!("its scores are of the classes {listed:?} instead of {names:?}")
        })?;
        let broken = found.iter().find(|class| class.score().is_some_and(|score| !score.is_finite()));
        ensure(broken.is_none(), || format!("a score by class is not finite: {broken:?}"))
    }
}

fn in_order() -> Tensor {
    Tensor::arange(SAMPLES, (Kind::Int64, Device::Cpu))
}

fn class_names() -> Vec<String> {
    (0..CLASSES).map(|class| format!("class {class}")).collect()
}
