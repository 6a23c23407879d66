//! `nst`: neuron selectivity transfer.
//!
//! Huang, Wang. *Like What You Like: Knowledge Distill via Neuron Selectivity Transfer*. arXiv:1707.01219, 2017,
//! equations 4 to 7 with the polynomial kernel k(x, y) = (xᵀy)².
//!
//! Each channel of a map, flattened over space and divided by its L2 norm, is a sample of the distribution of
//! selectivity patterns. The maximum mean discrepancy of both networks' samples is
//!
//! L = Σ_stages mean k(t, t) + mean k(s, s) − 2 · mean k(s, t).
//!
//! The kernels of all pairs of channels are the squares of a Gram matrix, one batched product: nothing of size
//! B × C × C × H·W is ever made. Of two maps of different height, the larger is adaptively average-pooled first.
//!
//! *Taps*: the stages, in pairs by position. *Cost*: O(B · C² · H · W) a stage. *State*: none. *Published weight*: 50,
//! beside a cross-entropy of 1: the method `nst`.

use limbeck::checks::{not_empty, only_maps};
use limbeck::prelude::*;

use crate::tensor::{match_heights, normalize};

limbeck::plugin! {
    distiller "nst": Nst,
    summary: "neuron selectivity transfer: the distribution of the channels' patterns",
    citation: "Huang, Wang. Like What You Like: Knowledge Distill via Neuron Selectivity Transfer. arXiv:1707.01219, 2017",
    page: include_str!("nst.rs"),
    method "nst": MethodConfig::new(1.0).term(50.0, Nst::default()),
    summary: "cross-entropy and neuron selectivity transfer",
}

/// Neuron selectivity transfer.
#[derive(Clone, Debug, Settings)]
pub struct Nst {}

#[typetag::serde(name = "nst")]
impl DistillerConfig for Nst {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        not_empty("nst", only_maps("nst", site.stages(Form::Output)?)?)
    }

    fn build(&self, _site: &Site<'_>, _params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        Ok(Box::new(LiveNst {}))
    }
}

#[derive(Debug)]
struct LiveNst {}

/// The mean of k over all pairs of channels of `[B, C, N]` and `[B, D, N]`.
fn mean_kernel(x: &Tensor, y: &Tensor) -> Tensor {
    x.bmm(&y.transpose(1, 2)).square().mean(None::<Kind>)
}

impl Distiller for LiveNst {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let mut terms = Terms::new();
        for (i, (student, teacher)) in step.pairs()?.into_iter().enumerate() {
            let (s, t) = match_heights(student, teacher);
            let [s, t] = [s, t].map(|map| normalize(&map.flatten(2, -1), 2));
            let discrepancy = mean_kernel(&t, &t) + mean_kernel(&s, &s) - mean_kernel(&s, &t) * 2.0;
            terms = terms.loss(&format!("pair{}", i + 1), discrepancy);
        }
        Ok(terms)
    }
}
