//! A piece of a payload that was too big for its path.
//!
//! The payload head's `aux` holds index (high byte) and count (low byte). Body:
//! ```text
//!  0      4        6
//! | id   | offset | bytes …
//! ```
//! All pieces but the last have the same length. The pieces together are one whole payload, head
//! included (a frame or a flood, on lane 0 a control message, never a fragment).

/// Length of the fragment header in bytes.
pub const FRAGMENT_HEADER_LEN: usize = 6;
/// Most pieces of one payload: a 64 KiB frame in pieces of a 1280-byte path fits.
pub const FRAGMENTS_MAX: u8 = 64;
/// Largest payload that can be put together again, in bytes.
pub const REASSEMBLED_LEN_MAX: usize = 65_535;

/// Where a piece belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FragmentHeader {
    /// Same in all pieces of one payload, unique in its session and lane for a while.
    pub id: u32,
    /// Number of this piece, from zero.
    pub index: u8,
    /// How many pieces there are, at least two.
    pub count: u8,
    /// Where this piece starts in the payload, in bytes.
    pub offset: u16,
}

impl FragmentHeader {
    /// `aux` of the payload head.
    pub const fn aux(&self) -> u16 {
        u16::from_be_bytes([self.index, self.count])
    }

    /// The bytes after the payload head.
    pub const fn encode(&self) -> [u8; FRAGMENT_HEADER_LEN] {
        let [a, b, c, d] = self.id.to_be_bytes();
        let [e, f] = self.offset.to_be_bytes();
        [a, b, c, d, e, f]
    }

    /// Splits a fragment's body into header and piece; `None` if a number is out of its range or
    /// the piece would reach beyond [`REASSEMBLED_LEN_MAX`].
    pub fn split(aux: u16, body: &[u8]) -> Option<(Self, &[u8])> {
        let [index, count] = aux.to_be_bytes();
        let (&[a, b, c, d, e, f], piece) = body.split_first_chunk::<FRAGMENT_HEADER_LEN>()?;
        let id = u32::from_be_bytes([a, b, c, d]);
        let offset = u16::from_be_bytes([e, f]);
        let sane = (2..=FRAGMENTS_MAX).contains(&count)
            && index < count
            && !piece.is_empty()
            && usize::from(offset) + piece.len() <= REASSEMBLED_LEN_MAX;
        sane.then_some((
            FragmentHeader {
                id,
                index,
                count,
                offset,
            },
            piece,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_are_refused() {
        let header = FragmentHeader {
            id: 7,
            index: 1,
            count: 2,
            offset: 1000,
        };
        let mut body = [0; 8];
        body[..6].copy_from_slice(&header.encode());
        assert_eq!(
            FragmentHeader::split(header.aux(), &body),
            Some((header, &[0u8, 0][..]))
        );
        assert_eq!(
            FragmentHeader::split(u16::from_be_bytes([2, 2]), &body),
            None
        );
        assert_eq!(
            FragmentHeader::split(u16::from_be_bytes([0, 1]), &body),
            None
        );
        body[4..6].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(FragmentHeader::split(header.aux(), &body), None);
    }
}
