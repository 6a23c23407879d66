//! A value that makes no sense, with its place.

/// A value that makes no sense, with its key: the reader of the file knows the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The dotted key, as in `method.mine.terms[0].weight`.
    pub key: String,
    /// What is wrong, and the remedy.
    pub message: String,
}

impl Fault {
    pub(crate) fn new(key: String, message: String) -> Self {
        Fault { key, message }
    }
}
