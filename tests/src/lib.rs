//! What the tests share: experiments and their runs, the command as a process, pictures on the disk.
//!
//! What the golden tests share is [`limbeck_experiments::golden`]: the command's own check on a GPU uses it too.

// Whatever goes wrong here is a test that fails.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

pub mod command;
pub mod experiment;
pub mod files;
pub mod runs;

pub use limbeck_experiments::golden::*;
