//! Traffic that counts itself: every probe is bounded in time and memory and reports what arrived.
//!
//! Sockets are opened inside a namespace and stay there, so the threads that use them need not be.

mod background;
mod capture;
mod ether;
mod multicast;
mod ping;
mod tcp;
mod udp;

pub use capture::Capture;
pub use ether::{EtherListener, FrameSender};
pub use multicast::{Listen, UdpListener};
pub use ping::{PingOptions, PingReport, Pinger, ping, ping_with_payload, wait_ping};
pub use tcp::{StreamReport, TcpStreamProbe, TransferReport, tcp_transfer};
pub use udp::{UdpReport, udp_transfer};

use std::{
    io,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use rustix::net::sockopt;

/// How often a waiting probe looks whether it is to stop.
const TICK: Duration = Duration::from_millis(10);

/// Keeps the longest time without an event.
#[derive(Debug, Clone, Copy)]
struct Gaps {
    last: Instant,
    longest: Duration,
}

impl Gaps {
    fn start(now: Instant) -> Gaps {
        Gaps {
            last: now,
            longest: Duration::ZERO,
        }
    }

    /// An event, or the end of the observation: an outage that lasts until then counts in full.
    fn mark(&mut self, now: Instant) {
        self.longest = self.longest.max(now.saturating_duration_since(self.last));
        self.last = now;
    }
}

/// The byte at a position of test content: differs between neighbours, blocks and streams.
fn pattern(stream: u64, position: u64) -> u8 {
    let mixed = (position ^ stream.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

/// Whether a read or write only ran out of its time slice.
fn is_timeout(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

/// Past the system's limit where that is allowed; in a user namespace up to the limit.
fn enlarge_receive_buffer(socket: impl AsFd, bytes: usize) -> io::Result<()> {
    let forced = sockopt::set_socket_recv_buffer_size_force(socket.as_fd(), bytes);
    forced.or_else(|_| sockopt::set_socket_recv_buffer_size(socket.as_fd(), bytes))?;
    Ok(())
}
