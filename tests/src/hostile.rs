//! What an attacker on the underlay does: records datagrams, changes them, sends them again under
//! any address; and what a daemon under attack is watched by.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rmesh_lab::probe::FrameSender;
use rmesh_lab::{Host, Link};

use crate::fuzz::Mutator;

/// The port every router of a story listens on.
pub const PORT: u16 = 6783;
const ETHERNET_LEN: usize = 14;
const IPV4_LEN: usize = 20;
const UDP_LEN: usize = 8;
/// Longest payload that fits one frame of the lab's wires.
const PAYLOAD_LEN_MAX: usize = 1_500 - IPV4_LEN - UDP_LEN;
/// Bytes that may wait in the victim's socket before the attacker pauses: a datagram the kernel
/// drops tests nothing.
const QUEUE_MAX: u64 = 512 << 10;
/// Datagrams between two looks at that queue.
const BURST: u64 = 128;
/// Sources a flood invents.
const FLOOD_FRAMES: usize = 1 << 14;
/// A victim that takes nothing for this long has died.
const STALL_MAX: Duration = Duration::from_secs(20);

/// A UDP datagram over IPv4, as it was on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it.
    pub source: SocketAddrV4,
    /// Whom to.
    pub destination: SocketAddrV4,
    /// The UDP payload.
    pub payload: Vec<u8>,
}

impl Datagram {
    /// The datagram in a captured Ethernet frame; `None` if there is none, or not a whole one.
    pub fn parse(frame: &[u8]) -> Option<Datagram> {
        let ip = frame.get(ETHERNET_LEN..)?;
        // IPv4 without options, not a fragment, UDP.
        let plain = frame.get(12..14)? == [8, 0] && ip.first() == Some(&0x45);
        let whole = ip.get(6)? & 0x3f == 0 && ip.get(7) == Some(&0) && ip.get(9) == Some(&17);
        let udp = ip.get(IPV4_LEN..).filter(|_| plain && whole)?;
        let address = |at: usize, port: usize| {
            let ip: [u8; 4] = *ip.get(at..)?.first_chunk()?;
            let port = u16::from_be_bytes(*udp.get(port..)?.first_chunk()?);
            Some(SocketAddrV4::new(Ipv4Addr::from(ip), port))
        };
        let len = usize::from(u16::from_be_bytes(*udp.get(4..)?.first_chunk()?));
        Some(Datagram {
            source: address(12, 0)?,
            destination: address(16, 2)?,
            payload: udp.get(UDP_LEN..len)?.to_vec(),
        })
    }

    /// Whether it is the first message of a handshake, by its header.
    pub fn is_first_message(&self) -> bool {
        self.payload.first() == Some(&0x11)
    }

    /// Whether it is a sealed record, by its header.
    pub fn is_record(&self) -> bool {
        self.payload.first() == Some(&0x14)
    }

    /// The lane its header names.
    pub fn lane(&self) -> Option<u8> {
        self.payload.get(8).copied()
    }
}

impl AsRef<[u8]> for Datagram {
    fn as_ref(&self) -> &[u8] {
        &self.payload
    }
}

/// A wire on which anything can be said to one victim.
pub struct Attacker {
    wire: FrameSender,
    macs: [[u8; 6]; 2],
    victim: Ipv4Addr,
    queue: String,
    sent: u64,
}

impl Attacker {
    /// Attacks the daemon with process id `pid` on host `victim` from the other end of `link`.
    ///
    /// # Errors
    /// If the link is not there.
    pub fn new(from: &Host, link: &Link, victim: &Host, pid: u32) -> io::Result<Attacker> {
        let mac = |host: &Host| host.mac(&link.interface(host)).map_err(io::Error::other);
        let std::net::IpAddr::V4(address) = link.address(victim, false) else {
            return Err(io::Error::other("the link has no IPv4 address"));
        };
        Ok(Attacker {
            wire: FrameSender::open(from, &link.interface(from))?,
            macs: [mac(victim)?, mac(from)?],
            victim: address,
            queue: format!("/proc/{pid}/net/udp"),
            sent: 0,
        })
    }

    /// Sends one datagram that says it comes from `source`, as fast as the victim takes them in.
    /// What does not fit a frame is cut.
    ///
    /// # Panics
    /// If the victim takes nothing any more.
    pub fn send(&mut self, source: SocketAddrV4, payload: &[u8]) {
        let payload = payload.get(..PAYLOAD_LEN_MAX).unwrap_or(payload);
        let frame = self.frame(source, payload);
        self.wire.send(&frame).expect("a frame that fits the wire");
        self.sent += 1;
        if self.sent.is_multiple_of(BURST) {
            self.wait_below(QUEUE_MAX);
        }
    }

    /// Sends these payloads over and over from one invented address after another, as fast as one
    /// core can and whether the victim takes them in or not, until `running` is false; gives their
    /// number.
    ///
    /// # Panics
    /// If a payload does not fit the wire.
    pub fn flood(&mut self, payloads: &[Vec<u8>], running: &AtomicBool) -> u64 {
        let mut dice = Mutator::new(9);
        let invented: Vec<_> = (0..FLOOD_FRAMES)
            .map(|number| {
                let host = dice.below(1 << 24) as u32;
                let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(11, 0, 0, 0)) | host);
                let port = 1_024 + dice.below(60_000) as u16;
                self.frame(
                    SocketAddrV4::new(ip, port),
                    &payloads[number % payloads.len()],
                )
            })
            .collect();
        let before = self.sent;
        for frame in invented.iter().cycle() {
            if !running.load(Ordering::Relaxed) {
                break;
            }
            self.wire.send(frame).expect("a frame that fits the wire");
            self.sent += 1;
        }
        self.sent - before
    }

    /// Datagrams sent so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Waits until the victim's process has read at least all but `bytes` of what waits for it.
    ///
    /// # Panics
    /// If it takes too long.
    pub fn wait_below(&self, bytes: u64) {
        let start = Instant::now();
        while self.queued() > bytes {
            assert!(
                start.elapsed() < STALL_MAX,
                "the daemon reads no datagrams any more"
            );
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Bytes in the receive queues of the victim's sockets (proc(5), `tx_queue:rx_queue`).
    fn queued(&self) -> u64 {
        let table = fs::read_to_string(&self.queue).unwrap_or_default();
        let port = format!(":{PORT:04X}");
        let own = table.lines().map(|line| line.split_whitespace());
        let queues = own.filter_map(|mut fields| {
            fields.nth(1).filter(|local| local.ends_with(&port))?;
            let queues = fields.nth(2)?;
            u64::from_str_radix(queues.split_once(':')?.1, 16).ok()
        });
        queues.sum()
    }

    fn frame(&self, source: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
        let [to, from] = self.macs;
        let udp_len = (UDP_LEN + payload.len()) as u16;
        let mut ip = [0; IPV4_LEN];
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&(IPV4_LEN as u16 + udp_len).to_be_bytes());
        ip[6] = 0x40; // DF
        ip[8..10].copy_from_slice(&[64, 17]);
        ip[12..16].copy_from_slice(&source.ip().octets());
        ip[16..20].copy_from_slice(&self.victim.octets());
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let [ports, victim] = [source.port(), PORT].map(u16::to_be_bytes);
        let udp = [ports, victim, udp_len.to_be_bytes(), [0; 2]].concat(); // no checksum (RFC 768)
        [&to[..], &from, &[8, 0], &ip, &udp, payload].concat()
    }
}

/// RFC 1071, of a header without its checksum.
fn checksum(header: &[u8]) -> u16 {
    let words = header
        .chunks_exact(2)
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vitals {
    /// Memory in RAM, in bytes.
    pub rss_bytes: u64,
    /// Open file descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
}

/// Descriptors that come and go, such as the connection of who asks for the status, are gone at some moment of
/// this time.
const SETTLED: Duration = Duration::from_secs(1);

impl Vitals {
    /// Looks at a process for a second; gives the fewest descriptors and what it held with those.
    ///
    /// # Errors
    /// If it has ended.
    pub fn settled(pid: u32) -> io::Result<Vitals> {
        let start = Instant::now();
        let mut fewest = Vitals::of(pid)?;
        while start.elapsed() < SETTLED {
            std::thread::sleep(Duration::from_millis(10));
            let now = Vitals::of(pid)?;
            if now.descriptors < fewest.descriptors {
                fewest = now;
            }
        }
        Ok(fewest)
    }

    /// Looks at a process.
    ///
    /// # Errors
    /// If it has ended.
    pub fn of(pid: u32) -> io::Result<Vitals> {
        let count =
            |what: &str| Ok::<_, io::Error>(fs::read_dir(format!("/proc/{pid}/{what}"))?.count());
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = rss.and_then(|rss| rss.split_whitespace().next()?.parse::<u64>().ok());
        Ok(Vitals {
            rss_bytes: kib.unwrap_or_default() << 10,
            descriptors: count("fd")?,
            threads: count("task")?,
        })
    }
}

/// Most lines a log has for any one second, by its time stamps, behind its first `seen` bytes; lines
/// without a stamp belong to the line before.
pub fn lines_per_second_max(log: &Path, seen: u64) -> usize {
    /// Length of `2026-01-31T12:00:00`.
    const STAMP_LEN: usize = 19;
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(text.get(seen as usize..).unwrap_or_default());
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut second = "";
    for line in text.lines() {
        let stamp = line
            .get(..STAMP_LEN)
            .filter(|s| s.as_bytes().get(10) == Some(&b'T'));
        second = stamp.unwrap_or(second);
        *counts.entry(second).or_default() += 1;
    }
    counts.into_values().max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_counted_by_the_second() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let text = "2026-01-31T12:00:00.1Z a\n2026-01-31T12:00:00.9Z b\nmore of b\n2026-01-31T12:00:01.0Z c\n";
        fs::write(file.path(), text).expect("room");
        assert_eq!(lines_per_second_max(file.path(), 0), 3);
        let seen = text.find("2026-01-31T12:00:01").expect("the last line");
        assert_eq!(lines_per_second_max(file.path(), seen as u64), 1);
        assert_eq!(lines_per_second_max(file.path(), text.len() as u64), 0);
    }

    #[test]
    fn header_checksums_are_those_of_rfc_1071() {
        let header = [
            0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0,
            0xc7,
        ];
        assert_eq!(checksum(&header), 0xb861);
    }
}
