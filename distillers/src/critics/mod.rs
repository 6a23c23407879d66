//! Critics: functions that tell a joint pair of representations from an independent one.
//!
//! A critic is a score of a pair and a loss on scores. The scores are the cosine ([`nce`], [`info_nce`]), a bilinear form
//! ([`bilinear`]) and a network ([`mlp`]); the losses are binary (`nce`) and a softmax (`info_nce`), and the trained scores
//! take either.

pub mod bilinear;
pub mod info_nce;
pub mod mlp;
pub mod nce;
mod scores;

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
