//! The error of the framework: what went wrong, where, and what to do about it.

use std::path::{Path, PathBuf};

use crate::config::diagnostic::Diagnostic;

/// A result with the framework's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, in the words that the user sees.
///
/// Messages are lower-case fragments; a source, where there is one, is kept and printed behind it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The experiment file, or an override, cannot be understood.
    #[error(transparent)]
    Config(#[from] Box<Diagnostic>),
    /// The experiment is well-formed but cannot be run: found while planning, before the first batch.
    #[error("{0}")]
    Plan(String),
    /// A file could not be read or written.
    #[error("{context}cannot {doing} {}", path.display())]
    Io {
        /// The key of the experiment that asks for it, or who else does, with a colon and a blank; or nothing.
        context: String,
        /// What was being done: "read", "write", "create".
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A data or weight file is not what it should be.
    #[error("{context}{}: {message}", path.display())]
    Data {
        /// As of [`Io`](Error::Io).
        context: String,
        /// The file.
        path: PathBuf,
        /// What was found, where, and what was expected.
        message: String,
    },
    /// A device that was asked for is not there.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// libtorch refused an operation; its message in one line.
    #[error("libtorch: {0}")]
    Torch(String),
    /// A run ended without a student.
    #[error("{0}")]
    Run(String),
    /// A [stop](crate::cohort::Stop) was asked for in the middle of something that can be done again.
    #[error("stopped")]
    Stopped,
}

impl Error {
    /// A planning error.
    pub fn plan(message: impl Into<String>) -> Self {
        Error::Plan(message.into())
    }

    /// A run that failed.
    pub fn run(message: impl Into<String>) -> Self {
        Error::Run(message.into())
    }

    /// A file whose content is wrong.
    pub fn data(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Error::Data { context: String::new(), path: path.as_ref().to_owned(), message: message.into() }
    }

    /// Wraps an I/O error: `fs::read(p).map_err(Error::io("read", p))`.
    pub fn io(doing: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Error::Io { context: String::new(), doing, path, source }
    }

    /// Whether the user's configuration or call is at fault (exit code 2) rather than a run (exit code 1).
    pub fn is_usage(&self) -> bool {
        matches!(self, Error::Config(_) | Error::Plan(_) | Error::Device(_))
    }

    /// Puts `context` before the message, keeping the variant: `context: message`. What has a place of its own already, in
    /// the experiment file or as a device, stays as it is.
    pub fn within(self, context: &str) -> Self {
        match self {
            Error::Plan(message) => Error::Plan(format!("{context}: {message}")),
            Error::Run(message) => Error::Run(format!("{context}: {message}")),
            Error::Torch(message) => Error::Run(format!("{context}: libtorch: {message}")),
            Error::Io { context: inner, doing, path, source } => {
                Error::Io { context: format!("{context}: {inner}"), doing, path, source }
            }
            Error::Data { context: inner, path, message } => {
                Error::Data { context: format!("{context}: {inner}"), path, message }
            }
            Error::Config(_) | Error::Device(_) | Error::Stopped => self,
        }
    }
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        match error {
            tch::TchError::Torch(message) => Error::Torch(first_line(&message).to_owned()),
            other => Error::Torch(first_line(&other.to_string()).to_owned()),
        }
    }
}

/// A device that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// No such name.
    #[error("unknown device {0:?}; expected \"auto\", \"cpu\", \"cuda\" or \"cuda:N\" with the number of a GPU")]
    Unknown(String),
    /// A GPU is asked for on a host, or in a build, without CUDA.
    #[error(
        "device \"cuda:{index}\" is asked for and CUDA is not to be had: {looked_for}; ask for \"cpu\" or \"auto\" to do without"
    )]
    NoCuda {
        /// The GPU that was asked for.
        index: usize,
        /// What was looked for, where, and what came of it.
        looked_for: String,
    },
    /// There are GPUs, fewer than asked for.
    #[error("device \"cuda:{index}\" is asked for and the number of GPUs is {count}; the last one is \"cuda:{}\"", count - 1)]
    NoSuchGpu {
        /// The GPU that was asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
}

/// What libtorch says first; behind it comes the C++ stack.
pub(crate) fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_comes_first_and_a_source_stays() {
        let absent = std::io::Error::from(std::io::ErrorKind::NotFound);
        let error = Error::io("read", "w.bin")(absent).within("weights").within("teacher.big");
        assert_eq!(error.to_string(), "teacher.big: weights: cannot read w.bin");
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "entity not found");
        assert_eq!(Error::data("w.bin", "too long").within("dataset").to_string(), "dataset: w.bin: too long");
        assert_eq!(Error::Torch("no".into()).within("student").to_string(), "student: libtorch: no");
    }
}
