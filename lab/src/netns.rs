//! Named network namespaces under `/run/netns`, kept the way iproute2 keeps them, so that
//! `ip netns exec NAME` and `nsenter --net=/run/netns/NAME` work on them.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
};

use rustix::{
    fs::{Access, access},
    io::Errno,
    mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
        mount_change, unmount,
    },
};

use crate::{netlink, sys};

const FOLDER: &str = "/run/netns";

/// The namespace behind a file: device and inode of the nsfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NamespaceId(u64, u64);

impl NamespaceId {
    /// The namespace that `path` stands for. Ends with an error where `path` is a plain file.
    pub(crate) fn of(path: &Path) -> io::Result<NamespaceId> {
        let (found, own) = (fs::metadata(path)?, fs::metadata("/proc/self/ns/net")?);
        if found.dev() != own.dev() {
            return Err(io::Error::other(format!(
                "{} is not a namespace",
                path.display()
            )));
        }
        Ok(NamespaceId(found.dev(), found.ino()))
    }
}

/// Where the namespace of this name is mounted.
pub(crate) fn path_of(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// Makes a namespace with `lo` up and mounts it under its name.
pub(crate) fn create(name: &str) -> io::Result<PathBuf> {
    prepare_folder()?;
    let path = path_of(name);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)?;
    let made = thread::scope(|scope| scope.spawn(|| fill(&path)).join());
    match made {
        Ok(Ok(())) => Ok(path),
        Ok(Err(error)) => {
            remove(name);
            Err(error)
        }
        Err(_) => Err(io::Error::other(
            "the thread that makes the namespace panicked",
        )),
    }
}

/// Runs on a thread of its own, whose namespace ends up mounted on `path`.
fn fill(path: &Path) -> io::Result<()> {
    sys::unshare_network()?;
    mount_bind("/proc/thread-self/ns/net", path)?;
    netlink::set_up("lo")
}

/// Unmounts the name and removes it. The namespace itself goes when its last process has gone.
pub(crate) fn remove(name: &str) {
    let path = path_of(name);
    // Not mounted, or not there: both mean that there is nothing to undo.
    let _ = unmount(&path, UnmountFlags::DETACH);
    let _ = fs::remove_file(&path);
}

/// Makes `/run/netns` a shared mount, as iproute2 does; in a user namespace, where `/run` belongs to
/// somebody else, a tmpfs of our own is put over it (the caller's mount namespace is then private).
fn prepare_folder() -> io::Result<()> {
    let folder = Path::new(FOLDER);
    match fs::create_dir_all(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            mount(
                "tmpfs",
                "/run",
                "tmpfs",
                MountFlags::NOSUID | MountFlags::NODEV,
                None,
            )?;
            fs::create_dir_all(folder)?;
        }
        Err(error) => return Err(error),
    }
    if access(folder, Access::WRITE_OK).is_err() {
        mount(
            "tmpfs",
            folder,
            "tmpfs",
            MountFlags::NOSUID | MountFlags::NODEV,
            None,
        )?;
    }
    share(folder)
}

fn share(folder: &Path) -> io::Result<()> {
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    match mount_change(folder, shared) {
        Err(Errno::INVAL) => {
            mount_bind_recursive(folder, folder)?;
            Ok(mount_change(folder, shared)?)
        }
        other => Ok(other?),
    }
}
