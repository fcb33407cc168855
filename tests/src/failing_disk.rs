//! The real disk, until a chosen operation: there the process dies, as by kill -9, or the disk is full.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rmesh::disk::{Disk, DiskFile, RealDisk};
use rustix::process::{Signal, getpid, kill_process};

/// What happens at the chosen operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The process dies before it; of an append, after its first half.
    Die,
    /// It fails for lack of room, as does every later one; of an append the first half is there.
    Full,
}

/// A disk that fails.
#[derive(Debug, Clone)]
pub struct FailingDisk(Arc<Plan>);

#[derive(Debug)]
struct Plan {
    at: u64,
    failure: Failure,
    operations: AtomicU64,
}

impl FailingDisk {
    /// Fails at the operation of that number; those that change nothing are not counted.
    pub fn new(at: u64, failure: Failure) -> Self {
        let operations = AtomicU64::new(0);
        FailingDisk(Arc::new(Plan {
            at,
            failure,
            operations,
        }))
    }
}

impl Plan {
    /// Whether this operation is one that fails.
    fn fails(&self) -> bool {
        let number = self.operations.fetch_add(1, Ordering::SeqCst);
        match self.failure {
            Failure::Die => number == self.at,
            Failure::Full => number >= self.at,
        }
    }

    fn operation<T>(&self, operation: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.fails() {
            return Err(self.fail());
        }
        operation()
    }

    fn fail(&self) -> io::Error {
        if self.failure == Failure::Die {
            // Nothing after this happens: the kernel ends the process before the call returns.
            let _ = kill_process(getpid(), Signal::KILL);
        }
        io::ErrorKind::StorageFull.into()
    }
}

impl Disk for FailingDisk {
    fn read(&self, path: &Path, len_max: u64) -> io::Result<Vec<u8>> {
        RealDisk.read(path, len_max)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(folder)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealDisk.exists(path)
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.0.operation(|| RealDisk.make_folder(path))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = self.0.operation(|| RealDisk.create(path))?;
        let plan = Arc::clone(&self.0);
        Ok(Box::new(FailingFile { plan, file }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = RealDisk.open(path)?;
        let plan = Arc::clone(&self.0);
        Ok(Box::new(FailingFile { plan, file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.operation(|| RealDisk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        // A full disk lets files be removed.
        match self.0.failure {
            Failure::Die if RealDisk.exists(path)? => self.0.operation(|| RealDisk.remove(path)),
            _ => RealDisk.remove(path),
        }
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.0.operation(|| RealDisk.sync_folder(folder))
    }
}

struct FailingFile {
    plan: Arc<Plan>,
    file: Box<dyn DiskFile>,
}

impl DiskFile for FailingFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.plan.fails() {
            self.file.append(&bytes[..bytes.len() / 2])?;
            return Err(self.plan.fail());
        }
        self.file.append(bytes)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let file = &mut self.file;
        self.plan.operation(|| file.truncate(len))
    }

    fn sync(&mut self) -> io::Result<()> {
        let file = &mut self.file;
        self.plan.operation(|| file.sync())
    }
}
