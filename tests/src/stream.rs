//! Steady numbered UDP traffic between two containers, counted at the far end.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rmesh_lab::Namespace;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;

/// A stream forgotten by its test ends by itself; bounds the list of what was seen, too.
const NUMBERS_MAX: usize = 1 << 22;
/// How long datagrams may still come after the last was sent.
const STRAGGLERS: Duration = Duration::from_millis(500);
/// How often the receiver looks whether it is to stop.
const TICK: Duration = Duration::from_millis(20);
/// Room for what comes while the receiver does not run.
const RECEIVE_BUFFER_LEN: usize = 8 << 20;

/// A running stream.
pub struct Stream {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<Vec<u8>>,
}

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamReport {
    /// Datagrams the sending kernel took.
    pub sent: u64,
    /// Of these, the ones that never came.
    pub lost: u64,
    /// Datagrams that came more than once.
    pub duplicated: u64,
}

impl Stream {
    /// Sends a datagram of `len` bytes to `address`, an address of `to`, `every` so often.
    ///
    /// # Errors
    /// If a socket cannot be opened.
    pub fn start(
        from: &Namespace,
        to: &Namespace,
        address: IpAddr,
        every: Duration,
        len: usize,
    ) -> io::Result<Stream> {
        let receiver = to.enter(|| UdpSocket::bind(SocketAddr::new(address, 0)))?;
        set_socket_recv_buffer_size_force(&receiver, RECEIVE_BUFFER_LEN)?;
        receiver.set_read_timeout(Some(TICK))?;
        let any = if address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let sender = from.enter(|| UdpSocket::bind(any))?;
        sender.connect(receiver.local_addr()?)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stop_sending, stop_receiving) = (Arc::clone(&stop), Arc::clone(&stop));
        Ok(Stream {
            stop,
            sender: thread::spawn(move || send(&sender, every, len.max(8), &stop_sending)),
            receiver: thread::spawn(move || receive(&receiver, &stop_receiving)),
        })
    }

    /// Stops sending, waits for stragglers, and counts.
    pub fn stop(self) -> StreamReport {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self
            .sender
            .join()
            .unwrap_or_else(|p| std::panic::resume_unwind(p));
        let seen = self
            .receiver
            .join()
            .unwrap_or_else(|p| std::panic::resume_unwind(p));
        let came = seen.iter().filter(|count| **count > 0).count() as u64;
        let again = seen.iter().map(|count| u64::from(count.saturating_sub(1)));
        StreamReport {
            sent,
            lost: sent - came.min(sent),
            duplicated: again.sum(),
        }
    }
}

fn send(socket: &UdpSocket, every: Duration, len: usize, stop: &AtomicBool) -> u64 {
    let mut bytes = vec![0x5a; len];
    let mut sent = 0u64;
    while !stop.load(Ordering::Relaxed) && sent < NUMBERS_MAX as u64 {
        bytes[..8].copy_from_slice(&sent.to_be_bytes());
        sent += u64::from(socket.send(&bytes).is_ok());
        // A sender that was kept waiting goes on at its pace: a burst would test queues.
        thread::sleep(every);
    }
    sent
}

/// How often each number came.
fn receive(socket: &UdpSocket, stop: &AtomicBool) -> Vec<u8> {
    let mut seen: Vec<u8> = Vec::new();
    let mut buffer = [0; 2048];
    let mut quiet_since = Instant::now();
    while !stop.load(Ordering::Relaxed) || quiet_since.elapsed() < STRAGGLERS {
        let number = match socket.recv(&mut buffer) {
            Ok(_) => u64::from_be_bytes(*buffer.first_chunk().unwrap_or(&[0; 8])),
            Err(_) => continue,
        };
        quiet_since = Instant::now();
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        if at >= NUMBERS_MAX {
            continue;
        }
        if at >= seen.len() {
            seen.resize(at + 1, 0);
        }
        seen[at] = seen[at].saturating_add(1);
    }
    seen
}
