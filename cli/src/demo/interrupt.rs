//! Ctrl-C, noticed without ending the program: there is something to remove first.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// Whether somebody wants the end.
#[derive(Clone, Default)]
pub(super) struct Interrupt(Arc<(Mutex<bool>, Condvar)>);

impl Interrupt {
    /// Listens for SIGINT, SIGTERM and SIGHUP from now on.
    pub(super) fn install() -> Result<Self, Failure> {
        let cannot = |cause| Failure::failed("cannot listen for Ctrl-C", cause);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(cannot)?;
        let entered = runtime.enter();
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(cannot)?;
        drop(entered);
        let this = Interrupt::default();
        let shared = this.clone();
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
            });
            shared.set();
        });
        Ok(this)
    }

    fn set(&self) {
        let (flag, changed) = &*self.0;
        *flag.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
    }

    /// Whether it came.
    pub(super) fn is_set(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error if it came, to leave early.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match self.is_set() {
            true => Err(Failure::failed("stopped", "interrupted")),
            false => Ok(()),
        }
    }

    /// Waits until it comes.
    pub(super) fn wait(&self) {
        let (flag, changed) = &*self.0;
        let mut set = flag.lock().unwrap_or_else(PoisonError::into_inner);
        while !*set {
            set = changed.wait(set).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_set_it_stays_and_nobody_waits() {
        let interrupt = Interrupt::default();
        assert!(interrupt.check().is_ok());
        interrupt.set();
        interrupt.wait();
        assert!(interrupt.is_set() && interrupt.check().is_err());
    }
}
