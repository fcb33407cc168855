//! The few file operations that durable state is made of, so that a test can cut the power at any
//! of them.
//!
//! Two things are written through this layer: small files that are replaced whole (create, append,
//! sync, rename, sync of the folder), and logs that grow (open, append, sync, and truncate where a
//! tail was torn). [`RealDisk`] is the kernel's; the simulated one of the tests keeps only what was
//! synced, and of the rest any part. No operation here promises more than POSIX does:
//!
//! * what was appended is durable after [`DiskFile::sync`], and until then may be there in part, or
//!   as zeros;
//! * a name that was made, changed or removed is durable after [`Disk::sync_folder`] of its folder,
//!   whatever became of the file's content; so is a folder, in the folder above;
//! * [`Disk::rename`] within a folder is atomic;
//! * after a [`DiskFile::sync`] that failed nothing is known of that file, even if a later one succeeds
//!   (Linux forgets what it could not write): write it anew.

mod real;
#[cfg(any(test, feature = "fuzzing"))]
pub mod sim;

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;
#[cfg(feature = "fuzzing")]
use std::sync::OnceLock;

pub use real::RealDisk;

/// Folders and the names in them.
pub trait Disk: Debug + Send + Sync {
    /// The content of a file; of a longer one the first `len_max` bytes.
    ///
    /// # Errors
    /// `NotFound` if there is no such file; else what the kernel says.
    fn read(&self, path: &Path, len_max: u64) -> io::Result<Vec<u8>>;

    /// The names in a folder, in no order; one that is not UTF-8 is left out.
    ///
    /// # Errors
    /// What the kernel says.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;

    /// Whether there is something of that name.
    ///
    /// # Errors
    /// What the kernel says, other than that there is nothing.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Makes one folder with mode 0700, in a folder that is there.
    ///
    /// # Errors
    /// `AlreadyExists` if there is something of that name; else what the kernel says.
    fn make_folder(&self, path: &Path) -> io::Result<()>;

    /// Makes an empty file with mode 0600.
    ///
    /// # Errors
    /// `AlreadyExists` if there is something of that name; else what the kernel says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file that is there, to append to it.
    ///
    /// # Errors
    /// `NotFound` if there is no such file; else what the kernel says.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name in the same folder, in place of what had it.
    ///
    /// # Errors
    /// What the kernel says; then nothing has changed.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// `NotFound` if there is no such file; else what the kernel says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// What the kernel says; then any of the changes since the last success may be lost.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// An open file, written at its end only.
pub trait DiskFile: Send {
    /// Writes all of it at the end.
    ///
    /// # Errors
    /// What the kernel says; then a part may be there.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file to its first `len` bytes.
    ///
    /// # Errors
    /// What the kernel says.
    fn truncate(&mut self, len: u64) -> io::Result<()>;

    /// Makes the content durable.
    ///
    /// # Errors
    /// What the kernel says; then write the content to a new file.
    fn sync(&mut self) -> io::Result<()>;
}

#[cfg(feature = "fuzzing")]
static REPLACED: OnceLock<Arc<dyn Disk>> = OnceLock::new();

/// Has this process keep its state on another disk, from now on; true for the first call.
#[cfg(feature = "fuzzing")]
pub fn replace(disk: Arc<dyn Disk>) -> bool {
    REPLACED.set(disk).is_ok()
}

/// The disk of this process.
pub(crate) fn here() -> Arc<dyn Disk> {
    #[cfg(feature = "fuzzing")]
    if let Some(disk) = REPLACED.get() {
        return Arc::clone(disk);
    }
    Arc::new(RealDisk)
}

/// Makes a folder, and those above it that are missing; durable after [`sync_above`].
pub(crate) fn make_folders(disk: &dyn Disk, folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || disk.exists(folder)? {
        return Ok(());
    }
    make_folders(disk, above(folder))?;
    match disk.make_folder(folder) {
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => Err(cause),
        _ => Ok(()),
    }
}

/// Makes the names of a folder and of those above it durable, whoever made them and may have died
/// since. Where nothing can be made, nothing was.
pub(crate) fn sync_above(disk: &dyn Disk, folder: &Path) -> io::Result<()> {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    let mut folder = folder;
    while folder.parent().is_some() {
        folder = above(folder);
        match disk.sync_folder(folder) {
            Err(cause) if matches!(cause.kind(), PermissionDenied | ReadOnlyFilesystem) => break,
            other => other?,
        }
        if folder == Path::new(".") {
            break;
        }
    }
    Ok(())
}

/// The folder above, also of a relative path.
fn above(folder: &Path) -> &Path {
    match folder.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        Some(_) => Path::new("."),
        None => folder,
    }
}
