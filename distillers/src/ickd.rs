//! `ickd`: inter-channel correlation.
//!
//! Liu, Huang, Lin, Xie, Wang, Chang, Liang. *Exploring Inter-Channel Correlation for Diversity-preserved Knowledge
//! Distillation*. ICCV 2021, arXiv:2202.03680.
//!
//! The student's map is embedded into the teacher's channels (1×1 convolution without bias, BatchNorm). With each map
//! flattened over space to F `[C, H·W]`, the correlations of its channels are G = F Fᵀ, each row divided by its L2 norm, and
//!
//! L = 1 / (B · C) · Σ ‖Gᵗ − Gˢ‖²_F.
//!
//! The maps may differ in height and width: space is summed over.
//!
//! *Taps*: the last stage of both. *Cost*: O(B · C² · H · W). *State*: the embedding. *Published weight*: 2.5, beside a
//! cross-entropy of 1 (CIFAR-100, ResNet-32x4 → ResNet-8x4): the method `ickd`.

use limbeck::checks::{not_empty, only_maps};
use limbeck::nn::{Module, ModuleT};
use limbeck::prelude::*;

use crate::tensor::normalize;

limbeck::plugin! {
    distiller "ickd": Ickd,
    summary: "inter-channel correlation: which channels of a map go together",
    citation: "Liu et al. Exploring Inter-Channel Correlation for Diversity-preserved Knowledge Distillation. ICCV 2021, arXiv:2202.03680",
    page: include_str!("ickd.rs"),
    method "ickd": MethodConfig::new(1.0).term(2.5, Ickd::default()),
    summary: "cross-entropy and inter-channel correlation",
}

/// Inter-channel correlation.
#[derive(Clone, Debug, Settings)]
pub struct Ickd {}

#[typetag::serde(name = "ickd")]
impl DistillerConfig for Ickd {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        not_empty("ickd", only_maps("ickd", site.last_stage()?)?)
    }

    fn build(&self, site: &Site<'_>, params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        let taps = self.taps(site)?;
        let mut embeds = Vec::with_capacity(taps.pairs.len());
        for (i, pair) in taps.pairs.iter().enumerate() {
            embeds.push(Embed::new(&(params / i), pair.student_shape.channels(), pair.teacher_shape.channels()));
        }
        Ok(Box::new(LiveIckd { embeds }))
    }
}

#[derive(Debug)]
struct LiveIckd {
    embeds: Vec<Embed>,
}

/// From the student's channels to the teacher's.
#[derive(Debug)]
struct Embed {
    conv: nn::Conv2D,
    bn: nn::BatchNorm,
}

impl Embed {
    fn new(path: &nn::Path<'_>, from: i64, to: i64) -> Self {
        let config = nn::ConvConfig { bias: false, ..Default::default() };
        Embed { conv: nn::conv(path / "conv", from, to, 1, config), bn: nn::batch_norm(path / "bn", to) }
    }
}

/// `[B, C, H, W]` → `[B, C, C]`
fn correlations(map: &Tensor) -> Tensor {
    let f = map.flatten(2, -1);
    normalize(&f.bmm(&f.transpose(1, 2)), 2)
}

impl Distiller for LiveIckd {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let mut terms = Terms::new();
        for (i, ((student, teacher), embed)) in step.pairs()?.into_iter().zip(&self.embeds).enumerate() {
            let student = embed.bn.forward_t(&embed.conv.forward(student), true);
            let distance = (correlations(teacher) - correlations(&student)).square().sum(None::<Kind>);
            let scale = (step.batch() * teacher.size()[1]) as f64;
            terms = terms.loss(&format!("pair{}", i + 1), distance / scale);
        }
        Ok(terms)
    }
}
