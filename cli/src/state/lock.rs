//! One daemon for each run folder and each state folder.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

/// Lock file of a run folder. Each holds the daemon's process id.
pub(crate) const RUN_LOCK: &str = "rmesh.pid";
/// Lock file of a state folder; another name, because both may be one folder.
pub(crate) const STATE_LOCK: &str = "lock";
/// Times a lock file that was removed meanwhile is made again.
const ATTEMPTS: usize = 5;
/// Longest content of a lock file that is looked at, in bytes.
const CONTENT_LEN_MAX: u64 = 32;

/// A held lock; released when dropped or when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Why a lock is not held.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// Another daemon holds it.
    #[error("a daemon (pid {pid}) is using {}", folder.display())]
    Held { folder: PathBuf, pid: u32 },
    /// The system refused.
    #[error("cannot lock {}: {cause}", folder.display())]
    Refused { folder: PathBuf, cause: io::Error },
}

impl Lock {
    /// Takes the lock of a folder and writes this process's id into it.
    pub(crate) fn take(folder: &Path, name: &str) -> Result<Self, LockError> {
        let refused = |cause| LockError::Refused {
            folder: folder.into(),
            cause,
        };
        for _ in 0..ATTEMPTS {
            let mut file = open(&folder.join(name)).map_err(refused)?;
            if !lock(&file) {
                return Err(LockError::Held {
                    folder: folder.into(),
                    pid: read_pid(&mut file),
                });
            }
            // `reset` removes lock files: one without a name locks nothing.
            if file.metadata().map_err(refused)?.nlink() > 0 {
                write_pid(&mut file).map_err(refused)?;
                return Ok(Lock { _file: file });
            }
        }
        Err(refused(io::Error::other(
            "somebody keeps removing the lock",
        )))
    }
}

/// What to do about a folder whose lock the system refused.
pub(crate) fn lock_todo(folder: &Path, cause: &io::Error) -> String {
    match cause.kind() {
        // The daemon is root without the right to what is not root's.
        io::ErrorKind::PermissionDenied => format!("chown -R root {}", folder.display()),
        _ => "see to the disk, then launch again".into(),
    }
}

/// Process id of the daemon that serves in a run folder, if one does; zero if it is unknown.
pub(crate) fn holder(run_dir: &Path) -> Option<u32> {
    let mut file = File::open(run_dir.join(RUN_LOCK)).ok()?;
    // A shared lock is refused only while a daemon holds the exclusive one.
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => None,
        Err(_) => Some(read_pid(&mut file)),
    }
}

/// Tries for long enough that a look by [`holder`] is not taken for a daemon.
fn lock(file: &File) -> bool {
    (0..5).any(|attempt| {
        if attempt > 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
        flock(file, FlockOperation::NonBlockingLockExclusive).is_ok()
    })
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    options.open(path)
}

fn read_pid(file: &mut File) -> u32 {
    let mut text = String::new();
    let read = file.take(CONTENT_LEN_MAX).read_to_string(&mut text);
    read.ok()
        .and_then(|_| text.trim().parse().ok())
        .unwrap_or(0)
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_learns_who_is_first() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(holder(folder.path()), None);
        let first = Lock::take(folder.path(), RUN_LOCK).unwrap();
        let Err(LockError::Held { pid, .. }) = Lock::take(folder.path(), RUN_LOCK) else {
            panic!("locked twice");
        };
        assert_eq!(pid, std::process::id());
        assert_eq!(holder(folder.path()), Some(pid));
        drop(first);
        assert_eq!(holder(folder.path()), None);
        let _run = Lock::take(folder.path(), RUN_LOCK).unwrap();
        let _state = Lock::take(folder.path(), STATE_LOCK).unwrap();
    }
}
