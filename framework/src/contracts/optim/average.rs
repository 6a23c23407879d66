//! The exponential moving average of a student's weights.

use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad_guard};

use super::flat::flatten;
use crate::error::{Error, Result};

/// Keeps an average of the student beside it: the average is what is evaluated and exported.
///
/// θ̄ is the weights after the first update; after update t, counted from 0, θ̄ ← d·θ̄ + (1 − d)·θ with
/// d = min(`decay`, (1 + t) / (10 + t)), the rising decay of TensorFlow's `ExponentialMovingAverage` (Tarvainen, Valpola.
/// Mean teachers are better role models. NeurIPS 2017, is where distillation has averages from). BatchNorm's running
/// statistics are averaged alike.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AverageConfig {
    /// The share of the old average that is kept in an update, below 1.
    pub decay: f64,
}

impl AverageConfig {
    /// Checks the setting.
    ///
    /// # Errors
    /// If the decay is out of range.
    pub fn check(&self) -> Result<()> {
        if self.decay > 0.0 && self.decay < 1.0 {
            return Ok(());
        }
        Err(Error::plan(format!("decay must be between 0 and 1, not {}", self.decay)))
    }
}

/// The average of all floating-point variables of a network, in one tensor.
#[derive(Debug)]
pub struct Average {
    decay: f64,
    /// `[S]`, the variables in the order of their names.
    values: Tensor,
}

fn concatenate(variables: &[(String, Tensor)]) -> Tensor {
    Tensor::cat(&variables.iter().map(|(_, tensor)| flatten(&tensor.detach())).collect::<Vec<_>>(), 0)
}

impl Average {
    /// Begins with the variables as they are. Always give the same variables in the same order.
    pub fn new(config: AverageConfig, variables: &[(String, Tensor)]) -> Self {
        let _no_grad = no_grad_guard();
        Average { decay: config.decay, values: concatenate(variables) }
    }

    /// Takes the variables in after update `update`, counted from 0.
    pub fn update(&mut self, variables: &[(String, Tensor)], update: u64) {
        let _no_grad = no_grad_guard();
        let kept = match update {
            0 => 0.0,
            t => self.decay.min((1.0 + t as f64) / (10.0 + t as f64)),
        };
        let _ = self.values.lerp_(&concatenate(variables), 1.0 - kept);
    }

    /// Exchanges the variables' values and the average; a second call puts every bit back.
    pub fn swap(&mut self, variables: &[(String, Tensor)]) {
        let _no_grad = no_grad_guard();
        let current = concatenate(variables);
        let mut offset = 0;
        for (_, variable) in variables {
            let length = variable.numel() as i64;
            let piece = self.values.narrow(0, offset, length);
            let value = match variable.size().as_slice() {
                [o, i, h, w] => piece.view([*o, *h, *w, *i]).permute([0, 3, 1, 2]),
                shape => piece.view(shape),
            };
            variable.shallow_clone().copy_(&value);
            offset += length;
        }
        self.values.copy_(&current);
    }

    /// The average, `[S]`: loading copies into it.
    pub fn state(&self) -> Tensor {
        self.values.shallow_clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_follows_its_formula_and_swaps_without_a_trace() {
        let weight = Tensor::arange(24, (tch::Kind::Float, tch::Device::Cpu)).view([2, 3, 2, 2]);
        let variables = vec![("b".to_owned(), Tensor::from_slice(&[1.0_f32, 2.0])), ("w".to_owned(), weight)];
        let mut average = Average::new(AverageConfig { decay: 0.5 }, &variables);
        let mut expected = 0.0;
        for (t, value) in [3.0_f32, 5.0, 4.0, 8.0].into_iter().enumerate() {
            let _ = variables[0].1.shallow_clone().fill_(f64::from(value));
            average.update(&variables, t as u64);
            let t = t as f32;
            let kept = if t == 0.0 { 0.0 } else { ((1.0 + t) / (10.0 + t)).min(0.5) };
            expected = kept * expected + (1.0 - kept) * value;
        }
        let before: Vec<Tensor> = variables.iter().map(|(_, t)| t.copy()).collect();
        average.swap(&variables);
        approx::assert_relative_eq!(variables[0].1.double_value(&[1]), f64::from(expected), max_relative = 1e-6);
        assert!(variables[1].1.equal(&before[1]), "what did not move is its own average, in every place");
        average.swap(&variables);
        assert!(variables.iter().zip(&before).all(|((_, now), then)| now.equal(then)));
    }

    #[test]
    fn a_decay_out_of_range_is_refused() {
        let message = AverageConfig { decay: 1.0 }.check().unwrap_err().to_string();
        assert_eq!(message, "decay must be between 0 and 1, not 1");
    }
}
