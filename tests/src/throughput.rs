//! How much a TCP connection between two containers carries in a given time.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rmesh_lab::Namespace;
use rustix::net::sockopt;

/// Bytes of one write.
const BLOCK_LEN: usize = 128 << 10;
/// How long a write or a read may stall: longer than any path needs to be found again.
const STALL_MAX: Duration = Duration::from_secs(20);

/// A connection that is kept from one measurement to the next.
pub struct Connection {
    near: TcpStream,
    far: TcpStream,
}

impl Connection {
    /// Connects from one namespace to `address`, an address of the other.
    ///
    /// # Errors
    /// If it is not answered within the time of a stall.
    pub fn open(from: &Namespace, to: &Namespace, address: IpAddr) -> io::Result<Connection> {
        let listener = to.enter(|| TcpListener::bind(SocketAddr::new(address, 0)))?;
        let address = listener.local_addr()?;
        let near = from.enter(|| TcpStream::connect_timeout(&address, STALL_MAX))?;
        let (far, _) = listener.accept()?;
        near.set_write_timeout(Some(STALL_MAX))?;
        far.set_read_timeout(Some(STALL_MAX))?;
        Ok(Connection { near, far })
    }

    /// Chooses how the sender finds its pace (tcp(7), `TCP_CONGESTION`).
    ///
    /// # Errors
    /// If the kernel does not have it.
    pub fn set_congestion_control(&self, name: &str) -> io::Result<()> {
        Ok(sockopt::set_tcp_congestion(&self.near, name)?)
    }

    /// Sends for `time`; gives the bytes a second of the far end, in millions of bits.
    ///
    /// # Errors
    /// If the connection breaks or stalls.
    pub fn measure(&mut self, time: Duration) -> io::Result<f64> {
        let (near, far) = (&mut self.near, &mut self.far);
        let until = Instant::now() + time;
        let sent = AtomicU64::new(u64::MAX);
        let received = thread::scope(|scope| {
            let sender = scope.spawn(|| send(near, until, &sent));
            let received = receive(far, until, &sent);
            let sent = sender.join();
            sent.unwrap_or_else(|p| std::panic::resume_unwind(p))?;
            received
        })?;
        Ok(received as f64 * 8.0 / time.as_secs_f64() / 1e6)
    }
}

/// Sends over all of these at once; gives what they carried together, in millions of bits a second.
///
/// # Errors
/// If one breaks or stalls.
pub fn measure_all(connections: &mut [Connection], time: Duration) -> io::Result<f64> {
    thread::scope(|scope| {
        let running: Vec<_> = connections
            .iter_mut()
            .map(|connection| scope.spawn(move || connection.measure(time)))
            .collect();
        let ended = running.into_iter().map(|one| one.join());
        ended
            .map(|one| one.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .sum()
    })
}

/// Tells in `sent` how much there is in all before the last byte of it is sent.
fn send(stream: &mut TcpStream, until: Instant, sent: &AtomicU64) -> io::Result<()> {
    let (block, mut total) = (vec![0x5a; BLOCK_LEN], 0);
    while Instant::now() < until {
        total += stream.write(&block)? as u64;
    }
    sent.store(total + 1, Ordering::Release);
    stream.write_all(&block[..1])
}

/// Bytes until the time was up. Reads on until everything has come: the sender may wait for room, and what
/// is under way belongs to nobody's next measurement.
fn receive(stream: &mut TcpStream, until: Instant, sent: &AtomicU64) -> io::Result<u64> {
    let (mut block, mut total, mut in_time) = (vec![0; BLOCK_LEN], 0, 0);
    while total < sent.load(Ordering::Acquire) {
        total += stream.read(&mut block)? as u64;
        if Instant::now() < until {
            in_time = total;
        }
    }
    Ok(in_time)
}
