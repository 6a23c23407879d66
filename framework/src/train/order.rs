//! The order in which an epoch takes the training samples.

use std::ops::Range;

use tch::Tensor;

use super::stage::Stage;
use crate::dataset::Rows;

/// The order of an epoch, on both sides.
pub(super) struct EpochOrder {
    pub stage: Stage,
    pub epoch: u64,
    pub positions: Vec<i64>,
    pub positions_on_device: Tensor,
    pub rows: Vec<i64>,
    pub rows_on_device: Tensor,
}

impl EpochOrder {
    /// A part of the epoch: positions in the training set, and rows of the data set.
    pub fn slice(&self, part: Range<usize>) -> (Rows, Rows) {
        let (start, length) = (part.start as i64, part.len() as i64);
        let positions = self.positions_on_device.narrow(0, start, length);
        let rows = self.rows_on_device.narrow(0, start, length);
        (
            Rows::from_parts(self.positions[part.clone()].to_vec(), positions),
            Rows::from_parts(self.rows[part].to_vec(), rows),
        )
    }
}
