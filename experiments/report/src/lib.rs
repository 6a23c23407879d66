//! Reports: what the runs of one or several experiments say, side by side.
//!
//! A report is a function of the experiments' folders and of nothing else: no date, no host, no order of the file system.
//! Made twice, it is the same byte for byte. Of each folder it reads
//!
//! - `sweep.json`, if it is a sweep: the folders of its points, which are experiments,
//! - `experiment.toml`, the resolved experiment,
//! - `plan.json`, the cells (one run for each method and seed) and their folders,
//! - each cell's `summary.json`, and what the student has in common with its teachers (`similarity.json`,
//!   `correlations.safetensors`),
//!
//! and makes a document: sections of text, tables and pictures. That is written as `report.html` (one page, which needs
//! no other file), `report.md`, `summary.md` (the comparison alone, to be pasted somewhere) and `report.tex` (its tables).
//! For programs there are CSV files with the numbers of every table and picture, in full precision.
//!
//! | module | holds |
//! |---|---|
//! | [`write()`], [`Options`], [`Report`] | a report, written into its folder |
//! | [`Outline`] | what the runs came to, for programs |
//! | [`store`], [`log`] | the folders of runs, and the event log in them |
//! | [`tensorboard`] | event files for TensorBoard |
//! | [`twins`] | teachers that are students of their own experiment |
//! | [`words`] | words that the report and the command share |
//!
//! The recipes in an experiment name plugins: a binary that reads one links those.

#[cfg(test)]
use {limbeck_datasets as _, limbeck_distillers as _, limbeck_models as _};

mod chart;
mod csv;
mod document;
mod html;
mod latex;
pub mod log;
mod markdown;
mod numbers;
mod options;
mod outline;
mod published;
mod report;
mod run;
mod sections;
mod statistics;
pub mod store;
mod study;
mod survey;
mod table;
pub mod tensorboard;
pub mod twins;
pub mod words;

pub use options::{Format, Options};
pub use outline::{CellOutline, Outline};
pub use report::{Report, write};

#[cfg(test)]
mod tests;
