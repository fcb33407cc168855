//! What the data plane needs to know of an Ethernet frame (IEEE 802.3).

use crate::id::{Mac, PeerId};
use alloc::vec::Vec;

/// Length of an untagged Ethernet header in bytes.
pub const ETHERNET_HEADER_LEN: usize = 14;
/// EtherType of the second-way probe: local experimental 2 (IEEE 802 section 9.2.3).
pub const SECOND_WAY_ETHERTYPE: u16 = 0x88b6;
const SECOND_WAY_MARK: &[u8; 8] = b"rmesh-2w";
/// Smallest Ethernet frame without its check sequence, in bytes.
const FRAME_LEN_MIN: usize = 60;

/// Destination and source of a frame, in wire order; `None` if it has no whole header.
pub fn addresses(frame: &[u8]) -> Option<(Mac, Mac)> {
    let head = frame.first_chunk::<ETHERNET_HEADER_LEN>()?;
    let &[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, _, _] = head;
    Some((Mac([d0, d1, d2, d3, d4, d5]), Mac([s0, s1, s2, s3, s4, s5])))
}

/// The frame by which `peer` finds a second way round; `mark` shows that a peer of the mesh made it.
pub fn second_way_probe(source: Mac, mark: u64, peer: &PeerId) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_LEN_MIN);
    frame.extend_from_slice(&Mac::BROADCAST.0);
    frame.extend_from_slice(&source.0);
    frame.extend_from_slice(&SECOND_WAY_ETHERTYPE.to_be_bytes());
    frame.extend_from_slice(SECOND_WAY_MARK);
    frame.extend_from_slice(&mark.to_be_bytes());
    frame.extend_from_slice(&peer.0);
    frame.resize(FRAME_LEN_MIN, 0);
    frame
}

/// Mark and peer of a second-way probe; `None` for any other frame.
pub fn parse_second_way_probe(frame: &[u8]) -> Option<(u64, PeerId)> {
    let (head, body) = frame.split_first_chunk::<ETHERNET_HEADER_LEN>()?;
    let body = body.strip_prefix(SECOND_WAY_MARK)?;
    let (mark, rest) = body.split_first_chunk::<8>()?;
    let peer = rest.first_chunk::<16>()?;
    let typed = head.ends_with(&SECOND_WAY_ETHERTYPE.to_be_bytes());
    typed.then_some((u64::from_be_bytes(*mark), PeerId(*peer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_way_probes_are_told_from_other_frames() {
        let peer = PeerId([7; 16]);
        let frame = second_way_probe(Mac([2; 6]), 99, &peer);
        assert_eq!(parse_second_way_probe(&frame), Some((99, peer)));
        assert_eq!(addresses(&frame), Some((Mac::BROADCAST, Mac([2; 6]))));
        let mut other = frame.clone();
        other[13] = 0xb5;
        assert_eq!(parse_second_way_probe(&other), None);
        assert_eq!(addresses(&frame[..13]), None);
    }
}
