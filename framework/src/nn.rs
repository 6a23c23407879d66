//! Layers that start as PyTorch's do, and the parts of tch's [`nn`](tch::nn) that go with them.
//!
//! tch's own constructors draw other initial values than PyTorch: the weights of its linear layers and convolutions are √6
//! times as wide, and those of its BatchNorm are random. A method or a network that was published with PyTorch wants these
//! instead. The layers are tch's own types, with PyTorch's names of parameters; a layer that shall start in another way
//! still is an affair of [`tch::nn`].

use std::borrow::Borrow;

pub use tch::nn::{
    BatchNorm, BatchNormConfig, Conv2D, ConvConfig, ConvTranspose2D, ConvTransposeConfig, Init, LayerNorm,
    LayerNormConfig, Linear, LinearConfig, Module, ModuleT, Path, VarStore,
};

/// Uniform in ±1/√`fan_in`: what the weights and biases of PyTorch's linear layers and convolutions start with.
pub fn fan_in_uniform(fan_in: i64) -> Init {
    let bound = 1.0 / (fan_in as f64).sqrt();
    Init::Uniform { lo: -bound, up: bound }
}

/// PyTorch's `Linear`: `[…, from]` → `[…, to]`.
pub fn linear<'a>(path: impl Borrow<Path<'a>>, from: i64, to: i64) -> Linear {
    let init = fan_in_uniform(from);
    tch::nn::linear(path, from, to, LinearConfig { ws_init: init, bs_init: Some(init), bias: true })
}

/// PyTorch's `Linear` with `bias=False`.
pub fn linear_without_bias<'a>(path: impl Borrow<Path<'a>>, from: i64, to: i64) -> Linear {
    tch::nn::linear(path, from, to, LinearConfig { ws_init: fan_in_uniform(from), bs_init: None, bias: false })
}

/// PyTorch's `Conv2d` with a square kernel: `[B, from, H, W]` → `[B, to, H', W']`. `config` says stride, padding, dilation,
/// groups and whether there is a bias; its initialisers are not used.
pub fn conv<'a>(path: impl Borrow<Path<'a>>, from: i64, to: i64, kernel: i64, config: ConvConfig) -> Conv2D {
    let init = fan_in_uniform(from / config.groups * kernel * kernel);
    tch::nn::conv2d(path, from, to, kernel, ConvConfig { ws_init: init, bs_init: init, ..config })
}

/// PyTorch's `ConvTranspose2d` with a square kernel: `[B, from, H, W]` → `[B, to, H', W']`. Its weight is
/// `[from, to / groups, k, k]`, and its fan-in is counted over the last three. `config` is used as by [`conv`].
pub fn conv_transpose<'a>(
    path: impl Borrow<Path<'a>>,
    from: i64,
    to: i64,
    kernel: i64,
    config: ConvTransposeConfig,
) -> ConvTranspose2D {
    let init = fan_in_uniform(to / config.groups * kernel * kernel);
    tch::nn::conv_transpose2d(path, from, to, kernel, ConvTransposeConfig { ws_init: init, bs_init: init, ..config })
}

/// PyTorch's `BatchNorm2d`, over the channels of a map `[B, C, H, W]`: it starts as the identity.
pub fn batch_norm<'a>(path: impl Borrow<Path<'a>>, channels: i64) -> BatchNorm {
    tch::nn::batch_norm2d(path, channels, BatchNormConfig { ws_init: Init::Const(1.0), ..Default::default() })
}

/// PyTorch's `LayerNorm`, over the last dimension `[…, width]`: it starts as the identity.
pub fn layer_norm<'a>(path: impl Borrow<Path<'a>>, width: i64) -> LayerNorm {
    tch::nn::layer_norm(path, vec![width], LayerNormConfig::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    /// The largest value, and the mean of the squares.
    fn size(values: &Tensor) -> (f64, f64) {
        (values.abs().max().double_value(&[]), values.square().mean(Kind::Double).double_value(&[]))
    }

    fn assert_uniform(values: &Tensor, bound: f64) {
        let (largest, square) = size(values);
        assert!(largest <= bound && largest > 0.9 * bound, "{largest} {bound}");
        approx::assert_relative_eq!(square, bound * bound / 3.0, max_relative = 0.1);
    }

    #[test]
    fn weights_and_biases_are_uniform_by_fan_in() {
        tch::manual_seed(1);
        let store = VarStore::new(Device::Cpu);
        let root = store.root();
        let layer = linear(&root / "linear", 100, 200);
        assert_uniform(&layer.ws, 0.1);
        assert_uniform(layer.bs.as_ref().unwrap(), 0.1);
        assert!(linear_without_bias(&root / "free", 100, 200).bs.is_none());
        let config = ConvConfig { groups: 4, ..Default::default() };
        let layer = conv(&root / "conv", 64, 256, 5, config);
        assert_eq!(layer.ws.size(), [256, 16, 5, 5]);
        assert_uniform(&layer.ws, 0.05);
        assert_uniform(layer.bs.as_ref().unwrap(), 0.05);
        let layer = conv_transpose(&root / "up", 64, 25, 4, Default::default());
        assert_eq!(layer.ws.size(), [64, 25, 4, 4]);
        assert_uniform(&layer.ws, 0.05);
    }

    #[test]
    fn norms_start_as_the_identity() {
        let store = VarStore::new(Device::Cpu);
        let root = store.root();
        let norm = batch_norm(&root / "bn", 8);
        assert_eq!(size(norm.ws.as_ref().unwrap()), (1.0, 1.0));
        assert_eq!(size(norm.bs.as_ref().unwrap()), (0.0, 0.0));
        let norm = layer_norm(&root / "ln", 8);
        assert_eq!(norm.ws.as_ref().map(size), Some((1.0, 1.0)));
        assert_eq!(norm.bs.as_ref().map(size), Some((0.0, 0.0)));
    }
}
