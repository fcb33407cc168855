//! A note in the run folder of the writes that are on their way to the disk.
//!
//! It takes one `write(2)` into memory, where the disk's sync takes milliseconds. So a client can be answered
//! at once, and `kill -9` loses nothing of what it was told: whoever opens the ledger next brings to the disk
//! what this has beyond it. The kernel forgets it with everything in the run folder when the host starts anew;
//! where that folder outlives a boot, it means nothing, as the [`Token`](super::Token) then says nothing.
//!
//! Its form is that of the ledger: a head with the number of a durable write, and batches of those after it.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rmesh_ipam::log;

/// A note longer than this, in bytes, is begun anew with what is not durable by then.
const LEN_MAX: u64 = 256 << 10;
/// Longest note that is read, in bytes: [`LEN_MAX`] and as many writes as the node lets be under way.
const READ_MAX: u64 = 64 << 20;

/// Writes that outlive this process, though maybe not the host.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    file: Option<File>,
    len: u64,
    /// Number of the last durable write.
    written: u64,
    /// Those after it.
    later: VecDeque<Vec<u8>>,
    is_warned: bool,
}

impl Tail {
    /// The one beside this token.
    pub fn beside(token: &Path) -> Self {
        Tail {
            path: path(token),
            file: None,
            len: 0,
            written: 0,
            later: VecDeque::new(),
            is_warned: false,
        }
    }

    /// The ledger was opened, and has so many writes.
    pub fn begin(&mut self, written: u64) {
        self.file = None;
        self.written = written;
        self.later.clear();
    }

    /// Writes up to `number` are durable.
    pub fn confirm(&mut self, number: u64) {
        let durable = number.saturating_sub(self.written);
        let durable = usize::try_from(durable).unwrap_or(usize::MAX);
        self.later.drain(..durable.min(self.later.len()));
        self.written = self.written.max(number);
    }

    /// The next writes. Whether these and all before them outlive this process; if not, the disk is to be
    /// waited for.
    pub fn hand_over(&mut self, entries: &[Vec<u8>]) -> bool {
        self.later.extend(entries.iter().cloned());
        let noted = match self.file.take().filter(|_| self.len < LEN_MAX) {
            Some(file) => self.append(file, entries),
            None => self.begin_file(),
        };
        match noted {
            Ok(()) => true,
            Err(cause) => {
                if !std::mem::replace(&mut self.is_warned, true) {
                    let path = self.path.display();
                    tracing::warn!("cannot write {path}: {cause}: clients wait for the disk");
                }
                false
            }
        }
    }

    fn append(&mut self, mut file: File, entries: &[Vec<u8>]) -> io::Result<()> {
        for batch in log::batches(entries) {
            file.write_all(&batch)?;
            self.len += batch.len() as u64;
        }
        self.file = Some(file);
        Ok(())
    }

    /// Begins the file anew, under another name first: a process that dies meanwhile leaves the old one.
    fn begin_file(&mut self) -> io::Result<()> {
        let mut bytes = log::begin(&[], self.written);
        let later: Vec<Vec<u8>> = self.later.iter().cloned().collect();
        bytes.extend(log::batches(&later).concat());
        let new = self.path.with_extension("new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&new)?;
        file.write_all(&bytes)?;
        fs::rename(&new, &self.path)?;
        self.len = bytes.len() as u64;
        self.file = Some(file);
        Ok(())
    }
}

fn path(token: &Path) -> PathBuf {
    token.with_file_name(super::LEDGER_TAIL)
}

/// The writes of a process before, numbered on from `written`, which is the last of the ledger that was
/// found: to be asked for only if that is no older one.
///
/// # Errors
/// What the kernel says.
pub(super) fn beyond(token: &Path, written: u64) -> io::Result<Vec<Vec<u8>>> {
    let file = match File::open(path(token)) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    file.take(READ_MAX).read_to_end(&mut bytes)?;
    let tail = match log::read(&bytes) {
        Ok(tail) => tail,
        Err(why) => {
            let path = path(token);
            tracing::error!("{} is not used: {why}", path.display());
            return Ok(Vec::new());
        }
    };
    let durable = (tail.entries.len() as u64)
        .checked_sub(tail.written.saturating_sub(written))
        .and_then(|durable| usize::try_from(durable).ok());
    // If it begins later, what is between is lost, and what follows from that with it.
    let later = durable.and_then(|durable| tail.entries.get(durable..));
    Ok(later
        .unwrap_or_default()
        .iter()
        .map(|e| e.to_vec())
        .collect())
}

/// Takes it away: a later process must not find it beside another ledger.
pub(super) fn remove(token: &Path) -> io::Result<()> {
    match fs::remove_file(path(token)) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}
