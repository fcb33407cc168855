//! Where a lab keeps its files, and the locks that say whether its owner lives.
//!
//! `/tmp/rmesh-lab-<uid>/` holds `labs.lock` (one lab for tests at a time), `labs.failed/` (files of failed
//! tests) and one folder a lab, with `owner` (locked as long as the owner lives) and `namespaces`.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::process::geteuid;

use crate::{LabError, error::Attempt};

/// How long [`lock_machine`] waits without seeing the lock change hands.
const LOCK_LIMIT: Duration = Duration::from_secs(600);
const LOCK_POLL: Duration = Duration::from_millis(50);
/// When a waiting lab says so.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) const OWNER: &str = "owner";
pub(crate) const NAMESPACES: &str = "namespaces";
// Names of labs contain no dot, so these are nobody's folder.
const LOCK: &str = "labs.lock";
const FAILED: &str = "labs.failed";

/// Refuses names that do not fit a path, a namespace or an interface.
pub(crate) fn check_name(kind: &'static str, name: &str, max: usize) -> Result<(), LabError> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=max).contains(&name.len()) && name.chars().all(fits) && !name.starts_with('-') {
        return Ok(());
    }
    Err(LabError::Name {
        kind,
        name: name.to_owned(),
        max,
    })
}

/// `/tmp/rmesh-lab-<uid>`, made for this user alone.
pub(crate) fn base() -> Result<PathBuf, LabError> {
    let path = PathBuf::from(format!("/tmp/rmesh-lab-{}", outer_uid()));
    let what = || format!("use the folder {}", path.display());
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).attempt(what);
        }
        _ => {}
    }
    // `/tmp` is everybody's: somebody else may have put a folder or a link there first.
    let found = fs::symlink_metadata(&path).attempt(what)?;
    if !found.is_dir() || found.uid() != geteuid().as_raw() {
        return Err(io::Error::other("it belongs to somebody else: remove it")).attempt(what);
    }
    Ok(path)
}

/// The user as seen from outside a user namespace, where everybody is 0.
fn outer_uid() -> u32 {
    let own = geteuid().as_raw();
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let outer = map.lines().find_map(|line| {
        let mut numbers = line
            .split_whitespace()
            .map(|number| number.parse::<u32>().ok());
        let (inside, outside, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let offset = own.checked_sub(inside).filter(|offset| *offset < count)?;
        outside.checked_add(offset)
    });
    outer.unwrap_or(own)
}

/// Waits for the machine-wide lock. Labs take their turns, so only a lock that stays in one hand for
/// [`LOCK_LIMIT`] is an error.
pub(crate) fn lock_machine(base: &Path, name: &str) -> Result<File, LabError> {
    let path = base.join(LOCK);
    let what = || format!("lock {}", path.display());
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .attempt(what)?;
    let (mut holder, mut since, mut said) = (String::new(), Instant::now(), false);
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(error)) => return Err(error).attempt(what),
            Err(TryLockError::WouldBlock) => {}
        }
        let current = fs::read_to_string(&path)
            .unwrap_or_default()
            .trim()
            .to_owned();
        if current != holder {
            (holder, since) = (current, Instant::now());
        }
        if since.elapsed() > LOCK_LIMIT {
            return Err(LabError::Locked {
                path,
                holder,
                waited: LOCK_LIMIT,
            });
        }
        if since.elapsed() > PATIENCE && !said {
            eprintln!(
                "lab {name}: waiting for {}, held by {holder}",
                path.display()
            );
            said = true;
        }
        thread::sleep(LOCK_POLL);
    }
    file.set_len(0)
        .and_then(|()| write_owner(&mut file, name))
        .attempt(what)?;
    Ok(file)
}

fn write_owner(file: &mut File, name: &str) -> io::Result<()> {
    let thread = thread::current();
    writeln!(
        file,
        "process {}, lab {name}, {}",
        std::process::id(),
        thread.name().unwrap_or("-")
    )
}

/// The folder of one lab; locked as long as this value lives.
#[derive(Debug)]
pub(crate) struct LabFolder {
    name: String,
    base: PathBuf,
    path: PathBuf,
    /// Holds the lock on `owner`; the kernel lets go of it when the process dies.
    _owner: File,
}

impl LabFolder {
    /// Makes it. Whoever sees `owner` in the folder sees it locked: the file is locked before it is
    /// moved there.
    pub(crate) fn create(base: &Path, name: &str) -> Result<LabFolder, LabError> {
        let path = base.join(name);
        let what = || format!("make the folder {}", path.display());
        let draft = base.join(format!("{name}.{}.{OWNER}", std::process::id()));
        let mut owner = File::create(&draft).attempt(what)?;
        owner.try_lock().attempt(what)?;
        write_owner(&mut owner, name).attempt(what)?;
        fs::create_dir_all(&path).attempt(what)?;
        fs::rename(&draft, path.join(OWNER)).attempt(what)?;
        Ok(LabFolder {
            name: name.to_owned(),
            base: base.to_owned(),
            path,
            _owner: owner,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes down a namespace before it is made.
    pub(crate) fn record_namespace(&self, name: &str) -> Result<(), LabError> {
        let path = self.path.join(NAMESPACES);
        let file = File::options().create(true).append(true).open(&path);
        file.and_then(|mut file| writeln!(file, "{name}"))
            .attempt(|| format!("write {}", path.display()))
    }

    /// Moves the files aside for a look after a failure, over those of the last one of this name.
    pub(crate) fn keep(&self) -> io::Result<PathBuf> {
        let kept = self.base.join(FAILED).join(&self.name);
        fs::create_dir_all(self.base.join(FAILED))?;
        match fs::remove_dir_all(&kept) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::rename(&self.path, &kept)?;
        Ok(kept)
    }
}
