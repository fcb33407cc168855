//! Keeps containers from the host's ports, on a thread of its own: who loads a ruleset of nftables
//! usually removes all others first.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use rmesh_router::fast::accept_bridged;
use rmesh_router::kernel::Bridge;

/// How often it is looked whether the table is there.
const INTERVAL: Duration = Duration::from_secs(2);

/// In how many of those the kernel's forward chains are looked at too.
const TURNS_PER_FORWARD: u64 = 5;

/// The thread that looks. It ends when this is dropped.
pub(super) struct Guard {
    /// Closed to end it.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Guard {
    /// Begins to look after the ports behind `bridge`.
    pub(super) fn start(bridge: Bridge) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let builder = Builder::new().name("rmesh-guard".into());
        let thread = builder.spawn(move || watch(&bridge, &stopped))?;
        Ok(Guard {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            tracing::error!("the thread that looks after nftables had panicked");
        }
    }
}

fn watch(bridge: &Bridge, stopped: &Receiver<()>) {
    let mut said = Vec::new();
    for turn in 0_u64.. {
        if turn.is_multiple_of(TURNS_PER_FORWARD) {
            see_to_forwarding(bridge, &mut said);
        }
        match bridge.guard() {
            Ok(false) => {}
            Ok(true) => tracing::warn!(
                "somebody removed the nftables table that keeps containers from this host's ports; it \
                 is there again"
            ),
            // It was said at the start.
            Err(error) => tracing::debug!("{error}"),
        }
        if stopped.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// Lets frames between containers of this host, and to the mesh, pass a firewall that drops what the host
/// forwards.
fn see_to_forwarding(bridge: &Bridge, said: &mut Vec<String>) {
    let words = accept_bridged(bridge.name())
        .unwrap_or_else(|error| vec![format!("{error}; a firewall may drop what containers send")]);
    if words != *said {
        words.iter().for_each(|words| tracing::warn!("{words}"));
        *said = words;
    }
}
