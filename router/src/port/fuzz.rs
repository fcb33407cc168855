//! Joining under a fuzzer: whatever comes, a cut gives as many frames back as were joined.

use std::io::IoSlice;

use rmesh_wire::payload::PartialChecksum;

use super::coalesce::{Candidate, Coalescer};
use super::offload::Offload;
use super::split::Splitter;

/// Frames one input may hold.
const FRAMES_MAX: usize = 128;

/// Frames of a peer: each after a length of 16 bits, whose highest bit says that its checksum is
/// partial; then a byte tells where it begins and one where its field is.
pub(crate) fn joined(mut bytes: &[u8]) {
    let mut frames = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk::<2>()
        && frames.len() < FRAMES_MAX
    {
        let len = u16::from_be_bytes(*len);
        let (partial, rest) = match rest {
            [start, offset, rest @ ..] if len & 0x8000 != 0 => {
                let (start, offset) = (u16::from(*start), u16::from(*offset));
                (Some(PartialChecksum { start, offset }), rest)
            }
            rest => (None, rest),
        };
        let (frame, rest) = rest.split_at(rest.len().min(usize::from(len & 0x7fff)));
        let checksum = partial.filter(|partial| partial.fits(frame.len()));
        frames.push(Candidate { frame, checksum });
        bytes = rest;
    }
    let mut came = 0;
    let write = |parts: &[IoSlice<'_>], offload: &Offload, count: usize| {
        let whole: Vec<u8> = parts.iter().flat_map(|part| part.to_vec()).collect();
        assert_eq!(count_pieces(&whole, offload), count);
        came += count;
    };
    let candidate = |number: u16| frames.get(usize::from(number)).copied();
    Coalescer::default().write_all(frames.len() as u16, |_| true, candidate, write);
    assert_eq!(came, frames.len(), "a frame lost or doubled");
}

/// A frame whose opening of a TCP connection, if it is one, is clamped to the length in front of it;
/// the highest bit says that its checksum is partial.
pub(crate) fn opening(bytes: &[u8]) {
    let Some((first, frame)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let (word, mut frame) = (u16::from_be_bytes(*first), frame.to_vec());
    let before = frame.clone();
    let Some(opening) = super::mss::opening(&frame) else {
        return;
    };
    let partial = PartialChecksum {
        start: 34,
        offset: 16,
    };
    let partial = (word & 0x8000 != 0).then_some(partial);
    let len_max = usize::from(word & 0x7fff);
    opening.clamp(&mut frame, partial, len_max);
    let changed = before.iter().zip(&frame).filter(|(a, b)| a != b).count();
    assert!(changed <= 4 && before.len() == frame.len());
    assert!(!opening.clamp(&mut frame, partial, len_max), "it fits now");
}

fn count_pieces(whole: &[u8], offload: &Offload) -> usize {
    if offload.cut.is_none() {
        return 1;
    }
    let mut count = 0;
    if let Some(mut splitter) = Splitter::new(whole, offload) {
        while splitter.next().is_some() {
            count += 1;
        }
    }
    count
}
