//! Tasks: what a network learns from the targets of a data set, and how it is judged.
//!
//! | task | targets | loss | score |
//! |---|---|---|---|
//! | [`Classification`] | one class a sample, its label | cross-entropy | top-1 accuracy |
//! | [`Presence`] | a set of classes a sample | binary cross-entropy | mean average precision |

mod classification;
mod presence;

pub use crate::contracts::task::{
    Better, ClassScore, Example, LinkedTask, MetricInfo, Metrics, Part, Task, TaskMeter, Truth, Unit, capitalized,
};
pub use classification::Classification;
pub use presence::{Presence, average_precision, average_precisions, binary_cross_entropy, mean_average_precision};
