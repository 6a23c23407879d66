//! Why the command ends with another code than 0.

use limbeck::error::Error;

/// Why the command ends with another code than 0.
#[derive(Debug)]
pub(super) struct Failure {
    pub error: Error,
    pub code: u8,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = if error.is_usage() { 2 } else { 1 };
        Failure { error, code }
    }
}

impl Failure {
    /// Whatever goes wrong before a run begins is the configuration's fault: a missing file, damaged data.
    pub fn of_configuration(error: Error) -> Self {
        Failure { error, code: 2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_use_end_with_2_and_failed_runs_with_1() {
        assert_eq!(Failure::from(Error::plan("x")).code, 2);
        assert_eq!(Failure::from(Error::run("x")).code, 1);
        assert_eq!(Failure::of_configuration(Error::data("x", "y")).code, 2);
    }
}
