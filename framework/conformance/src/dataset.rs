//! What a data set must do.

use std::collections::HashSet;

use limbeck::dataset::{Batch, Dataset, DatasetConfig, Rows, Split, Views};
use limbeck::error::{Error, Result};
use limbeck::seed::Seed;
use tch::{Device, Kind, Tensor};

use crate::memory::memory_is_steady;
use crate::settings::read;
use crate::tensors::{is_finite, same};
use crate::trial::{Trial, ensure};

fn build(table: &toml::Table) -> Result<Box<dyn Dataset>> {
    read::<Box<dyn DatasetConfig>>(table)?.build(Device::Cpu)
}

pub fn check(trial: &mut Trial, table: &toml::Table) {
    let Some(dataset) = trial.value("it can be built", || build(table)) else { return };
    let subject = DatasetTrial { dataset };
    if !trial.check("classes, labels and views are in order", || subject.information()) {
        return;
    }
    if !trial.check("a batch is [B, C, H, W], float32, finite, channels_last, with its labels", || subject.batches()) {
        return;
    }
    trial.check("evaluation is repeatable", || subject.evaluates());
    trial.check("a sample's augmentation is a function of the seed and of its row", || subject.augments());
    trial.check("what does not exist is an error", || subject.refuses());
    trial.check("memory does not grow", || subject.keeps_nothing());
    trial.check("building twice gives the same", || {
        let again = DatasetTrial { dataset: build(table)? };
        let (a, b) = (subject.dataset.info(), again.dataset.info());
        ensure(a.identity == b.identity && !a.identity.is_empty(), || {
            format!("its identity is `{}` and then `{}`: runs are told apart by it", a.identity, b.identity)
        })?;
        let rows = subject.some(Split::Train);
        subject.equal(
            &subject.batch(Split::Train, &rows, None)?,
            &again.batch(Split::Train, &rows, None)?,
            "built again",
        )
    });
}

struct DatasetTrial {
    dataset: Box<dyn Dataset>,
}

impl DatasetTrial {
    /// Rows from all over a part, out of order.
    fn some(&self, split: Split) -> Vec<i64> {
        let count = self.dataset.info().labels(split).len() as i64;
        let mut rows = Vec::new();
        for row in [count - 1, 0, count / 2, count / 3, 1] {
            if (0..count).contains(&row) && !rows.contains(&row) {
                rows.push(row);
            }
        }
        rows
    }

    fn views(&self) -> Views {
        self.dataset.info().views.iter().map(|view| view.name.clone()).collect()
    }

    fn batch(&self, split: Split, rows: &[i64], draw: Option<Seed>) -> Result<Batch> {
        self.dataset.batch(split, &Rows::new(rows.to_vec(), Device::Cpu), &self.views(), draw)
    }

    fn equal(&self, a: &Batch, b: &Batch, when: &str) -> Result<()> {
        for view in self.views().iter() {
            ensure(same(a.view(view)?, b.view(view)?), || format!("view `{view}` differs when {when}"))?;
        }
        ensure(same(&a.labels, &b.labels), || format!("the labels differ when {when}"))?;
        match (&a.targets, &b.targets) {
            (Some(a), Some(b)) => ensure(same(a, b), || format!("the targets differ when {when}")),
            _ => Ok(()),
        }
    }

    fn information(&self) -> Result<()> {
        fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<()> {
            let mut seen = HashSet::new();
            let repeated = names.into_iter().find(|name| !seen.insert(*name));
            ensure(repeated.is_none(), || format!("two {what} are called `{}`", repeated.unwrap_or_default()))?;
            ensure(!seen.is_empty(), || format!("there are no {what}"))
        }
        let info = self.dataset.info();
        unique("classes", info.class_names.iter().map(String::as_str))?;
        unique("views", info.views.iter().map(|view| view.name.as_str()))?;
        for split in [Split::Train, Split::Test] {
            let labels = info.labels(split);
            ensure(!labels.is_empty(), || format!("the {split:?} part is empty"))?;
            let wrong = labels.iter().position(|label| !(0..info.classes()).contains(label));
            ensure(wrong.is_none(), || {
                let row = wrong.unwrap_or_default();
                format!("row {row} of the {split:?} part has label {} of {} classes", labels[row], info.classes())
            })?;
        }
        Ok(())
    }

    fn batches(&self) -> Result<()> {
        let info = self.dataset.info();
        for (split, draw) in [(Split::Train, Some(Seed::new(1))), (Split::Train, None), (Split::Test, None)] {
            let rows = self.some(split);
            let batch = self.batch(split, &rows, draw)?;
            for view in &info.views {
                let images = batch.view(&view.name)?;
                let [channels, height, width] = view.shape;
                let (shape, name) = ([rows.len() as i64, channels, height, width], &view.name);
                ensure(images.size() == shape, || {
                    format!("view `{name}` is {:?} instead of {shape:?}", images.size())
                })?;
                let kind = images.kind();
                ensure(kind == Kind::Float, || format!("view `{name}` is of kind {kind:?} instead of Float"))?;
                ensure(is_finite(images), || format!("view `{name}` holds numbers that are not finite"))?;
                let nhwc = images.permute([0, 2, 3, 1]);
                ensure(nhwc.is_contiguous(), || {
                    format!("view `{name}` is not in channels_last order: compute it as [B, H, W, C] and permute it")
                })?;
            }
            let expected: Vec<i64> = rows.iter().map(|row| info.labels(split)[*row as usize]).collect();
            ensure(same(&batch.labels, &Tensor::from_slice(&expected)), || {
                format!(
                    "a batch of the {split:?} part has labels {:?}, and {expected:?} by its information",
                    batch.labels
                )
            })?;
            let checked = info.task.check(batch.truth(), info.classes());
            checked.map_err(|e| Error::run(format!("a batch of the {split:?} part has {e}")))?;
        }
        let first: Vec<&str> = info.views.iter().map(|view| view.name.as_str()).take(1).collect();
        let rows = Rows::new(self.some(Split::Train), Device::Cpu);
        let batch = self.dataset.batch(Split::Train, &rows, &first.into_iter().collect(), None)?;
        ensure(batch.views.len() == 1, || format!("one view was wanted, and {} were computed", batch.views.len()))
    }

    fn evaluates(&self) -> Result<()> {
        for split in [Split::Train, Split::Test] {
            let rows = self.some(split);
            self.equal(
                &self.batch(split, &rows, None)?,
                &self.batch(split, &rows, None)?,
                "taken again without `draw`",
            )?;
        }
        Ok(())
    }

    fn augments(&self) -> Result<()> {
        let rows = self.some(Split::Train);
        let draw = Some(Seed::new(7));
        let usual = self.batch(Split::Train, &rows, draw)?;
        self.equal(&usual, &self.batch(Split::Train, &rows, draw)?, "taken again with the same seed")?;
        let turned: Vec<i64> = rows.iter().rev().copied().collect();
        let turned = self.batch(Split::Train, &turned, draw)?;
        let alone = self.batch(Split::Train, &rows[..1], draw)?;
        for view in self.views().iter() {
            let usual = usual.view(view)?;
            ensure(turned.view(view)?.flip([0]).equal(usual), || {
                format!(
                    "view `{view}` of a sample differs at another place of the batch: draw by row (`Seed::draw_rows`)"
                )
            })?;
            ensure(alone.view(view)?.equal(&usual.narrow(0, 0, 1)), || {
                format!("view `{view}` of a sample differs when it comes alone: draw by row (`Seed::draw_rows`)")
            })?;
        }
        Ok(())
    }

    fn keeps_nothing(&self) -> Result<()> {
        // A batch of at least 256 kB, or what is kept of each does not show in the process's memory.
        let views = &self.dataset.info().views;
        let sample: i64 = views.iter().map(|view| 4 * view.shape.iter().product::<i64>()).sum();
        let rows = self.some(Split::Train);
        let rows = rows.repeat((1_usize << 18).div_ceil(sample.max(1) as usize * rows.len()));
        memory_is_steady(sample as usize * rows.len(), || self.batch(Split::Train, &rows, Some(Seed::new(0))).map(drop))
    }

    fn refuses(&self) -> Result<()> {
        let rows = Rows::new(vec![0], Device::Cpu);
        let unknown: Views = ["no_such_view"].into_iter().collect();
        ensure(self.dataset.batch(Split::Test, &rows, &unknown, None).is_err(), || {
            "a view that does not exist was accepted: use `DatasetInfo::view`".to_owned()
        })?;
        let beyond = self.dataset.info().test_labels.len() as i64;
        ensure(self.batch(Split::Test, &[beyond], None).is_err(), || {
            format!("row {beyond} of the test part was accepted, which has that many: check `Rows::host`")
        })
    }
}
