//! Residual blocks: convolutions beside a shortcut.

use limbeck::prelude::*;
use serde::{Deserialize, Serialize};

use crate::layers::{Conv, ConvBn, Draft, relu};
use crate::staged::Block;

/// What a residual block adds where its output has another shape than its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shortcut {
    /// A 1×1 convolution and a BatchNorm of the input: option B of He et al., section 3.3.
    Projection,
    /// Every second pixel of the input, and as many channels of zeros before its own as behind them: option A, which has
    /// no parameters.
    IdentityPad,
}

/// Convolutions, each with its BatchNorm, with ReLUs between them, and a shortcut.
#[derive(Debug)]
pub(crate) struct Residual {
    layers: Vec<ConvBn>,
    shortcut: Beside,
}

#[derive(Debug)]
enum Beside {
    Identity,
    Projection(Box<ConvBn>),
    /// Stride, and channels of zeros before and behind.
    Pad(i64, [i64; 2]),
}

impl Residual {
    /// `layers` are registered as `conv1`, `bn1`, `conv2`, …; a projection as `PROJECTION.0` and `PROJECTION.1`.
    pub fn new(path: &nn::Path<'_>, draft: &mut Draft, layers: &[Conv], shortcut: Shortcut, projection: &str) -> Self {
        let from = draft.shape;
        let stride: i64 = layers.iter().map(|conv| conv.stride).product();
        let layers: Vec<ConvBn> = (1..)
            .zip(layers)
            .map(|(i, conv)| draft.conv_bn(path / format!("conv{i}"), path / format!("bn{i}"), *conv))
            .collect();
        let to = draft.shape;
        let shortcut = match shortcut {
            _ if stride == 1 && from == to => Beside::Identity,
            Shortcut::Projection => {
                let path = path / projection;
                let conv = Conv { stride, ..Conv::new(to[0], 1) };
                Beside::Projection(Box::new(draft.beside(from, |draft| draft.conv_bn(&path / 0, &path / 1, conv))))
            }
            Shortcut::IdentityPad => {
                let more = to[0] - from[0];
                Beside::Pad(stride, [more / 2, more - more / 2])
            }
        };
        Residual { layers, shortcut }
    }
}

impl Block for Residual {
    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let mut sum = self.layers[0].forward(x, train);
        for layer in &self.layers[1..] {
            sum = layer.forward(&relu(sum, false), train);
        }
        sum += match &self.shortcut {
            Beside::Identity => x.shallow_clone(),
            Beside::Projection(projection) => projection.forward(x, train),
            Beside::Pad(stride, [before, behind]) => {
                let every = x.slice(2, None, None, *stride).slice(3, None, None, *stride);
                every.constant_pad_nd([0, 0, 0, 0, *before, *behind])
            }
        };
        sum
    }

    fn batch_norm(&self) -> Option<&BatchNormInfo> {
        self.layers.last().map(ConvBn::batch_norm)
    }

    fn layers(&mut self) -> Vec<&mut ConvBn> {
        let projection = match &mut self.shortcut {
            Beside::Projection(projection) => Some(&mut **projection),
            Beside::Identity | Beside::Pad(..) => None,
        };
        self.layers.iter_mut().chain(projection).collect()
    }
}
