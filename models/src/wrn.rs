//! Wide residual networks for small images, as in the CRD paper's code.
//!
//! A 3×3 convolution, three stages of blocks that normalise and activate before they convolve, a last BatchNorm and ReLU,
//! global average pooling and one linear layer. A network of depth d has (d − 4) / 6 blocks a stage; at width k the stages
//! are 16·k, 32·k and 64·k channels wide. Where channels change, the shortcut is a 1×1 convolution of the activated input.
//!
//! | tap | shape for an input of `[C, H, W]` | `:pre` |
//! |---|---|---|
//! | `stem` | `[16, H, W]`, the convolution's output | the same value |
//! | `stage1` | `[16·k, H, W]`, the last block's sum | the next stage's first BatchNorm's output, before its ReLU |
//! | `stage2` | `[32·k, ⌈H/2⌉, ⌈W/2⌉]`, likewise | likewise |
//! | `stage3` | `[64·k, ⌈H/4⌉, ⌈W/4⌉]`, likewise | the last BatchNorm's output, before its ReLU |
//! | `pooled` | `[64·k]` | none |
//!
//! The groups are `stem`, `stage1`, `stage2`, `stage3`, and `classifier`, to which the last BatchNorm belongs. Convolutions
//! start by He's rule over the outputs, the linear layer as PyTorch's with zero biases.
//!
//! Of the BatchNorms, each block's second one follows a convolution and can be folded into it; the first ones and the last
//! one follow sums that other layers read as well, and stay.

use limbeck::nn::{Module, ModuleT};
use limbeck::prelude::*;

use crate::layers::{CLASSIFIER, Conv, ConvBn, Draft, Start, pooled, relu};
use crate::resnet::blocks;
use crate::staged::{STAGES, STEM};

const CITATION: &str = "Zagoruyko, Komodakis. Wide Residual Networks. BMVC 2016, arXiv:1605.07146";

kinds! {
    summary "wide residual network for small images", citation CITATION, example [3, 32, 32] 100;
    Wrn16x1 "wrn_16_1", millions "0.18": Wrn { depth: 16, width: 1 };
    Wrn16x2 "wrn_16_2", millions "0.70": Wrn { depth: 16, width: 2 };
    Wrn40x1 "wrn_40_1", millions "0.57": Wrn { depth: 40, width: 1 };
    Wrn40x2 "wrn_40_2", millions "2.3": Wrn { depth: 40, width: 2 };
}

limbeck::plugin! {
    model "wrn": Wrn,
    summary: "wide residual network for small images, of any depth and width",
    citation: CITATION,
}

/// The recipe of a network of any depth and width.
#[derive(Clone, Debug, Settings)]
pub struct Wrn {
    /// 6n + 4: n blocks in each of the three stages; 10 to 1204.
    #[setting(example = 16)]
    pub depth: usize,
    /// The stages are 16, 32 and 64 times as many channels wide.
    #[setting(example = 4, range = 1..=64)]
    pub width: i64,
}

#[typetag::serde(name = "wrn")]
impl ModelConfig for Wrn {
    fn build(&self, path: &nn::Path<'_>, spec: &ModelSpec) -> Result<Box<dyn Model>> {
        Ok(Box::new(self.network(path, spec).map_err(|e| e.within("wrn"))?))
    }
}

impl Wrn {
    fn network(&self, path: &nn::Path<'_>, spec: &ModelSpec) -> Result<Network> {
        let blocks = blocks(self.depth, 4)?;
        let mut draft = Draft::new(spec, 2)?;
        let stem = draft.conv(path / "conv1", Conv::new(16, 3));
        draft.tap(STEM, None);
        draft.group(STEM, &["conv1"]);
        let stages = (0..3).map(|i| {
            let block = format!("block{}", i + 1);
            if i > 0 {
                draft.then_batch_norm(&(path / &block / "layer" / 0 / "bn1"));
            }
            let blocks = (0..blocks)
                .map(|j| {
                    let stride = if i > 0 && j == 0 { 2 } else { 1 };
                    Block::new(&(path / &block / "layer" / j), &mut draft, (16 << i) * self.width, stride)
                })
                .collect();
            draft.tap(STAGES[i], None);
            draft.group(STAGES[i], &[&block]);
            blocks
        });
        let stages = stages.collect();
        draft.then_batch_norm(&(path / "bn1"));
        let last = draft.batch_norm(path / "bn1");
        let classifier = draft.classifier(path / "fc", Start::Torch, Start::Zero, &["bn1", "fc"]);
        let (signature, multiply_adds) = draft.finish();
        Ok(Network { signature, multiply_adds, stem, stages, last, classifier })
    }
}

/// A network of the family.
#[derive(Debug)]
struct Network {
    signature: Signature,
    multiply_adds: i64,
    stem: nn::Conv2D,
    stages: Vec<Vec<Block>>,
    last: nn::BatchNorm,
    classifier: nn::Linear,
}

impl Model for Network {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn multiply_adds(&self) -> Option<i64> {
        Some(self.multiply_adds)
    }

    fn forward(&self, input: &Tensor, want: &Taps, mode: Mode<'_>) -> Result<Features> {
        let mut record = Recorder::new(want);
        // Normalises and activates a sum; behind a stage, what is between the two is the stage's pre-activation.
        let activate =
            |record: &mut Recorder<'_>, bn: &nn::BatchNorm, x: &Tensor, train: bool, behind: Option<&str>| {
                let value = bn.forward_t(x, train);
                if let Some(stage) = behind {
                    record.pre_activation(stage, &value);
                }
                relu(value, behind.is_some_and(|stage| want.wants(stage, Form::PreActivation)))
            };

        let mut x = self.stem.forward(input);
        record.pre_activation(STEM, &x);
        record.output(STEM, &x);
        let mut behind = None;
        for (name, blocks) in STAGES.into_iter().zip(&self.stages) {
            let train = mode.trains(name);
            for block in blocks {
                let active = activate(&mut record, &block.bn, &x, train, behind.take());
                x = block.forward(&x, &active, train);
            }
            record.output(name, &x);
            behind = Some(name);
        }
        let active = activate(&mut record, &self.last, &x, mode.trains(CLASSIFIER), behind);
        let pooled = pooled(&active);
        record.output("pooled", &pooled);
        record.finish(self.classifier.forward(&pooled))
    }

    fn fold_batch_norm(&mut self, kind: Kind) -> Result<Folded> {
        // The last BatchNorm stays.
        let mut all = Folded { folded: 0, kept: 1 };
        for block in self.stages.iter_mut().flatten() {
            all.folded += block.first.fold(kind).folded;
            all.kept += 1;
        }
        Ok(all)
    }
}

/// BatchNorm and ReLU, then a convolution with BatchNorm and ReLU behind it, then another convolution.
#[derive(Debug)]
struct Block {
    bn: nn::BatchNorm,
    first: ConvBn,
    second: nn::Conv2D,
    shortcut: Option<nn::Conv2D>,
}

impl Block {
    fn new(path: &nn::Path<'_>, draft: &mut Draft, to: i64, stride: i64) -> Self {
        let from = draft.shape;
        let bn = draft.batch_norm(path / "bn1");
        let conv = Conv::new(to, 3);
        let first = draft.conv_bn(path / "conv1", path / "bn2", Conv { stride, ..conv });
        let second = draft.conv(path / "conv2", conv);
        let project = Conv { stride, ..Conv::new(to, 1) };
        let shortcut = (from[0] != to).then(|| draft.beside(from, |draft| draft.conv(path / "convShortcut", project)));
        Block { bn, first, second, shortcut }
    }

    /// `active` is the activated `x`. A new tensor.
    fn forward(&self, x: &Tensor, active: &Tensor, train: bool) -> Tensor {
        let hidden = relu(self.first.forward(active, train), false);
        let mut sum = self.second.forward(&hidden);
        sum += match &self.shortcut {
            Some(shortcut) => shortcut.forward(active),
            None => x.shallow_clone(),
        };
        sum
    }
}
