//! What the tests share: experiments and their runs, the command as a process, pictures on the disk.

// Whatever goes wrong here is a test that fails.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

pub mod command;
pub mod experiment;
pub mod files;
pub mod runs;

/// The repository's front page, for its code.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct FrontPage;
