//! The port's parts under a fuzzer: what a virtio header says is inside its frame, a cut loses and
//! adds nothing, and of what was joined a cut makes the same frames again.

use std::collections::BTreeMap;
use std::io::IoSlice;

use rmesh_wire::payload::PartialChecksum;

use super::checksum::{add, complete, is_equal, sum};
use super::coalesce::{Candidate, Coalescer};
use super::offload::{CutKind, Offload, VIRTIO_HEADER_LEN};
use super::segment::Segment;
use super::split::{HEADERS_MAX, PIECES_MAX, Splitter, network};

/// Frames one input may hold.
const FRAMES_MAX: usize = 128;

/// A virtio header, and a frame that it is of.
pub(crate) fn virtio_header(bytes: &[u8]) {
    let Some((header, frame)) = bytes.split_first_chunk::<VIRTIO_HEADER_LEN>() else {
        return;
    };
    let Some(offload) = Offload::decode(header, frame.len()) else {
        return;
    };
    let again = Offload::decode(&offload.encode(), frame.len());
    assert_eq!(again, Some(offload), "it does not come back");
    let partial = offload.checksum;
    assert!(partial.is_none_or(|at| at.start >= 14 && at.field() + 2 <= frame.len()));
    assert!(
        offload
            .cut
            .is_none_or(|cut| cut.piece_len > 0 && partial.is_some())
    );
    if let Some(partial) = partial {
        assert!(complete(&mut frame.to_vec(), partial), "outside the frame");
    }
}

/// A super-frame behind its virtio header: each piece is a frame in itself, and together they have
/// the payload of the whole.
pub(crate) fn pieces(bytes: &[u8]) {
    let Some((header, whole)) = bytes.split_first_chunk::<VIRTIO_HEADER_LEN>() else {
        return;
    };
    let offload = Offload::decode(header, whole.len()).unwrap_or_default();
    let (Some(mut splitter), Some(partial), Some(cut)) = (
        Splitter::new(whole, &offload),
        offload.checksum,
        offload.cut,
    ) else {
        return;
    };
    let transport = usize::from(partial.start);
    let (mut at, mut count, mut is_last) = (None, 0, false);
    while let Some((headers, piece)) = splitter.next() {
        assert!(!is_last, "a piece behind a short one");
        let header_len = headers.len();
        let from = at.unwrap_or(header_len);
        assert!((transport..=HEADERS_MAX).contains(&header_len));
        assert!((1..=usize::from(cut.piece_len)).contains(&piece.len()));
        assert_eq!(
            whole.get(from..from + piece.len()),
            Some(piece),
            "other bytes"
        );
        assert_eq!(headers[..14], whole[..14], "other ends");
        is_last = piece.len() < usize::from(cut.piece_len);
        let frame = [headers, piece].concat();
        check_piece(&frame, whole, partial, cut.kind);
        if cut.kind != CutKind::Udp {
            let number = |bytes: &[u8]| bytes[transport + 4..].first_chunk().copied();
            let [own, first] = [&frame, whole].map(|bytes| number(bytes).map(u32::from_be_bytes));
            let offset = (from - header_len) as u32;
            assert_eq!(
                own,
                first.map(|first| first.wrapping_add(offset)),
                "the sequence"
            );
        }
        (at, count) = (Some(from + piece.len()), count + 1);
    }
    assert!((1..=PIECES_MAX).contains(&count));
}

/// A piece's lengths are its own, and its checksum, once complete, is right if that of the whole
/// would be.
fn check_piece(piece: &[u8], whole: &[u8], partial: PartialChecksum, kind: CutKind) {
    let (network, ether_type) = network(piece).expect("headers that could be cut");
    let transport = usize::from(partial.start);
    let field = |bytes: &[u8], at: usize| {
        let field = bytes.get(at..at + 2).and_then(|field| field.first_chunk());
        u16::from_be_bytes(*field.expect("a field of the headers"))
    };
    let len = piece.len() - network;
    if ether_type == 0x0800 {
        assert_eq!(usize::from(field(piece, network + 2)), len);
        let checksum = sum(&piece[network..transport]);
        assert!(is_equal(checksum, 0), "the checksum of IPv4");
    } else {
        assert_eq!(usize::from(field(piece, network + 4)), len - 40);
    }
    let own_len = piece.len() - transport;
    if kind == CutKind::Udp {
        assert_eq!(usize::from(field(piece, transport + 4)), own_len);
    }
    // The pseudo header's sum is that of the whole, but for the length in it.
    let of_whole = match ether_type {
        0x0800 => usize::from(field(whole, network + 2)) + network - transport,
        _ => usize::from(field(whole, network + 4)) + network + 40 - transport,
    };
    let [own, others] = [(piece, own_len), (whole, of_whole)]
        .map(|(bytes, len)| add(field(bytes, partial.field()), !(len as u16)));
    assert!(is_equal(own, others), "the checksum");
}

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
    let (mut came, mut flows) = (0, Flows::new());
    let write = |parts: &[IoSlice<'_>], offload: &Offload, count: usize| {
        let whole: Vec<u8> = parts.iter().flat_map(|part| part.to_vec()).collect();
        assert_eq!(cut_again(&whole, offload, &mut flows), count);
        came += count;
    };
    let candidate = |number: u16| frames.get(usize::from(number)).copied();
    Coalescer::default().write_all(frames.len() as u16, |_| true, candidate, write);
    assert_eq!(came, frames.len(), "a frame lost or doubled");
    let mut before = Flows::new();
    for Candidate { frame, checksum } in &frames {
        put(&mut before, frame, *checksum);
    }
    assert!(
        before == flows,
        "a frame changed, or overtook one of its flow"
    );
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

/// Frames in their order, by what is the same in a flow.
type Flows = BTreeMap<Vec<u8>, Vec<(Vec<u8>, Option<u16>)>>;

/// Cuts what was written, as whoever gets it would; gives the number of pieces.
fn cut_again(whole: &[u8], offload: &Offload, flows: &mut Flows) -> usize {
    if offload.cut.is_none() {
        put(flows, whole, offload.checksum);
        return 1;
    }
    let mut count = 0;
    if let Some(mut splitter) = Splitter::new(whole, offload) {
        while let Some((headers, piece)) = splitter.next() {
            put(flows, &[headers, piece].concat(), offload.checksum);
            count += 1;
        }
    }
    count
}

/// Adds a frame without what need not come back as it was: numbers of IPv4 packets that nobody may
/// fragment, with the header's checksum, and which of its two zeros a checksum has.
fn put(flows: &mut Flows, frame: &[u8], checksum: Option<PartialChecksum>) {
    let mut frame = frame.to_vec();
    let segment = Segment::parse(&frame, checksum);
    let flow = match segment {
        Some(segment) => {
            let is_v4 = segment.transport == 34;
            if is_v4 && segment.base_sum.is_some() {
                frame[24..26].fill(0);
            }
            if is_v4 && frame[20] & 0x40 != 0 {
                frame[18..20].fill(0);
            }
            let addresses = if is_v4 { 26 } else { 22 };
            let protocol = [segment.kind as u8];
            [
                &frame[..14],
                &protocol,
                &frame[addresses..segment.transport + 4],
            ]
            .concat()
        }
        None => frame.get(..12).unwrap_or(&frame).to_vec(),
    };
    let mut left = None;
    if let Some(partial) = checksum
        && segment.is_some_and(|segment| segment.base_sum.is_some())
        && let Some(field) = frame.get_mut(partial.field()..partial.field() + 2)
        && let Some(value) = field.first_chunk_mut::<2>()
    {
        left = Some(u16::from_be_bytes(*value)).map(|sum| sum % 0xffff);
        *value = [0; 2];
    }
    flows.entry(flow).or_default().push((frame, left));
}
