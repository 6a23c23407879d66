//! An error in an experiment file, with the place that it is at.

use std::fmt;
use std::path::PathBuf;

/// An error in an experiment file or an override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong, and what may have been meant.
    pub message: String,
    /// The key at fault, dotted; empty at the top.
    pub key: String,
    /// Where it stands.
    pub origin: Origin,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A place in a file.
    File {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// The text of that line.
        text: String,
        /// How many columns are meant.
        width: usize,
    },
    /// `--set KEY=VALUE`
    Override(String),
}

impl std::error::Error for Diagnostic {}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.origin {
            Origin::Override(text) => write!(f, "\n  --> --set {text}")?,
            Origin::File { path, line, column, text, width } => {
                let gutter = line.to_string().len();
                write!(f, "\n  --> {}:{line}:{column}", path.display())?;
                write!(f, "\n{:gutter$} |\n{line} | {text}", "")?;
                write!(f, "\n{:gutter$} | {:indent$}{}", "", "", "^".repeat(*width), indent = column - 1)?;
            }
        }
        if !self.key.is_empty() {
            write!(f, "\n  key: {}", self.key)?;
        }
        Ok(())
    }
}
