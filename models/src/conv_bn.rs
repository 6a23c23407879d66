//! A convolution with the BatchNorm behind it, which a frozen network folds into one.

use limbeck::prelude::*;
use tch::nn::init::{FanInOut, NonLinearity, NormalOrUniform};
use tch::nn::{Init, Module, ModuleT};

/// BatchNorm's ε.
const EPSILON: f64 = 1e-5;

/// A convolution without bias and a BatchNorm; once folded, a convolution with bias.
#[derive(Debug)]
pub(crate) struct ConvBn {
    conv: nn::Conv2D,
    bn: Option<nn::BatchNorm>,
}

impl ConvBn {
    /// A `kernel`×`kernel` convolution that keeps the resolution up to its stride, with He initialisation over the outputs,
    /// and a BatchNorm that starts as the identity.
    pub fn new(conv: nn::Path<'_>, bn: nn::Path<'_>, from: i64, to: i64, kernel: i64, stride: i64) -> Self {
        let ws_init =
            Init::Kaiming { dist: NormalOrUniform::Normal, fan: FanInOut::FanOut, non_linearity: NonLinearity::ReLU };
        let config = nn::ConvConfig { stride, padding: kernel / 2, bias: false, ws_init, ..Default::default() };
        // tch's own default draws BatchNorm's weights.
        let norm = nn::BatchNormConfig { ws_init: Init::Const(1.0), eps: EPSILON, ..Default::default() };
        ConvBn { conv: nn::conv2d(conv, from, to, kernel, config), bn: Some(nn::batch_norm2d(bn, to, norm)) }
    }

    /// A new tensor, which the caller may change in place. `train` chooses the batch's statistics.
    pub fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let x = self.conv.forward(x);
        match &self.bn {
            Some(bn) => bn.forward_t(&x, train),
            None => x,
        }
    }

    /// With factor = γ / √(σ² + ε) for each channel: weight ← weight · factor, bias ← β − μ · factor.
    pub fn fold(&mut self, kind: Kind) {
        let Some(nn::BatchNorm { running_mean, running_var, ws: Some(gamma), bs: Some(beta), .. }) = self.bn.take()
        else {
            return;
        };
        let double = |t: &Tensor| t.detach().to_kind(Kind::Double);
        let factor = double(&gamma) / (double(&running_var) + EPSILON).sqrt();
        let bias = double(&beta) - double(&running_mean) * &factor;
        self.conv.ws = (double(&self.conv.ws) * factor.view([-1, 1, 1, 1])).to_kind(kind);
        self.conv.bs = Some(bias.to_kind(kind));
    }
}
