//! What the golden tests share is [`limbeck_experiments::golden`]: the command's own check on a GPU uses it too.

pub use limbeck_experiments::golden::*;
