//! The `limbeck` command as a library: planning and running experiments, progress, reports.
//!
//! A crate with methods of its own (`limbeck new` makes one) has a command with them beside the built-in ones:
//!
//! ```no_run
//! // src/main.rs of that crate
//! # mod my_method {}
//! use my_method as _; // a crate that is never named registers nothing
//!
//! fn main() -> std::process::ExitCode {
//!     limbeck_cli::main()
//! }
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`cli`] | verbs, options, exit codes |
//! | [`plan`] | what would run, checked before the first batch; [`plan::sweep`] for a file with a grid |
//! | [`run`] | running what is planned, teachers first, in this process or in others |
//! | [`store`], [`log`] | the folders of runs, and the event log in them |
//! | [`progress`] | bars on a terminal, lines elsewhere |
//! | [`report`] | the comparison of runs, as a page, Markdown, LaTeX and CSV |
//! | [`tensorboard`] | event files for TensorBoard |
//! | [`weights`], [`evaluate`] | checkpoints of PyTorch in and out, and what they are worth on a data set |
//! | [`data`] | `limbeck data` |
//! | [`listing`], [`doctor`] | `limbeck plugins` and `limbeck doctor` |
//! | [`new`] | `limbeck new`: a crate with a plugin, ready to be built |
//! | [`check`] | `limbeck check`: a device against the CPU and against reference numbers |
//! | [`words`] | shapes, names and errors in words |

// The built-in plugins: linked for their registration.
use limbeck_datasets as _;
use limbeck_distillers as _;
use limbeck_models as _;

pub mod check;
pub mod cli;
pub mod data;
pub mod doctor;
pub mod evaluate;
pub mod listing;
pub mod new;
pub mod plan;
pub mod progress;
pub mod run;
mod waiting;
pub mod weights;
pub mod words;

pub use limbeck_report::{self as report, log, store, tensorboard};

/// The `limbeck` command: reads the arguments of the process and does what they say.
///
/// Exit codes: 0 fine, 1 a run failed, 2 bad use or configuration, 3 stopped before the end.
pub fn main() -> std::process::ExitCode {
    cli::process()
}
