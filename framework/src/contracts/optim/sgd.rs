//! Stochastic gradient descent with momentum, as PyTorch defines it.

use tch::Tensor;

use super::optimizer::{Optimizer, OptimizerConfig};
use crate::error::{Error, Result};
use crate::settings::Settings;

crate::plugin! {
    optimizer "sgd": Sgd,
    summary: "stochastic gradient descent with momentum, Nesterov's variant and L2 weight decay",
    citation: "Sutskever, Martens, Dahl, Hinton. On the importance of initialization and momentum in deep learning. ICML 2013",
}

/// SGD: g ← g + λθ; v ← μv + g; θ ← θ − η·(v, or g + μv for Nesterov).
#[derive(Clone, Debug, Settings)]
pub struct Sgd {
    /// μ: velocity ← μ·velocity + gradient.
    #[setting(default = 0.9, range = 0.0..1.0)]
    pub momentum: f64,
    /// λ: gradient ← gradient + λ·parameters, on everything that is trained.
    #[setting(default = 5e-4, range = not_negative)]
    pub weight_decay: f64,
    /// Step along gradient + μ·velocity instead of velocity.
    #[setting(default = false)]
    pub nesterov: bool,
}

#[typetag::serde(name = "sgd")]
impl OptimizerConfig for Sgd {
    fn build(&self, parameters: &Tensor) -> Result<Box<dyn Optimizer>> {
        if self.nesterov && self.momentum == 0.0 {
            return Err(Error::plan("sgd: nesterov needs momentum"));
        }
        Ok(Box::new(LiveSgd { config: self.clone(), decay: None, velocity: parameters.zeros_like() }))
    }
}

#[derive(Debug)]
struct LiveSgd {
    config: Sgd,
    /// `[P]`: λ where weight decay applies, else 0; absent: λ everywhere.
    decay: Option<Tensor>,
    velocity: Tensor,
}

impl Optimizer for LiveSgd {
    fn step(&mut self, parameters: &mut Tensor, gradient: &mut Tensor, learning_rate: &Tensor) {
        if self.config.weight_decay != 0.0 {
            let decay = match &self.decay {
                None => &*parameters * self.config.weight_decay,
                Some(decay) => &*parameters * decay,
            };
            let _ = gradient.g_add_(&decay);
        }
        let _ = self.velocity.g_mul_scalar_(self.config.momentum).g_add_(gradient);
        let direction = if self.config.nesterov {
            &*gradient + &self.velocity * self.config.momentum
        } else {
            self.velocity.shallow_clone()
        };
        let _ = parameters.addcmul_(&direction, &learning_rate.neg());
    }

    fn decay_only(&mut self, decays: &Tensor) -> Result<()> {
        self.decay = Some(decays * self.config.weight_decay);
        Ok(())
    }

    fn state(&self) -> Vec<(&'static str, Tensor)> {
        vec![("velocity", self.velocity.shallow_clone())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    /// θ = (1, −2), constant gradient (0.5, 1), η = 0.1, μ = 0.9, λ = 0.01: three steps worked out by hand.
    fn three_steps(nesterov: bool) -> Vec<f64> {
        let mut theta = Tensor::from_slice(&[1.0_f64, -2.0]);
        let mut sgd = Sgd { momentum: 0.9, weight_decay: 0.01, nesterov }.build(&theta).unwrap();
        for _ in 0..3 {
            let mut gradient = Tensor::from_slice(&[0.5_f64, 1.0]);
            sgd.step(&mut theta, &mut gradient, &Tensor::full([] as [i64; 0], 0.1, (Kind::Double, Device::Cpu)));
        }
        Vec::try_from(theta).unwrap()
    }

    fn by_hand(nesterov: bool) -> Vec<f64> {
        [(1.0_f64, 0.5_f64), (-2.0, 1.0)]
            .into_iter()
            .map(|(start, slope)| {
                let (mut theta, mut velocity) = (start, 0.0);
                for _ in 0..3 {
                    let g = slope + 0.01 * theta;
                    velocity = 0.9 * velocity + g;
                    theta -= 0.1 * if nesterov { g + 0.9 * velocity } else { velocity };
                }
                theta
            })
            .collect()
    }

    #[test]
    fn steps_are_pytorchs() {
        for nesterov in [false, true] {
            for (ours, reference) in three_steps(nesterov).iter().zip(by_hand(nesterov)) {
                approx::assert_relative_eq!(*ours, reference, max_relative = 1e-14);
            }
        }
        approx::assert_relative_eq!(three_steps(false)[0], 0.714_134_749, max_relative = 1e-9);
    }

    #[test]
    fn decay_spares_what_it_is_told_to() {
        // θ = (1, −2), gradient (0.5, 1), η = 0.1, λ = 0.01, one step: only the second parameter decays.
        let mut theta = Tensor::from_slice(&[1.0_f64, -2.0]);
        let mut sgd = Sgd { momentum: 0.0, weight_decay: 0.01, nesterov: false }.build(&theta).unwrap();
        sgd.decay_only(&Tensor::from_slice(&[0.0_f64, 1.0])).unwrap();
        let mut gradient = Tensor::from_slice(&[0.5_f64, 1.0]);
        sgd.step(&mut theta, &mut gradient, &Tensor::full([] as [i64; 0], 0.1, (Kind::Double, Device::Cpu)));
        let [first, second] = Vec::<f64>::try_from(theta).unwrap()[..] else { panic!("two parameters") };
        approx::assert_relative_eq!(first, 1.0 - 0.1 * 0.5, max_relative = 1e-14);
        approx::assert_relative_eq!(second, -2.0 - 0.1 * (1.0 - 0.01 * 2.0), max_relative = 1e-14);
    }

    #[test]
    fn bad_settings_are_refused() {
        fn refuse(sgd: Sgd) -> String {
            sgd.check_ranges().unwrap_err().to_string()
        }

        assert_eq!(refuse(Sgd { momentum: 1.0, ..Sgd::default() }), "momentum must be in 0..1, not 1");
        assert_eq!(refuse(Sgd { weight_decay: -1.0, ..Sgd::default() }), "weight_decay must not be negative, not -1");
        let theta = Tensor::zeros([1], (Kind::Float, Device::Cpu));
        let error = Sgd { momentum: 0.0, nesterov: true, ..Sgd::default() }.build(&theta).unwrap_err();
        assert_eq!(error.to_string(), "sgd: nesterov needs momentum");
    }
}
