//! Layers of methods' own modules, initialised as PyTorch initialises them: uniform in ±1/√fan_in, weights and biases.
//! tch's own defaults are √6 times as wide.

use limbeck::prelude::*;
use tch::nn::Init;

fn uniform(fan_in: i64) -> Init {
    let bound = 1.0 / (fan_in as f64).sqrt();
    Init::Uniform { lo: -bound, up: bound }
}

/// A linear layer with bias.
pub(crate) fn linear(path: nn::Path<'_>, from: i64, to: i64) -> nn::Linear {
    let init = uniform(from);
    nn::linear(path, from, to, nn::LinearConfig { ws_init: init, bs_init: Some(init), bias: true })
}

/// A linear layer without.
pub(crate) fn linear_without_bias(path: nn::Path<'_>, from: i64, to: i64) -> nn::Linear {
    nn::linear(path, from, to, nn::LinearConfig { ws_init: uniform(from), bs_init: None, bias: false })
}

/// A convolution; stride, padding and bias are the configuration's.
pub(crate) fn conv(path: nn::Path<'_>, from: i64, to: i64, kernel: i64, config: nn::ConvConfig) -> nn::Conv2D {
    let init = uniform(from * kernel * kernel);
    nn::conv2d(path, from, to, kernel, nn::ConvConfig { ws_init: init, bs_init: init, ..config })
}

/// A transposed convolution. Its weight is `[from, to, k, k]`, and its fan-in is counted over the last three.
pub(crate) fn conv_transpose(
    path: nn::Path<'_>,
    from: i64,
    to: i64,
    kernel: i64,
    config: nn::ConvTransposeConfig,
) -> nn::ConvTranspose2D {
    let init = uniform(to * kernel * kernel);
    nn::conv_transpose2d(path, from, to, kernel, nn::ConvTransposeConfig { ws_init: init, bs_init: init, ..config })
}

/// A BatchNorm over the channels of a map that starts as the identity.
pub(crate) fn batch_norm(path: nn::Path<'_>, channels: i64) -> nn::BatchNorm {
    nn::batch_norm2d(path, channels, nn::BatchNormConfig { ws_init: Init::Const(1.0), ..Default::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_and_biases_fill_the_range_of_pytorchs() {
        tch::manual_seed(5);
        let store = nn::VarStore::new(Device::Cpu);
        let root = store.root();
        let l = linear(&root / "l", 400, 300);
        let c = conv(&root / "c", 30, 300, 3, Default::default());
        let t = conv_transpose(&root / "t", 30, 300, 4, Default::default());
        let cases = [(&l.ws, l.bs.as_ref(), 400.0), (&c.ws, c.bs.as_ref(), 270.0), (&t.ws, t.bs.as_ref(), 4800.0)];
        for (weight, bias, fan_in) in cases {
            let bound = 1.0 / f64::sqrt(fan_in);
            for tensor in [weight, bias.unwrap()] {
                let largest = tensor.abs().max().double_value(&[]);
                assert!((0.97 * bound..=bound).contains(&largest), "{fan_in}: {largest} of {bound}");
            }
        }
    }
}
