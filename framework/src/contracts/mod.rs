//! What a plugin implements: the contracts.

pub mod critic;
pub mod dataset;
pub mod distiller;
pub mod model;
pub mod negatives;
pub mod optim;
pub mod task;
