//! Adam with decoupled weight decay, as PyTorch defines it.

use tch::{Kind, Tensor};

use super::optimizer::{Optimizer, OptimizerConfig};
use crate::error::Result;
use crate::settings::Settings;

crate::plugin! {
    optimizer "adamw": AdamW,
    summary: "Adam with decoupled weight decay",
    citation: "Loshchilov, Hutter. Decoupled Weight Decay Regularization. ICLR 2019, algorithm 2",
}

/// AdamW: θ ← θ − ηλθ; m ← β₁m + (1 − β₁)g; v ← β₂v + (1 − β₂)g²; θ ← θ − η·m̂ / (√v̂ + ε), with m̂ = m / (1 − β₁ᵗ) and
/// v̂ = v / (1 − β₂ᵗ) in update t, counted from 1.
#[derive(Clone, Debug, Settings)]
pub struct AdamW {
    /// β₁: first moment ← β₁·first moment + (1 − β₁)·gradient.
    #[setting(default = 0.9, range = 0.0..1.0)]
    pub beta1: f64,
    /// β₂: second moment ← β₂·second moment + (1 − β₂)·gradient².
    #[setting(default = 0.999, range = 0.0..1.0)]
    pub beta2: f64,
    /// ε: added to the root of the corrected second moment.
    #[setting(default = 1e-8, range = positive)]
    pub epsilon: f64,
    /// λ: parameters ← parameters − learning rate·λ·parameters, on everything that is trained.
    #[setting(default = 0.01, range = not_negative)]
    pub weight_decay: f64,
}

#[typetag::serde(name = "adamw")]
impl OptimizerConfig for AdamW {
    fn build(&self, parameters: &Tensor) -> Result<Box<dyn Optimizer>> {
        Ok(Box::new(LiveAdamW {
            config: self.clone(),
            decay: None,
            first: parameters.zeros_like(),
            second: parameters.zeros_like(),
            updates: Tensor::zeros([1], (Kind::Double, parameters.device())),
        }))
    }
}

#[derive(Debug)]
struct LiveAdamW {
    config: AdamW,
    /// `[P]`: λ where weight decay applies, else 0; absent: λ everywhere.
    decay: Option<Tensor>,
    first: Tensor,
    second: Tensor,
    /// `[1]`: t. On the device, so that no step waits to read it.
    updates: Tensor,
}

impl LiveAdamW {
    /// 1 − βᵗ as a scalar on the device, in the parameters' kind.
    fn correction(&self, beta: f64) -> Tensor {
        let power: Tensor = (&self.updates * beta.ln()).exp().reshape([]);
        let power = if beta == 0.0 { power.zeros_like() } else { power };
        (power.neg() + 1.0).to_kind(self.first.kind())
    }
}

impl Optimizer for LiveAdamW {
    fn step(&mut self, parameters: &mut Tensor, gradient: &mut Tensor, learning_rate: &Tensor) {
        let AdamW { beta1, beta2, epsilon, weight_decay } = self.config;
        let _ = self.updates.g_add_scalar_(1.0);
        if weight_decay != 0.0 {
            let step = match &self.decay {
                None => learning_rate * -weight_decay,
                Some(decay) => -(learning_rate * decay),
            };
            let _ = parameters.g_mul_(&(step + 1.0));
        }
        let _ = self.first.g_mul_scalar_(beta1).g_add_(&(&*gradient * (1.0 - beta1)));
        let _ = self.second.g_mul_scalar_(beta2).g_add_(&(gradient.square() * (1.0 - beta2)));
        let root = (&self.second / self.correction(beta2)).sqrt_().g_add_scalar_(epsilon);
        let rate = learning_rate.neg() / self.correction(beta1);
        let _ = parameters.addcmul_(&(&self.first / root), &rate);
    }

    fn decay_only(&mut self, decays: &Tensor) -> Result<()> {
        self.decay = Some(decays * self.config.weight_decay);
        Ok(())
    }

    fn state(&self) -> Vec<(&'static str, Tensor)> {
        let (first, second) = (self.first.shallow_clone(), self.second.shallow_clone());
        vec![("first", first), ("second", second), ("updates", self.updates.shallow_clone())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn decay_spares_what_it_is_told_to() {
        // θ = (1, −2), gradient (0.5, 1), η = 0.1, λ = 0.1, one step: m̂/√v̂ is 1 for any gradient, and only the second
        // parameter decays.
        let mut theta = Tensor::from_slice(&[1.0_f64, -2.0]);
        let mut adamw = AdamW { weight_decay: 0.1, epsilon: 1e-300, ..AdamW::default() }.build(&theta).unwrap();
        adamw.decay_only(&Tensor::from_slice(&[0.0_f64, 1.0])).unwrap();
        let mut gradient = Tensor::from_slice(&[0.5_f64, 1.0]);
        adamw.step(&mut theta, &mut gradient, &Tensor::full([] as [i64; 0], 0.1, (Kind::Double, Device::Cpu)));
        let [first, second] = Vec::<f64>::try_from(theta).unwrap()[..] else { panic!("two parameters") };
        approx::assert_relative_eq!(first, 1.0 - 0.1, max_relative = 1e-12);
        approx::assert_relative_eq!(second, -2.0 * (1.0 - 0.1 * 0.1) - 0.1, max_relative = 1e-12);
    }

    #[test]
    fn three_steps_are_those_of_algorithm_2() {
        let config = AdamW { weight_decay: 0.1, ..AdamW::default() };
        let mut theta = Tensor::from_slice(&[1.0_f64, -2.0]);
        let mut adamw = config.build(&theta).unwrap();
        let gradients = [[0.5_f64, 1.0], [-0.25, 2.0], [0.1, -0.3]];
        for gradient in gradients {
            let rate = Tensor::full([] as [i64; 0], 0.01, (Kind::Double, Device::Cpu));
            adamw.step(&mut theta, &mut Tensor::from_slice(&gradient), &rate);
        }
        for (i, start) in [1.0_f64, -2.0].into_iter().enumerate() {
            let (mut value, mut m, mut v) = (start, 0.0, 0.0);
            for (t, gradient) in gradients.iter().enumerate() {
                let (g, t) = (gradient[i], t as i32 + 1);
                value -= 0.01 * 0.1 * value;
                m = 0.9 * m + 0.1 * g;
                v = 0.999 * v + 0.001 * g * g;
                value -= 0.01 * (m / (1.0 - 0.9_f64.powi(t))) / ((v / (1.0 - 0.999_f64.powi(t))).sqrt() + 1e-8);
            }
            approx::assert_relative_eq!(theta.double_value(&[i as i64]), value, max_relative = 1e-12);
        }
    }

    #[test]
    fn the_rate_may_differ_by_element_and_a_rate_of_zero_changes_nothing() {
        let mut theta = Tensor::from_slice(&[1.0_f64, 1.0]);
        let mut adamw = AdamW::default().build(&theta).unwrap();
        adamw.step(&mut theta, &mut Tensor::from_slice(&[1.0_f64, 1.0]), &Tensor::from_slice(&[0.0_f64, 0.1]));
        assert_eq!(theta.double_value(&[0]), 1.0);
        approx::assert_relative_eq!(theta.double_value(&[1]), 0.999 - 0.1, max_relative = 1e-7);
    }

    #[test]
    fn bad_settings_are_refused() {
        fn refuse(adamw: AdamW) -> String {
            adamw.check_ranges().unwrap_err().to_string()
        }

        assert_eq!(refuse(AdamW { beta2: 1.0, ..AdamW::default() }), "beta2 must be in 0..1, not 1");
        assert_eq!(refuse(AdamW { epsilon: 0.0, ..AdamW::default() }), "epsilon must be positive, not 0");
        assert_eq!(
            refuse(AdamW { weight_decay: -1.0, ..AdamW::default() }),
            "weight_decay must not be negative, not -1"
        );
    }
}
