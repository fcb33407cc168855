//! Writes state files off the control thread: a slow disk must not stop keepalives.

use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

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
    done: Done,
}

/// Learns how a write ended.
type Done = Box<dyn FnOnce(Result<(), StateError>) + Send>;

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
                    (job.done)(result);
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
        // Nobody waits for files that are only worth having.
        self.hand_over(file, value, Box::new(|result| drop(done.send(result))));
        durable
    }

    /// Writes a file and waits until it is durable, at most that long; tells whether it is. The rest
    /// is in the log.
    pub(crate) fn save_within<T: Serialize + ?Sized>(
        &self,
        file: File,
        value: &T,
        limit: Duration,
    ) -> bool {
        let (done, durable) = sync_channel(1);
        self.hand_over(file, value, Box::new(move |result| drop(done.send(result))));
        matches!(durable.recv_timeout(limit), Ok(Ok(())))
    }

    fn hand_over<T: Serialize + ?Sized>(&self, file: File, value: &T, done: Done) {
        match file::encode(file, value) {
            Ok(bytes) => {
                let job = SaveJob { file, bytes, done };
                if self.jobs.try_send(job).is_err() {
                    tracing::error!("cannot write {}: the disk is too slow", file.name());
                }
            }
            Err(error) => done(Err(error)),
        }
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
        assert!(saver.save_within(File::Hints, &["192.0.2.1:1"], Duration::from_secs(60)));
        saver.finish();
        assert_eq!(state.boot().unwrap(), 10);
    }
}
