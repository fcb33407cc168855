//! One ledger file: found, appended to, and written anew when it has grown.

use std::io;
use std::path::PathBuf;

use rmesh_ipam::log;

use super::token::{Mark, Token};
use super::{
    FILE_LEN_MAX, Folded, Found, LEDGER, LEDGER_TAIL, LedgerError, NEW, Place, Standing, tail,
};
use crate::disk::DiskFile;
use crate::state::move_aside;

/// A file is written anew when it is longer than this, in bytes.
const COMPACT_LEN_MIN: u64 = 1 << 20;
/// And longer than its snapshot this many times.
const COMPACT_GROWTH: u64 = 4;

/// An open ledger. After an error it is of no more use: open it anew.
pub struct LedgerFile {
    place: Place,
    token: Token,
    file: Box<dyn DiskFile>,
    written: u64,
    len: u64,
    /// Length at which it is to be written anew.
    compact_at: u64,
}

impl Place {
    /// Finds the ledger, or begins one, and brings what was found to the disk once more.
    ///
    /// # Errors
    /// The disk refused. What was durable still is.
    pub fn open(&self) -> Result<(LedgerFile, Found), LedgerError> {
        self.open_with(Token::of_this_boot(&self.token))
    }

    pub(super) fn open_with(&self, mut token: Token) -> Result<(LedgerFile, Found), LedgerError> {
        let (found, aside) = match self.read()? {
            Ok(read) => (read, None),
            Err(why) => (None, Some((self.set_aside()?, why))),
        };
        let (folded, mark, standing) = match found {
            Some((folded, written)) => {
                let incarnation = folded.incarnation;
                let mark = Mark {
                    incarnation,
                    written,
                };
                let standing = token.judge(mark);
                let (folded, mark) = match standing {
                    Standing::Current => self.with_tail(folded, mark)?,
                    _ => (folded, mark),
                };
                (folded.snapshot, mark, standing)
            }
            None => {
                // It is of a ledger that is lost; beside a new one it would mean nothing.
                token.remove().map_err(|cause| LedgerError::Write {
                    path: self.token.clone(),
                    cause,
                })?;
                let (incarnation, written) = (0, 0);
                let mark = Mark {
                    incarnation,
                    written,
                };
                (Vec::new(), mark, Standing::Nothing)
            }
        };
        let (file, len) = self.replace(&folded, mark.written)?;
        tail::remove(&self.token).map_err(|cause| LedgerError::Write {
            path: self.token.with_file_name(LEDGER_TAIL),
            cause,
        })?;
        let ledger = LedgerFile {
            place: self.clone(),
            token,
            file,
            written: mark.written,
            len,
            compact_at: compact_at(len),
        };
        let found = Found {
            entries: folded,
            written: mark.written,
            standing,
            aside,
        };
        Ok((ledger, found))
    }

    /// The same with what a process before has left on the way to the disk.
    fn with_tail(&self, folded: Folded, mark: Mark) -> Result<(Folded, Mark), LedgerError> {
        let later = tail::beyond(&self.token, mark.written);
        let later = later.map_err(|cause| LedgerError::Read {
            path: self.token.with_file_name(LEDGER_TAIL),
            cause,
        })?;
        let all = folded.snapshot.iter().chain(&later).map(Vec::as_slice);
        match (self.fold)(&all.collect::<Vec<&[u8]>>()) {
            Ok(all) => {
                let mark = Mark {
                    incarnation: all.incarnation,
                    written: mark.written + later.len() as u64,
                };
                Ok((all, mark))
            }
            Err(why) => {
                tracing::error!("what was on its way to the ledger is lost: {why}");
                Ok((folded, mark))
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(LEDGER)
    }

    fn new_path(&self) -> PathBuf {
        self.folder.join(format!("{LEDGER}{NEW}"))
    }

    /// What the file amounts to and the number of its last write; nothing if there is none; or why it
    /// cannot be used.
    fn read(&self) -> Result<Result<Option<(Folded, u64)>, String>, LedgerError> {
        let path = self.path();
        let bytes = match self.disk.read(&path, FILE_LEN_MAX + 1) {
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Ok(None)),
            Err(cause) => return Err(LedgerError::Read { path, cause }),
        };
        if bytes.len() as u64 > FILE_LEN_MAX {
            return Ok(Err(format!("it is longer than {FILE_LEN_MAX} bytes")));
        }
        let used = log::read(&bytes)
            .map_err(|error| error.to_string())
            .and_then(|log| Ok(Some(((self.fold)(&log.entries)?, log.written))));
        Ok(used)
    }

    fn set_aside(&self) -> Result<PathBuf, LedgerError> {
        let moved = move_aside(self.disk.as_ref(), &self.folder, LEDGER);
        moved.map_err(|cause| LedgerError::Write {
            path: self.path(),
            cause,
        })
    }

    /// Begins a new file in place of what is there; returns it and its length.
    fn replace(
        &self,
        snapshot: &[Vec<u8>],
        base: u64,
    ) -> Result<(Box<dyn DiskFile>, u64), LedgerError> {
        let cannot = |cause| LedgerError::Write {
            path: self.path(),
            cause,
        };
        let (file, len) = self.fill(snapshot, base).map_err(cannot)?;
        self.give_name().map_err(cannot)?;
        Ok((file, len))
    }

    /// A whole new file, under its temporary name.
    fn fill(&self, snapshot: &[Vec<u8>], base: u64) -> io::Result<(Box<dyn DiskFile>, u64)> {
        let path = self.new_path();
        let filled = self.fill_at(&path, &log::begin(snapshot, base));
        if filled.is_err() {
            // A full disk needs the room; and the first error is the one to tell.
            let _ = self.disk.remove(&path);
        }
        filled
    }

    fn fill_at(
        &self,
        path: &std::path::Path,
        bytes: &[u8],
    ) -> io::Result<(Box<dyn DiskFile>, u64)> {
        match self.disk.remove(path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
            _ => {}
        }
        let mut file = self.disk.create(path)?;
        file.append(bytes)?;
        file.sync()?;
        Ok((file, bytes.len() as u64))
    }

    fn give_name(&self) -> io::Result<()> {
        self.disk.rename(&self.new_path(), &self.path())?;
        self.disk.sync_folder(&self.folder)
    }
}

impl LedgerFile {
    /// Number of the last durable write.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Brings entries to the disk, the first numbered one above [`LedgerFile::written`]; returns the
    /// number of the last. `vouched` is the incarnation whose ledger this is for sure, which the token
    /// is to remember; without it there will be no token.
    ///
    /// # Errors
    /// The disk refused. Drop the file and open it anew: nothing is known of what it holds.
    pub fn commit(
        &mut self,
        entries: &[Vec<u8>],
        vouched: Option<u64>,
    ) -> Result<u64, LedgerError> {
        let written = self.append(entries).map_err(|cause| self.refused(cause))?;
        let noted = match vouched {
            Some(incarnation) => self.token.write(Mark {
                incarnation,
                written,
            }),
            None => self.token.remove(),
        };
        noted.map_err(|cause| LedgerError::Write {
            path: self.place.token.clone(),
            cause,
        })?;
        self.written = written;
        if self.len >= self.compact_at {
            self.compact()?;
        }
        Ok(written)
    }

    fn append(&mut self, entries: &[Vec<u8>]) -> io::Result<u64> {
        for batch in log::batches(entries) {
            self.file.append(&batch)?;
            // The next batch says that this one is whole.
            self.file.sync()?;
            self.len += batch.len() as u64;
        }
        Ok(self.written + entries.len() as u64)
    }

    /// Writes the file anew, shorter. Where there is no room for that the old one goes on growing.
    fn compact(&mut self) -> Result<(), LedgerError> {
        let made = match self.place.read()? {
            Ok(Some((folded, _))) => self.place.fill(&folded.snapshot, self.written),
            Ok(None) => Err(io::ErrorKind::NotFound.into()),
            Err(why) => Err(io::Error::other(why)),
        };
        let (file, len) = match made {
            Ok(made) => made,
            Err(cause) => {
                let path = self.place.path();
                tracing::warn!("cannot write {} anew: {cause}", path.display());
                self.compact_at = self.len.saturating_add(COMPACT_LEN_MIN);
                return Ok(());
            }
        };
        // From here on it may be either of the two: nothing may be appended to only one of them.
        let named = self.place.give_name();
        named.map_err(|cause| self.refused(cause))?;
        (self.file, self.len) = (file, len);
        self.compact_at = compact_at(len);
        Ok(())
    }

    fn refused(&self, cause: io::Error) -> LedgerError {
        LedgerError::Write {
            path: self.place.path(),
            cause,
        }
    }
}

fn compact_at(snapshot_len: u64) -> u64 {
    COMPACT_LEN_MIN.max(snapshot_len.saturating_mul(COMPACT_GROWTH))
}
