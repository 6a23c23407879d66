//! What critics have in common: scores by dot products, and what follows from the number of negatives.

use limbeck::critic::MUTUAL_INFORMATION;
use limbeck::prelude::*;

/// Dot products: `[B, D]` × `[N, D]` → `[B, N]`, or × `[B, K, D]` → `[B, K]`.
pub(super) fn products(anchors: &Tensor, candidates: &Tensor) -> Tensor {
    match candidates.dim() {
        2 => anchors.matmul(&candidates.tr()),
        _ => candidates.bmm(&anchors.unsqueeze(-1)).squeeze_dim(-1),
    }
}

/// How many negatives each anchor has, `[B, 1]`, in the kind of the scores.
pub(super) fn negatives_per_anchor(scores: &Scores) -> Tensor {
    let (anchors, columns) = (scores.negative.size()[0], scores.negative.size()[1]);
    match &scores.mask {
        Some(mask) => mask.sum_dim_intlist(1, true, scores.negative.kind()),
        None => Tensor::full([anchors, 1], columns as f64, (scores.negative.kind(), scores.negative.device())),
    }
}

/// Adds the bound on the mutual information, which holds if the negatives are a fair sample.
pub(super) fn with_bound(terms: Terms, scores: &Scores, bound: impl FnOnce() -> Tensor) -> Terms {
    if scores.fair { terms.metric(MUTUAL_INFORMATION, bound()) } else { terms }
}
