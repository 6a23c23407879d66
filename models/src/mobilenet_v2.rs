//! MobileNetV2 of half width for small images, as in the CRD paper's code.
//!
//! A 3×3 convolution of stride 2, seven groups of inverted residuals, a 1×1 convolution to 1280 channels, global average
//! pooling and one linear layer. An inverted residual widens its input six times (in the first group not at all), convolves
//! each channel by itself, and narrows it again without an activation; where shape and channels stay, its input is added.
//! The second group keeps the resolution here, unlike in the paper.
//!
//! | tap | shape for an input of `[C, H, W]` | `:pre`, before the activation |
//! |---|---|---|
//! | `stem` | `[16, ⌈H/2⌉, ⌈W/2⌉]` | the first BatchNorm's output |
//! | `stage1` | `[12, ⌈H/2⌉, ⌈W/2⌉]`, behind the second group | the same value: nothing is activated there |
//! | `stage2` | `[16, ⌈H/4⌉, ⌈W/4⌉]`, behind the third | likewise |
//! | `stage3` | `[48, ⌈H/8⌉, ⌈W/8⌉]`, behind the fifth | likewise |
//! | `stage4` | `[160, ⌈H/16⌉, ⌈W/16⌉]`, behind the seventh | likewise |
//! | `pooled` | `[1280]` | none |
//!
//! The groups are `stem`, `stage1` … `stage4`, and `classifier`, to which the last convolution belongs. Convolutions start by
//! He's rule over the outputs, the linear layer normal with deviation 0.01 and zero biases.

use limbeck::prelude::*;

use crate::layers::{Conv, ConvBn, Draft, Start, relu};
use crate::staged::{Block, STAGES, STEM, Stage, Staged};

const CITATION: &str = "Sandler, Howard, Zhu, Zhmoginov, Chen. MobileNetV2: Inverted Residuals and Linear Bottlenecks. CVPR \
                        2018, arXiv:1801.04381";

kinds! {
    summary "inverted residuals of half width for small images", citation CITATION, example [3, 32, 32] 100;
    MobileNetV2 "MobileNetV2", millions "0.81": Half;
}

/// How much an inverted residual widens its input, its channels at full width, how many there are, and the first one's
/// stride: table 2 of the paper, but for the second stride.
const SETTING: [(i64, i64, usize, i64); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];
/// The groups of inverted residuals between two taps.
const SPANS: [std::ops::Range<usize>; 4] = [0..2, 2..3, 3..5, 5..7];

/// The network of half width.
#[derive(Clone, Copy, Debug)]
struct Half;

impl Half {
    fn network(&self, path: &nn::Path<'_>, spec: &ModelSpec) -> Result<Staged<InvertedResidual>> {
        let mut draft = Draft::new(spec, 4)?;
        let conv_bn = |draft: &mut Draft, path: nn::Path<'_>, conv| draft.conv_bn(&path / 0, &path / 1, conv);
        let conv = conv_bn(&mut draft, path / "conv1", Conv { stride: 2, ..Conv::new(32 / 2, 3) });
        let stem = Stage::new(&mut draft, STEM, &["conv1"], None, vec![conv]);
        let stages = STAGES.into_iter().zip(SPANS).map(|(name, span)| {
            let prefixes: Vec<String> = span.clone().map(|group| format!("blocks.{group}")).collect();
            let mut blocks = Vec::new();
            for group in span {
                let (widen, channels, count, stride) = SETTING[group];
                for i in 0..count {
                    let path = path / "blocks" / group / i / "conv";
                    let stride = if i == 0 { stride } else { 1 };
                    blocks.push(InvertedResidual::new(&path, &mut draft, widen, channels / 2, stride));
                }
            }
            let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
            Stage::new(&mut draft, name, &prefixes, None, blocks)
        });
        let stages = stages.collect();
        let head = conv_bn(&mut draft, path / "conv2", Conv::new(1280, 1));
        let linear = path / "classifier" / 0;
        let classifier = draft.classifier(linear, Start::Small, Start::Zero, &["conv2", "classifier"]);
        Ok(Staged::new(draft, stem, stages, Some(head), classifier))
    }
}

/// Widen, convolve each channel by itself, narrow; add the input where that is possible.
#[derive(Debug)]
struct InvertedResidual {
    layers: [ConvBn; 3],
    adds: bool,
}

impl InvertedResidual {
    fn new(path: &nn::Path<'_>, draft: &mut Draft, widen: i64, to: i64, stride: i64) -> Self {
        let [from, ..] = draft.shape;
        let wide = widen * from;
        let convolutions = [Conv::new(wide, 1), Conv { stride, groups: wide, ..Conv::new(wide, 3) }, Conv::new(to, 1)];
        // Numbered through with the ReLUs, which have no parameters.
        let layers = [0, 1, 2].map(|i| draft.conv_bn(path / (3 * i), path / (3 * i + 1), convolutions[i]));
        InvertedResidual { layers, adds: stride == 1 && from == to }
    }
}

impl Block for InvertedResidual {
    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let [widen, each, narrow] = &self.layers;
        let wide = relu(widen.forward(x, train), false);
        let mut narrow = narrow.forward(&relu(each.forward(&wide, train), false), train);
        if self.adds {
            narrow += x;
        }
        narrow
    }

    /// None: the bottleneck is linear.
    fn activate(&self, value: Tensor, _keep: bool) -> Tensor {
        value
    }

    fn batch_norm(&self) -> Option<&BatchNormInfo> {
        let [_, _, narrow] = &self.layers;
        Some(narrow.batch_norm())
    }

    fn layers(&mut self) -> Vec<&mut ConvBn> {
        self.layers.iter_mut().collect()
    }
}
