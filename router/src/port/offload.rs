//! What a frame leaves to whoever gets it: a checksum to complete, pieces to cut it into
//! (the header of virtio-net, version 1.0 section 5.1.6, as tun(4) uses it).

use rmesh_wire::payload::PartialChecksum;

/// Length of the header in front of each frame of a port with offloads, in bytes.
pub const VIRTIO_HEADER_LEN: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const TCP4: u8 = 1;
const TCP6: u8 = 4;
const UDP: u8 = 5;

/// How a super-frame is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// Datagrams of equal length of one UDP flow, over either.
    Udp,
}

/// That a frame is several in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// By which rules.
    pub kind: CutKind,
    /// Bytes of transport payload in each piece but the last; never 0.
    pub piece_len: u16,
    /// Bytes of Ethernet, network and transport headers, where whoever made this knew; a hint.
    pub header_len: u16,
}

/// What a frame leaves to do; nothing by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offload {
    /// A checksum of which only the pseudo header's part is there.
    pub checksum: Option<PartialChecksum>,
    /// Only with a partial checksum.
    pub cut: Option<Cut>,
}

impl Offload {
    /// Reads a header and checks it against the length of its frame; `None` if it makes no sense
    /// or is of a kind that nobody asked for.
    pub fn decode(header: &[u8; VIRTIO_HEADER_LEN], frame_len: usize) -> Option<Self> {
        let [flags, kind, ..] = *header;
        let field = |at: usize| {
            let bytes = header.get(at..at + 2).and_then(|b| b.first_chunk());
            u16::from_ne_bytes(*bytes.unwrap_or(&[0; 2]))
        };
        let checksum = (flags & NEEDS_CHECKSUM != 0).then(|| PartialChecksum {
            start: field(6),
            offset: field(8),
        });
        if checksum.is_some_and(|partial| !partial.fits(frame_len)) {
            return None;
        }
        let kind = match kind {
            0 => {
                return Some(Offload {
                    checksum,
                    cut: None,
                });
            }
            TCP4 => CutKind::Tcp4,
            TCP6 => CutKind::Tcp6,
            UDP => CutKind::Udp,
            _ => return None,
        };
        let cut = Cut {
            kind,
            piece_len: field(4),
            header_len: field(2),
        };
        (checksum.is_some() && cut.piece_len > 0).then_some(Offload {
            checksum,
            cut: Some(cut),
        })
    }

    /// The header for a frame that leaves this to do.
    pub fn encode(&self) -> [u8; VIRTIO_HEADER_LEN] {
        let partial = self.checksum.unwrap_or(PartialChecksum {
            start: 0,
            offset: 0,
        });
        let flags = if self.checksum.is_some() {
            NEEDS_CHECKSUM
        } else {
            0
        };
        let (kind, header_len, piece_len) = match self.cut {
            None => (0, 0, 0),
            Some(cut) => {
                let kind = match cut.kind {
                    CutKind::Tcp4 => TCP4,
                    CutKind::Tcp6 => TCP6,
                    CutKind::Udp => UDP,
                };
                (kind, cut.header_len, cut.piece_len)
            }
        };
        let [a, b] = header_len.to_ne_bytes();
        let [c, d] = piece_len.to_ne_bytes();
        let [e, f] = partial.start.to_ne_bytes();
        let [g, h] = partial.offset.to_ne_bytes();
        [flags, kind, a, b, c, d, e, f, g, h]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_is_read_is_inside_its_frame_and_comes_back(
            header in any::<[u8; VIRTIO_HEADER_LEN]>(),
            flags in 0u8..4, kind in 0u8..8, len in 0usize..70_000,
        ) {
            let mut header = header;
            (header[0], header[1]) = (flags, kind);
            if let Some(offload) = Offload::decode(&header, len) {
                let partial = offload.checksum;
                prop_assert!(partial.is_none_or(|p| p.field() + 2 <= len && p.start >= 14));
                prop_assert!(offload.cut.is_none_or(|cut| cut.piece_len > 0 && partial.is_some()));
                let again = Offload::decode(&offload.encode(), len);
                prop_assert_eq!(again, Some(offload));
            }
        }
    }
}
