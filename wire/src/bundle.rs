//! Small frames that travel in one record, because they waited together.
//!
//! Body: entries, one behind the other until the end.
//! ```text
//!  0     2       3     5
//! | len | flags | aux | frame of `len` bytes
//! ```
//! `flags` and `aux` are what they are in the head of a frame that travels alone.

use core::ops::Range;

use crate::payload::{Head, PayloadKind};

/// What an entry has before its frame, in bytes.
pub const ENTRY_LEN: usize = 5;
/// Most frames of one bundle.
pub const BUNDLED_MAX: usize = 32;

/// The bytes before a frame of `len` bytes that alone would have this head.
pub const fn encode(head: &Head, len: u16) -> [u8; ENTRY_LEN] {
    let ([a, b], [c, d]) = (len.to_be_bytes(), head.aux.to_be_bytes());
    [a, b, head.flags, c, d]
}

/// The entry that begins at `at`: the head its frame would have alone, and where the frame is.
/// `None` if it does not end within the body.
pub fn entry(body: &[u8], at: usize) -> Option<(Head, Range<usize>)> {
    let (&[a, b, flags, c, d], rest) = body.get(at..)?.split_first_chunk::<ENTRY_LEN>()?;
    let len = usize::from(u16::from_be_bytes([a, b]));
    let start = at + ENTRY_LEN;
    (len <= rest.len()).then_some((
        Head {
            kind: PayloadKind::Frame,
            flags,
            aux: u16::from_be_bytes([c, d]),
        },
        start..start + len,
    ))
}

#[cfg(test)]
mod tests {
    extern crate alloc;
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn entries_come_back_and_end_within_the_body() {
        let head = Head {
            flags: 3,
            aux: 34,
            ..Head::new(PayloadKind::Frame)
        };
        let mut body: Vec<u8> = Vec::new();
        for frame in [&[7; 60][..], &[], &[8; 20]] {
            body.extend(encode(&head, frame.len() as u16));
            body.extend(frame);
        }
        let (mut at, mut lens) = (0, Vec::new());
        while let Some((own, range)) = entry(&body, at) {
            assert_eq!(own, head);
            lens.push(range.len());
            at = range.end;
        }
        assert_eq!((at, &lens[..]), (body.len(), &[60, 0, 20][..]));
        assert_eq!(entry(&body[..body.len() - 1], 70), None);
        assert_eq!(entry(&body, body.len() - 4), None);
        assert_eq!(entry(&body, usize::MAX), None);
    }
}
