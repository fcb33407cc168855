//! A relay datagram: the unchanged datagram of two end peers, wrapped for one hop.
//!
//! ```text
//!  0               16            24                 32               n-16      n
//! | header (relay) | source (8)  | destination (8)  | inner datagram | tag     |
//! ```
//! The tag authenticates everything before it as associated data, with an empty plaintext, under
//! the session of the two neighbours; the header's lane and counter give replay protection. A
//! relay lowers the TTL, replaces header and tag, and never opens the inner datagram.

use crate::datagram::{HEADER_LEN, TAG_LEN};
use crate::id::ShortId;

/// Where the inner datagram starts.
pub const INNER_OFFSET: usize = HEADER_LEN + 16;
/// Bytes that wrapping adds to a datagram.
pub const OVERHEAD: usize = INNER_OFFSET + TAG_LEN;
/// Hops a datagram may take. The overlay's diameter is at most 7 at 10,000 peers, but ways are chosen by their cost: the
/// cheapest one had nine hops among 50 peers of which most reach each other.
pub const TTL: u8 = 16;

/// The end points of a relayed datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayEnds {
    /// Who sealed the inner datagram.
    pub source: ShortId,
    /// Who can open it.
    pub destination: ShortId,
}

impl RelayEnds {
    /// The 16 bytes between header and inner datagram.
    pub fn encode(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let (source, destination) = bytes.split_at_mut(8);
        source.copy_from_slice(&self.source.0);
        destination.copy_from_slice(&self.destination.0);
        bytes
    }

    /// Reads the end points of a relay datagram and finds its inner datagram; `None` if it is too
    /// short to hold an inner header.
    pub fn split(datagram: &[u8]) -> Option<(Self, &[u8])> {
        let (_, rest) = datagram.split_first_chunk::<HEADER_LEN>()?;
        let (source, rest) = rest.split_first_chunk::<8>()?;
        let (destination, rest) = rest.split_first_chunk::<8>()?;
        let inner = rest.get(..rest.len().checked_sub(TAG_LEN)?)?;
        let ends = RelayEnds {
            source: ShortId(*source),
            destination: ShortId(*destination),
        };
        (inner.len() >= HEADER_LEN).then_some((ends, inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn ends_come_back_and_short_datagrams_do_not() {
        let ends = RelayEnds {
            source: ShortId([1; 8]),
            destination: ShortId([2; 8]),
        };
        let mut datagram = vec![0; HEADER_LEN];
        datagram.extend_from_slice(&ends.encode());
        datagram.extend_from_slice(&[7; HEADER_LEN]);
        datagram.extend_from_slice(&[0; TAG_LEN]);
        assert_eq!(
            RelayEnds::split(&datagram),
            Some((ends, &[7; HEADER_LEN][..]))
        );
        assert_eq!(RelayEnds::split(&datagram[1..]), None);
    }
}
