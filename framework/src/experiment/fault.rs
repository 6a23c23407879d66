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

    /// The refusal of the value `name` in a table; the whole file is the table of no name.
    pub(super) fn refuse<T>(table: &str, name: &str, message: String) -> Result<T, Fault> {
        let key = if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") };
        Err(Fault::new(key, message))
    }
}
