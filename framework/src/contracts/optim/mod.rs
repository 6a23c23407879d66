//! Optimisers and learning-rate schedules, all on one flat buffer of parameters.

mod adamw;
mod average;
mod flat;
mod optimizer;
mod schedule;
mod schedules;
mod sgd;

pub use adamw::AdamW;
pub(crate) use average::Average;
pub use average::AverageConfig;
pub use flat::{FlatParameters, Variable};
pub use optimizer::{Optimizer, OptimizerConfig};
pub use schedule::{Progress, ScheduleConfig};
pub use schedules::{Constant, Cosine, MultiStep};
pub use sgd::Sgd;
