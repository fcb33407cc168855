//! Names of peers, of their boots, and of network interfaces.

use core::cmp::Ordering;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// Identity of a peer: the first 16 bytes of the SHA-256 hash of its Ed25519 public key.
///
/// Shown as 32 hexadecimal digits by `Display`; [`PeerId::short`] is what people see.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
pub struct PeerId(pub [u8; 16]);

/// The first 8 bytes of a [`PeerId`]: how relay and flood headers name peers.
///
/// Two members whose identities share 64 bits would confuse relays; receivers resolve a short id
/// only if exactly one known peer has it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
pub struct ShortId(pub [u8; 8]);

/// The order of the bytes, compared as numbers: most of what is looked up is looked up by peer.
impl Ord for PeerId {
    fn cmp(&self, other: &Self) -> Ordering {
        u128::from_be_bytes(self.0).cmp(&u128::from_be_bytes(other.0))
    }
}

impl PartialOrd for PeerId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ShortId {
    fn cmp(&self, other: &Self) -> Ordering {
        u64::from_be_bytes(self.0).cmp(&u64::from_be_bytes(other.0))
    }
}

impl PartialOrd for ShortId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PeerId {
    /// The prefix used on the wire where space is scarce.
    pub fn short_id(&self) -> ShortId {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        ShortId([a, b, c, d, e, f, g, h])
    }

    /// The first 12 hexadecimal digits, for people.
    pub fn short(&self) -> impl fmt::Display + use<> {
        let [a, b, c, d, e, f, ..] = self.0;
        Hex([a, b, c, d, e, f])
    }
}

struct Hex<const N: usize>([u8; N]);

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(self.0).fmt(f)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({})", self.short())
    }
}

impl fmt::Display for ShortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(self.0).fmt(f)
    }
}

impl fmt::Debug for ShortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShortId({self})")
    }
}

/// One life of a peer: a durable counter, raised at each start, and 64 random bits.
///
/// The derived order is the protocol's: the counter first, then the random bits.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
pub struct Boot {
    /// Raised and made durable before each start.
    pub counter: u64,
    /// Chosen at random for each start, so that two lives with one counter are told apart.
    pub random: u64,
}

/// A 48-bit IEEE 802 MAC address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// Whether the group bit is set (multicast and broadcast).
    pub const fn is_group(&self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Whether it is in 01:80:c2:00:00:00-0f, which no bridge forwards (IEEE 802.1Q table 8-1).
    pub const fn is_link_local_control(&self) -> bool {
        let [a, b, c, d, e, f] = self.0;
        a == 0x01 && b == 0x80 && c == 0xc2 && d == 0 && e == 0 && f < 0x10
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not an id of the kind asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// Not six two-digit hexadecimal groups joined by colons.
    #[error("a MAC address looks like 02:00:5e:10:00:01")]
    Mac,
    /// Not 32 hexadecimal digits.
    #[error("a peer id has 32 hexadecimal digits")]
    PeerId,
}

/// Whether there are only hexadecimal digits; numbers are also read with a sign before them.
fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl FromStr for Mac {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 6];
        let mut groups = text.split(':');
        for byte in &mut bytes {
            let group = groups
                .next()
                .filter(|g| g.len() == 2 && is_hex(g))
                .ok_or(ParseIdError::Mac)?;
            *byte = u8::from_str_radix(group, 16).map_err(|_| ParseIdError::Mac)?;
        }
        groups
            .next()
            .is_none()
            .then_some(Mac(bytes))
            .ok_or(ParseIdError::Mac)
    }
}

impl FromStr for PeerId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 16];
        if text.len() != 32 || !is_hex(text) {
            return Err(ParseIdError::PeerId);
        }
        for (byte, at) in bytes.iter_mut().zip((0..32).step_by(2)) {
            let group = text.get(at..at + 2).ok_or(ParseIdError::PeerId)?;
            *byte = u8::from_str_radix(group, 16).map_err(|_| ParseIdError::PeerId)?;
        }
        Ok(PeerId(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn text_forms_come_back() {
        let mac = Mac([2, 0, 0x5e, 0x10, 0, 0xfe]);
        assert_eq!(mac.to_string().parse(), Ok(mac));
        for wrong in ["2:0:5e:10:0:1", "+2:00:5e:10:00:01"] {
            assert_eq!(wrong.parse::<Mac>(), Err(ParseIdError::Mac));
        }
        assert!(
            "+123456789abcdef0123456789abcde+"
                .parse::<PeerId>()
                .is_err()
        );
        let peer = PeerId(*b"0123456789abcdef");
        assert_eq!(peer.to_string().parse(), Ok(peer));
        assert_eq!(peer.short().to_string(), "303132333435");
    }

    #[test]
    fn bridge_control_addresses_are_recognised() {
        assert!(Mac([1, 0x80, 0xc2, 0, 0, 0x0f]).is_link_local_control());
        assert!(!Mac([1, 0x80, 0xc2, 0, 0, 0x10]).is_link_local_control());
    }
}
