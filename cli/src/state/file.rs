//! The form of a state file, and how one is written whole.
//!
//! The first line is `rmesh NAME VERSION CHECKSUM`, the rest is JSON; the checksum is the first
//! 16 bytes of the SHA-256 hash of name, version and JSON, so that a torn or damaged file, or one
//! under another's name, is noticed.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::disk::Disk;
use crate::ledger::LEDGER;

/// Version of the form.
const VERSION: u32 = 1;
/// Largest state file in bytes: 2,040 attachments of a few hundred bytes fit several times.
const FILE_LEN_MAX: u64 = 4 << 20;
/// Damaged files kept aside under one name; beyond it the last is overwritten.
const ASIDE_MAX: u32 = 100;
/// What follows a file's name when it was moved aside, before the number.
const ASIDE: &str = ".corrupt-";

/// The files of the state folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum File {
    /// Seed of the identity key.
    Identity,
    /// The mesh secret.
    Secret,
    /// Counter of starts.
    Boot,
    /// Remembered peers.
    Peers,
    /// Addresses peers were reached at.
    Hints,
    /// Attached containers.
    Attachments,
    /// Which ring of addresses this host is in: what the ledger was about, if that is lost.
    Ring,
}

impl File {
    /// All of them.
    pub(super) const ALL: [File; 7] = [
        File::Identity,
        File::Secret,
        File::Boot,
        File::Peers,
        File::Hints,
        File::Attachments,
        File::Ring,
    ];

    /// Name in the folder.
    pub(crate) fn name(self) -> &'static str {
        match self {
            File::Identity => "identity",
            File::Secret => "secret",
            File::Boot => "boot",
            File::Peers => "peers",
            File::Hints => "hints",
            File::Attachments => "attachments",
            File::Ring => "ring",
        }
    }

    /// What to do if it is damaged; for those without which the daemon does not start.
    pub(super) fn todo(self) -> &'static str {
        match self {
            File::Identity => {
                "restore the file from a backup, or remove it to become a new peer of the mesh"
            }
            File::Secret => {
                "restore the file from a backup, or remove it and launch with --secret-file and \
                 the secret that `rmesh secret` prints on another member"
            }
            _ => "",
        }
    }
}

/// A state file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// The system refused to read.
    #[error("cannot read {}: {cause}", path.display())]
    Read { path: PathBuf, cause: io::Error },
    /// The system refused to write. The old content is there, or, if only the folder could not be
    /// brought to disk, the new one for now.
    #[error("cannot write {}: {cause}", path.display())]
    Write { path: PathBuf, cause: io::Error },
    /// A damaged file without which the daemon does not start; it was left alone.
    #[error("{} is damaged ({reason}); {todo}", path.display())]
    Corrupt {
        path: PathBuf,
        reason: &'static str,
        todo: &'static str,
    },
    /// A damaged file that the daemon can do without.
    #[error("{} was damaged ({reason}) and has been moved to {}", path.display(), aside.display())]
    MovedAside {
        path: PathBuf,
        reason: &'static str,
        aside: PathBuf,
    },
    /// More than a state file may hold.
    #[error("{name} would be longer than {FILE_LEN_MAX} bytes")]
    TooLong { name: &'static str },
}

/// Whether a file of this name is a state file, one that was being written, or a damaged one.
pub(crate) fn is_state_file(name: &str) -> bool {
    let number = |rest: &str| {
        rest.parse::<u32>()
            .is_ok_and(|n| (1..=ASIDE_MAX).contains(&n))
    };
    let known = File::ALL.iter().map(|file| file.name()).chain([LEDGER]);
    known
        .filter_map(|known| name.strip_prefix(known))
        .any(|rest| matches!(rest, "" | ".new") || rest.strip_prefix(ASIDE).is_some_and(number))
}

/// The value in a state file if it is whole; the file stays as it is.
pub(super) fn peek<T: DeserializeOwned>(disk: &dyn Disk, folder: &Path, file: File) -> Option<T> {
    decode(file, &read(disk, &folder.join(file.name())).ok()?).ok()
}

impl StateError {
    /// What to do about it, for one without which the daemon does not start; may be empty.
    pub(crate) fn todo(&self) -> &'static str {
        match self {
            StateError::Read { .. } | StateError::Write { .. } => {
                "see to the disk and its permissions, then launch again: what was there is kept"
            }
            // Its own words say it.
            StateError::Corrupt { .. } | StateError::MovedAside { .. } => "",
            StateError::TooLong { .. } => "",
        }
    }
}

/// The bytes of a state file.
pub(super) fn encode<T: Serialize + ?Sized>(
    file: File,
    value: &T,
) -> Result<Zeroizing<Vec<u8>>, StateError> {
    let too_long = || StateError::TooLong { name: file.name() };
    // A key fits the room this begins with, so that no copy of it is left behind by growing.
    let body = Zeroizing::new(serde_json::to_string(value).map_err(|_| too_long())?);
    let head = format!(
        "rmesh {} {VERSION} {}\n",
        file.name(),
        checksum(file, &body)
    );
    let len = head.len() + body.len() + 1;
    if len as u64 > FILE_LEN_MAX {
        return Err(too_long());
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(len));
    for part in [head.as_bytes(), body.as_bytes(), b"\n"] {
        bytes.extend_from_slice(part);
    }
    Ok(bytes)
}

/// The value in a state file, `None` if there is no such file. A damaged file is moved aside,
/// unless the daemon cannot do without it.
pub(super) fn load<T: DeserializeOwned>(
    disk: &dyn Disk,
    folder: &Path,
    file: File,
) -> Result<Option<T>, StateError> {
    let path = folder.join(file.name());
    let bytes = match read(disk, &path) {
        Ok(bytes) => bytes,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(StateError::Read { path, cause }),
    };
    match decode(file, &bytes) {
        Ok(value) => Ok(Some(value)),
        Err(reason) => Err(damaged(disk, folder, file, reason)),
    }
}

/// What is wrong with a state file, if anything is. The file stays as it is, its content here.
pub(super) fn flaw(disk: &dyn Disk, folder: &Path, file: File) -> io::Result<Option<&'static str>> {
    let bytes = read(disk, &folder.join(file.name()))?;
    Ok(decode::<serde::de::IgnoredAny>(file, &bytes).err())
}

/// Into memory that is overwritten afterwards: it may be the secret.
fn read(disk: &dyn Disk, path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    disk.read(path, FILE_LEN_MAX + 1).map(Zeroizing::new)
}

fn decode<T: DeserializeOwned>(file: File, bytes: &[u8]) -> Result<T, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text")?;
    let (head, body) = text.split_once('\n').ok_or("it is cut short")?;
    let body = body.strip_suffix('\n').ok_or("it is cut short")?;
    let mut words = head.split(' ');
    if (words.next(), words.next()) != (Some("rmesh"), Some(file.name())) {
        return Err("it is another file");
    }
    if words.next().and_then(|w| w.parse().ok()) != Some(VERSION) {
        return Err("it is of another version of rmesh");
    }
    if words.next() != Some(checksum(file, body).as_str()) {
        return Err("its checksum is wrong");
    }
    serde_json::from_str(body).map_err(|_| "its content makes no sense")
}

fn checksum(file: File, body: &str) -> String {
    let hash = Sha256::new()
        .chain_update(file.name())
        .chain_update(VERSION.to_be_bytes())
        .chain_update(body)
        .finalize();
    hash.iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn damaged(disk: &dyn Disk, folder: &Path, file: File, reason: &'static str) -> StateError {
    let path = folder.join(file.name());
    let todo = file.todo();
    if !todo.is_empty() {
        return StateError::Corrupt { path, reason, todo };
    }
    match move_aside(disk, folder, file.name()) {
        Ok(aside) => StateError::MovedAside {
            path,
            reason,
            aside,
        },
        Err(cause) => StateError::Write { path, cause },
    }
}

/// Gives a damaged file a name under which it is kept and not used; returns its path.
///
/// # Errors
/// What the kernel says; then it may still have its old name.
pub(crate) fn move_aside(disk: &dyn Disk, folder: &Path, name: &str) -> io::Result<PathBuf> {
    let numbered = |n: u32| folder.join(format!("{name}{ASIDE}{n}"));
    let free = (1..ASIDE_MAX).find(|n| disk.exists(&numbered(*n)).is_ok_and(|there| !there));
    let aside = numbered(free.unwrap_or(ASIDE_MAX));
    disk.rename(&folder.join(name), &aside)?;
    disk.sync_folder(folder)?;
    Ok(aside)
}

/// Damaged files that were moved aside.
pub(super) fn aside(disk: &dyn Disk, folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names = disk.list(folder)?;
    names.retain(|name| {
        let known = File::ALL.iter().map(|file| file.name()).chain([LEDGER]);
        let mut kept = known.filter_map(|known| name.strip_prefix(known));
        kept.any(|rest| rest.starts_with(ASIDE))
    });
    names.sort();
    Ok(names.iter().map(|name| folder.join(name)).collect())
}

/// Writes a file whole: beside it, to disk, then over it, and the folder to disk.
pub(super) fn write(
    disk: &dyn Disk,
    folder: &Path,
    file: File,
    bytes: &[u8],
) -> Result<(), StateError> {
    let path = folder.join(file.name());
    let result = replace(disk, folder, &path, &temporary(folder, file), bytes);
    result.map_err(|cause| StateError::Write { path, cause })
}

/// Removes what a write left that did not come to its end. Nobody else may be writing.
pub(super) fn sweep(disk: &dyn Disk, folder: &Path) -> Result<(), StateError> {
    for file in File::ALL {
        let path = temporary(folder, file);
        remove(disk, &path).map_err(|cause| StateError::Write { path, cause })?;
    }
    Ok(())
}

fn temporary(folder: &Path, file: File) -> PathBuf {
    folder.join(format!("{}.new", file.name()))
}

fn replace(
    disk: &dyn Disk,
    folder: &Path,
    path: &Path,
    temporary: &Path,
    bytes: &[u8],
) -> io::Result<()> {
    // One left by a crash may have another mode, which opening would keep.
    remove(disk, temporary)?;
    let filled = fill(disk, temporary, bytes);
    if let Err(cause) = filled.and_then(|()| disk.rename(temporary, path)) {
        // A full disk needs the room; and the first error is the one to tell.
        let _ = disk.remove(temporary);
        return Err(cause);
    }
    disk.sync_folder(folder)
}

fn fill(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = disk.create(path)?;
    file.append(bytes)?;
    file.sync()
}

fn remove(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}

/// What a fuzzer drives: a state file as it was found, and a whole one with that content.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz<T: DeserializeOwned>(file: File, bytes: &[u8]) {
    let _ = decode::<T>(file, bytes);
    if let Ok(body) = std::str::from_utf8(bytes) {
        let sum = checksum(file, body);
        let whole = format!("rmesh {} {VERSION} {sum}\n{body}\n", file.name());
        let _ = decode::<T>(file, whole.as_bytes());
        let newer = format!("rmesh {} {} {sum}\n{body}\n", file.name(), VERSION + 1);
        let refused = decode::<T>(file, newer.as_bytes()).err();
        assert!(
            refused.is_some_and(|why| why.contains("version")),
            "{refused:?}"
        );
    }
}
