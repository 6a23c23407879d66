//! Residual networks of four stages (He et al., section 4.1): those for ImageNet, and the deep one for small images.
//!
//! | kind | first layers | blocks | as in |
//! |---|---|---|---|
//! | `resnet18`, `resnet34` | 7×7 of stride 2, 3×3 maximum of stride 2 | two 3×3 convolutions | torchvision |
//! | `resnet50` | the same | 1×1, 3×3, 1×1; the middle one has the stride | torchvision |
//! | `ResNet50` | 3×3 | the same as `resnet50` | the CRD paper's code, for 32×32 pixels |
//!
//! The two networks of 50 layers differ in their first layers and in names, no more: mind the capitals. The stages are 64,
//! 128, 256 and 512 channels wide, four times that where blocks have three convolutions.
//!
//! | tap | shape for an input of `[C, H, W]` | `:pre`, before the activation |
//! |---|---|---|
//! | `stem` | `[64, ⌈H/2⌉, ⌈W/2⌉]`; `ResNet50`: `[64, H, W]` | the first BatchNorm's output |
//! | `stage1` | `[w₁, ⌈H/4⌉, ⌈W/4⌉]`; `ResNet50`: `[w₁, H, W]` | the sum of residual and shortcut in the last block |
//! | `stage2` … `stage4` | half the resolution each | likewise |
//! | `pooled` | `[w₄]` | none |
//!
//! The groups are `stem`, `stage1` … `stage4` and `classifier`. Convolutions start by He's rule over the outputs, the
//! linear layer as PyTorch's.

use limbeck::prelude::*;

use crate::layers::{Conv, Draft, Start, Window};
use crate::residual::{Residual, Shortcut};
use crate::staged::{STAGES, STEM, Stage, Staged};

const CITATION: &str = "He, Zhang, Ren, Sun. Deep Residual Learning for Image Recognition. CVPR 2016, arXiv:1512.03385";

kinds! {
    summary "residual network for ImageNet", citation CITATION, example [3, 224, 224] 1000;
    ResNet18 "resnet18", millions "11.7": FourStages { blocks: [2, 2, 2, 2], ..IMAGENET };
    ResNet34 "resnet34", millions "21.8": FourStages { blocks: [3, 4, 6, 3], ..IMAGENET };
    ResNet50 "resnet50", millions "25.6": FourStages { blocks: [3, 4, 6, 3], deep: true, ..IMAGENET };
}

kinds! {
    summary "residual network of 50 layers for small images", citation CITATION, example [3, 32, 32] 100;
    SmallResNet50 "ResNet50", millions "23.7": FourStages {
        blocks: [3, 4, 6, 3],
        deep: true,
        small: true,
        projection: "shortcut",
        linear: "linear",
    };
}

/// What tells the networks of the family apart.
#[derive(Clone, Copy, Debug)]
struct FourStages {
    /// Blocks in each stage.
    blocks: [usize; 4],
    /// Whether blocks have three convolutions, the last four times as wide.
    deep: bool,
    /// Whether the first layers keep the resolution.
    small: bool,
    /// The names of projections and of the linear layer.
    projection: &'static str,
    linear: &'static str,
}

const IMAGENET: FourStages =
    FourStages { blocks: [0; 4], deep: false, small: false, projection: "downsample", linear: "fc" };

impl FourStages {
    fn network(&self, path: &nn::Path<'_>, spec: &ModelSpec) -> Result<Staged<Residual>> {
        let mut draft = Draft::new(spec, if self.small { 3 } else { 5 })?;
        let first = if self.small { Conv::new(64, 3) } else { Conv { stride: 2, ..Conv::new(64, 7) } };
        let conv = draft.conv_bn(path / "conv1", path / "bn1", first);
        let stem = Stage::new(&mut draft, STEM, &["conv1", "bn1"], None, vec![conv]);
        let stages = (0..4).map(|i| {
            let pools = i == 0 && !self.small;
            let pool = pools.then(|| draft.pool(Window { kernel: 3, stride: 2, padding: 1 }));
            let layer = format!("layer{}", i + 1);
            let blocks = (0..self.blocks[i])
                .map(|j| {
                    let layers = self.convolutions(64 << i, if i > 0 && j == 0 { 2 } else { 1 });
                    let path = path / &layer / j;
                    Residual::new(&path, &mut draft, &layers, Shortcut::Projection, self.projection)
                })
                .collect();
            Stage::new(&mut draft, STAGES[i], &[&layer], pool, blocks)
        });
        let stages = stages.collect();
        let classifier = draft.classifier(path / self.linear, Start::Torch, Start::Torch, &[self.linear]);
        Ok(Staged::new(draft, stem, stages, None, classifier))
    }

    fn convolutions(&self, width: i64, stride: i64) -> Vec<Conv> {
        let middle = Conv { stride, ..Conv::new(width, 3) };
        if self.deep {
            vec![Conv::new(width, 1), middle, Conv::new(4 * width, 1)]
        } else {
            vec![middle, Conv::new(width, 3)]
        }
    }
}
