//! The frame that most families share: a stem, stages of blocks, sometimes more layers, the mean, a linear layer.

use limbeck::nn::Module;
use limbeck::prelude::*;

use crate::layers::{CLASSIFIER, ConvBn, Draft, Window, pooled, relu};

/// The tap and the group of a network's first layers.
pub(crate) use limbeck::model::STEM;
/// The taps and groups of its stages.
pub(crate) const STAGES: [&str; 4] = ["stage1", "stage2", "stage3", "stage4"];

/// A part of a stage that ends in an activation.
pub(crate) trait Block: std::fmt::Debug + Send {
    /// The value before the activation: a new tensor, which the caller may change in place.
    fn forward(&self, x: &Tensor, train: bool) -> Tensor;

    /// The activation, in place unless the value is still needed.
    fn activate(&self, value: Tensor, keep: bool) -> Tensor {
        relu(value, keep)
    }

    /// The BatchNorm over all channels that this value comes out of, but for what is added to it.
    fn batch_norm(&self) -> Option<&BatchNormInfo>;

    /// Every convolution with the BatchNorm behind it.
    fn layers(&mut self) -> Vec<&mut ConvBn>;
}

impl Block for ConvBn {
    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        ConvBn::forward(self, x, train)
    }

    fn batch_norm(&self) -> Option<&BatchNormInfo> {
        Some(ConvBn::batch_norm(self))
    }

    fn layers(&mut self) -> Vec<&mut ConvBn> {
        vec![self]
    }
}

/// Blocks whose last output is a tap.
#[derive(Debug)]
pub(crate) struct Stage<B> {
    name: &'static str,
    /// What the input goes through first.
    pool: Option<Window>,
    blocks: Vec<B>,
}

impl<B: Block> Stage<B> {
    /// The parameters are those below `prefixes`; the draft has come to the blocks' end.
    pub fn new(draft: &mut Draft, name: &'static str, prefixes: &[&str], pool: Option<Window>, blocks: Vec<B>) -> Self {
        draft.tap(name, blocks.last().and_then(Block::batch_norm));
        draft.group(name, prefixes);
        Stage { name, pool, blocks }
    }

    fn forward(&self, mut x: Tensor, want: &Taps, record: &mut Recorder<'_>, mode: Mode<'_>) -> Tensor {
        let train = mode.trains(self.name);
        if let Some(pool) = self.pool {
            x = pool.max(&x);
        }
        for (left, block) in (0..self.blocks.len()).rev().zip(&self.blocks) {
            let value = block.forward(&x, train);
            if left == 0 {
                record.pre_activation(self.name, &value);
            }
            x = block.activate(value, left == 0 && want.wants(self.name, Form::PreActivation));
        }
        record.output(self.name, &x);
        x
    }
}

/// A network of that frame.
#[derive(Debug)]
pub(crate) struct Staged<B> {
    signature: Signature,
    multiply_adds: i64,
    stem: Stage<ConvBn>,
    stages: Vec<Stage<B>>,
    /// Layers between the last stage and the mean, each with a ReLU. They are no feature module.
    head: Option<ConvBn>,
    classifier: nn::Linear,
}

impl<B: Block> Staged<B> {
    pub fn new(
        draft: Draft,
        stem: Stage<ConvBn>,
        stages: Vec<Stage<B>>,
        head: Option<ConvBn>,
        classifier: nn::Linear,
    ) -> Self {
        let (signature, multiply_adds) = draft.finish();
        Staged { signature, multiply_adds, stem, stages, head, classifier }
    }
}

impl<B: Block> Model for Staged<B> {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn multiply_adds(&self) -> Option<i64> {
        Some(self.multiply_adds)
    }

    fn forward(&self, input: &Tensor, want: &Taps, mode: Mode<'_>) -> Result<Features> {
        let mut record = Recorder::new(want);
        let mut x = self.stem.forward(input.shallow_clone(), want, &mut record, mode);
        for stage in &self.stages {
            x = stage.forward(x, want, &mut record, mode);
        }
        if let Some(head) = &self.head {
            x = relu(head.forward(&x, mode.trains(CLASSIFIER)), false);
        }
        let pooled = pooled(&x);
        record.output("pooled", &pooled);
        record.finish(self.classifier.forward(&pooled))
    }

    fn fold_batch_norm(&mut self, kind: Kind) -> Result<Folded> {
        let stages = self.stages.iter_mut().flat_map(|stage| &mut stage.blocks).flat_map(Block::layers);
        let layers = self.stem.blocks.iter_mut().chain(stages).chain(&mut self.head);
        Ok(Folded { folded: layers.map(|layer| layer.fold(kind).folded).sum(), kept: 0 })
    }
}
