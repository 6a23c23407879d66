//! The error of the framework: what went wrong, where, and what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::diagnostic::Diagnostic;
use crate::config::key::KeyPath;

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
    #[error("{place}{message}")]
    Plan {
        /// The key of the experiment file that is at fault, and who says so.
        place: Place,
        /// What is wrong, and the remedy.
        message: String,
    },
    /// A file could not be read or written.
    #[error("{place}cannot {doing} {}", path.display())]
    Io {
        /// The key of the experiment file that asks for it, or who else does.
        place: Place,
        /// What was being done: "read", "write", "create".
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A data or weight file is not what it should be.
    #[error("{place}{}: {message}", path.display())]
    Data {
        /// As of [`Io`](Error::Io).
        place: Place,
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
        Error::Plan { place: Place::default(), message: message.into() }
    }

    /// A run that failed.
    pub fn run(message: impl Into<String>) -> Self {
        Error::Run(message.into())
    }

    /// A file whose content is wrong.
    pub fn data(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Error::Data { place: Place::default(), path: path.as_ref().to_owned(), message: message.into() }
    }

    /// Wraps an I/O error: `fs::read(p).map_err(Error::io("read", p))`.
    pub fn io(doing: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Error::Io { place: Place::default(), doing, path, source }
    }

    /// Whether the user's configuration or call is at fault (exit code 2) rather than a run (exit code 1).
    pub fn is_usage(&self) -> bool {
        matches!(self, Error::Config(_) | Error::Plan { .. } | Error::Device(_))
    }

    /// Puts the name of what it concerns before the message: a run, a point of a grid, a plugin. What has a place of its own
    /// already, in the experiment file or as a device, stays as it is.
    #[must_use]
    pub fn within(self, name: &str) -> Self {
        self.put(PlacePart::Name(name.to_owned()))
    }

    /// Puts a key of the experiment file before the message; one that stands before it already is below this key.
    #[must_use]
    pub fn at(self, key: impl Into<KeyPath>) -> Self {
        self.put(PlacePart::Key { path: key.into(), remark: None })
    }

    /// [`at`](Self::at) with a remark in parentheses that says what is there.
    #[must_use]
    pub fn at_what(self, key: impl Into<KeyPath>, remark: String) -> Self {
        self.put(PlacePart::Key { path: key.into(), remark: Some(remark) })
    }

    fn put(mut self, part: PlacePart) -> Self {
        match &mut self {
            Error::Plan { place, .. } | Error::Io { place, .. } | Error::Data { place, .. } => place.0.insert(0, part),
            Error::Run(message) => *message = format!("{part}: {message}"),
            Error::Torch(message) => return Error::Run(format!("{part}: libtorch: {message}")),
            Error::Config(_) | Error::Device(_) | Error::Stopped => {}
        }
        self
    }
}

/// The place of an error, from the outside in: what its message begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place(Vec<PlacePart>);

/// A part of a place.
#[derive(Clone, Debug, PartialEq, Eq)]
enum PlacePart {
    /// A key of the experiment file, below that of the part before.
    Key { path: KeyPath, remark: Option<String> },
    /// A name for people.
    Name(String),
}

impl Place {
    /// The parts of the key, from the outside in. Names may stand before it; whatever is behind a name is no key of the file.
    pub fn keys(&self) -> impl Iterator<Item = &KeyPath> {
        let parts = self.0.iter().skip_while(|part| matches!(part, PlacePart::Name(_)));
        parts.map_while(|part| match part {
            PlacePart::Key { path, .. } => Some(path),
            PlacePart::Name(_) => None,
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| write!(f, "{part}: "))
    }
}

impl fmt::Display for PlacePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlacePart::Key { path, remark: None } => write!(f, "{path}"),
            PlacePart::Key { path, remark: Some(remark) } => write!(f, "{path} ({remark})"),
            PlacePart::Name(name) => f.write_str(name),
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
        let error = Error::io("read", "w.bin")(absent).at("weights").at(["teacher", "big"]);
        assert_eq!(error.to_string(), "teacher.big: weights: cannot read w.bin");
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "entity not found");
        assert_eq!(Error::data("w.bin", "too long").at("dataset").to_string(), "dataset: w.bin: too long");
        assert_eq!(Error::Torch("no".into()).at("student").to_string(), "student: libtorch: no");
    }

    #[test]
    fn a_key_is_a_value_and_names_around_it_are_none() {
        let term = KeyPath::from("terms").item(1);
        let error = Error::plan("x: y").within("crd.critic").at_what(term, "crd, teacher big".to_owned());
        let error = error.at(["method", "mine"]).within("pair = a: b");
        assert_eq!(error.to_string(), "pair = a: b: method.mine: terms[1] (crd, teacher big): crd.critic: x: y");
        let Error::Plan { place, .. } = error else { panic!("{error}") };
        assert_eq!(place.keys().map(KeyPath::to_string).collect::<Vec<_>>(), ["method.mine", "terms[1]"]);
    }
}
