//! ICMP echo (RFC 792, RFC 4443 section 4) by raw sockets.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{
    Gaps, TICK,
    background::{Background, Running},
    is_timeout,
};
use crate::Namespace;

const HEADER_BYTES: usize = 8;
/// Sequence numbers have 16 bits, and no probe sends one twice.
const MAX_REQUESTS: u64 = 1 << 16;
const ECHO_REPLY_V4: u8 = 0;
const ECHO_REQUEST_V4: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
/// Content of a request unless a size is asked for.
const PAYLOAD_BYTES: usize = 48;

/// Tells the probes of this process apart.
static IDENTIFIER: AtomicU16 = AtomicU16::new(1);

/// How many requests, how far apart, and how long to wait for the last answers.
#[derive(Debug, Clone, Copy)]
pub struct PingOptions {
    /// Requests to send, at most 65536.
    pub count: u64,
    /// Time between two requests.
    pub interval: Duration,
    /// Wait after the last request.
    pub timeout: Duration,
}

impl Default for PingOptions {
    /// Five requests 50 ms apart, and a second for the last answer.
    fn default() -> Self {
        PingOptions {
            count: 5,
            interval: Duration::from_millis(50),
            timeout: Duration::from_secs(1),
        }
    }
}

/// What came back.
#[derive(Debug, Clone, Default)]
pub struct PingReport {
    /// Requests sent, or tried to: a refusal of the kernel counts as a request without answer.
    pub sent: u64,
    /// Requests that were answered.
    pub received: u64,
    /// Answers beyond the first to the same request.
    pub duplicates: u64,
    /// Requests that the sending kernel refused (no route, host unreachable).
    pub refused: u64,
    /// Round-trip times in the order of the answers.
    pub round_trips: Vec<Duration>,
    /// Longest time without an answer, from the start to the first one and from the last one to the
    /// end included: an outage, to the precision of the interval.
    pub longest_gap: Duration,
}

/// Pings `to` from a namespace. Lost answers are counted, not errors.
///
/// # Errors
/// If a raw socket cannot be opened.
pub fn ping(from: &Namespace, to: IpAddr, options: PingOptions) -> io::Result<PingReport> {
    ping_with_payload(from, to, options, PAYLOAD_BYTES)
}

/// Like [`ping`] with requests of `payload_bytes` of content behind the ICMP header.
///
/// # Errors
/// If a raw socket cannot be opened.
pub fn ping_with_payload(
    from: &Namespace,
    to: IpAddr,
    options: PingOptions,
    payload_bytes: usize,
) -> io::Result<PingReport> {
    let mut echo = Echo::open(from, to, payload_bytes)?;
    let count = options.count.min(MAX_REQUESTS);
    let mut deadline = Instant::now() + options.timeout;
    let mut due = Instant::now();
    loop {
        let now = Instant::now();
        if echo.report.sent < count && now >= due {
            echo.request(now);
            due += options.interval;
            deadline = now + options.timeout;
        }
        let all_answered = echo.report.sent == count && echo.report.received == count;
        if all_answered || (echo.report.sent == count && now >= deadline) {
            return Ok(echo.finish());
        }
        let until = if echo.report.sent < count {
            due
        } else {
            deadline
        };
        echo.receive(until.saturating_duration_since(now))?;
    }
}

/// The time until `to` first answers, asked every 20 ms; `None` if it does not within `limit`.
pub fn wait_ping(from: &Namespace, to: IpAddr, limit: Duration) -> Option<Duration> {
    let mut echo = Echo::open(from, to, PAYLOAD_BYTES).ok()?;
    let (start, interval) = (Instant::now(), Duration::from_millis(20));
    let mut due = start;
    while start.elapsed() < limit {
        if Instant::now() >= due && echo.report.sent < MAX_REQUESTS {
            echo.request(Instant::now());
            due += interval;
        }
        echo.receive(due.saturating_duration_since(Instant::now()))
            .ok()?;
        if echo.report.received > 0 {
            return Some(start.elapsed());
        }
    }
    None
}

/// Pings in the background until it is stopped.
#[derive(Debug)]
pub struct Pinger(Background<io::Result<PingReport>>);

impl Pinger {
    /// Starts it; it sends at most 65536 requests.
    ///
    /// # Errors
    /// If a raw socket cannot be opened.
    pub fn start(from: &Namespace, to: IpAddr, interval: Duration) -> io::Result<Pinger> {
        let echo = Echo::open(from, to, PAYLOAD_BYTES)?;
        Background::start(move |running| keep_asking(echo, interval, running)).map(Pinger)
    }

    /// Stops it. [`PingReport::longest_gap`] is the longest outage.
    ///
    /// # Errors
    /// If the socket broke, which no state of the network causes.
    pub fn stop(self) -> io::Result<PingReport> {
        self.0.stop()
    }
}

fn keep_asking(mut echo: Echo, interval: Duration, running: &Running) -> io::Result<PingReport> {
    let mut due = Instant::now();
    while running.goes_on() && echo.report.sent < MAX_REQUESTS {
        if Instant::now() >= due {
            echo.request(Instant::now());
            due += interval;
        }
        echo.receive(due.saturating_duration_since(Instant::now()).min(TICK))?;
    }
    Ok(echo.finish())
}

/// One conversation.
struct Echo {
    /// A raw ICMP socket; the standard type fits any datagram socket.
    socket: UdpSocket,
    to: IpAddr,
    identifier: u16,
    payload_bytes: usize,
    /// When each request was sent that was not answered yet.
    open: HashMap<u16, Instant>,
    gaps: Gaps,
    report: PingReport,
}

impl Echo {
    fn open(from: &Namespace, to: IpAddr, payload_bytes: usize) -> io::Result<Echo> {
        let (domain, protocol) = match to {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = from.enter(|| Socket::new(domain, Type::RAW, Some(protocol)))?;
        Ok(Echo {
            socket: socket.into(),
            to,
            identifier: IDENTIFIER.fetch_add(1, Ordering::Relaxed) ^ (std::process::id() as u16),
            payload_bytes,
            open: HashMap::new(),
            gaps: Gaps::start(Instant::now()),
            report: PingReport::default(),
        })
    }

    fn request(&mut self, now: Instant) {
        let sequence = self.report.sent as u16;
        let kind = if self.to.is_ipv4() {
            ECHO_REQUEST_V4
        } else {
            ECHO_REQUEST_V6
        };
        let mut message = vec![kind, 0, 0, 0];
        message.extend(self.identifier.to_be_bytes());
        message.extend(sequence.to_be_bytes());
        message.extend((0..self.payload_bytes).map(|byte| byte as u8));
        if self.to.is_ipv4() {
            // For ICMPv6 the kernel fills it in (RFC 3542 section 3.1).
            let checksum = internet_checksum(&message);
            message[2..4].copy_from_slice(&checksum.to_be_bytes());
        }
        self.report.sent += 1;
        self.open.insert(sequence, now);
        if self
            .socket
            .send_to(&message, SocketAddr::new(self.to, 0))
            .is_err()
        {
            self.report.refused += 1;
        }
    }

    /// Waits for one datagram, at most that long.
    fn receive(&mut self, limit: Duration) -> io::Result<()> {
        // A zero timeout would mean to wait for ever.
        self.socket
            .set_read_timeout(Some(limit.max(Duration::from_millis(1))))?;
        let mut datagram = [0; 2048];
        match self.socket.recv_from(&mut datagram) {
            Ok((length, from)) if from.ip() == self.to => {
                let length = length.min(datagram.len());
                if let Some(sequence) = self.answered(&datagram[..length]) {
                    self.answer(sequence, Instant::now());
                }
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) if is_timeout(&error) => Ok(()),
            // An ICMP error for an earlier request; that request goes unanswered.
            Err(error) if error.raw_os_error() != Some(libc::EBADF) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The sequence number, if this is an answer to this conversation. The kernel has checked sums.
    fn answered(&self, datagram: &[u8]) -> Option<u16> {
        let (kind, message) = if self.to.is_ipv4() {
            let header_bytes = usize::from(datagram.first()? & 0x0f) * 4;
            (ECHO_REPLY_V4, datagram.get(header_bytes..)?)
        } else {
            (ECHO_REPLY_V6, datagram)
        };
        let header = message.first_chunk::<HEADER_BYTES>()?;
        let identifier = u16::from_be_bytes([header[4], header[5]]);
        let ours = header[0] == kind && identifier == self.identifier;
        ours.then(|| u16::from_be_bytes([header[6], header[7]]))
    }

    fn answer(&mut self, sequence: u16, now: Instant) {
        match self.open.remove(&sequence) {
            Some(sent) => {
                self.report.received += 1;
                self.report
                    .round_trips
                    .push(now.saturating_duration_since(sent));
                self.gaps.mark(now);
            }
            None => self.report.duplicates += 1,
        }
    }

    fn finish(mut self) -> PingReport {
        self.gaps.mark(Instant::now());
        PingReport {
            longest_gap: self.gaps.longest,
            ..self.report
        }
    }
}

/// RFC 1071.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]));
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}
