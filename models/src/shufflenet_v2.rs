//! ShuffleNet V2 of full width for small images, as in the CRD paper's code.
//!
//! A 1×1 convolution, three stages of 4, 8 and 4 units, 116, 232 and 464 channels wide, a 1×1 convolution to 1024 channels,
//! global average pooling and one linear layer. A unit passes half of its channels on and convolves the others; the first
//! unit of a stage convolves all of them in two branches, each with stride 2. Both end in a shuffle of the channels.
//!
//! | tap | shape for an input of `[C, H, W]` | `:pre`, before the activation |
//! |---|---|---|
//! | `stem` | `[24, H, W]` | the first BatchNorm's output |
//! | `stage1` | `[116, ⌈H/2⌉, ⌈W/2⌉]` | in the stage's last unit, the half passed on and the other's last BatchNorm's output, not yet shuffled |
//! | `stage2` | `[232, ⌈H/4⌉, ⌈W/4⌉]` | likewise |
//! | `stage3` | `[464, ⌈H/8⌉, ⌈W/8⌉]` | likewise |
//! | `pooled` | `[1024]` | none |
//!
//! The groups are `stem`, `stage1`, `stage2`, `stage3`, and `classifier`, to which the last convolution belongs. Every layer
//! starts as PyTorch's.

use limbeck::prelude::*;

use crate::layers::{Conv, ConvBn, Draft, Start, relu, shuffle};
use crate::staged::{Block, STAGES, STEM, Stage, Staged};

const CITATION: &str = "Ma, Zhang, Zheng, Sun. ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design. \
                        ECCV 2018, arXiv:1807.11164";

kinds! {
    summary "split and shuffled channels for small images", citation CITATION, example [3, 32, 32] 100;
    ShuffleV2 "ShuffleV2", millions "1.4": Full;
}

/// Channels and units of each stage.
const SETTING: [(i64, usize); 3] = [(116, 4), (232, 8), (464, 4)];

/// The network of full width.
#[derive(Clone, Copy, Debug)]
struct Full;

impl Full {
    fn network(&self, path: &nn::Path<'_>, spec: &ModelSpec) -> Result<Staged<Unit>> {
        let mut draft = Draft::new(spec, 3)?;
        let conv = draft.conv_bn(path / "conv1", path / "bn1", conv(24, 1));
        let stem = Stage::new(&mut draft, STEM, &["conv1", "bn1"], None, vec![conv]);
        let stages = SETTING.into_iter().enumerate().map(|(i, (channels, units))| {
            let layer = format!("layer{}", i + 1);
            let mut blocks = vec![Unit::halving(&(path / &layer / 0), &mut draft, channels)];
            for j in 1..units {
                blocks.push(Unit::keeping(&(path / &layer / j), &mut draft));
            }
            Stage::new(&mut draft, STAGES[i], &[&layer], None, blocks)
        });
        let stages = stages.collect();
        let head = draft.conv_bn(path / "conv2", path / "bn2", self::conv(1024, 1));
        let prefixes = ["conv2", "bn2", "linear"];
        let classifier = draft.classifier(path / "linear", Start::Torch, Start::Torch, &prefixes);
        Ok(Staged::new(draft, stem, stages, Some(head), classifier))
    }
}

fn conv(to: i64, kernel: i64) -> Conv {
    Conv { start: Start::Torch, ..Conv::new(to, kernel) }
}

/// A convolution of each channel by itself.
fn each(channels: i64, stride: i64) -> Conv {
    Conv { groups: channels, stride, ..conv(channels, 3) }
}

#[derive(Debug)]
struct Unit {
    /// The left branch of a unit that halves the resolution; without one, half of the channels are passed on.
    left: Option<[ConvBn; 2]>,
    right: [ConvBn; 3],
}

impl Unit {
    fn keeping(path: &nn::Path<'_>, draft: &mut Draft) -> Self {
        let whole = draft.shape;
        let half = whole[0] / 2;
        draft.shape[0] = half;
        let right = branch(path, draft, 1, [conv(half, 1), each(half, 1), conv(half, 1)]);
        draft.shape = whole;
        Unit { left: None, right }
    }

    fn halving(path: &nn::Path<'_>, draft: &mut Draft, channels: i64) -> Self {
        let from = draft.shape;
        let half = channels / 2;
        let left = branch(path, draft, 1, [each(from[0], 2), conv(half, 1)]);
        draft.shape = from;
        let right = branch(path, draft, 3, [conv(half, 1), each(half, 2), conv(half, 1)]);
        draft.shape[0] = channels;
        Unit { left: Some(left), right }
    }
}

/// Layers one behind the other, numbered from `first`.
fn branch<const N: usize>(path: &nn::Path<'_>, draft: &mut Draft, first: usize, layers: [Conv; N]) -> [ConvBn; N] {
    let mut i = first - 1;
    layers.map(|conv| {
        i += 1;
        draft.conv_bn(path / format!("conv{i}"), path / format!("bn{i}"), conv)
    })
}

impl Block for Unit {
    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let (left, x) = match &self.left {
            Some([each, last]) => (last.forward(&each.forward(x, train), train), x.shallow_clone()),
            None => {
                let half = x.size()[1] / 2;
                (x.narrow(1, 0, half), x.narrow(1, half, half))
            }
        };
        let [first, each, last] = &self.right;
        let right = each.forward(&relu(first.forward(&x, train), false), train);
        Tensor::cat(&[left, last.forward(&right, train)], 1)
    }

    /// The half that was passed on went through a ReLU before: another one changes neither it nor its gradient.
    fn activate(&self, value: Tensor, keep: bool) -> Tensor {
        shuffle(&relu(value, keep), 2)
    }

    /// None: the last one has half of the channels.
    fn batch_norm(&self) -> Option<&BatchNormInfo> {
        None
    }

    fn layers(&mut self) -> Vec<&mut ConvBn> {
        self.left.iter_mut().flatten().chain(&mut self.right).collect()
    }
}
