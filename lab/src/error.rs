//! What can go wrong when a lab is built.

use std::{fmt, io, path::PathBuf, time::Duration};

/// Why the lab could not do what it was asked; says what, why, and what to do about it.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// The process may not make network namespaces or open TAP devices. The text has the command.
    #[error("{0}")]
    Privileges(String),
    /// A name would not fit an interface name or a path.
    #[error("{kind} name {name:?} must be 1 to {max} of a-z, 0-9 and '-', and not begin with '-'")]
    Name {
        /// What the name was for.
        kind: &'static str,
        /// The name.
        name: String,
        /// Longest name allowed, in bytes.
        max: usize,
    },
    /// Another lab held the machine-wide lock too long.
    #[error(
        "waited {waited:?} for {}, held by {holder}; nothing moved: end that process and try again",
        path.display()
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who holds it, as written in the file.
        holder: String,
        /// How long.
        waited: Duration,
    },
    /// A lab of this name runs already.
    #[error("a lab named {name:?} is already running ({owner}): end it first")]
    Running {
        /// The lab's name.
        name: String,
        /// Its owner, as written in its folder.
        owner: String,
    },
    /// There is a namespace of this name already.
    #[error(
        "the network namespace {name} exists already; if no lab uses it: ip netns delete {name}"
    )]
    Taken {
        /// Its name under `/run/netns`.
        name: String,
    },
    /// More links than there are subnets for.
    #[error("a lab has at most {0} links")]
    TooManyLinks(u8),
    /// A program did not end in time and was killed.
    #[error("{what} did not end within {limit:?} and was killed; it had said: {output}")]
    TimedOut {
        /// The command.
        what: String,
        /// The limit.
        limit: Duration,
        /// What it had written so far.
        output: String,
    },
    /// The kernel refused.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// The same text as for people: tests `unwrap`, and people read what that prints.
impl fmt::Debug for LabError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Adds what was attempted to an error of the kernel.
pub(crate) trait Attempt<T> {
    /// `what` completes the sentence "cannot …".
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T, LabError>;
}

impl<T, E: Into<io::Error>> Attempt<T> for Result<T, E> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T, LabError> {
        self.map_err(|source| LabError::Io {
            what: what(),
            source: source.into(),
        })
    }
}

/// Locks a mutex; a panic of another test thread does not make the data unusable here.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
