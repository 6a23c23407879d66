//! Critics: functions that tell a joint pair of representations from an independent one.
//!
//! A critic is a score of a pair and a loss on scores. The scores are the cosine ([`nce`], [`info_nce`]), a bilinear form
//! ([`bilinear`]) and a network ([`mlp`]); the losses are binary (`nce`) and a softmax (`info_nce`), and the trained scores
//! take either.

pub mod bilinear;
pub mod info_nce;
pub mod mlp;
pub mod nce;

use limbeck::critic::MUTUAL_INFORMATION;
use limbeck::prelude::*;
use serde::{Deserialize, Serialize};

use info_nce::softmax;
use nce::NoiseContrast;

/// The loss of a critic whose score is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// That of the critic `nce`: each negative on its own.
    Nce,
    /// That of the critic `info_nce`: all candidates at once.
    InfoNce,
}

/// That loss, at work.
#[derive(Debug)]
enum Loss {
    Nce(NoiseContrast),
    InfoNce,
}

impl Loss {
    fn new(kind: LossKind, site: &CriticSite, params: &nn::Path<'_>) -> Self {
        match kind {
            LossKind::Nce => Loss::Nce(NoiseContrast::new(site, params)),
            LossKind::InfoNce => Loss::InfoNce,
        }
    }

    fn needs_fair_negatives(&self) -> bool {
        matches!(self, Loss::Nce(_))
    }

    fn terms(&mut self, side: Side, scores: &Scores) -> Terms {
        match self {
            Loss::Nce(contrast) => contrast.terms(side, scores),
            Loss::InfoNce => softmax(scores),
        }
    }
}

/// Dot products: `[B, D]` × `[N, D]` → `[B, N]`, or × `[B, K, D]` → `[B, K]`.
fn products(anchors: &Tensor, candidates: &Tensor) -> Tensor {
    match candidates.dim() {
        2 => anchors.matmul(&candidates.tr()),
        _ => candidates.bmm(&anchors.unsqueeze(-1)).squeeze_dim(-1),
    }
}

/// How many negatives each anchor has, `[B, 1]`, in the kind of the scores.
fn negatives_per_anchor(scores: &Scores) -> Tensor {
    let (anchors, columns) = (scores.negative.size()[0], scores.negative.size()[1]);
    match &scores.mask {
        Some(mask) => mask.sum_dim_intlist(1, true, scores.negative.kind()),
        None => Tensor::full([anchors, 1], columns as f64, (scores.negative.kind(), scores.negative.device())),
    }
}

/// Adds the bound on the mutual information, which holds if the negatives are a fair sample.
fn with_bound(terms: Terms, scores: &Scores, bound: impl FnOnce() -> Tensor) -> Terms {
    if scores.fair { terms.metric(MUTUAL_INFORMATION, bound()) } else { terms }
}
