//! The form of a state file, and how one is written whole.
//!
//! The first line is `rmesh NAME VERSION CHECKSUM`, the rest is JSON; the checksum is the first
//! 16 bytes of the SHA-256 hash of name, version and JSON, so that a torn or damaged file, or one
//! under another's name, is noticed.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Version of the form.
const VERSION: u32 = 1;
/// Largest state file in bytes: 2,040 attachments of a few hundred bytes fit several times.
const FILE_LEN_MAX: u64 = 4 << 20;
/// Room beyond a file's length, in bytes: with less, reading to the end looks on by way of the stack.
const GROWTH_LEN: usize = 64;
/// Damaged files kept aside under one name; beyond it the last is overwritten.
const ASIDE_MAX: u32 = 100;

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
}

impl File {
    /// All of them.
    pub(super) const ALL: [File; 6] = [
        File::Identity,
        File::Secret,
        File::Boot,
        File::Peers,
        File::Hints,
        File::Attachments,
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
    /// The system refused to write; the old content is still there.
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
    let rest = |file: &File| name.strip_prefix(file.name());
    File::ALL.iter().filter_map(rest).any(|rest| {
        matches!(rest, "" | ".new") || rest.strip_prefix(".corrupt-").is_some_and(number)
    })
}

/// The value in a state file if it is whole; the file stays as it is.
pub(super) fn peek<T: DeserializeOwned>(folder: &Path, file: File) -> Option<T> {
    decode(file, &read(&folder.join(file.name())).ok()?).ok()
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
    folder: &Path,
    file: File,
) -> Result<Option<T>, StateError> {
    let path = folder.join(file.name());
    let bytes = match read(&path) {
        Ok(bytes) => bytes,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(StateError::Read { path, cause }),
    };
    match decode(file, &bytes) {
        Ok(value) => Ok(Some(value)),
        Err(reason) => Err(damaged(folder, file, reason)),
    }
}

/// What is wrong with a state file, if anything is. The file stays as it is, its content here.
pub(super) fn flaw(folder: &Path, file: File) -> io::Result<Option<&'static str>> {
    let bytes = read(&folder.join(file.name()))?;
    Ok(decode::<serde::de::IgnoredAny>(file, &bytes).err())
}

/// Into memory that need not grow, unless the file does meanwhile, and that is overwritten
/// afterwards: it may be the secret.
fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = fs::File::open(path)?;
    let len = file.metadata()?.len().min(FILE_LEN_MAX);
    let mut bytes = Zeroizing::new(Vec::with_capacity(len as usize + GROWTH_LEN));
    file.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
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

fn damaged(folder: &Path, file: File, reason: &'static str) -> StateError {
    let path = folder.join(file.name());
    let todo = file.todo();
    if !todo.is_empty() {
        return StateError::Corrupt { path, reason, todo };
    }
    let numbered = |n: u32| folder.join(format!("{}.corrupt-{n}", file.name()));
    let free = (1..ASIDE_MAX).find(|n| !numbered(*n).exists());
    let aside = numbered(free.unwrap_or(ASIDE_MAX));
    match fs::rename(&path, &aside) {
        Ok(()) => StateError::MovedAside {
            path,
            reason,
            aside,
        },
        Err(cause) => StateError::Write { path, cause },
    }
}

/// Writes a file whole: beside it, to disk, then over it, and the folder to disk.
pub(super) fn write(folder: &Path, file: File, bytes: &[u8]) -> Result<(), StateError> {
    let path = folder.join(file.name());
    let temporary = folder.join(format!("{}.new", file.name()));
    let result = replace(folder, &path, &temporary, bytes);
    result.map_err(|cause| StateError::Write { path, cause })
}

fn replace(folder: &Path, path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    // One left by a crash may have another mode, which opening would keep.
    match fs::remove_file(temporary) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    fs::File::open(folder)?.sync_all()
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
