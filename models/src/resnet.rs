//! The residual networks for small images (He et al., section 4.2), as the distillation literature uses them.
//!
//! A 3×3 convolution, three stages of basic blocks, global average pooling and one linear layer. The second and the
//! third stage halve the resolution. A network of depth d has (d − 2) / 6 blocks a stage. At width k its stages are
//! 16·k, 32·k and 64·k channels wide, and its stem 16, or 32 from width 2 on: so are the published `x2` and `x4` networks.
//! A block whose output has another shape than its input has a shortcut that changes it as well, see [`Shortcut`].
//!
//! | tap | shape for an input of `[C, H, W]` | `:pre`, before the activation |
//! |---|---|---|
//! | `stem` | `[w₀, H, W]` | the first BatchNorm's output |
//! | `stage1` | `[w₁, H, W]` | the sum of residual and shortcut in the stage's last block |
//! | `stage2` | `[w₂, ⌈H/2⌉, ⌈W/2⌉]` | likewise |
//! | `stage3` | `[w₃, ⌈H/4⌉, ⌈W/4⌉]` | likewise |
//! | `pooled` | `[w₃]` | none |
//!
//! The groups are `stem`, `stage1`, `stage2`, `stage3` and `classifier`. Parameters have the names of the widely used
//! PyTorch implementations (`conv1`, `bn1`, `layer1.0.conv1`, …, `layer2.0.downsample.0`, …, `fc`). Convolutions start
//! by He's rule over the outputs, the linear layer as PyTorch's.

use limbeck::prelude::*;

use crate::layers::{Conv, Draft, Start};
use crate::residual::Residual;
pub use crate::residual::Shortcut;
use crate::staged::{STAGES, STEM, Stage, Staged};

const CITATION: &str = "He, Zhang, Ren, Sun. Deep Residual Learning for Image Recognition. CVPR 2016, arXiv:1512.03385";

/// Declares the named kinds of the family: a depth and a width each.
macro_rules! resnets {
    ($($config:ident $kind:literal: depth $depth:literal, width $width:literal, millions $millions:literal;)*) => {$(
        limbeck::plugin! {
            model $kind: $config,
            summary: concat!("residual network for small images, ", $millions, " million parameters"),
            citation: CITATION,
        }

        #[doc = concat!("The recipe of `", $kind, "`: ", $millions, " million parameters at 100 classes.")]
        #[derive(Clone, Debug, Settings)]
        pub struct $config {
            /// Where shapes change: "projection", or "identity_pad", without parameters.
            #[setting(default = Shortcut::Projection)]
            pub shortcut: Shortcut,
        }

        #[typetag::serde(name = $kind)]
        impl ModelConfig for $config {
            fn build(&self, path: &nn::Path<'_>, spec: &ModelSpec) -> Result<Box<dyn Model>> {
                let config = ResNet { depth: $depth, width: $width, shortcut: self.shortcut };
                Ok(Box::new(config.network(path, spec).map_err(|e| e.within($kind))?))
            }
        }
    )*};
}

resnets! {
    ResNet8 "resnet8": depth 8, width 1, millions "0.08";
    ResNet14 "resnet14": depth 14, width 1, millions "0.18";
    ResNet20 "resnet20": depth 20, width 1, millions "0.28";
    ResNet32 "resnet32": depth 32, width 1, millions "0.47";
    ResNet44 "resnet44": depth 44, width 1, millions "0.67";
    ResNet56 "resnet56": depth 56, width 1, millions "0.86";
    ResNet110 "resnet110": depth 110, width 1, millions "1.7";
    ResNet8x4 "resnet8x4": depth 8, width 4, millions "1.2";
    ResNet32x4 "resnet32x4": depth 32, width 4, millions "7.4";
}

limbeck::plugin! {
    model "resnet": ResNet,
    summary: "residual network for small images, of any depth and width",
    citation: CITATION,
}

/// The recipe of a network of any depth and width.
#[derive(Clone, Debug, Settings)]
pub struct ResNet {
    /// 6n + 2: n blocks in each of the three stages; 8 to 1202.
    #[setting(example = 20)]
    pub depth: usize,
    /// The stages are 16, 32 and 64 times as many channels wide.
    #[setting(default = 1, range = 1..=64)]
    pub width: i64,
    /// Where shapes change: "projection", or "identity_pad", without parameters.
    #[setting(default = Shortcut::Projection)]
    pub shortcut: Shortcut,
}

#[typetag::serde(name = "resnet")]
impl ModelConfig for ResNet {
    fn build(&self, path: &nn::Path<'_>, spec: &ModelSpec) -> Result<Box<dyn Model>> {
        Ok(Box::new(self.network(path, spec).map_err(|e| e.within("resnet"))?))
    }
}

impl ResNet {
    fn network(&self, path: &nn::Path<'_>, spec: &ModelSpec) -> Result<Staged<Residual>> {
        let blocks = blocks(self.depth, 2)?;
        let mut draft = Draft::new(spec, 2)?;
        let conv = draft.conv_bn(path / "conv1", path / "bn1", Conv::new(16 * self.width.min(2), 3));
        let stem = Stage::new(&mut draft, STEM, &["conv1", "bn1"], None, vec![conv]);
        let stages = (0..3).map(|i| {
            let layer = format!("layer{}", i + 1);
            let blocks = (0..blocks)
                .map(|j| {
                    let stride = if i > 0 && j == 0 { 2 } else { 1 };
                    let second = Conv::new((16 << i) * self.width, 3);
                    let layers = [Conv { stride, ..second }, second];
                    Residual::new(&(path / &layer / j), &mut draft, &layers, self.shortcut, "downsample")
                })
                .collect();
            Stage::new(&mut draft, STAGES[i], &[&layer], None, blocks)
        });
        let stages = stages.collect();
        let classifier = draft.classifier(path / "fc", Start::Torch, Start::Torch, &["fc"]);
        Ok(Staged::new(draft, stem, stages, None, classifier))
    }
}

/// The blocks in each of three stages of two-layer blocks, with `beside` layers outside of them.
pub(crate) fn blocks(depth: usize, beside: usize) -> Result<usize> {
    let (least, most) = (6 + beside, 1200 + beside);
    if !(least..=most).contains(&depth) || !(depth - beside).is_multiple_of(6) {
        return Err(Error::plan(format!(
            "depth must be 6n + {beside} ({least}, {}, {}, … up to {most}), not {depth}",
            least + 6,
            least + 12
        )));
    }
    Ok((depth - beside) / 6)
}
