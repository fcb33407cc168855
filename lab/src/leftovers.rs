//! Removing what a lab made: its own at the end, and that of a killed one at the next start.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, getpid, kill_process};

use crate::{
    LabError,
    error::Attempt,
    folder::{NAMESPACES, OWNER},
    netns::{self, NamespaceId},
};

/// How long killed processes may take to go.
const DEATH_LIMIT: Duration = Duration::from_secs(3);
const DEATH_POLL: Duration = Duration::from_millis(10);

/// Removes everything of labs whose owner is dead.
pub(crate) fn remove_all(base: &Path) -> Result<(), LabError> {
    let entries = fs::read_dir(base).attempt(|| format!("read {}", base.display()))?;
    for folder in entries.flatten().map(|entry| entry.path()) {
        match owner_of(&folder)? {
            Owner::Dead(_lock) => remove_lab(&folder)?,
            Owner::Alive(_) | Owner::Nobody => {}
        }
    }
    Ok(())
}

/// Removes what a dead lab of this name left; refuses if its owner is alive.
pub(crate) fn remove_named(base: &Path, name: &str) -> Result<(), LabError> {
    let folder = base.join(name);
    match owner_of(&folder)? {
        Owner::Dead(_lock) => remove_lab(&folder),
        Owner::Alive(owner) => Err(LabError::Running {
            name: name.to_owned(),
            owner,
        }),
        Owner::Nobody => Ok(()),
    }
}

enum Owner {
    /// The folder is no lab's.
    Nobody,
    /// Dead; the lock keeps others from removing the same at the same time.
    Dead(File),
    /// Alive, and who it is.
    Alive(String),
}

fn owner_of(folder: &Path) -> Result<Owner, LabError> {
    let path = folder.join(OWNER);
    let Ok(file) = File::open(&path) else {
        return Ok(Owner::Nobody);
    };
    match file.try_lock() {
        Ok(()) => Ok(Owner::Dead(file)),
        Err(TryLockError::WouldBlock) => Ok(Owner::Alive(
            fs::read_to_string(&path)
                .unwrap_or_default()
                .trim()
                .to_owned(),
        )),
        Err(TryLockError::Error(error)) => {
            Err(error).attempt(|| format!("lock {}", path.display()))
        }
    }
}

fn remove_lab(folder: &Path) -> Result<(), LabError> {
    remove_namespaces(folder);
    fs::remove_dir_all(folder).attempt(|| format!("remove {}", folder.display()))
}

/// Kills what still runs in the namespaces of the lab in `folder`, and removes their names.
pub(crate) fn remove_namespaces(folder: &Path) {
    let recorded = fs::read_to_string(folder.join(NAMESPACES)).unwrap_or_default();
    let is_ours = |name: &&str| name.starts_with("rmesh-") && !name.contains('/');
    let names: Vec<&str> = recorded.lines().filter(is_ours).collect();
    // Ids come from what is mounted now, never from a record: the kernel gives old ids to new owners.
    let ids: Vec<NamespaceId> = names
        .iter()
        .filter_map(|name| NamespaceId::of(&netns::path_of(name)).ok())
        .collect();
    kill_inside(&ids);
    for name in names {
        netns::remove(name);
    }
}

/// Only the lab starts programs in its namespaces, so all that run there are its own.
fn kill_inside(ids: &[NamespaceId]) {
    let own = NamespaceId::of(Path::new("/proc/self/ns/net")).ok();
    let inside = |pid: &Pid| {
        let path = PathBuf::from(format!("/proc/{}/ns/net", pid.as_raw_nonzero()));
        NamespaceId::of(&path).is_ok_and(|id| ids.contains(&id) && Some(id) != own)
    };
    let deadline = Instant::now() + DEATH_LIMIT;
    loop {
        let left: Vec<Pid> = processes()
            .into_iter()
            .filter(|pid| *pid != getpid())
            .filter(inside)
            .collect();
        if left.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in left {
            // An error means that it is gone.
            let _ = kill_process(pid, Signal::KILL);
        }
        thread::sleep(DEATH_POLL);
    }
}

fn processes() -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pid = |entry: fs::DirEntry| {
        entry
            .file_name()
            .to_str()?
            .parse()
            .ok()
            .and_then(Pid::from_raw)
    };
    entries.filter_map(pid).collect()
}
