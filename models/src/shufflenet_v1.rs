//! ShuffleNet with three groups for small images, as in the CRD paper's code.
//!
//! A 1×1 convolution, three stages of 4, 8 and 4 units, 240, 480 and 960 channels wide, global average pooling and one
//! linear layer. A unit convolves in groups, shuffles the channels, convolves each channel by itself, and convolves in
//! groups again; it adds its input, or, where it halves the resolution, sets the input's 3×3 average behind its own channels.
//! The inner layers are a quarter as wide as what the unit adds; the first unit does not group its first convolution.
//!
//! | tap | shape for an input of `[C, H, W]` | `:pre`, before the activation |
//! |---|---|---|
//! | `stem` | `[24, H, W]` | the first BatchNorm's output |
//! | `stage1` | `[240, ⌈H/2⌉, ⌈W/2⌉]` | the sum in the stage's last unit |
//! | `stage2` | `[480, ⌈H/4⌉, ⌈W/4⌉]` | likewise |
//! | `stage3` | `[960, ⌈H/8⌉, ⌈W/8⌉]` | likewise |
//! | `pooled` | `[960]` | none |
//!
//! The groups are `stem`, `stage1`, `stage2`, `stage3` and `classifier`. Every layer starts as PyTorch's.

use limbeck::prelude::*;

use crate::layers::{Conv, ConvBn, Draft, Start, Window, relu, shuffle};
use crate::staged::{Block, STAGES, STEM, Stage, Staged};

const CITATION: &str = "Zhang, Zhou, Lin, Sun. ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile \
                        Devices. CVPR 2018, arXiv:1707.01083";

kinds! {
    summary "grouped convolutions and shuffled channels for small images", citation CITATION, example [3, 32, 32] 100;
    ShuffleV1 "ShuffleV1", millions "0.95": ThreeGroups;
}

const GROUPS: i64 = 3;
const FIRST: i64 = 24;
/// Channels and units of each stage.
const SETTING: [(i64, usize); 3] = [(240, 4), (480, 8), (960, 4)];

/// The network with three groups.
#[derive(Clone, Copy, Debug)]
struct ThreeGroups;

impl ThreeGroups {
    fn network(&self, path: &nn::Path<'_>, spec: &ModelSpec) -> Result<Staged<GroupUnit>> {
        let mut draft = Draft::new(spec, 3)?;
        let first = Conv { start: Start::Torch, ..Conv::new(FIRST, 1) };
        let conv = draft.conv_bn(path / "conv1", path / "bn1", first);
        let stem = Stage::new(&mut draft, STEM, &["conv1", "bn1"], None, vec![conv]);
        let stages = SETTING.into_iter().enumerate().map(|(i, (channels, units))| {
            let layer = format!("layer{}", i + 1);
            let units =
                (0..units).map(|j| GroupUnit::new(&(path / &layer / j), &mut draft, channels, j == 0)).collect();
            Stage::new(&mut draft, STAGES[i], &[&layer], None, units)
        });
        let stages = stages.collect();
        let classifier = draft.classifier(path / "linear", Start::Torch, Start::Torch, &["linear"]);
        Ok(Staged::new(draft, stem, stages, None, classifier))
    }
}

fn conv(to: i64, kernel: i64) -> Conv {
    Conv { start: Start::Torch, ..Conv::new(to, kernel) }
}

#[derive(Debug)]
struct GroupUnit {
    layers: [ConvBn; 3],
    /// Of the first convolution and of the shuffle behind it.
    groups: i64,
    /// How the input is halved, if it is.
    halve: Option<Window>,
}

impl GroupUnit {
    fn new(path: &nn::Path<'_>, draft: &mut Draft, channels: i64, halves: bool) -> Self {
        let [from, ..] = draft.shape;
        let add = if halves { channels - from } else { channels };
        let (inner, stride) = (add / 4, if halves { 2 } else { 1 });
        let groups = if from == FIRST { 1 } else { GROUPS };
        let convolutions = [
            Conv { groups, ..conv(inner, 1) },
            Conv { groups: inner, stride, ..conv(inner, 3) },
            Conv { groups: GROUPS, ..conv(add, 1) },
        ];
        let layers =
            [1, 2, 3].map(|i| draft.conv_bn(path / format!("conv{i}"), path / format!("bn{i}"), convolutions[i - 1]));
        draft.shape[0] = channels;
        GroupUnit { layers, groups, halve: halves.then_some(Window { kernel: 3, stride: 2, padding: 1 }) }
    }
}

impl Block for GroupUnit {
    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let [first, each, last] = &self.layers;
        let inner = shuffle(&relu(first.forward(x, train), false), self.groups);
        let mut own = last.forward(&relu(each.forward(&inner, train), false), train);
        match self.halve {
            Some(window) => Tensor::cat(&[own, window.average(x)], 1),
            None => {
                own += x;
                own
            }
        }
    }

    fn batch_norm(&self) -> Option<&BatchNormInfo> {
        let [_, _, last] = &self.layers;
        // Where the input is set behind it, it has some of the channels only.
        if self.halve.is_none() { Some(last.batch_norm()) } else { None }
    }

    fn layers(&mut self) -> Vec<&mut ConvBn> {
        self.layers.iter_mut().collect()
    }
}
