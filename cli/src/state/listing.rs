//! What lies in a folder of rmesh, told without its content.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::Serialize;

use super::file::{self, File};
use crate::daemon::fold;
use crate::disk;
use crate::ledger::{self, LEDGER};

/// Files listed; a state folder has about ten.
const ENTRIES_MAX: usize = 256;
/// The bits of a mode that say who may do what.
const PERMISSIONS: u32 = 0o7777;

/// A folder.
#[derive(Debug, Serialize)]
pub(crate) struct Listing {
    /// Its path.
    pub(crate) path: String,
    /// Its mode, in octal digits.
    pub(crate) mode: String,
    /// Id of its owner.
    pub(crate) owner: u32,
    /// What is in it, by name.
    pub(crate) entries: Vec<Entry>,
    /// How many more there are.
    pub(crate) left_out: usize,
}

/// Something in a folder.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    /// Its name.
    pub(crate) name: String,
    /// `file`, `folder`, `socket`, `link` or `other`.
    pub(crate) kind: &'static str,
    /// Its size in bytes.
    pub(crate) size_bytes: u64,
    /// Its mode, in octal digits.
    pub(crate) mode: String,
    /// Id of its owner.
    pub(crate) owner: u32,
    /// When it was last changed, in seconds since 1970.
    pub(crate) changed_unix_s: i64,
    /// For state files and the ledger: `ok`, or what is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) checksum: Option<String>,
}

/// Looks at a folder and changes nothing; state files are checked, and not shown.
pub(crate) fn list(folder: &Path) -> io::Result<Listing> {
    let about = fs::metadata(folder)?;
    let mut found: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    found.sort_by_key(fs::DirEntry::file_name);
    let left_out = found.len().saturating_sub(ENTRIES_MAX);
    found.truncate(ENTRIES_MAX);
    let entries = found.iter().filter_map(|found| {
        // One that has gone meanwhile is not there.
        let about = found.metadata().ok()?;
        let name = found.file_name().to_string_lossy().into_owned();
        let checksum = checksum(folder, &name);
        Some(Entry {
            name,
            kind: kind(&about),
            size_bytes: about.len(),
            mode: mode(&about),
            owner: about.uid(),
            changed_unix_s: about.mtime(),
            checksum,
        })
    });
    Ok(Listing {
        path: folder.display().to_string(),
        mode: mode(&about),
        owner: about.uid(),
        entries: entries.collect(),
        left_out,
    })
}

fn mode(about: &Metadata) -> String {
    format!("{:04o}", about.mode() & PERMISSIONS)
}

fn kind(about: &Metadata) -> &'static str {
    use std::os::unix::fs::FileTypeExt as _;
    let kind = about.file_type();
    match () {
        () if kind.is_file() => "file",
        () if kind.is_dir() => "folder",
        () if kind.is_socket() => "socket",
        () if kind.is_symlink() => "link",
        () => "other",
    }
}

fn checksum(folder: &Path, name: &str) -> Option<String> {
    if name == LEDGER {
        return Some(match ledger::flaw(disk::here().as_ref(), folder, fold) {
            Ok(None) => "ok".into(),
            Ok(Some(flaw)) => flaw,
            Err(cause) => format!("cannot be read: {cause}"),
        });
    }
    let file = File::ALL.into_iter().find(|file| file.name() == name)?;
    Some(match file::flaw(disk::here().as_ref(), folder, file) {
        Ok(None) => "ok".into(),
        Ok(Some(flaw)) => flaw.into(),
        Err(cause) => format!("cannot be read: {cause}"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::StateDir;
    use super::*;

    #[test]
    fn state_files_are_checked_and_left_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        state.save(File::Boot, &7u64).unwrap();
        fs::write(state.path("peers"), "garbage").unwrap();
        fs::write(state.path("rmesh.log"), "line\n").unwrap();
        let ledger = rmesh_ipam::log::begin(&[], 0);
        fs::write(state.path("ledger"), &ledger[1..]).unwrap();
        let listing = list(folder.path()).unwrap();
        let told: Vec<_> = listing
            .entries
            .iter()
            .map(|entry| (entry.name.as_str(), entry.checksum.as_deref()))
            .collect();
        let expected = [
            ("boot", Some("ok")),
            ("ledger", Some("it is no ledger file")),
            ("peers", Some("it is cut short")),
            ("rmesh.log", None),
        ];
        assert_eq!(told, expected);
        assert_eq!(listing.entries[0].mode, "0600");
        assert!(state.path("peers").exists());
        fs::write(state.path("ledger"), ledger).unwrap();
        let listing = list(folder.path()).unwrap();
        assert_eq!(listing.entries[1].checksum.as_deref(), Some("ok"));
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error_and_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("none");
        assert!(list(&missing).is_err());
        assert!(!missing.exists());
    }
}
