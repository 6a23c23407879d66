//! `at`: attention transfer.
//!
//! Zagoruyko, Komodakis. *Paying More Attention to Attention: Improving the Performance of Convolutional Neural Networks
//! via Attention Transfer*. ICLR 2017, arXiv:1612.03928, equations 1 and 2 (activation-based, mean over channels).
//!
//! The attention map of a feature f `[C, H, W]` is Q(f) = mean_c |f_c|ᵖ, flattened and divided by its L2 norm, and
//!
//! L = Σ_stages mean (Q(fˢ) − Q(fᵗ))².
//!
//! Of two maps of different height, the larger is adaptively average-pooled first.
//!
//! *Taps*: the stages, in pairs by position. *Cost*: O(B · C · H · W) a stage. *State*: none. *Published weight*: 1000,
//! beside a cross-entropy of 1 (the benchmark of the CRD paper): the method `at`.

use limbeck::checks::{not_empty, only_maps};
use limbeck::prelude::*;

use crate::tensor::{match_heights, normalize};

limbeck::plugin! {
    distiller "at": At,
    summary: "attention transfer: where in the image the stages are active",
    citation: "Zagoruyko, Komodakis. Paying More Attention to Attention. ICLR 2017, arXiv:1612.03928, equations 1 and 2",
    page: include_str!("at.rs"),
    method "at": MethodConfig::new(1.0).term(1000.0, At::default()),
    summary: "cross-entropy and attention transfer",
}

/// Attention transfer.
#[derive(Clone, Debug, Settings)]
pub struct At {
    /// The power of the activations before their mean over the channels.
    #[setting(default = 2.0, range = positive)]
    pub p: f64,
}

#[typetag::serde(name = "at")]
impl DistillerConfig for At {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        not_empty("at", only_maps("at", site.stages(Form::Output)?)?)
    }

    fn build(&self, _site: &Site<'_>, _params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        Ok(Box::new(LiveAt { p: self.p }))
    }
}

#[derive(Debug)]
struct LiveAt {
    p: f64,
}

impl LiveAt {
    /// `[B, C, H, W]` → `[B, H·W]`
    fn attention(&self, f: &Tensor) -> Tensor {
        let energy = if self.p == 2.0 { f.square() } else { f.abs().pow_tensor_scalar(self.p) };
        normalize(&energy.mean_dim([1_i64].as_slice(), false, None::<Kind>).flatten(1, -1), 1)
    }
}

impl Distiller for LiveAt {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let mut terms = Terms::new();
        for (i, (student, teacher)) in step.pairs()?.into_iter().enumerate() {
            let (s, t) = match_heights(student, teacher);
            let distance = (self.attention(&s) - self.attention(&t)).square().mean(None::<Kind>);
            terms = terms.loss(&format!("pair{}", i + 1), distance);
        }
        Ok(terms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::pairs_without_stem;

    #[test]
    fn a_teacher_without_a_stem_is_paired_stage_by_stage() {
        let (pairs, dropped) = pairs_without_stem(&At::default());
        assert_eq!(pairs, ["stage1", "stage2", "stage3"].map(|name| (name.to_owned(), name.to_owned())));
        assert_eq!(dropped, Vec::<String>::new());
    }
}
