//! How many samples a run had, by what they were for. In files a list: `[3800, 200, 2000]`.

use serde::{Deserialize, Serialize};

/// The samples of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[usize; 3]", into = "[usize; 3]")]
pub struct SampleCounts {
    /// Trained on.
    pub train: usize,
    /// Held out of the training part.
    pub validation: usize,
    /// Tested on.
    pub test: usize,
}

impl From<[usize; 3]> for SampleCounts {
    fn from([train, validation, test]: [usize; 3]) -> Self {
        SampleCounts { train, validation, test }
    }
}

impl From<SampleCounts> for [usize; 3] {
    fn from(SampleCounts { train, validation, test }: SampleCounts) -> Self {
        [train, validation, test]
    }
}

/// The samples of a linear probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[usize; 2]", into = "[usize; 2]")]
pub struct ProbeSampleCounts {
    /// Trained on.
    pub train: usize,
    /// Tested on.
    pub test: usize,
}

impl From<[usize; 2]> for ProbeSampleCounts {
    fn from([train, test]: [usize; 2]) -> Self {
        ProbeSampleCounts { train, test }
    }
}

impl From<ProbeSampleCounts> for [usize; 2] {
    fn from(ProbeSampleCounts { train, test }: ProbeSampleCounts) -> Self {
        [train, test]
    }
}
