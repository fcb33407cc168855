//! Liveness probes: one path's proof of life in both directions.
//!
//! Flags of the payload head: bit 0 set in an answer, bit 1 set where the sender regards the
//! receiver as a control neighbour, bit 2 set where the sender lets plaintext cross between the two
//! addresses of the path the probe takes, neither of which is translated as far as it knows, bit 3 set in
//! a question if the sender's questions by this path until now were answered, bit 4 set in an answer to one
//! that came through the kernel's VXLAN with a wrong checksum, bit 5 set where the sender
//! does not know yet whether bit 2 should be, bit 6 set where the sender is behind a translator of addresses on
//! that path: `aux` is then how long that most likely keeps a mapping that nobody uses, in tenths of a second. Body:
//! ```text
//!  0       8                          32                        50
//! | token | digest (count, xor, sum) | address (16) port (2)   | padding …
//! ```
//! An answer returns over the path its question came by, with the same token, the same length, and
//! the address the question came from (IPv4 as IPv4-mapped, RFC 4291 section 2.5.5.2; all zero
//! over a relay). The digest summarises the sender's records for anti-entropy.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use crate::payload::{HEAD_LEN, Head, PayloadKind};
use alloc::vec::Vec;

/// Length of a probe body without padding, in bytes.
pub const PROBE_LEN: usize = 50;

const ANSWER: u8 = 1;
const NEIGHBOUR: u8 = 2;
const PLAINTEXT: u8 = 4;
const PROVEN: u8 = 8;
const DAMAGED: u8 = 16;
const UNDECIDED: u8 = 32;
const TRANSLATED: u8 = 64;
/// Unit of `aux`.
const KEEP_UNIT_MS: u64 = 100;

/// Digest of a set of records: equal sets have equal digests, whatever the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest {
    /// How many records.
    pub count: u64,
    /// Exclusive or of their 64-bit hashes.
    pub xor: u64,
    /// Wrapping sum of their 64-bit hashes.
    pub sum: u64,
}

/// A probe or its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Whether this answers a probe.
    pub is_answer: bool,
    /// Whether the sender regards the receiver as a control neighbour.
    pub neighbour: bool,
    /// Whether the sender lets plaintext cross on this path.
    pub plaintext: bool,
    /// In a question: whether those before it, by the same path, were answered.
    pub proven: bool,
    /// Whether the sender does not know that yet, as nobody has told it where it is seen.
    pub undecided: bool,
    /// In an answer: whether the checksum around the question was wrong.
    pub damaged: bool,
    /// Where a translator on this path stands before the sender: after how much silence it is to be asked,
    /// in tenths of a second, so that the mapping lives.
    pub keep: Option<Duration>,
    /// Chosen by the one who asks.
    pub token: u64,
    /// The sender's records.
    pub digest: Digest,
    /// In an answer over a direct path: the address the question came from.
    pub observed: Option<SocketAddr>,
}

impl Probe {
    /// The payload of a probe, padded with zeros to `payload_len` bytes if that is longer.
    pub fn encode(&self, payload_len: usize) -> Vec<u8> {
        let flags = (u8::from(self.is_answer) * ANSWER)
            | (u8::from(self.neighbour) * NEIGHBOUR)
            | (u8::from(self.plaintext) * PLAINTEXT)
            | (u8::from(self.proven) * PROVEN)
            | (u8::from(self.damaged) * DAMAGED)
            | (u8::from(self.undecided) * UNDECIDED)
            | (u8::from(self.keep.is_some()) * TRANSLATED);
        let keep = self
            .keep
            .map_or(0, |keep| keep.as_millis() / u128::from(KEEP_UNIT_MS));
        let head = Head {
            flags,
            aux: u16::try_from(keep).unwrap_or(u16::MAX),
            ..Head::new(PayloadKind::Probe)
        };
        let mut bytes = Vec::with_capacity(payload_len.max(HEAD_LEN + PROBE_LEN));
        bytes.extend_from_slice(&head.encode());
        for word in [
            self.token,
            self.digest.count,
            self.digest.xor,
            self.digest.sum,
        ] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        bytes.extend_from_slice(&encode_address(self.observed));
        bytes.resize(bytes.len().max(payload_len), 0);
        bytes
    }

    /// Reads the body of a probe; `None` if it is too short.
    pub fn decode(head: Head, body: &[u8]) -> Option<Self> {
        let flags = head.flags;
        let (token, rest) = body.split_first_chunk::<8>()?;
        let (count, rest) = rest.split_first_chunk::<8>()?;
        let (xor, rest) = rest.split_first_chunk::<8>()?;
        let (sum, rest) = rest.split_first_chunk::<8>()?;
        let (observed, _) = rest.split_first_chunk::<ADDRESS_LEN>()?;
        Some(Probe {
            is_answer: flags & ANSWER != 0,
            neighbour: flags & NEIGHBOUR != 0,
            plaintext: flags & PLAINTEXT != 0,
            proven: flags & PROVEN != 0,
            undecided: flags & UNDECIDED != 0,
            damaged: flags & DAMAGED != 0,
            keep: (flags & TRANSLATED != 0)
                .then(|| Duration::from_millis(u64::from(head.aux) * KEEP_UNIT_MS)),
            token: u64::from_be_bytes(*token),
            digest: Digest {
                count: u64::from_be_bytes(*count),
                xor: u64::from_be_bytes(*xor),
                sum: u64::from_be_bytes(*sum),
            },
            observed: decode_address(observed),
        })
    }
}

/// Length of an address with its port, in bytes.
pub(crate) const ADDRESS_LEN: usize = 18;

/// An address and its port; IPv4 as IPv4-mapped, all zero if there is none.
pub(crate) fn encode_address(address: Option<SocketAddr>) -> [u8; ADDRESS_LEN] {
    let (ip, port) = match address {
        None => (Ipv6Addr::UNSPECIFIED, 0),
        Some(SocketAddr::V4(v4)) => (v4.ip().to_ipv6_mapped(), v4.port()),
        Some(SocketAddr::V6(v6)) => (*v6.ip(), v6.port()),
    };
    let mut bytes = [0; ADDRESS_LEN];
    let (head, tail) = bytes.split_at_mut(16);
    head.copy_from_slice(&ip.octets());
    tail.copy_from_slice(&port.to_be_bytes());
    bytes
}

/// The opposite; `None` where the port is 0.
pub(crate) fn decode_address(bytes: &[u8; ADDRESS_LEN]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_first_chunk::<16>()?;
    let port = u16::from_be_bytes(port.try_into().ok()?);
    let ip = Ipv6Addr::from(*ip);
    let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
    (port != 0).then_some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_come_back_with_either_family() {
        for address in [Some("192.0.2.1:6783"), Some("[2001:db8::1]:1"), None] {
            let probe = Probe {
                is_answer: address.is_some(),
                neighbour: true,
                plaintext: address.is_some(),
                proven: address.is_none(),
                undecided: address.is_none(),
                damaged: address.is_none(),
                keep: address.map(|_| Duration::from_millis(25_500)),
                token: 42,
                digest: Digest {
                    count: 1,
                    xor: 2,
                    sum: 3,
                },
                observed: address.map(|a| a.parse().unwrap()),
            };
            let payload = probe.encode(100);
            assert_eq!(payload.len(), 100);
            let (head, body) = Head::split(&payload).unwrap();
            assert_eq!(Probe::decode(head, body), Some(probe));
        }
        assert_eq!(
            Probe::decode(Head::new(PayloadKind::Probe), &[0; PROBE_LEN - 1]),
            None
        );
    }
}
