//! Critics: functions that tell a joint pair of teacher and student representations from an independent one.
//!
//! A critic estimates P(C = 1 | T, S) and with it bounds the mutual information of both representations from below.

use std::fmt;

use tch::{Tensor, nn};

use crate::distiller::Terms;
use crate::error::Result;

/// The metric that bounds the mutual information of both representations from below, in nats.
pub const MUTUAL_INFORMATION: &str = "mutual_information";

/// Whether a metric is such a bound, by the name that it has in a run: that of its side and its term stand before it.
pub fn is_bound(metric: &str) -> bool {
    metric.ends_with(MUTUAL_INFORMATION)
}

/// The recipe of a critic. Register it with [`plugin!`](crate::plugin).
#[typetag::serde(tag = "kind")]
pub trait CriticConfig: fmt::Debug + Send + Sync {
    /// Builds the live critic; see [`DistillerConfig::build`](crate::distiller::DistillerConfig::build) for `params`.
    ///
    /// # Errors
    /// If a setting is out of range.
    fn build(&self, site: &CriticSite, params: &nn::Path<'_>) -> Result<Box<dyn Critic>>;
}

/// What a critic may know when it is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CriticSite {
    /// The width D of the embeddings.
    pub embedding_width: i64,
    /// n, the number of training samples.
    pub samples: i64,
}

/// The two networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The student.
    Student,
    /// The teacher.
    Teacher,
}

impl Side {
    /// "student" or "teacher": for the names of parameters and terms.
    pub fn name(self) -> &'static str {
        match self {
            Side::Student => "student",
            Side::Teacher => "teacher",
        }
    }
}

/// A critic at work. It is given embeddings, vectors of norm 1: one of the student's and one of the teacher's make a pair.
pub trait Critic: fmt::Debug + Send {
    /// Whether the score is a dot product of something that depends on the anchor alone with the candidate: then a whole
    /// bank is scored by one matrix product.
    fn factors(&self) -> bool;

    /// Whether the loss takes the negatives for a fair sample of all samples, so that they must not be chosen by their
    /// scores.
    fn needs_fair_negatives(&self) -> bool {
        false
    }

    /// The log-score of each anchor of `side` with its candidates of the other side, before any normalising constant:
    /// `[B, D]` × `[N, D]` → `[B, N]`, or × `[B, K, D]` → `[B, K]`.
    ///
    /// # Errors
    /// If the step cannot be computed.
    fn score(&self, side: Side, anchors: &Tensor, candidates: &Tensor) -> Result<Tensor>;

    /// The loss for anchors of `side`: one loss term, and, where the negatives are [fair](Scores::fair), the bound on the
    /// mutual information in nats as the metric [`MUTUAL_INFORMATION`].
    ///
    /// # Errors
    /// If the step cannot be computed.
    fn loss(&mut self, side: Side, scores: &Scores) -> Result<Terms>;
}

/// The scores of one side's anchors.
#[derive(Debug)]
pub struct Scores {
    /// `[B]`: each anchor with its positive.
    pub positive: Tensor,
    /// `[B, K]`: each anchor with its negatives.
    pub negative: Tensor,
    /// `[B, K]` bool where only some entries are negatives; absent: all are.
    pub mask: Option<Tensor>,
    /// Whether the negatives were chosen without a look at their scores: otherwise nothing bounds the mutual information.
    pub fair: bool,
}
