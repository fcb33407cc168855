//! TCP: a bulk transfer whose content is checked, and a connection that must not break.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use super::{
    Gaps, TICK,
    background::{Background, Running},
    is_timeout, pattern,
};
use crate::Namespace;

const BLOCK_BYTES: usize = 64 * 1024;
/// How long [`TcpStreamProbe`] may take to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Time between two exchanges of [`TcpStreamProbe`].
const EXCHANGE_INTERVAL: Duration = Duration::from_millis(20);

/// The outcome of a bulk transfer.
#[derive(Debug, Clone)]
pub struct TransferReport {
    /// Bytes given to the sending socket.
    pub sent: u64,
    /// Bytes that arrived.
    pub received: u64,
    /// All arrived, and unchanged.
    pub intact: bool,
    /// From the first byte to the last.
    pub elapsed: Duration,
}

/// Sends `bytes` to `to_addr` (an address of `to`), at most for `limit`. A transfer that stalls ends in
/// a report that is not intact.
///
/// # Errors
/// If the connection cannot be made.
pub fn tcp_transfer(
    from: &Namespace,
    to: &Namespace,
    to_addr: IpAddr,
    bytes: u64,
    limit: Duration,
) -> io::Result<TransferReport> {
    let deadline = Instant::now() + limit;
    let (near, far) = connect(from, to, to_addr, limit)?;
    let start = Instant::now();
    let (sent, received) = thread::scope(|scope| {
        let sender = scope.spawn(|| send(near, bytes, deadline));
        let received = receive(far, deadline);
        (sender.join(), received)
    });
    let sent = sent.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let (received, correct) = received;
    let intact = correct && received == bytes;
    Ok(TransferReport {
        sent,
        received,
        intact,
        elapsed: start.elapsed(),
    })
}

/// A connection from a socket in `from` to one in `to`.
fn connect(
    from: &Namespace,
    to: &Namespace,
    to_addr: IpAddr,
    limit: Duration,
) -> io::Result<(TcpStream, TcpStream)> {
    let listener = to.enter(|| TcpListener::bind(SocketAddr::new(to_addr, 0)))?;
    let address = listener.local_addr()?;
    let near = from.enter(|| TcpStream::connect_timeout(&address, limit))?;
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + limit;
    loop {
        match listener.accept() {
            Ok((far, _)) => {
                far.set_nonblocking(false)?;
                return Ok((near, far));
            }
            Err(error) if is_timeout(&error) && Instant::now() < deadline => thread::sleep(TICK),
            Err(error) => return Err(error),
        }
    }
}

/// Bytes sent when all were, when the time was up, or when the connection broke.
fn send(mut stream: TcpStream, bytes: u64, deadline: Instant) -> u64 {
    let mut sent = 0;
    if stream.set_write_timeout(Some(TICK)).is_err() {
        return sent;
    }
    while sent < bytes && Instant::now() < deadline {
        let size = (bytes - sent).min(BLOCK_BYTES as u64);
        let block: Vec<u8> = (sent..sent + size)
            .map(|position| pattern(0, position))
            .collect();
        match stream.write(&block) {
            Ok(written) => sent += written as u64,
            Err(error) if is_timeout(&error) => {}
            Err(_) => break,
        }
    }
    // Dropping the stream ends it; what is unsent stays with the kernel.
    sent
}

/// Bytes received until the end or the deadline, and whether all were right.
fn receive(mut stream: TcpStream, deadline: Instant) -> (u64, bool) {
    let (mut received, mut correct) = (0, true);
    if stream.set_read_timeout(Some(TICK)).is_err() {
        return (received, false);
    }
    let mut block = vec![0; BLOCK_BYTES];
    while Instant::now() < deadline {
        match stream.read(&mut block) {
            Ok(0) => break,
            Ok(count) => {
                let expected = (received..).map(|position| pattern(0, position));
                correct &= block.iter().take(count).copied().eq(expected.take(count));
                received += count as u64;
            }
            Err(error) if is_timeout(&error) => {}
            Err(_) => return (received, false),
        }
    }
    (received, correct)
}

/// What a long-lived connection went through.
#[derive(Debug, Clone)]
pub struct StreamReport {
    /// Messages that came back.
    pub exchanges: u64,
    /// Longest time without one, up to the end.
    pub longest_gap: Duration,
    /// Why the connection broke, if it did.
    pub error: Option<String>,
}

/// A TCP connection over which a small message goes and comes back every 20 ms.
#[derive(Debug)]
pub struct TcpStreamProbe {
    client: Background<StreamReport>,
    echo: Background<()>,
}

impl TcpStreamProbe {
    /// Connects to `addr` (an address of `to`) and starts.
    ///
    /// # Errors
    /// If the connection cannot be made within 5 s.
    pub fn start(from: &Namespace, to: &Namespace, addr: IpAddr) -> io::Result<TcpStreamProbe> {
        let (near, far) = connect(from, to, addr, CONNECT_LIMIT)?;
        for stream in [&near, &far] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(TICK))?;
        }
        let echo = Background::start(move |running| echo(far, running))?;
        let client = Background::start(move |running| exchange(near, running))?;
        Ok(TcpStreamProbe { client, echo })
    }

    /// Stops it.
    pub fn stop(self) -> StreamReport {
        let report = self.client.stop();
        self.echo.stop();
        report
    }
}

fn echo(mut stream: TcpStream, running: &Running) {
    let mut message = [0; 1024];
    while running.goes_on() {
        match stream.read(&mut message) {
            Ok(0) => return,
            Ok(count) => {
                if stream.write_all(&message[..count]).is_err() {
                    return;
                }
            }
            Err(error) if is_timeout(&error) => {}
            Err(_) => return,
        }
    }
}

fn exchange(mut stream: TcpStream, running: &Running) -> StreamReport {
    let mut gaps = Gaps::start(Instant::now());
    let mut report = StreamReport {
        exchanges: 0,
        longest_gap: Duration::ZERO,
        error: None,
    };
    while running.goes_on() {
        match exchange_one(&mut stream, report.exchanges, running) {
            Ok(true) => {
                report.exchanges += 1;
                gaps.mark(Instant::now());
            }
            Ok(false) => break,
            Err(error) => {
                report.error = Some(error.to_string());
                break;
            }
        }
        thread::sleep(EXCHANGE_INTERVAL);
    }
    gaps.mark(Instant::now());
    report.longest_gap = gaps.longest;
    report
}

/// Sends a number and waits for it; false if the probe was stopped before it came.
fn exchange_one(stream: &mut TcpStream, number: u64, running: &Running) -> io::Result<bool> {
    stream.write_all(&number.to_be_bytes())?;
    let (mut answer, mut filled) = ([0; 8], 0);
    while filled < answer.len() {
        match stream.read(&mut answer[filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if !is_timeout(&error) => return Err(error),
            Err(_) if !running.goes_on() => return Ok(false),
            Err(_) => {}
        }
    }
    if answer == number.to_be_bytes() {
        return Ok(true);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "the answer is not what was sent",
    ))
}
