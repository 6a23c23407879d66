//! The convolutional regressor of FitNets: it takes a map of the student to the teacher's size and channels.

use limbeck::nn::{Module, ModuleT};
use limbeck::prelude::*;

/// A convolution, or a transposed one, and a BatchNorm.
#[derive(Debug)]
pub(crate) struct ConvReg {
    conv: Conv,
    bn: nn::BatchNorm,
}

#[derive(Debug)]
enum Conv {
    Down(nn::Conv2D),
    Up(nn::ConvTranspose2D),
}

/// How one height becomes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resize {
    /// Half: 3×3, stride 2, padding 1.
    Half,
    /// Twice: transposed 4×4, stride 2, padding 1.
    Twice,
    /// Without padding, by a kernel of this size.
    Valid(i64),
}

impl Resize {
    fn between(method: &str, from: i64, to: i64) -> Result<Self> {
        if from == 2 * to {
            Ok(Resize::Half)
        } else if 2 * from == to {
            Ok(Resize::Twice)
        } else if from >= to {
            Ok(Resize::Valid(1 + from - to))
        } else {
            Err(Error::plan(format!(
                "{method}: a map of the student of height {from} cannot become the teacher's of height {to}: it must be at \
                 least as high, or half as high; pair other taps with `taps`"
            )))
        }
    }
}

impl ConvReg {
    /// Checks that there is a way from one shape `[C, H, W]` to another.
    ///
    /// # Errors
    /// With the heights and the remedy.
    pub fn check(method: &str, from: TapShape, to: TapShape) -> Result<()> {
        Resize::between(method, from.height(), to.height()).map(|_| ())
    }

    pub fn new(method: &str, path: &nn::Path<'_>, from: TapShape, to: TapShape) -> Result<Self> {
        let (channels, out) = (from.channels(), to.channels());
        let layer = match Resize::between(method, from.height(), to.height())? {
            Resize::Half => {
                let config = nn::ConvConfig { stride: 2, padding: 1, ..Default::default() };
                Conv::Down(nn::conv(path / "conv", channels, out, 3, config))
            }
            Resize::Twice => {
                let config = nn::ConvTransposeConfig { stride: 2, padding: 1, ..Default::default() };
                Conv::Up(nn::conv_transpose(path / "conv", channels, out, 4, config))
            }
            Resize::Valid(size) => Conv::Down(nn::conv(path / "conv", channels, out, size, Default::default())),
        };
        Ok(ConvReg { conv: layer, bn: nn::batch_norm(path / "bn", out) })
    }

    /// `[B, C, H, W]` of the student → the teacher's shape, before any activation; BatchNorm with the batch's statistics.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let x = match &self.conv {
            Conv::Down(conv) => conv.forward(x),
            Conv::Up(conv) => conv.forward(x),
        };
        self.bn.forward_t(&x, true)
    }
}
