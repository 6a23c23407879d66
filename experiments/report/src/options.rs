//! What a report is written as, and what it may show otherwise than the experiments say.

use std::path::PathBuf;

use limbeck::experiment::AccuracyChoice;

/// What a report is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `report.html`
    Html,
    /// `report.md` and `summary.md`
    Markdown,
    /// The numbers of every table and picture.
    Csv,
    /// `report.tex`
    Latex,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 4] = [Format::Html, Format::Markdown, Format::Csv, Format::Latex];
}

/// What a report may show otherwise than the experiments say.
#[derive(Clone, Debug)]
pub struct Options {
    /// The method that others are compared with; absent: `compare.baseline` of the first experiment, else its first method.
    pub baseline: Option<String>,
    /// Which accuracy is shown; absent: `compare.accuracy` of the first experiment.
    pub accuracy: Option<AccuracyChoice>,
    /// What is written.
    pub formats: Vec<Format>,
    /// Where it is written; absent: the folder `report` in that of a single experiment.
    pub out: Option<PathBuf>,
    /// Whether event files for TensorBoard are written, into the folder `tensorboard` beside the report's files.
    pub tensorboard: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { baseline: None, accuracy: None, formats: Format::ALL.into(), out: None, tensorboard: false }
    }
}
