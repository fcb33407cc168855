//! A thread that works until it is told to stop.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// A forgotten probe ends by itself after this time.
const LIFETIME: Duration = Duration::from_secs(900);

/// What the thread asks: whether to go on.
pub(super) struct Running {
    stop: Arc<AtomicBool>,
    until: Instant,
}

impl Running {
    pub(super) fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed) && Instant::now() < self.until
    }
}

/// A running thread; it is stopped when this is dropped.
#[derive(Debug)]
pub(super) struct Background<T> {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Background<T> {
    pub(super) fn start(work: impl FnOnce(&Running) -> T + Send + 'static) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let running = Running {
            stop: Arc::clone(&stop),
            until: Instant::now() + LIFETIME,
        };
        let thread = thread::Builder::new()
            .name("lab-probe".into())
            .spawn(move || work(&running))?;
        Ok(Background {
            stop,
            thread: Some(thread),
        })
    }
}

impl<T> Background<T> {
    /// Stops the thread and takes its result. A panic of the thread goes on here.
    pub(super) fn stop(mut self) -> T {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else {
            unreachable!("a probe is stopped once")
        };
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The result is not wanted, and panicking while dropping would end the process.
            let _ = thread.join();
        }
    }
}
