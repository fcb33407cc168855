//! A private /etc/hosts for this process and its children.

use std::io;
use std::path::Path;

use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Puts `file` in the place of /etc/hosts in a mount namespace of its own. Must be called before
/// the process has a second thread.
///
/// # Errors
/// What the kernel says; most likely that privileges are missing.
pub fn replace(file: &Path) -> io::Result<()> {
    // SAFETY: only the mount namespace is unshared, so no file descriptor is affected, and there
    // is no second thread yet that would keep the old one.
    #[allow(unsafe_code, reason = "unshare has no safe form in rustix")]
    unsafe {
        unshare_unsafe(UnshareFlags::NEWNS)?;
    }
    // Namespaces that the lab makes later must still be seen, but nothing must leak out.
    let downwards = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", downwards)?;
    mount_bind(file, "/etc/hosts")?;
    Ok(())
}
