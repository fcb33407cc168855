//! UDP: numbered datagrams whose content is checked.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use super::{TICK, enlarge_receive_buffer, is_timeout, pattern};
use crate::Namespace;

/// Each datagram begins with its number.
const NUMBER_BYTES: usize = 8;
/// The largest UDP payload over IPv4.
const MAX_BYTES: usize = 65_507;
/// Pace of the sender: a burst would overflow the queue of a TAP, which is not what is tested.
const SPACING: Duration = Duration::from_micros(150);
/// How long to wait for stragglers once all is sent.
const STRAGGLERS: Duration = Duration::from_millis(500);
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// What arrived.
#[derive(Debug, Clone, Default)]
pub struct UdpReport {
    /// Datagrams the sending kernel took.
    pub sent: u64,
    /// Different datagrams that arrived unchanged.
    pub received: u64,
    /// Datagrams that arrived changed or with another size.
    pub corrupted: u64,
    /// Datagrams that arrived again.
    pub duplicates: u64,
    /// Datagrams the sending kernel refused.
    pub refused: u64,
}

/// Sends `count` datagrams of `size` bytes (8 to 65507) to `addr` (an address of `to`), at most for
/// `limit`. Returns when all have arrived, or half a second after the last one was sent.
///
/// # Errors
/// If the size does not fit or a socket cannot be opened.
pub fn udp_transfer(
    from: &Namespace,
    to: &Namespace,
    addr: IpAddr,
    count: u64,
    size: usize,
    limit: Duration,
) -> io::Result<UdpReport> {
    if !(NUMBER_BYTES..=MAX_BYTES).contains(&size) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a datagram has 8 to 65507 bytes",
        ));
    }
    let deadline = Instant::now() + limit;
    let receiver = to.enter(|| UdpSocket::bind(SocketAddr::new(addr, 0)))?;
    enlarge_receive_buffer(&receiver, RECEIVE_BUFFER_BYTES)?;
    receiver.set_read_timeout(Some(TICK))?;
    let any: IpAddr = if addr.is_ipv4() {
        [0; 4].into()
    } else {
        [0_u16; 8].into()
    };
    let sender = from.enter(|| UdpSocket::bind(SocketAddr::new(any, 0)))?;
    let target = receiver.local_addr()?;

    let (sent, mut report) = thread::scope(|scope| {
        let sending = scope.spawn(|| send(&sender, target, count, size, deadline));
        let report = receive(&receiver, count, size, deadline, || sending.is_finished());
        (sending.join(), report)
    });
    (report.sent, report.refused) = sent.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    Ok(report)
}

/// How many the kernel took and how many it refused.
fn send(
    socket: &UdpSocket,
    to: SocketAddr,
    count: u64,
    size: usize,
    deadline: Instant,
) -> (u64, u64) {
    let (mut sent, mut refused) = (0, 0);
    for number in 0..count {
        if Instant::now() >= deadline {
            break;
        }
        match socket.send_to(&datagram(number, size), to) {
            Ok(_) => sent += 1,
            Err(_) => refused += 1,
        }
        thread::sleep(SPACING);
    }
    (sent, refused)
}

fn receive(
    socket: &UdpSocket,
    count: u64,
    size: usize,
    deadline: Instant,
    sender_done: impl Fn() -> bool,
) -> UdpReport {
    let mut report = UdpReport::default();
    let mut seen = HashSet::new();
    let mut buffer = vec![0; MAX_BYTES];
    let mut quiet_since = Instant::now();
    while report.received < count && Instant::now() < deadline {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                quiet_since = Instant::now();
                match number_of(&buffer[..length], size) {
                    Some(number) if seen.insert(number) => report.received += 1,
                    Some(_) => report.duplicates += 1,
                    None => report.corrupted += 1,
                }
            }
            Err(error) if is_timeout(&error) => {}
            Err(_) => break,
        }
        if !sender_done() {
            quiet_since = Instant::now();
        } else if quiet_since.elapsed() > STRAGGLERS {
            break;
        }
    }
    report
}

fn datagram(number: u64, size: usize) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend((NUMBER_BYTES..size).map(|position| pattern(number, position as u64)));
    bytes
}

/// The number, if the datagram is as it was sent.
fn number_of(bytes: &[u8], size: usize) -> Option<u64> {
    let number = u64::from_be_bytes(*bytes.first_chunk::<NUMBER_BYTES>()?);
    (bytes == datagram(number, size)).then_some(number)
}
