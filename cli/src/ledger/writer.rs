//! The thread that brings the ledger to the disk: a slow disk must not stop keepalives, and whatever
//! waits while it syncs shares the next sync.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Found, LedgerError, LedgerFile, Place};

/// After the disk refused a write it is tried again this often.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// Bytes taken into one commit; the node bounds how many entries there are.
const COMMIT_LEN_MAX: usize = rmesh_ipam::log::BATCH_LEN_MAX / 2;

/// What became of writes.
#[derive(Debug)]
pub enum News {
    /// Entries up to this number are durable.
    Written(u64),
    /// The disk refused the entry of this number, and those after it.
    Failed(u64, String),
    /// The disk takes writes again, and this is what is on it. Entries handed over so far are lost.
    Reopened(Box<Found>),
}

/// Entries to write.
struct Job {
    /// How often the file was reopened when they were made.
    epoch: u64,
    entries: Vec<Vec<u8>>,
    vouched: Option<u64>,
}

/// Hands entries to the thread that writes them, in order.
pub struct Writer {
    jobs: Sender<Job>,
    epoch: u64,
    thread: thread::JoinHandle<()>,
}

impl Writer {
    /// Starts the thread with an open file, or without one if the disk refused to open it; then it is
    /// tried again. Also returns where news arrives.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(
        place: Place,
        file: Option<LedgerFile>,
    ) -> io::Result<(Self, UnboundedReceiver<News>)> {
        Self::start_with(place, file, RETRY_INTERVAL)
    }

    pub(super) fn start_with(
        place: Place,
        file: Option<LedgerFile>,
        retry: Duration,
    ) -> io::Result<(Self, UnboundedReceiver<News>)> {
        // Unbounded here, bounded by the node: it lets so many writes be outstanding and no more.
        let (jobs, queue) = channel();
        let (news, arriving) = unbounded_channel();
        let worker = Worker {
            place,
            file,
            queue,
            news,
            epoch: 0,
            retry,
        };
        let thread = thread::Builder::new()
            .name("rmesh-ledger".into())
            .spawn(move || worker.run())?;
        let writer = Writer {
            jobs,
            epoch: 0,
            thread,
        };
        Ok((writer, arriving))
    }

    /// Writes entries soon, numbered on from the last; see [`LedgerFile::commit`] for `vouched`.
    pub fn write(&self, entries: Vec<Vec<u8>>, vouched: Option<u64>) {
        let epoch = self.epoch;
        // The thread ends only after this end of the channel.
        let _ = self.jobs.send(Job {
            epoch,
            entries,
            vouched,
        });
    }

    /// [`News::Reopened`] was taken in: what is written from now on follows from it.
    pub fn resume(&mut self) {
        self.epoch += 1;
    }

    /// Waits until everything is written.
    pub fn finish(self) {
        drop(self.jobs);
        if self.thread.join().is_err() {
            tracing::error!("the thread that writes the ledger failed");
        }
    }
}

struct Worker {
    place: Place,
    file: Option<LedgerFile>,
    queue: Receiver<Job>,
    news: UnboundedSender<News>,
    epoch: u64,
    retry: Duration,
}

impl Worker {
    fn run(mut self) {
        loop {
            let goes_on = match self.file.take() {
                Some(file) => self.write(file),
                None => self.wait_and_open(),
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Takes everything that waits and commits it; false at the end.
    fn write(&mut self, mut file: LedgerFile) -> bool {
        let Ok(job) = self.queue.recv() else {
            return false;
        };
        let Some((entries, vouched)) = self.gather(job) else {
            self.file = Some(file);
            return true;
        };
        let first = file.written() + 1;
        match file.commit(&entries, vouched) {
            Ok(written) => {
                self.tell(News::Written(written));
                self.file = Some(file);
            }
            Err(error) => self.fail(first, &error),
        }
        true
    }

    /// What waits, beginning with `job`, up to a commit's length; nothing if all of it is lost.
    fn gather(&self, job: Job) -> Option<(Vec<Vec<u8>>, Option<u64>)> {
        let mut gathered: Option<(Vec<Vec<u8>>, Option<u64>)> = None;
        let mut len = 0;
        let mut next = Some(job);
        while let Some(job) = next {
            if job.epoch == self.epoch {
                len += job.entries.iter().map(Vec::len).sum::<usize>();
                let (entries, vouched) = gathered.get_or_insert_default();
                entries.extend(job.entries);
                *vouched = job.vouched;
            }
            let is_full = len >= COMMIT_LEN_MAX;
            next = (!is_full).then(|| self.queue.try_recv().ok()).flatten();
        }
        gathered
    }

    fn fail(&mut self, first: u64, error: &LedgerError) {
        tracing::error!(
            "{error}: no addresses are handed out until the disk takes writes again; it is tried \
             every {} s",
            RETRY_INTERVAL.as_secs()
        );
        self.tell(News::Failed(first, error.to_string()));
    }

    /// Waits, then tries to open the file anew; false at the end.
    fn wait_and_open(&mut self) -> bool {
        let until = Instant::now() + self.retry;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.queue.recv_timeout(left) {
                // It follows from what is lost.
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        match self.place.open() {
            Ok((file, found)) => {
                tracing::info!("the disk takes writes of the ledger again");
                self.epoch += 1;
                self.file = Some(file);
                self.tell(News::Reopened(Box::new(found)));
            }
            Err(error) => tracing::debug!("{error}"),
        }
        true
    }

    fn tell(&self, news: News) {
        // Nobody listens any more at the end.
        let _ = self.news.send(news);
    }
}
