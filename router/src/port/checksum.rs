//! Internet checksums (RFC 1071) in one's-complement arithmetic, where 0 and 0xffff are one number.

use rmesh_wire::payload::PartialChecksum;

/// One's-complement sum of big-endian 16-bit words; an odd last byte counts as a high one.
#[inline]
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    let halves = |word: &[u8; 8]| {
        let word = u64::from_be_bytes(*word);
        (word >> 32) + (word & 0xffff_ffff)
    };
    // Frames have at most 2^13 words, so this cannot overflow.
    let mut total = halves(&last) + words.iter().map(halves).sum::<u64>();
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    total as u16
}

/// `a + b`.
pub(crate) fn add(a: u16, b: u16) -> u16 {
    let sum = u32::from(a) + u32::from(b);
    (sum + (sum >> 16)) as u16
}

/// `a - b`.
pub(crate) fn subtract(a: u16, b: u16) -> u16 {
    add(a, !b)
}

/// Whether `a` and `b` are the same number.
pub(crate) fn is_equal(a: u16, b: u16) -> bool {
    matches!(subtract(a, b), 0 | 0xffff)
}

/// Computes a checksum that was left partial, as the sending kernel would have; false if it is not
/// inside the frame.
#[must_use]
pub(crate) fn complete(frame: &mut [u8], partial: PartialChecksum) -> bool {
    if !partial.fits(frame.len()) {
        return false;
    }
    let (start, at) = (usize::from(partial.start), partial.field());
    let whole = match !sum(frame.get(start..).unwrap_or_default()) {
        // Zero means "no checksum" to UDP.
        0 => 0xffff,
        other => other,
    };
    let Some(field) = frame.get_mut(at..at + 2) else {
        return false;
    };
    field.copy_from_slice(&whole.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 section 3.
    #[test]
    fn the_rfcs_example() {
        assert_eq!(
            sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            0xddf2
        );
    }

    proptest! {
        #[test]
        fn the_sum_is_that_of_words_one_by_one(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let word = |pair: &[u8]| u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]);
            let slowly = bytes.chunks(2).map(word).fold(0, add);
            prop_assert!(is_equal(sum(&bytes), slowly));
        }

        #[test]
        fn a_completed_frame_sums_to_minus_nothing(
            mut frame in prop::collection::vec(any::<u8>(), 40..200),
            start in 14u16..30,
        ) {
            let partial = PartialChecksum { start, offset: 6 };
            let pseudo = u16::from_be_bytes([frame[partial.field()], frame[partial.field() + 1]]);
            prop_assert!(complete(&mut frame, partial));
            let total = add(sum(&frame[usize::from(start)..]), pseudo);
            prop_assert!(is_equal(total, 0), "{total:x}");
        }
    }
}
