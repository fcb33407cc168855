//! How much TCP connections between two containers carry in a given time.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rmesh_lab::Namespace;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
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
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
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
        measure_all(std::slice::from_mut(self), time)
    }
}

/// Sends over all of these at once, with one thread at each end as iperf3 does; gives what they carried
/// together, in millions of bits a second.
///
/// # Errors
/// If one breaks or stalls.
pub fn measure_all(connections: &mut [Connection], time: Duration) -> io::Result<f64> {
    let until = Instant::now() + time;
    let sent: Vec<AtomicU64> = connections
        .iter()
        .map(|_| AtomicU64::new(u64::MAX))
        .collect();
    let (near, far): (Vec<_>, Vec<_>) = connections
        .iter()
        .map(|connection| (&connection.near, &connection.far))
        .unzip();
    let received = thread::scope(|scope| {
        let sender = scope.spawn(|| send(&near, until, &sent));
        let received = receive(&far, until, &sent);
        let sent = sender.join();
        sent.unwrap_or_else(|p| std::panic::resume_unwind(p))?;
        received
    })?;
    Ok(received as f64 * 8.0 / time.as_secs_f64() / 1e6)
}

/// Waits for those that have something to do; which are ready.
fn ready(streams: &[&TcpStream], is_open: &[bool], flags: PollFlags) -> io::Result<Vec<bool>> {
    let mut waiting: Vec<PollFd<'_>> = streams
        .iter()
        .enumerate()
        .map(|(at, stream)| {
            let flags = if is_open[at] {
                flags
            } else {
                PollFlags::empty()
            };
            PollFd::from_borrowed_fd(stream.as_fd(), flags)
        })
        .collect();
    let stall = Timespec::try_from(STALL_MAX).map_err(io::Error::other)?;
    if poll(&mut waiting, Some(&stall))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(waiting
        .iter()
        .map(|one| !one.revents().is_empty())
        .collect())
}

/// What was done, 0 if nothing could be.
fn done(result: io::Result<usize>) -> io::Result<u64> {
    match result {
        Ok(count) => Ok(count as u64),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(error),
    }
}

/// Tells in `sent` how much there is in all of a stream before the last byte of it is sent.
fn send(streams: &[&TcpStream], until: Instant, sent: &[AtomicU64]) -> io::Result<()> {
    let block = vec![0x5a; BLOCK_LEN];
    let (mut totals, mut is_open) = (vec![0; streams.len()], vec![true; streams.len()]);
    while is_open.contains(&true) {
        let ready = ready(streams, &is_open, PollFlags::OUT)?;
        for (at, mut stream) in streams.iter().copied().enumerate() {
            if !ready[at] || !is_open[at] {
                continue;
            }
            if Instant::now() < until {
                totals[at] += done(stream.write(&block))?;
            } else {
                sent[at].store(totals[at] + 1, Ordering::Release);
                is_open[at] = done(stream.write(&block[..1]))? == 0;
            }
        }
    }
    Ok(())
}

/// Bytes until the time was up. Reads on until everything has come: the sender may wait for room, and what
/// is under way belongs to nobody's next measurement.
fn receive(streams: &[&TcpStream], until: Instant, sent: &[AtomicU64]) -> io::Result<u64> {
    let mut block = vec![0; BLOCK_LEN];
    let (mut totals, mut is_open) = (vec![0; streams.len()], vec![true; streams.len()]);
    let mut in_time = 0;
    while is_open.contains(&true) {
        let ready = ready(streams, &is_open, PollFlags::IN)?;
        for (at, mut stream) in streams.iter().copied().enumerate() {
            if !ready[at] {
                continue;
            }
            totals[at] += done(stream.read(&mut block))?;
            is_open[at] = totals[at] < sent[at].load(Ordering::Acquire);
        }
        if Instant::now() < until {
            in_time = totals.iter().sum();
        }
    }
    Ok(in_time)
}
