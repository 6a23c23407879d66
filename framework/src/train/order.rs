//! The order in which an epoch takes the training samples.

use tch::Tensor;

use super::stage::Stage;

/// The order of an epoch, on both sides.
pub(super) struct EpochOrder {
    pub stage: Stage,
    pub epoch: u64,
    pub positions: Vec<i64>,
    pub positions_on_device: Tensor,
    pub rows: Vec<i64>,
    pub rows_on_device: Tensor,
}
