//! The ledger on the disk: what this peer owns, promised and gave out, as a log of entries.
//!
//! `rmesh_ipam::log` has the form of the file, and its node says what is written; here it is brought
//! to the disk and found again. Three rules carry it:
//!
//! * **One append, one sync, then the word.** Whatever waits is appended together, synced, noted in the
//!   [`Token`], and only then told to be durable.
//! * **A file is never trusted twice.** After a write that failed, and at every start, the file is read and
//!   written anew under another name: the kernel may show what never reached the disk.
//! * **The token lies on another disk.** It is in the run folder, so that a state folder restored from a
//!   backup, which is older than what this peer has told others, is noticed.
//!
//! Beside the token lies the [`Tail`]: writes that the disk has not confirmed, which a dying process leaves
//! to the next one.

mod alive;
mod file;
mod tail;
#[cfg(test)]
mod tests;
mod token;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::Disk;

pub use alive::Alive;
pub use file::LedgerFile;
pub(crate) use file::flaw;
pub use tail::Tail;
pub use token::Token;
pub use writer::{News, Writer};

/// Name in the state folder.
pub const LEDGER: &str = "ledger";
/// Name in the run folder of the note how far it was written.
pub const LEDGER_TOKEN: &str = "ledger-token";
/// Name in the run folder of the note when the daemon was last there.
pub const LEDGER_ALIVE: &str = "ledger-alive";
/// Name in the run folder of the note which writes are on their way to the disk.
pub const LEDGER_TAIL: &str = "ledger-tail";
/// What follows the name while a new file is written.
const NEW: &str = ".new";
/// Longest file that is read, in bytes: many times the state of a thousand peers. A longer one was not
/// written by rmesh.
const FILE_LEN_MAX: u64 = 256 << 20;

/// What makes a snapshot of entries, in the order they were written; or why they are none.
pub type Fold = fn(&[&[u8]]) -> Result<Folded, String>;

/// What entries amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folded {
    /// Entries that lead to the same state.
    pub snapshot: Vec<Vec<u8>>,
    /// Whose they are; 0 if they are nobody's.
    pub incarnation: u64,
}

/// Where a ledger is kept.
#[derive(Debug, Clone)]
pub struct Place {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The state folder; the caller holds its lock.
    pub folder: PathBuf,
    /// Path of the token, in the run folder.
    pub token: PathBuf,
    /// What makes snapshots.
    pub fold: Fold,
}

/// How a ledger was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// There was none, or it could not be used.
    Nothing,
    /// It is not older than the token says.
    Current,
    /// There is no token of this boot of the kernel: it may have been rolled back.
    Unproven,
    /// The token is ahead of it: it was rolled back.
    RolledBack,
}

/// A ledger as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Entries that lead to its state.
    pub entries: Vec<Vec<u8>>,
    /// Number of the last write in it.
    pub written: u64,
    /// Whether it can be trusted.
    pub standing: Standing,
    /// What could not be used: where it was moved, and why.
    pub aside: Option<(PathBuf, String)>,
}

/// The disk refused.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Reading.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// What the kernel says.
        cause: io::Error,
    },
    /// Writing. Nothing that was to be written counts as durable.
    #[error("cannot write {}: {cause}", path.display())]
    Write {
        /// What.
        path: PathBuf,
        /// What the kernel says.
        cause: io::Error,
    },
}

/// What a fuzzer drives: the notes in the run folder.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    token::fuzz(bytes);
    alive::fuzz(bytes);
}
