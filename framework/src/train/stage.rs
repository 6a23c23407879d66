//! Stages of training, and places in them.

use crate::seed::Seed;

/// A part of training. Initial stages come before the main one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Initial(u64),
    Main,
}

impl Stage {
    pub fn seed(self, seed: u64) -> Seed {
        match self {
            Stage::Initial(index) => Seed::new(seed).stream("initial").at(index),
            Stage::Main => Seed::new(seed).stream("main"),
        }
    }
}

/// A point of training: the next step to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub stage: Stage,
    pub step: u64,
}
