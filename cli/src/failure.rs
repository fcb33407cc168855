//! The one error people and API clients see: what failed, why, and what to do about it.

use std::fmt;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

/// What sort of failure it is; decides exit code and HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailureKind {
    /// The words of the command make no sense: exit code 2, HTTP 400.
    Usage,
    /// Something named does not exist: 404.
    Missing,
    /// It contradicts what is there: 409.
    Conflict,
    /// Not ready, or too busy: 503.
    Unavailable,
    /// Time ran out: 504.
    Timeout,
    /// Everything else: 500.
    #[default]
    Failed,
}

impl FailureKind {
    /// The program's exit code.
    pub fn exit_code(self) -> ExitCode {
        match self {
            FailureKind::Usage => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }

    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            FailureKind::Usage => 400,
            FailureKind::Missing => 404,
            FailureKind::Conflict => 409,
            FailureKind::Failed => 500,
            FailureKind::Unavailable => 503,
            FailureKind::Timeout => 504,
        }
    }

    /// The kind an HTTP status stands for.
    pub fn from_status(status: u16) -> Self {
        match status {
            400 | 405 | 413 | 415 | 422 => FailureKind::Usage,
            404 => FailureKind::Missing,
            409 => FailureKind::Conflict,
            503 => FailureKind::Unavailable,
            504 => FailureKind::Timeout,
            _ => FailureKind::Failed,
        }
    }
}

/// A failure: what, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What sort.
    #[serde(skip)]
    pub kind: FailureKind,
    /// What was not done.
    pub what: String,
    /// Why.
    pub why: String,
    /// What to do about it; may be empty.
    #[serde(default)]
    pub todo: String,
    /// Whether it stands in the log already, and need not be said again.
    #[serde(skip)]
    pub logged: bool,
}

impl Failure {
    /// A failure of the given kind.
    pub fn new(kind: FailureKind, what: impl Into<String>, why: impl fmt::Display) -> Self {
        Failure {
            kind,
            what: what.into(),
            why: why.to_string(),
            todo: String::new(),
            logged: false,
        }
    }

    /// A failure of no special kind.
    pub fn failed(what: impl Into<String>, why: impl fmt::Display) -> Self {
        Self::new(FailureKind::Failed, what, why)
    }

    /// The same, with what to do about it.
    pub fn todo(mut self, todo: impl Into<String>) -> Self {
        self.todo = todo.into();
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}: {}", self.what, self.why)?;
        if !self.todo.is_empty() {
            write!(f, "\n  to do: {}", self.todo)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_what_why_and_what_to_do() {
        let failure = Failure::failed("cannot attach web", "process 7 is gone").todo("start it");
        assert_eq!(
            failure.to_string(),
            "error: cannot attach web: process 7 is gone\n  to do: start it"
        );
    }

    #[test]
    fn every_kind_survives_the_way_through_http() {
        use FailureKind::{Conflict, Failed, Missing, Timeout, Unavailable, Usage};
        for kind in [Usage, Missing, Conflict, Unavailable, Timeout, Failed] {
            assert_eq!(FailureKind::from_status(kind.status()), kind);
        }
    }
}
