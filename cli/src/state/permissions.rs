//! Who else may write in rmesh's folders, or read its keys: nobody. Whoever can replace a state file
//! decides what the daemon, which is root, does next.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::file::File;

/// Files that nobody else may read.
const KEYS: [File; 2] = [File::Secret, File::Identity];
/// Writing, for group and others.
const OTHERS_WRITE: u32 = 0o022;
/// Anything, for group and others.
const OTHERS: u32 = 0o077;
/// Only the owner of a file removes it: a folder meant for everybody, as /tmp.
const STICKY: u32 = 0o1000;

/// A folder that rmesh must not use as it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PermissionsError {
    /// It is somebody else's.
    #[error("{} belongs to user {owner}, who could change what is in it", path.display())]
    OthersOwn { path: PathBuf, owner: u32 },
    /// It is everybody's.
    #[error("{} is a folder that everybody writes in", path.display())]
    Shared { path: PathBuf },
    /// The system refused.
    #[error("cannot make {} private: {cause}", path.display())]
    Refused { path: PathBuf, cause: io::Error },
}

impl PermissionsError {
    /// What to do about it.
    pub(crate) fn todo(&self) -> String {
        match self {
            PermissionsError::OthersOwn { path, .. } => format!("chown root {}", path.display()),
            PermissionsError::Shared { .. } => {
                "give rmesh a folder of its own with --run-dir and --state-dir".into()
            }
            PermissionsError::Refused { path, .. } => {
                format!("chmod go= {}, then launch again", path.display())
            }
        }
    }
}

/// Refuses a folder, or keys in it, that are not this user's own, and one that is everybody's.
pub(crate) fn check_owner(folder: &Path) -> Result<(), PermissionsError> {
    owned_by(folder, rustix::process::geteuid().as_raw())
}

fn owned_by(folder: &Path, user: u32) -> Result<(), PermissionsError> {
    let about = look(folder, fs::metadata(folder))?;
    let keys = keys(folder)?;
    let all = about.iter().map(|about| (folder.to_path_buf(), about));
    for (path, about) in all.chain(keys.iter().map(|(path, about)| (path.clone(), about))) {
        let owner = about.uid();
        if owner != user {
            return Err(PermissionsError::OthersOwn { path, owner });
        }
    }
    if about.is_some_and(|about| about.mode() & STICKY != 0 && about.mode() & OTHERS_WRITE != 0) {
        let path = folder.into();
        return Err(PermissionsError::Shared { path });
    }
    Ok(())
}

/// Takes away what others may do in a folder and with the keys in it; returns what that was, in words.
pub(crate) fn tighten(folder: &Path) -> Result<Vec<String>, PermissionsError> {
    check_owner(folder)?;
    let mut said = Vec::new();
    let about = look(folder, fs::metadata(folder))?;
    if let Some(about) = about.filter(|about| about.mode() & OTHERS_WRITE != 0) {
        set(folder, 0o700)?;
        said.push(format!(
            "others could write in {} (mode {:04o}; 0700 now): what is in it may be theirs",
            folder.display(),
            about.mode() & 0o7777
        ));
    }
    for (path, about) in keys(folder)? {
        if about.mode() & OTHERS == 0 {
            continue;
        }
        set(&path, 0o600)?;
        said.push(format!(
            "others could use the key {} (mode {:04o}; 0600 now): whoever has read it keeps it, and only \
             a new one shuts them out",
            path.display(),
            about.mode() & 0o7777
        ));
    }
    Ok(said)
}

/// Links are left alone: what they lead to may be anybody's.
fn keys(folder: &Path) -> Result<Vec<(PathBuf, Metadata)>, PermissionsError> {
    let mut keys = Vec::new();
    for key in KEYS {
        let path = folder.join(key.name());
        let about = look(&path, fs::symlink_metadata(&path))?;
        keys.extend(about.filter(Metadata::is_file).map(|about| (path, about)));
    }
    Ok(keys)
}

/// What is there, if something is.
fn look(path: &Path, about: io::Result<Metadata>) -> Result<Option<Metadata>, PermissionsError> {
    match about {
        Ok(about) => Ok(Some(about)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(PermissionsError::Refused {
            path: path.into(),
            cause,
        }),
    }
}

fn set(path: &Path, mode: u32) -> Result<(), PermissionsError> {
    let set = fs::set_permissions(path, Permissions::from_mode(mode));
    set.map_err(|cause| PermissionsError::Refused {
        path: path.into(),
        cause,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o7777
    }

    #[test]
    fn what_others_may_do_is_taken_away_once_and_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        for (name, mode) in [("secret", 0o644), ("identity", 0o640), ("boot", 0o644)] {
            fs::write(path.join(name), "x").unwrap();
            set(&path.join(name), mode).unwrap();
        }
        set(path, 0o775).unwrap();
        let said = tighten(path).unwrap().join("\n");
        for words in [
            "(mode 0775; 0700 now)",
            "secret (mode 0644",
            "identity (mode 0640",
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
        assert_eq!(mode(path), 0o700);
        assert_eq!(mode(&path.join("secret")), 0o600);
        assert_eq!(mode(&path.join("identity")), 0o600);
        assert!(tighten(path).unwrap().is_empty());
        // Others may see that it is there.
        set(path, 0o755).unwrap();
        assert!(tighten(path).unwrap().is_empty());
        assert_eq!(mode(path), 0o755);
    }

    #[test]
    fn what_is_somebody_elses_or_everybodys_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let me = rustix::process::geteuid().as_raw();
        owned_by(path, me).unwrap();
        owned_by(&path.join("not-there-yet"), me).unwrap();
        let error = owned_by(path, me + 1).unwrap_err();
        assert_eq!(error.todo(), format!("chown root {}", path.display()));
        assert!(error.to_string().contains(&format!("user {me}")), "{error}");
        set(path, 0o1777).unwrap();
        let error = tighten(path).unwrap_err();
        assert!(error.todo().contains("--state-dir"), "{error}");
        assert_eq!(mode(path), 0o1777);
    }

    #[test]
    fn what_a_link_leads_to_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        fs::write(&target, "x").unwrap();
        set(&target, 0o644).unwrap();
        std::os::unix::fs::symlink(&target, folder.path().join("secret")).unwrap();
        assert!(tighten(folder.path()).unwrap().is_empty());
        assert_eq!(mode(&target), 0o644);
    }
}
