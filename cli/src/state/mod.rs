//! What a peer keeps on disk: one small checked file for each concern, written whole.

mod file;
mod listing;
mod lock;
mod permissions;
mod saver;
mod secret_file;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rmesh_gossip::crypto::Key;
use rmesh_router::attach::Attachment;
use rmesh_wire::PeerId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::disk::{self, Disk};
use crate::peer_address::PeerAddress;

pub(crate) use file::{File, StateError, is_state_file, move_aside};
pub(crate) use listing::list;
pub(crate) use lock::{Lock, LockError, RUN_LOCK, STATE_LOCK, holder, lock_todo};
pub(crate) use permissions::{PermissionsError, check_owner, tighten};
pub(crate) use saver::Saver;
#[cfg(feature = "fuzzing")]
pub(crate) use secret_file::fuzz as fuzz_secret_file;
pub(crate) use secret_file::read_secret;

/// Name of the log of a daemon in the background.
pub(crate) const LOG_FILE: &str = "rmesh.log";

/// What is remembered of the ring beside the ledger, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownRing {
    /// The ring, as it is shown.
    pub(crate) ring: String,
    /// Names of other peers: after a reboot they are waited for, and not known from the mesh.
    pub(crate) names: Vec<(PeerId, String)>,
}

/// The state folder.
#[derive(Debug, Clone)]
pub(crate) struct StateDir {
    folder: PathBuf,
    disk: Arc<dyn Disk>,
}

impl StateDir {
    /// The folder, made with mode 0700 if it does not exist.
    pub(crate) fn open(folder: &Path) -> Result<Self, StateError> {
        Self::open_on(disk::here(), folder)
    }

    /// The folder on that disk, made with mode 0700 if it does not exist.
    pub(crate) fn open_on(disk: Arc<dyn Disk>, folder: &Path) -> Result<Self, StateError> {
        disk::make_folders(disk.as_ref(), folder).map_err(|cause| StateError::Write {
            path: folder.into(),
            cause,
        })?;
        let folder = folder.into();
        Ok(StateDir { folder, disk })
    }

    /// The folder as it is, or is not: for a look that changes nothing.
    pub(crate) fn existing(folder: &Path) -> Self {
        StateDir {
            folder: folder.into(),
            disk: disk::here(),
        }
    }

    /// Clears away what an earlier process could not bring to its end; for the holder of the lock.
    pub(crate) fn recover(&self) -> Result<(), StateError> {
        let disk = self.disk.as_ref();
        file::sweep(disk, &self.folder)?;
        if self.has(File::Boot)? {
            return Ok(());
        }
        // Before the first boot counter nobody has made sure that the folder itself will be found.
        disk::sync_above(disk, &self.folder).map_err(|cause| StateError::Write {
            path: self.folder.clone(),
            cause,
        })
    }

    /// Whether there is such a file, damaged or not.
    pub(crate) fn has(&self, file: File) -> Result<bool, StateError> {
        let path = self.path(file.name());
        let there = self.disk.exists(&path);
        there.map_err(|cause| StateError::Read { path, cause })
    }

    /// Damaged files that were moved aside and are still there.
    pub(crate) fn aside(&self) -> Result<Vec<PathBuf>, StateError> {
        let found = file::aside(self.disk.as_ref(), &self.folder);
        found.map_err(|cause| StateError::Read {
            path: self.folder.clone(),
            cause,
        })
    }

    /// Seed of the peer's Ed25519 key.
    pub(crate) fn identity(&self) -> Result<Option<Key>, StateError> {
        self.secret_bytes(File::Identity)
    }

    /// The mesh secret.
    pub(crate) fn secret(&self) -> Result<Option<Key>, StateError> {
        self.secret_bytes(File::Secret)
    }

    /// Saves 32 secret bytes.
    pub(crate) fn save_key(&self, file: File, key: &Key) -> Result<(), StateError> {
        self.save(file, hex(key.bytes()).as_str())
    }

    /// Counter of the last start, zero before the first.
    pub(crate) fn boot(&self) -> Result<u64, StateError> {
        Ok(self.load(File::Boot)?.unwrap_or(0))
    }

    /// Remembered peers.
    pub(crate) fn peers(&self) -> Result<Vec<PeerAddress>, StateError> {
        Ok(self.load(File::Peers)?.unwrap_or_default())
    }

    /// Addresses peers were reached at.
    pub(crate) fn hints(&self) -> Result<Vec<SocketAddr>, StateError> {
        Ok(self.load(File::Hints)?.unwrap_or_default())
    }

    /// Attached containers.
    pub(crate) fn attachments(&self) -> Result<Vec<Attachment>, StateError> {
        Ok(self.load(File::Attachments)?.unwrap_or_default())
    }

    /// The ring of addresses this host was last in.
    pub(crate) fn ring(&self) -> Result<Option<KnownRing>, StateError> {
        self.load(File::Ring)
    }

    /// Attached containers as far as they can be read; a damaged file stays where it is.
    pub(crate) fn attachments_if_whole(&self) -> Vec<Attachment> {
        file::peek(self.disk.as_ref(), &self.folder, File::Attachments).unwrap_or_default()
    }

    /// Writes one file whole; it is durable on return.
    pub(crate) fn save<T: Serialize + ?Sized>(
        &self,
        file: File,
        value: &T,
    ) -> Result<(), StateError> {
        let bytes = file::encode(file, value)?;
        self.write(file, &bytes)
    }

    /// Writes bytes made by [`file::encode`].
    fn write(&self, file: File, bytes: &[u8]) -> Result<(), StateError> {
        file::write(self.disk.as_ref(), &self.folder, file, bytes)
    }

    /// Path of a file in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn load<T: DeserializeOwned>(&self, file: File) -> Result<Option<T>, StateError> {
        file::load(self.disk.as_ref(), &self.folder, file)
    }

    fn secret_bytes(&self, file: File) -> Result<Option<Key>, StateError> {
        let Some(text) = self.load::<String>(file)? else {
            return Ok(None);
        };
        let text = zeroize::Zeroizing::new(text);
        let key = unhex(&text).ok_or_else(|| StateError::Corrupt {
            path: self.path(file.name()),
            reason: "it holds no key of 32 bytes",
            todo: file.todo(),
        })?;
        Ok(Some(key))
    }
}

/// What an operator has to know of a damaged file that was moved aside.
pub(crate) fn aside_warning(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.split('.').next().unwrap_or_default();
    let todo = match stem {
        "ledger" => {
            "nothing is to be done: what containers carry is claimed again and the old space comes back by \
             itself"
        }
        "peers" => "rmesh connect the peers that this host is to join by itself",
        "attachments" => {
            "nothing is to be done: containers on the bridge are found again by themselves"
        }
        // What boot, hints and ring say is learned anew.
        _ => "nothing is to be done: nothing is missing",
    };
    format!(
        "the state file {stem} was damaged and has been moved to {}: {todo}; remove it when no longer wanted",
        path.display()
    )
}

/// Makes a folder, and those above it, with mode 0700.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    disk::make_folders(disk::here().as_ref(), folder)
}

/// What the interfaces of a daemon with this state folder are marked with.
pub(crate) fn owner(state_dir: &Path) -> String {
    let whole = std::path::absolute(state_dir).unwrap_or_else(|_| state_dir.into());
    // Without a slash at the end.
    let whole: PathBuf = whole.components().collect();
    whole.to_string_lossy().into_owned()
}

fn hex(bytes: &[u8; 32]) -> zeroize::Zeroizing<String> {
    use std::fmt::Write as _;
    let mut text = zeroize::Zeroizing::new(String::with_capacity(64));
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn unhex(text: &str) -> Option<Key> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    Some(Key::made_by(|key| {
        for (index, byte) in key.iter_mut().enumerate() {
            let digits = text.get(index * 2..index * 2 + 2).unwrap_or_default();
            *byte = u8::from_str_radix(digits, 16).unwrap_or_default();
        }
    }))
}

/// What a fuzzer drives: every state file.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    file::fuzz::<String>(File::Identity, bytes);
    file::fuzz::<u64>(File::Boot, bytes);
    file::fuzz::<Vec<PeerAddress>>(File::Peers, bytes);
    file::fuzz::<Vec<SocketAddr>>(File::Hints, bytes);
    file::fuzz::<Vec<Attachment>>(File::Attachments, bytes);
    file::fuzz::<KnownRing>(File::Ring, bytes);
    if let Some(key) = std::str::from_utf8(bytes).ok().and_then(unhex) {
        assert!(unhex(&hex(key.bytes())) == Some(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn state() -> (tempfile::TempDir, StateDir) {
        let above = tempfile::tempdir().unwrap();
        let state = StateDir::open(&above.path().join("a/b")).unwrap();
        (above, state)
    }

    #[test]
    fn a_fresh_folder_holds_nothing_and_what_is_saved_comes_back() {
        let (_above, state) = state();
        assert!(state.identity().unwrap().is_none());
        assert_eq!(state.boot().unwrap(), 0);
        assert!(state.peers().unwrap().is_empty());
        let key = Key::new([0xa7; 32]);
        state.save_key(File::Identity, &key).unwrap();
        state.save(File::Boot, &7u64).unwrap();
        let peers: Vec<PeerAddress> = vec!["host1".parse().unwrap(), "::1".parse().unwrap()];
        state.save(File::Peers, &peers).unwrap();
        assert!(state.identity().unwrap() == Some(key));
        assert_eq!(state.boot().unwrap(), 7);
        assert_eq!(state.peers().unwrap(), peers);
    }

    #[test]
    fn only_the_owner_can_read_them() {
        let (_above, state) = state();
        state.save_key(File::Secret, &Key::new([1; 32])).unwrap();
        let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(state.path("")), 0o700);
        assert_eq!(mode(state.path("secret")), 0o600);
    }

    #[test]
    fn a_damaged_identity_is_refused_and_left_alone() {
        let (_above, state) = state();
        state.save_key(File::Identity, &Key::new([1; 32])).unwrap();
        std::fs::write(state.path("identity"), "garbage").unwrap();
        for _ in 0..2 {
            let error = state.identity().unwrap_err().to_string();
            assert!(
                error.contains("identity") && error.contains("backup"),
                "{error}"
            );
        }
        assert!(state.path("identity").exists());
    }

    #[test]
    fn a_damaged_list_of_peers_is_moved_aside_once_and_named() {
        let (_above, state) = state();
        state.save(File::Peers, &vec!["host1:6783"]).unwrap();
        let whole = std::fs::read(state.path("peers")).unwrap();
        for (round, cut) in [whole.len() - 1, 3, 0].into_iter().enumerate() {
            std::fs::write(state.path("peers"), &whole[..cut]).unwrap();
            let error = state.peers().unwrap_err().to_string();
            let aside = format!("peers.corrupt-{}", round + 1);
            assert!(error.contains(&aside), "{error}");
            assert!(state.path(&aside).exists());
            assert!(state.peers().unwrap().is_empty());
        }
    }

    #[test]
    fn what_to_do_about_a_damaged_file_depends_on_the_file() {
        let words = |name: &str| aside_warning(&Path::new("/s").join(format!("{name}.corrupt-2")));
        for name in ["ledger", "attachments", "boot", "hints", "ring"] {
            let words = words(name);
            assert!(words.contains("nothing is to be done"), "{words}");
            assert!(words.contains(&format!("/s/{name}.corrupt-2")), "{words}");
        }
        assert!(words("peers").contains("rmesh connect"));
    }

    #[test]
    fn a_flipped_bit_and_a_swapped_file_are_noticed() {
        let (_above, state) = state();
        state.save(File::Boot, &7u64).unwrap();
        let mut bytes = std::fs::read(state.path("boot")).unwrap();
        std::fs::write(state.path("peers"), &bytes).unwrap();
        assert!(state.peers().is_err());
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        std::fs::write(state.path("boot"), &bytes).unwrap();
        assert!(state.boot().is_err());
    }
}
