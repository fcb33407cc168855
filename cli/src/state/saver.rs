//! Writes state files off the control thread: a slow disk must not stop keepalives.

use std::thread;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use super::{File, StateDir, StateError, file};

/// Files waiting to be written; beyond it a request is refused.
const JOBS_MAX: usize = 64;

/// One file to write.
struct SaveJob {
    file: File,
    bytes: Zeroizing<Vec<u8>>,
    done: oneshot::Sender<Result<(), StateError>>,
}

/// Hands files to the thread that writes them, in order.
pub(crate) struct Saver {
    jobs: mpsc::Sender<SaveJob>,
    thread: thread::JoinHandle<()>,
}

impl Saver {
    /// Starts the thread.
    pub(crate) fn start(state: StateDir) -> std::io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<SaveJob>(JOBS_MAX);
        let thread = thread::Builder::new()
            .name("rmesh-state".into())
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    let result = state.write(job.file, &job.bytes);
                    if let Err(error) = &result {
                        tracing::error!("{error}");
                    }
                    // Nobody waits for files that are only worth having.
                    let _ = job.done.send(result);
                }
            })?;
        Ok(Saver { jobs, thread })
    }

    /// Writes a file soon; the receiver learns when it is durable.
    pub(crate) fn save<T: Serialize + ?Sized>(
        &self,
        file: File,
        value: &T,
    ) -> oneshot::Receiver<Result<(), StateError>> {
        let (done, durable) = oneshot::channel();
        match file::encode(file, value) {
            Ok(bytes) => {
                let job = SaveJob { file, bytes, done };
                if self.jobs.try_send(job).is_err() {
                    tracing::error!("cannot write {}: the disk is too slow", file.name());
                }
            }
            Err(error) => {
                let _ = done.send(Err(error));
            }
        }
        durable
    }

    /// Waits until everything is written.
    pub(crate) fn finish(self) {
        drop(self.jobs);
        if self.thread.join().is_err() {
            tracing::error!("the thread that writes state files failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_handed_over_is_on_disk_after_finish() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let saver = Saver::start(state.clone()).unwrap();
        for counter in 1..=9u64 {
            drop(saver.save(File::Boot, &counter));
        }
        let durable = saver.save(File::Boot, &10u64);
        assert!(durable.blocking_recv().unwrap().is_ok());
        saver.finish();
        assert_eq!(state.boot().unwrap(), 10);
    }
}
