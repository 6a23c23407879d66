//! A stage of a lane as planned.

use crate::distiller::InitialStage;
use crate::train::stage::Stage;

/// A stage as planned: what trains, how long, how fast.
#[derive(Debug)]
pub(super) struct StagePlan {
    pub stage: Stage,
    pub name: String,
    pub epochs: u64,
    /// The initial stage's term and description; absent in the main stage.
    pub initial: Option<(usize, InitialStage)>,
}
