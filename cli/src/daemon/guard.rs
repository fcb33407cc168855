//! Keeps containers from the host's ports, and a firewall from their frames, on a thread of its own: who
//! loads a ruleset of nftables usually removes all others first. It sleeps until rules change.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::thread::{Builder, JoinHandle, sleep};
use std::time::Duration;

use rmesh_router::fast::accept_bridged;
use rmesh_router::kernel::{Bridge, KernelError, RulesetWatch, Woken};

/// It is looked at least this often: not all that matters is told of.
const INTERVAL: Duration = Duration::from_secs(60);
/// Where the kernel does not tell of changes.
const INTERVAL_DEAF: Duration = Duration::from_secs(2);
/// Rules come in many messages; they are looked at together after this time.
const SETTLE: Duration = Duration::from_millis(100);

/// The thread that looks. It ends when this is dropped.
pub(super) struct Guard {
    /// Closed to end it.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Guard {
    /// Begins to look after the ports behind `bridge`.
    pub(super) fn start(bridge: Bridge) -> io::Result<Self> {
        let (stop, stopped) = UnixStream::pair()?;
        // In the network namespace of the caller, as is the thread.
        let watch = RulesetWatch::open();
        let builder = Builder::new().name("rmesh-guard".into());
        let thread = builder.spawn(move || look_after(&bridge, watch, &stopped))?;
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

fn look_after(bridge: &Bridge, watch: Result<RulesetWatch, KernelError>, stopped: &UnixStream) {
    if let Err(error) = &watch {
        tracing::debug!("{error}");
        // Then the end is looked for between the looks.
        let _ = stopped.set_read_timeout(Some(INTERVAL_DEAF));
    }
    let mut said = Vec::new();
    loop {
        see_to_ports(bridge);
        see_to_forwarding(bridge, &mut said);
        let woken = match &watch {
            Ok(watch) => watch.wait(stopped.as_fd(), INTERVAL),
            Err(_) => wait_deaf(stopped),
        };
        match woken {
            Woken::Other => return,
            Woken::Changed => sleep(SETTLE),
            Woken::Quiet => {}
        }
    }
}

fn wait_deaf(mut stopped: &UnixStream) -> Woken {
    match io::Read::read(&mut stopped, &mut [0]) {
        Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => Woken::Quiet,
        _ => Woken::Other,
    }
}

fn see_to_ports(bridge: &Bridge) {
    match bridge.guard() {
        Ok(false) => {}
        Ok(true) => tracing::warn!(
            "somebody removed the nftables table that keeps containers from this host's ports; it is \
             there again"
        ),
        // It was said at the start.
        Err(error) => tracing::debug!("{error}"),
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
