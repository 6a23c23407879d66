//! Negative samplers: which samples an anchor is told apart from.

use std::fmt;

use tch::{Device, Tensor};

use crate::dataset::Rows;
use crate::distiller::Site;
use crate::error::Result;
use crate::seed::Seed;

/// The recipe of a sampler. Register it with [`plugin!`](crate::plugin).
#[typetag::serde(tag = "kind")]
pub trait NegativeSamplerConfig: fmt::Debug + Send + Sync {
    /// Builds the live sampler for a data set.
    ///
    /// # Errors
    /// If the data set cannot provide such negatives.
    fn build(&self, site: &Site<'_>) -> Result<Box<dyn NegativeSampler>>;
}

/// A sampler at work. It keeps no state between draws: a draw is a function of [`Draw::seed`].
pub trait NegativeSampler: fmt::Debug + Send {
    /// Whether [`draw`](Self::draw) wants the scores of the whole bank (hardest negatives).
    fn wants_scores(&self) -> bool {
        false
    }

    /// Whether the negatives are rows of the memory bank. If not, none is kept, and [`Negatives::Batch`] is the answer.
    fn wants_bank(&self) -> bool {
        true
    }

    /// Whether no negative is ever of its anchor's class.
    fn spares_class(&self) -> bool {
        false
    }

    /// Chooses the negatives of every anchor, independently.
    ///
    /// # Errors
    /// If the step cannot be computed.
    fn draw(&mut self, draw: &Draw<'_>) -> Result<Negatives>;
}

/// One step's question to a sampler.
#[derive(Debug)]
pub struct Draw<'a> {
    /// The anchors' positions in the training set.
    pub rows: &'a Rows,
    /// `[B]`, int64, on the device.
    pub labels: &'a Tensor,
    /// `[B, n]`: the score of every anchor with every row of the bank, if [`NegativeSampler::wants_scores`].
    pub scores: Option<&'a Tensor>,
    /// The randomness of this step.
    pub seed: Seed,
    /// Where the result is wanted.
    pub device: Device,
}

/// The answer: who is compared with each anchor.
#[derive(Debug)]
pub enum Negatives {
    /// `[B, K]`, int64: positions in the training set, rows of the bank.
    Rows(Tensor),
    /// `[B, n]`, bool: true where the row of the bank is a negative of that anchor. Every anchor has at least one.
    Mask(Tensor),
    /// Every row of the bank but the anchor's own.
    Others,
    /// `[B, B]`, bool: the other side's embeddings of this very batch where true, instead of a bank.
    Batch(Tensor),
}
