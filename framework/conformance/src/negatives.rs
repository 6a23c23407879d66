//! What a sampler of negatives must do.

use std::sync::Arc;

use limbeck::dataset::Rows;
use limbeck::distiller::Site;
use limbeck::error::{Error, Result};
use limbeck::model::Signature;
use limbeck::negatives::{Draw, NegativeSampler, NegativeSamplerConfig, Negatives};
use limbeck::seed::Seed;
use limbeck::task::Classification;
use tch::{Device, Kind, Tensor};

use crate::data::{CLASSES, labels, noise};
use crate::network::signature;
use crate::settings::read;
use crate::tensors::same;
use crate::training::TEACHER;
use crate::trial::{Trial, ensure};

const ANCHORS: [i64; 6] = [3, 17, 8, 31, 22, 5];
const ORDER: [i64; 6] = [4, 0, 5, 2, 1, 3];

pub fn check(trial: &mut Trial, table: &toml::Table) {
    let found = trial.value("it can be built", || {
        let subject = SamplerTrial { config: read(table)?, network: signature(4)?, labels: labels(), classes: CLASSES };
        subject.build().map(|_| subject)
    });
    let Some(subject) = found else { return };
    if !trial.check("negatives exist and are never the anchor itself", || subject.are_others()) {
        return;
    }
    trial.check("they are of the form that `wants_bank` announces", || subject.keeps_its_form());
    let spares = "no negative is of its anchor's class";
    match subject.build().map(|sampler| sampler.spares_class()) {
        Ok(false) => trial.skip(spares, "the sampler does not say so: `spares_class`"),
        _ => drop(trial.check(spares, || subject.spares_class())),
    }
    trial.check("a draw is a function of the seed", || subject.is_a_function());
    trial.check("an anchor's negatives do not depend on its place in the batch", || subject.ignores_order());
    trial.check("a training set of one class gives an error or valid negatives", || subject.survives_one_class());
}

struct SamplerTrial {
    config: Box<dyn NegativeSamplerConfig>,
    network: Signature,
    labels: Arc<[i64]>,
    classes: i64,
}

/// Negatives as a mask over candidates, `[B, n]` or `[B, B]` bool, and, of rows, the rows.
struct Drawn {
    negatives: Negatives,
    mask: Tensor,
}

impl SamplerTrial {
    fn build(&self) -> Result<Box<dyn NegativeSampler>> {
        self.config.build(&Site {
            student: &self.network,
            teacher: &self.network,
            teacher_name: TEACHER,
            labels: &self.labels,
            classes: self.classes,
            task: &Classification,
            configured_pairs: None,
            device: Device::Cpu,
        })
    }

    /// `[rows]`
    fn labels_of(&self, rows: &[i64]) -> Tensor {
        Tensor::from_slice(&rows.iter().map(|row| self.labels[*row as usize]).collect::<Vec<_>>())
    }

    fn samples(&self) -> i64 {
        self.labels.len() as i64
    }

    fn draw(&self, sampler: &mut dyn NegativeSampler, anchors: &[i64], seed: u64) -> Result<Drawn> {
        let scores: Vec<Tensor> = anchors
            .iter()
            .map(|row| noise(&format!("scores {row}"), &[self.samples()], -5.0, 5.0).to_kind(Kind::Float))
            .collect();
        let scores = Tensor::stack(&scores, 0);
        let negatives = sampler.draw(&Draw {
            rows: &Rows::new(anchors.to_vec(), Device::Cpu),
            labels: &self.labels_of(anchors),
            scores: sampler.wants_scores().then_some(&scores),
            seed: Seed::new(seed),
            device: Device::Cpu,
        })?;
        let mask = self.mask(&negatives, anchors)?;
        Ok(Drawn { negatives, mask })
    }

    fn ensure_mask(mask: &Tensor, shape: [i64; 2]) -> Result<()> {
        ensure(mask.size() == shape && mask.kind() == Kind::Bool, || {
            format!("a mask of {:?} {:?} was given where {shape:?} Bool is wanted", mask.size(), mask.kind())
        })
    }

    fn mask(&self, negatives: &Negatives, anchors: &[i64]) -> Result<Tensor> {
        let (batch, samples) = (anchors.len() as i64, self.samples());
        let none = Tensor::zeros([batch, samples], (Kind::Bool, Device::Cpu));
        match negatives {
            Negatives::Rows(rows) => {
                let size = rows.size();
                ensure(matches!(size[..], [b, k] if b == batch && k > 0) && rows.kind() == Kind::Int64, || {
                    format!("rows of {size:?} {:?} were given where [{batch}, K] Int64 is wanted", rows.kind())
                })?;
                let (least, most) = (rows.min().int64_value(&[]), rows.max().int64_value(&[]));
                ensure(least >= 0 && most < samples, || {
                    format!("rows {least} to {most} were drawn of a training set of {samples} samples")
                })?;
                Ok(none.scatter_value(1, rows, 1))
            }
            Negatives::Mask(mask) => Self::ensure_mask(mask, [batch, samples]).map(|()| mask.shallow_clone()),
            Negatives::Others => Ok(none.logical_not().scatter_value(1, &column(anchors), 0)),
            Negatives::Batch(mask) => Self::ensure_mask(mask, [batch, batch]).map(|()| mask.shallow_clone()),
        }
    }

    fn of_batch(drawn: &Drawn) -> bool {
        matches!(drawn.negatives, Negatives::Batch(_))
    }

    /// Whether an anchor is among its own negatives, or has none although a bank has some for it.
    fn valid(&self, drawn: &Drawn, anchors: &[i64]) -> Result<()> {
        let own = if Self::of_batch(drawn) {
            drawn.mask.diagonal(0, 0, 1).any()
        } else {
            drawn.mask.gather(1, &column(anchors), false).any()
        };
        ensure(own.int64_value(&[]) == 0, || "a sample is its own negative: leave the anchor's row out".to_owned())?;
        let some = drawn.mask.any_dim(1, false).all().int64_value(&[]) != 0;
        ensure(some || Self::of_batch(drawn), || "an anchor has no negative at all".to_owned())
    }

    fn are_others(&self) -> Result<()> {
        let mut sampler = self.build()?;
        for seed in 0..20 {
            self.valid(&self.draw(sampler.as_mut(), &ANCHORS, seed)?, &ANCHORS)?;
        }
        Ok(())
    }

    fn keeps_its_form(&self) -> Result<()> {
        let mut sampler = self.build()?;
        let (wants, drawn) = (sampler.wants_bank(), self.draw(sampler.as_mut(), &ANCHORS, 0)?);
        ensure(wants != Self::of_batch(&drawn), || {
            let fault = if wants {
                "a mask over the batch was drawn, although `wants_bank` is true"
            } else {
                "rows of a bank were drawn, although `wants_bank` is false and none is kept"
            };
            fault.to_owned()
        })
    }

    fn spares_class(&self) -> Result<()> {
        let mut sampler = self.build()?;
        let all: Vec<i64> = (0..self.samples()).collect();
        for seed in 0..20 {
            let drawn = self.draw(sampler.as_mut(), &ANCHORS, seed)?;
            let candidates = if Self::of_batch(&drawn) { self.labels_of(&ANCHORS) } else { self.labels_of(&all) };
            let of_class = self.labels_of(&ANCHORS).unsqueeze(1).eq_tensor(&candidates.unsqueeze(0));
            ensure(drawn.mask.logical_and(&of_class).any().int64_value(&[]) == 0, || {
                "a negative is of its anchor's class, although `spares_class` says that none is".to_owned()
            })?;
        }
        Ok(())
    }

    fn is_a_function(&self) -> Result<()> {
        let mut used = self.build()?;
        self.draw(used.as_mut(), &ANCHORS, 1)?;
        let (again, fresh) = (self.draw(used.as_mut(), &ANCHORS, 0)?, self.draw(self.build()?.as_mut(), &ANCHORS, 0)?);
        let rows_differ = match (&again.negatives, &fresh.negatives) {
            (Negatives::Rows(a), Negatives::Rows(b)) => !same(a, b),
            _ => false,
        };
        ensure(!rows_differ && same(&again.mask, &fresh.mask), || {
            "one seed gave two draws: draw from `Draw::seed` alone and keep no state between draws".to_owned()
        })
    }

    fn ignores_order(&self) -> Result<()> {
        let shuffled = ORDER.map(|place| ANCHORS[place as usize]);
        let usual = self.draw(self.build()?.as_mut(), &ANCHORS, 0)?;
        let other = self.draw(self.build()?.as_mut(), &shuffled, 0)?;
        let order = Tensor::from_slice(&ORDER);
        let mut expected = usual.mask.index_select(0, &order);
        if Self::of_batch(&usual) {
            expected = expected.index_select(1, &order);
        }
        ensure(same(&other.mask, &expected), || {
            "an anchor has other negatives at another place of the batch: draw from `seed.at(row)`".to_owned()
        })
    }

    fn survives_one_class(&self) -> Result<()> {
        let alike = SamplerTrial {
            config: read(&toml::Table::try_from(&self.config).map_err(|e| Error::run(e.to_string()))?)?,
            network: self.network.clone(),
            labels: vec![0; self.labels.len()].into(),
            classes: 1,
        };
        // An error is an answer; a panic is not, and ends the check.
        let Ok(mut sampler) = alike.build() else { return Ok(()) };
        let Ok(drawn) = alike.draw(sampler.as_mut(), &ANCHORS, 0) else { return Ok(()) };
        alike.valid(&drawn, &ANCHORS)
    }
}

/// `[B, 1]`
fn column(rows: &[i64]) -> Tensor {
    Tensor::from_slice(rows).unsqueeze(1)
}
