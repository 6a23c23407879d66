//! The networks of Simonyan and Zisserman with BatchNorm and without their hidden linear layers, for small images, as in
//! the CRD paper's code.
//!
//! Five blocks of 3×3 convolutions, 64, 128, 256, 512 and 512 channels wide, each convolution with bias, BatchNorm and
//! ReLU; a 2×2 maximum before the second, third and fourth block, and one before the fifth **if the input is 64 pixels
//! high**, as the original decides; global average pooling and one linear layer.
//!
//! | kind | convolutions by block |
//! |---|---|
//! | `vgg8` | 1, 1, 1, 1, 1 |
//! | `vgg11` | 1, 1, 2, 2, 2 |
//! | `vgg13` | 2, 2, 2, 2, 2 |
//! | `vgg16` | 2, 2, 3, 3, 3 |
//! | `vgg19` | 2, 2, 4, 4, 4 |
//!
//! | tap | shape for an input of `[C, H, W]` | `:pre`, before the activation |
//! |---|---|---|
//! | `stem` | `[64, H, W]` | the last BatchNorm's output in the block |
//! | `stage1` | `[128, ⌊H/2⌋, ⌊W/2⌋]` | likewise |
//! | `stage2` | `[256, ⌊H/4⌋, ⌊W/4⌋]` | likewise |
//! | `stage3` | `[512, ⌊H/8⌋, ⌊W/8⌋]` | likewise |
//! | `stage4` | the same, or half of that for 64 pixels | likewise |
//! | `pooled` | `[512]` | none |
//!
//! The groups are `stem`, `stage1` … `stage4` and `classifier`. Convolutions start by He's rule over the outputs with zero
//! biases, the linear layer normal with deviation 0.01 and zero biases.

use limbeck::prelude::*;

use crate::layers::{Conv, ConvBn, Draft, Start, Window};
use crate::staged::{STAGES, STEM, Stage, Staged};

const CITATION: &str = "Simonyan, Zisserman. Very Deep Convolutional Networks for Large-Scale Image Recognition. ICLR 2015, \
                        arXiv:1409.1556";

kinds! {
    summary "plain convolutions with BatchNorm for small images", citation CITATION, example [3, 32, 32] 100;
    Vgg8 "vgg8", millions "4.0": Vgg([1, 1, 1, 1, 1]);
    Vgg11 "vgg11", millions "9.3": Vgg([1, 1, 2, 2, 2]);
    Vgg13 "vgg13", millions "9.5": Vgg([2, 2, 2, 2, 2]);
    Vgg16 "vgg16", millions "14.8": Vgg([2, 2, 3, 3, 3]);
    Vgg19 "vgg19", millions "20.1": Vgg([2, 2, 4, 4, 4]);
}

/// Channels of each block.
const WIDTHS: [i64; 5] = [64, 128, 256, 512, 512];
/// The height of inputs that are halved once more.
const LARGE: i64 = 64;

/// The convolutions in each block.
#[derive(Clone, Copy, Debug)]
struct Vgg([usize; 5]);

impl Vgg {
    fn network(&self, path: &nn::Path<'_>, spec: &ModelSpec) -> Result<Staged<ConvBn>> {
        let large = spec.input[1] == LARGE;
        let mut draft = Draft::new(spec, if large { 4 } else { 3 })?;
        let block = |draft: &mut Draft, i: usize| -> Vec<ConvBn> {
            let path = path / format!("block{i}");
            let conv = Conv { bias: Some(Start::Zero), ..Conv::new(WIDTHS[i], 3) };
            // Convolution, BatchNorm and ReLU are numbered through; the ReLU has no parameters.
            (0..self.0[i]).map(|j| draft.conv_bn(&path / (3 * j), &path / (3 * j + 1), conv)).collect()
        };
        let blocks = block(&mut draft, 0);
        let stem = Stage::new(&mut draft, STEM, &["block0"], None, blocks);
        let stages = (1..5).map(|i| {
            let pools = i < 4 || large;
            let pool = pools.then(|| draft.pool(Window { kernel: 2, stride: 2, padding: 0 }));
            let blocks = block(&mut draft, i);
            Stage::new(&mut draft, STAGES[i - 1], &[&format!("block{i}")], pool, blocks)
        });
        let stages = stages.collect();
        let classifier = draft.classifier(path / "classifier", Start::Small, Start::Zero, &["classifier"]);
        Ok(Staged::new(draft, stem, stages, None, classifier))
    }
}
