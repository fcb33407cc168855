//! Which files of a folder are rmesh's, and removing them.

use std::fs;
use std::io;
use std::path::Path;

use super::Done;
use crate::api::SOCKET;
use crate::ledger::{LEDGER_ALIVE, LEDGER_TAIL, LEDGER_TOKEN};
use crate::state::{self, LOG_FILE, RUN_LOCK, STATE_LOCK};

/// Files looked at in one folder; a state folder has about ten.
const ENTRIES_MAX: usize = 4_096;

/// Removes rmesh's files from a folder, and the folder if nothing is left in it. What is not
/// rmesh's stays and is named. The lock files go last, so that no daemon starts between.
pub(super) fn remove(folder: &Path, done: &mut Done) {
    let names = match names(folder) {
        Ok(names) => names,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return,
        Err(cause) => return done.problem(format!("cannot read {}: {cause}", folder.display())),
    };
    let (own, others): (Vec<_>, Vec<_>) = names
        .into_iter()
        .partition(|(name, is_folder)| !is_folder && is_own(name));
    let is_lock = |name: &str| name == RUN_LOCK || name == STATE_LOCK;
    let (locks, own): (Vec<_>, Vec<_>) = own.into_iter().partition(|(name, _)| is_lock(name));
    for (name, _) in own.iter().chain(&locks) {
        let path = folder.join(name);
        match fs::remove_file(&path) {
            Ok(()) => done.files.push(path.display().to_string()),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => done.problem(format!("cannot remove {}: {cause}", path.display())),
        }
    }
    for (name, _) in &others {
        done.left.push(folder.join(name).display().to_string());
    }
    make_durable(folder, done);
    // Fails for a mount point, which the system made and not rmesh.
    if others.is_empty() && fs::remove_dir(folder).is_ok() {
        done.files.push(folder.display().to_string());
    }
}

/// Names in a folder, and whether each is a folder.
fn names(folder: &Path) -> io::Result<Vec<(String, bool)>> {
    let entries = fs::read_dir(folder)?.take(ENTRIES_MAX);
    let named = entries.map(|entry| {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        Ok((name, entry.file_type()?.is_dir()))
    });
    named.collect()
}

fn is_own(name: &str) -> bool {
    let log = || {
        name.strip_prefix(LOG_FILE)
            .is_some_and(|rest| ["", ".1"].contains(&rest))
    };
    let socket = || {
        name.strip_prefix(SOCKET)
            .is_some_and(|rest| ["", ".new"].contains(&rest))
    };
    let tail = || {
        name.strip_prefix(LEDGER_TAIL)
            .is_some_and(|rest| ["", ".new"].contains(&rest))
    };
    let named = [RUN_LOCK, STATE_LOCK, LEDGER_TOKEN, LEDGER_ALIVE].contains(&name);
    named || log() || socket() || tail() || state::is_state_file(name)
}

/// A power cut must not bring the secret back.
fn make_durable(folder: &Path, done: &mut Done) {
    let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
    if let Err(cause) = synced {
        done.problem(format!("cannot write {}: {cause}", folder.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_names_go_and_the_rest_is_named() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("state");
        fs::create_dir(&folder).unwrap();
        let own = [
            "identity",
            "peers.corrupt-3",
            "boot.new",
            "rmesh.log.1",
            "lock",
            "rmesh.sock",
        ];
        let others = ["notes.txt", "peers.corrupt-x", "identity.bak", "rmesh.logs"];
        for name in own.iter().chain(&others) {
            fs::write(folder.join(name), "x").unwrap();
        }
        fs::create_dir(folder.join("secret")).unwrap();
        let mut done = Done::default();
        remove(&folder, &mut done);
        assert_eq!(
            (done.files.len(), done.left.len()),
            (own.len(), others.len() + 1),
            "{done:?}"
        );
        assert!(done.problems.is_empty(), "{done:?}");
        assert!(done.files.last().unwrap().ends_with("/lock"), "{done:?}");
        assert!(others.iter().all(|name| folder.join(name).exists()));

        for name in others {
            fs::remove_file(folder.join(name)).unwrap();
        }
        fs::remove_dir(folder.join("secret")).unwrap();
        for _ in 0..2 {
            remove(&folder, &mut done);
            assert!(!folder.exists());
        }
        assert!(done.problems.is_empty(), "{done:?}");
    }

    #[test]
    fn a_link_goes_and_what_it_leads_to_stays() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("state");
        fs::create_dir(&folder).unwrap();
        let aim = above.path().join("aim");
        fs::write(&aim, "x").unwrap();
        std::os::unix::fs::symlink(&aim, folder.join("peers")).unwrap();
        remove(&folder, &mut Done::default());
        assert!(aim.exists() && !folder.exists());
    }
}
