//! What changes from epoch to epoch or from step to step by plan, on the device before the epoch begins.

use tch::{Device, Kind, Tensor};

/// The rates and weights of one epoch.
#[derive(Debug)]
pub(super) struct EpochPlan {
    /// The number of its stage.
    pub stage: usize,
    /// From 1.
    pub epoch: u64,
    rates: Vec<f64>,
    /// `[steps]`, float32.
    rates_on_device: Tensor,
    /// The terms at work.
    pub terms: Vec<TermAtWork>,
}

/// A term that has a loss in an epoch.
#[derive(Debug)]
pub(super) struct TermAtWork {
    /// Its place in the method.
    pub index: usize,
    /// What its losses are multiplied by.
    pub weight: Weight,
}

/// What a loss is multiplied by.
#[derive(Debug)]
pub(super) struct Weight {
    value: f64,
    /// `[]`, float32.
    on_device: Tensor,
}

impl Weight {
    /// The same on the host and on the device.
    pub fn new(value: f64, device: Device) -> Self {
        Weight { value, on_device: Tensor::from(value as f32).to_device(device) }
    }

    /// Whether what it multiplies plays no part.
    pub fn is_zero(&self) -> bool {
        self.value == 0.0
    }

    /// The loss `[]`, times the weight.
    pub fn times(&self, loss: &Tensor) -> Tensor {
        if self.value == 1.0 {
            // The product would be the same number.
            loss.shallow_clone()
        } else if loss.kind() == Kind::Float {
            loss * &self.on_device
        } else {
            loss * self.value
        }
    }
}

impl EpochPlan {
    /// `rates` has the learning rate of each step; `terms` are those at work, with their weights.
    pub fn new(stage: usize, epoch: u64, rates: Vec<f64>, terms: Vec<(usize, f64)>, device: Device) -> Self {
        let rates_on_device = Tensor::from_slice(&rates).to_kind(Kind::Float).to_device(device);
        let terms = terms.into_iter().map(|(index, weight)| TermAtWork { index, weight: Weight::new(weight, device) });
        EpochPlan { stage, epoch, rates, rates_on_device, terms: terms.collect() }
    }

    /// The learning rate of a step of the epoch, from 0: on the host, and on the device as `[]`, float32.
    ///
    /// It is the same in both but for rounding.
    pub fn rate(&self, step: usize) -> (f64, Tensor) {
        (self.rates.get(step).copied().unwrap_or_default(), self.rates_on_device.get(step as i64))
    }
}
