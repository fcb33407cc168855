//! A frame on its way down the broadcast tree of its source.
//!
//! Body of a flood payload, after the payload head (whose `flags` hold the TTL):
//! ```text
//!  0            8            16           24
//! | source (8) | boot (8)   | sequence   | Ethernet frame …
//! ```
//! `boot` is the random part of the source's [`crate::Boot`], so that numbers of an earlier life
//! are not taken for repeats.

use crate::id::ShortId;

/// Length of the flood header in bytes.
pub const FLOOD_HEADER_LEN: usize = 24;
/// Hops a flooded frame may take: as many as a datagram, since the trees are made of the same ways.
pub const TTL: u8 = 16;

/// Who flooded a frame, and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloodHeader {
    /// The peer whose container sent the frame.
    pub source: ShortId,
    /// Random part of that peer's boot.
    pub boot: u64,
    /// Counts the source's floods in this boot.
    pub sequence: u64,
}

impl FloodHeader {
    /// The header as it stands on the wire.
    pub fn encode(&self) -> [u8; FLOOD_HEADER_LEN] {
        let mut bytes = [0; FLOOD_HEADER_LEN];
        bytes[..8].copy_from_slice(&self.source.0);
        bytes[8..16].copy_from_slice(&self.boot.to_be_bytes());
        bytes[16..].copy_from_slice(&self.sequence.to_be_bytes());
        bytes
    }

    /// Splits a flood body into header and frame; `None` if it is too short.
    pub fn split(body: &[u8]) -> Option<(Self, &[u8])> {
        let (source, rest) = body.split_first_chunk::<8>()?;
        let (boot, rest) = rest.split_first_chunk::<8>()?;
        let (sequence, frame) = rest.split_first_chunk::<8>()?;
        let header = FloodHeader {
            source: ShortId(*source),
            boot: u64::from_be_bytes(*boot),
            sequence: u64::from_be_bytes(*sequence),
        };
        Some((header, frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn the_header_comes_back() {
        let header = FloodHeader {
            source: ShortId(*b"abcdefgh"),
            boot: 3,
            sequence: 1 << 40,
        };
        let mut body = Vec::from(header.encode());
        body.push(9);
        assert_eq!(FloodHeader::split(&body), Some((header, &[9u8][..])));
        assert_eq!(FloodHeader::split(&body[..23]), None);
    }
}
