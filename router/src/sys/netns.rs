//! Network namespaces: opening and entering them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{OFlags, fstatfs};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::attach::TargetSpec;
use crate::error::AttachError;

/// Where named network namespaces are kept, by the convention of ip-netns(8).
pub(crate) const NAMED: &str = "/run/netns";
/// The calling thread's own; threads of one process may be in different ones.
const OWN: &str = "/proc/thread-self/ns/net";
/// File system type of namespace files (linux/magic.h).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// An open network namespace; it lives at least as long as this.
pub(crate) struct Netns {
    file: File,
    device: u64,
    inode: u64,
    target: String,
}

impl Netns {
    /// Opens the namespace of a container; the caller's own is refused.
    pub(crate) fn open(target: &TargetSpec) -> Result<Self, AttachError> {
        let netns = Self::open_path(&path_of(target)?, target)?;
        let own = File::open(OWN).and_then(|file| file.metadata());
        let own = own.map_err(|cause| enter_error(target.to_string(), cause))?;
        if (own.dev(), own.ino()) == (netns.device, netns.inode) {
            let target = netns.target;
            return Err(AttachError::OwnNamespace { target });
        }
        Ok(netns)
    }

    fn open_path(path: &Path, target: &TargetSpec) -> Result<Self, AttachError> {
        // Somebody may have put a FIFO there: opening must not wait for a writer.
        let nonblocking = OFlags::NONBLOCK.bits() as i32;
        let file = File::options()
            .read(true)
            .custom_flags(nonblocking)
            .open(path)
            .map_err(|cause| open_error(target, cause))?;
        let name = target.to_string();
        let wrap = |cause| enter_error(name.clone(), cause);
        let system = fstatfs(&file).map_err(|errno| wrap(errno.into()))?;
        if u64::try_from(system.f_type) != Ok(NSFS_MAGIC) {
            return Err(AttachError::NotANamespace { target: name });
        }
        let metadata = file.metadata().map_err(wrap)?;
        Ok(Netns {
            file,
            device: metadata.dev(),
            inode: metadata.ino(),
            target: name,
        })
    }

    /// Its inode.
    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }

    /// Its name as the operator wrote it.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// Runs `work` inside, on a thread of its own that ends with it.
    pub(crate) fn run<T, E>(&self, work: impl FnOnce() -> Result<T, E> + Send) -> Result<T, E>
    where
        T: Send,
        E: Send + From<AttachError>,
    {
        let inside = || {
            self.enter()?;
            work()
        };
        let failed = |cause| E::from(enter_error(self.target.clone(), cause));
        thread::scope(|scope| {
            let name = "rmesh-netns".to_owned();
            let thread = thread::Builder::new().name(name);
            let thread = thread.spawn_scoped(scope, inside).map_err(failed)?;
            let panicked = |_| failed(io::Error::other("the work inside it failed"));
            thread.join().map_err(panicked)?
        })
    }

    fn enter(&self) -> Result<(), AttachError> {
        let moved = move_into_link_name_space(self.as_fd(), Some(LinkNameSpaceType::Network));
        moved.map_err(|errno| match errno {
            // A namespace, but of another kind.
            Errno::INVAL => AttachError::NotANamespace {
                target: self.target.clone(),
            },
            errno => enter_error(self.target.clone(), errno.into()),
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn path_of(target: &TargetSpec) -> Result<PathBuf, AttachError> {
    Ok(match target {
        TargetSpec::Named(name) => {
            // Checked again: a value may have been made without parsing it.
            let TargetSpec::Named(name) = name.parse()? else {
                return Err(AttachError::TargetSyntax { text: name.clone() });
            };
            Path::new(NAMED).join(name)
        }
        TargetSpec::Path(path) => path.clone(),
        TargetSpec::Pid(pid) => format!("/proc/{pid}/ns/net").into(),
    })
}

fn open_error(target: &TargetSpec, cause: io::Error) -> AttachError {
    let missing = matches!(
        cause.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    );
    // A process that ends between look-up and open.
    let gone = missing || cause.raw_os_error() == Some(Errno::SRCH.raw_os_error());
    match target.clone() {
        TargetSpec::Named(name) if missing => AttachError::NoSuchNamespace { name },
        TargetSpec::Path(path) if missing => AttachError::NoSuchPath { path },
        TargetSpec::Pid(pid) if gone => AttachError::ProcessGone { pid },
        other => enter_error(other.to_string(), cause),
    }
}

fn enter_error(target: String, cause: io::Error) -> AttachError {
    let hint = match cause.kind() {
        io::ErrorKind::PermissionDenied => "; run as root",
        _ => "",
    };
    AttachError::Enter {
        target,
        cause,
        hint,
    }
}
