//! Means over an epoch of training.

use indexmap::IndexMap;
use tch::{Device, Kind, Tensor, no_grad_guard};

use crate::error::{Error, Result};

/// Means over an epoch's samples, summed in place on the device so that no step waits for it.
#[derive(Debug)]
pub(super) struct Meter {
    names: Vec<String>,
    /// `[names + 1]`, float64: the sums weighted by samples, then right guesses.
    sums: Tensor,
    samples: f64,
}

impl Meter {
    /// Empty: the names come with the first step.
    pub fn new(device: Device) -> Self {
        Meter { names: Vec::new(), sums: Tensor::zeros([1], (Kind::Double, device)), samples: 0.0 }
    }

    /// A meter as it was saved: `sums` is `[names + 2]`, float64, the number of samples last.
    ///
    /// # Errors
    /// If the sums cannot be read.
    pub fn restore(names: Vec<String>, sums: &Tensor, device: Device) -> Result<Self> {
        let last = sums.size().first().copied().unwrap_or_default() - 1;
        let samples = sums.f_double_value(&[last])?;
        Ok(Meter { names, sums: sums.narrow(0, 0, last).to_device(device).copy(), samples })
    }

    /// The names and the sums `[names + 2]`, float64, the number of samples last: what is saved.
    pub fn state(&self) -> (&[String], Tensor) {
        let samples = Tensor::from_slice(&[self.samples]).to_device(self.sums.device());
        (&self.names, Tensor::cat(&[&self.sums, &samples], 0))
    }

    /// Gets ready for a step's numbers of these names.
    ///
    /// # Errors
    /// If they differ from those of the epoch's first step.
    pub fn expect<'n>(&mut self, names: impl Iterator<Item = &'n str> + Clone) -> Result<()> {
        if self.names.is_empty() {
            self.names = names.map(str::to_owned).collect();
            self.sums = Tensor::zeros([self.names.len() as i64 + 1], (Kind::Double, self.sums.device()));
        } else if !self.names.iter().map(String::as_str).eq(names.clone()) {
            return Err(Error::run(format!(
                "the terms changed within an epoch: {} became {}",
                self.names.join(", "),
                names.collect::<Vec<_>>().join(", ")
            )));
        }
        Ok(())
    }

    /// Adds a step of `samples` samples: `values` is `[names + 1]`, float64, means over the batch and then the number of right
    /// guesses. It is changed.
    pub fn add(&mut self, values: &Tensor, samples: usize) {
        let _no_grad = no_grad_guard();
        let _ = values.narrow(0, 0, self.names.len() as i64).g_mul_scalar_(samples as f64);
        let _ = self.sums.g_add_(values);
    }

    /// Counts the samples of a step.
    pub fn count(&mut self, samples: usize) {
        self.samples += samples as f64;
    }

    /// Reads the means from the device: every name, and top-1 in percent.
    ///
    /// # Errors
    /// If the device fails.
    pub fn read(&self) -> Result<(IndexMap<String, f64>, f64)> {
        let sums: Vec<f64> = Vec::try_from(&self.sums)?;
        let [means @ .., right] = sums.as_slice() else { return Ok(Default::default()) };
        let samples = self.samples.max(1.0);
        let means = self.names.iter().cloned().zip(means.iter().map(|sum| sum / samples)).collect();
        Ok((means, 100.0 * right / samples))
    }

    /// Starts the next epoch.
    pub fn clear(&mut self) {
        *self = Meter::new(self.sums.device());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_weighs_batches_by_their_samples() {
        let mut meter = Meter::new(Device::Cpu);
        for (values, samples) in [([1.0_f64, 3.0], 4), ([4.0, 0.0], 2)] {
            meter.expect(["loss"].into_iter()).unwrap();
            meter.add(&Tensor::from_slice(&values), samples);
            meter.count(samples);
        }
        let (means, top1) = meter.read().unwrap();
        assert_eq!((means["loss"], top1), (2.0, 50.0));
        let (names, sums) = meter.state();
        assert_eq!(Vec::<f64>::try_from(&sums).unwrap(), [12.0, 3.0, 6.0]);
        let restored = Meter::restore(names.to_vec(), &sums, Device::Cpu).unwrap();
        assert_eq!(restored.read().unwrap(), (means, top1));
        let error = meter.expect(["other"].into_iter()).unwrap_err();
        assert_eq!(error.to_string(), "the terms changed within an epoch: loss became other");
    }
}
