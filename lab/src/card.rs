//! Network cards that complete the checksums which the kernel leaves to them, as real ones do, and that
//! may be broken in the way some real ones are.

/// Length of the virtio header before a frame (virtio 1.2, section 5.1.6), without counts of buffers.
pub(crate) const HEADER_LEN: usize = 10;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CHECKSUM: u8 = 1;
/// Where the transport header begins at the earliest that is inside a tunnel: behind Ethernet, IPv4, UDP,
/// VXLAN, Ethernet and IPv4.
const INSIDE_V4: usize = 14 + 20 + 8 + 8 + 14 + 20;
const INSIDE_V6: usize = INSIDE_V4 + 20;
const IPV6: [u8; 2] = [0x86, 0xdd];

/// What the network cards at both ends of an emulated wire do with checksums that are left to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Card {
    /// They complete them.
    Completes,
    /// They complete them, but wrongly where the checksum is of a packet inside VXLAN.
    DamagesVxlan,
    /// They lose frames with such a checksum.
    LosesVxlan,
}

impl Card {
    /// Does to a frame what its virtio header asks for; false if it is lost. `damaged` counts what the card
    /// did not do right.
    pub(crate) fn finish(self, header: &[u8], frame: &mut [u8], damaged: &mut u64) -> bool {
        let word = |at: usize| {
            Some(usize::from(u16::from_ne_bytes([
                *header.get(at)?,
                *header.get(at + 1)?,
            ])))
        };
        let (Some(start), Some(offset)) = (word(6), word(8)) else {
            return true;
        };
        if header
            .first()
            .is_none_or(|flags| flags & NEEDS_CHECKSUM == 0)
        {
            return true;
        }
        let Some(summed) = frame.get(start..) else {
            return true;
        };
        let is_v6 = frame.get(12..14) == Some(&IPV6);
        let is_inside = start >= if is_v6 { INSIDE_V6 } else { INSIDE_V4 };
        let is_wrong = is_inside && self != Card::Completes;
        *damaged += u64::from(is_wrong);
        let whole = match checksum(summed) {
            // Zero means "no checksum" to UDP.
            0 => 0xffff,
            whole => whole,
        };
        let field = frame.get_mut(start + offset..start + offset + 2);
        if let Some(field) = field {
            let written = if is_wrong { whole ^ 0x5555 } else { whole };
            field.copy_from_slice(&written.to_be_bytes());
        }
        !(is_wrong && self == Card::LosesVxlan)
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| {
        let low = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([
            pair.first().copied().unwrap_or(0),
            low,
        ]))
    };
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(start: u16) -> Vec<u8> {
        let mut header = vec![0; HEADER_LEN];
        header[0] = NEEDS_CHECKSUM;
        header[6..8].copy_from_slice(&start.to_ne_bytes());
        header[8..10].copy_from_slice(&6u16.to_ne_bytes());
        header
    }

    /// Whether the part from `start` on sums up to nothing afterwards.
    fn is_right(card: Card, start: u16) -> (bool, bool, u64) {
        let mut frame: Vec<u8> = (0..200u8).collect();
        frame[12..14].copy_from_slice(&[8, 0]);
        // Here would be the sum over the pseudo header, of which there is none.
        let field = usize::from(start) + 6;
        frame[field..field + 2].fill(0);
        let mut damaged = 0;
        let passes = card.finish(&header(start), &mut frame, &mut damaged);
        (checksum(&frame[start.into()..]) == 0, passes, damaged)
    }

    #[test]
    fn checksums_are_completed_and_those_inside_a_tunnel_broken() {
        assert_eq!(is_right(Card::Completes, 84), (true, true, 0));
        assert_eq!(is_right(Card::DamagesVxlan, 34), (true, true, 0));
        assert_eq!(is_right(Card::DamagesVxlan, 84), (false, true, 1));
        assert_eq!(is_right(Card::LosesVxlan, 84), (false, false, 1));
        let mut frame = vec![7; 60];
        assert!(Card::DamagesVxlan.finish(&[0; HEADER_LEN], &mut frame, &mut 0));
        assert_eq!(frame, [7; 60]);
    }
}
