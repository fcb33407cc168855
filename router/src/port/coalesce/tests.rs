use std::io::IoSlice;

use proptest::prelude::*;

use super::super::checksum;
use super::super::split::Splitter;
use super::*;

/// How a flow's frames are made.
#[derive(Debug, Clone)]
struct Recipe {
    kind: CutKind,
    is_v4: bool,
    piece_len: u16,
    payload_len: usize,
    options_len: usize,
    identification: u16,
    sequence: u32,
    flags: u8,
    class: u8,
}

fn recipes() -> impl Strategy<Value = Recipe> {
    let numbers = (any::<u16>(), any::<u32>(), any::<u8>());
    (
        0..4u8,
        8u16..2_000,
        1usize..60_000,
        0usize..=10,
        numbers,
        any::<bool>(),
    )
        .prop_map(
            |(kind, piece_len, payload_len, words, (identification, sequence, class), pushed)| {
                let (kind, is_v4) = match kind {
                    0 => (CutKind::Tcp4, true),
                    1 => (CutKind::Tcp6, false),
                    2 => (CutKind::Udp, true),
                    _ => (CutKind::Udp, false),
                };
                let is_udp = kind == CutKind::Udp;
                Recipe {
                    kind,
                    is_v4,
                    piece_len,
                    payload_len: payload_len.min(usize::from(piece_len) * PIECES_MAX),
                    options_len: if is_udp { 0 } else { words * 4 },
                    identification,
                    sequence,
                    flags: 0x10 | if pushed { 0x08 } else { 0 },
                    class,
                }
            },
        )
}

impl Recipe {
    fn checksum(&self) -> PartialChecksum {
        PartialChecksum {
            start: if self.is_v4 { 34 } else { 54 },
            offset: if self.kind == CutKind::Udp { 6 } else { 16 },
        }
    }

    fn header_len(&self) -> usize {
        let own = if self.kind == CutKind::Udp { 8 } else { 20 };
        usize::from(self.checksum().start) + own + self.options_len
    }

    fn offload(&self) -> Offload {
        Offload {
            checksum: Some(self.checksum()),
            cut: Some(Cut {
                kind: self.kind,
                piece_len: self.piece_len,
                header_len: self.header_len() as u16,
            }),
        }
    }

    /// A super-frame as a sending kernel makes it, with the pseudo header's sum for a checksum.
    fn frame(&self) -> Vec<u8> {
        let start = usize::from(self.checksum().start);
        let mut frame = vec![0; self.header_len() + self.payload_len];
        let transport_len = (frame.len() - start) as u16;
        frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
        let protocol = if self.kind == CutKind::Udp { 17 } else { 6 };
        if self.is_v4 {
            frame[12..16].copy_from_slice(&[8, 0, 0x45, self.class]);
            put(&mut frame, 16, transport_len + 20);
            put(&mut frame, 18, self.identification);
            frame[20..24].copy_from_slice(&[0, 0, 64, protocol]);
            frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
            let sum = !checksum::sum(&frame[14..34]);
            put(&mut frame, 24, sum);
        } else {
            frame[12..15].copy_from_slice(&[0x86, 0xdd, 0x60 | self.class >> 4]);
            put(&mut frame, 18, transport_len);
            frame[20..22].copy_from_slice(&[protocol, 64]);
            frame[22..54].copy_from_slice(&[0xfd; 32]);
        }
        let addresses = if self.is_v4 { 26..34 } else { 22..54 };
        let pseudo = add(checksum::sum(&frame[addresses]), u16::from(protocol));
        let pseudo = add(pseudo, transport_len);
        frame[start..start + 4].copy_from_slice(&[0x13, 0x88, 0x13, 0x89]);
        if self.kind == CutKind::Udp {
            put(&mut frame, start + 4, transport_len);
        } else {
            frame[start + 4..start + 8].copy_from_slice(&self.sequence.to_be_bytes());
            frame[start + 8..start + 12].copy_from_slice(&[9; 4]);
            frame[start + 12] = (((20 + self.options_len) / 4) << 4) as u8;
            frame[start + 13] = self.flags;
            let options = start + 20..start + 20 + self.options_len;
            frame[options].fill(1);
        }
        put(&mut frame, self.checksum().field(), pseudo);
        let header_len = self.header_len();
        for (at, byte) in frame[header_len..].iter_mut().enumerate() {
            *byte = (at % 251) as u8;
        }
        frame
    }

    fn pieces(&self) -> Vec<Vec<u8>> {
        cut(&self.frame(), &self.offload())
    }
}

fn cut(frame: &[u8], offload: &Offload) -> Vec<Vec<u8>> {
    let mut splitter = Splitter::new(frame, offload).unwrap();
    let mut pieces = Vec::new();
    while let Some((headers, payload)) = splitter.next() {
        pieces.push([headers, payload].concat());
    }
    pieces
}

/// What is written of these frames: the bytes, what they leave to do, of how many they were made.
fn join(frames: &[(Vec<u8>, Option<PartialChecksum>)]) -> Vec<(Vec<u8>, Offload, usize)> {
    let candidate = |number: u16| {
        let (frame, checksum) = frames.get(usize::from(number))?;
        Some(Candidate {
            frame,
            checksum: *checksum,
        })
    };
    let mut written = Vec::new();
    let write = |parts: &[IoSlice<'_>], offload: &Offload, count: usize| {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.to_vec()).collect();
        written.push((bytes, *offload, count));
    };
    Coalescer::default().write_all(frames.len() as u16, |_| true, candidate, write);
    written
}

fn with(
    checksum: PartialChecksum,
    frames: Vec<Vec<u8>>,
) -> Vec<(Vec<u8>, Option<PartialChecksum>)> {
    let marked = frames.into_iter().map(|frame| (frame, Some(checksum)));
    marked.collect()
}

/// The whole checksum of a frame without regard to which zero was written.
fn completed(frame: &[u8], checksum: PartialChecksum) -> Vec<u8> {
    let mut frame = frame.to_vec();
    assert!(checksum::complete(&mut frame, checksum));
    frame
}

proptest! {
    #[test]
    fn what_was_cut_is_joined_to_what_it_was(recipe in recipes()) {
        let (whole, pieces) = (recipe.frame(), recipe.pieces());
        prop_assert_eq!(pieces.len(), recipe.payload_len.div_ceil(recipe.piece_len.into()));
        let written = join(&with(recipe.checksum(), pieces.clone()));
        prop_assert_eq!(written.len(), 1);
        let (bytes, offload, count) = &written[0];
        prop_assert_eq!(*count, pieces.len());
        prop_assert_eq!(completed(bytes, recipe.checksum()), completed(&whole, recipe.checksum()));
        if pieces.len() > 1 {
            prop_assert_eq!(*offload, recipe.offload());
        }
    }

    #[test]
    fn each_piece_has_a_right_checksum_once_it_is_completed(recipe in recipes()) {
        let start = usize::from(recipe.checksum().start);
        for piece in recipe.pieces() {
            let whole = completed(&piece, recipe.checksum());
            let addresses = if recipe.is_v4 { 26..34 } else { 22..54 };
            let protocol = if recipe.kind == CutKind::Udp { 17 } else { 6 };
            let pseudo = add(checksum::sum(&whole[addresses]), protocol + (whole.len() - start) as u16);
            let total = add(pseudo, checksum::sum(&whole[start..]));
            prop_assert!(checksum::is_equal(total, 0));
            prop_assert!(!recipe.is_v4 || checksum::is_equal(checksum::sum(&whole[14..34]), 0));
        }
    }

    /// Whatever differs, and whatever is missing or comes twice, cutting what was written gives
    /// the frames that came, in their order.
    #[test]
    fn nothing_is_joined_that_a_cut_would_not_give_back(
        recipe in recipes(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0usize..130, 1u8..), 0..4),
        lost in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        unmarked in prop::option::of(any::<prop::sample::Index>()),
        swapped in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut frames = with(recipe.checksum(), recipe.pieces());
        for (which, at, mask) in damage {
            let (frame, _) = which.get_mut(&mut frames);
            if let Some(byte) = frame.get_mut(at) {
                *byte ^= mask;
            }
        }
        if let Some(which) = unmarked {
            which.get_mut(&mut frames).1 = None;
        }
        if let Some(which) = swapped {
            let at = which.index(frames.len());
            let other = (at + 1) % frames.len();
            frames.swap(at, other);
        }
        for which in lost {
            if frames.len() > 1 {
                frames.remove(which.index(frames.len()));
            }
        }
        let mut again = Vec::new();
        for (bytes, offload, count) in join(&frames) {
            match offload.cut {
                None => again.push((bytes, offload.checksum)),
                Some(_) => {
                    let pieces = cut(&bytes, &offload);
                    prop_assert_eq!(pieces.len(), count);
                    again.extend(with(offload.checksum.unwrap(), pieces));
                }
            }
        }
        let plain = |(frame, checksum): &(Vec<u8>, Option<PartialChecksum>)| match checksum {
            Some(partial) => completed(frame, *partial),
            None => frame.clone(),
        };
        let mut came: Vec<_> = frames.iter().map(plain).collect();
        let mut written: Vec<_> = again.iter().map(plain).collect();
        // Frames of different flows may overtake each other, and damage makes flows.
        came.sort();
        written.sort();
        prop_assert_eq!(came, written);
    }

    #[test]
    fn any_bytes_are_cut_and_joined_without_harm(
        frame in prop::collection::vec(any::<u8>(), 0..300),
        header in any::<[u8; 10]>(),
        is_tcp in any::<bool>(),
        start in 0u16..80,
    ) {
        let mut frame = frame;
        if is_tcp && frame.len() > 54 {
            frame[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
            put(&mut frame, 16, 100);
        }
        if let Some(offload) = Offload::decode(&header, frame.len()) {
            let _ = Splitter::new(&frame, &offload).map(|mut s| while s.next().is_some() {});
        }
        for kind in [CutKind::Tcp4, CutKind::Tcp6, CutKind::Udp] {
            let checksum = PartialChecksum { start, offset: 16 };
            let cut = Cut { kind, piece_len: 7, header_len: 0 };
            let offload = Offload { checksum: Some(checksum), cut: Some(cut) };
            let _ = Splitter::new(&frame, &offload).map(|mut s| while s.next().is_some() {});
        }
        join(&[(frame.clone(), None), (frame, Some(PartialChecksum { start, offset: 16 }))]);
    }
}

fn tcp(payload_len: usize) -> Recipe {
    Recipe {
        kind: CutKind::Tcp4,
        is_v4: true,
        piece_len: 1_000,
        payload_len,
        options_len: 12,
        identification: 0xffff,
        sequence: u32::MAX - 500,
        flags: 0x10,
        class: 0,
    }
}

#[test]
fn a_lost_frame_costs_itself_only() {
    let mut pieces = tcp(5_000).pieces();
    pieces.remove(2);
    let written = join(&with(tcp(0).checksum(), pieces));
    let counts: Vec<_> = written.iter().map(|(_, _, count)| *count).collect();
    assert_eq!(counts, [2, 2]);
}

#[test]
fn pushes_flags_and_what_differs_end_a_run() {
    let counts_of = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut pieces = tcp(4_000).pieces();
        change(&mut pieces[1]);
        let sum = !checksum::sum(&[&pieces[1][14..24], &[0, 0], &pieces[1][26..34]].concat());
        put(&mut pieces[1], 24, sum);
        let written = join(&with(tcp(0).checksum(), pieces));
        written
            .iter()
            .map(|(_, _, count)| *count)
            .collect::<Vec<_>>()
    };
    assert_eq!(counts_of(&|_| ()), [4]);
    assert_eq!(
        counts_of(&|frame| frame[47] |= 0x08),
        [2, 2],
        "PSH ends a run"
    );
    for flag in [0x01, 0x02, 0x04, 0x20, 0x40, 0x80] {
        assert_eq!(counts_of(&|frame| frame[47] |= flag), [1, 1, 2], "{flag:x}");
    }
    let differ = [
        (15, "ECN"),
        (22, "TTL"),
        (42, "acknowledgement"),
        (48, "window"),
        (55, "options"),
    ];
    for (at, what) in differ {
        assert_eq!(counts_of(&|frame| frame[at] ^= 1), [1, 1, 2], "{what}");
    }
    assert_eq!(
        counts_of(&|frame| frame[19] ^= 0x10),
        [1, 1, 2],
        "identification"
    );
}

#[test]
fn flows_are_joined_side_by_side_and_a_flows_order_is_kept() {
    let one = tcp(3_000).pieces();
    let two: Vec<_> = one
        .iter()
        .cloned()
        .map(|mut frame| {
            frame[37] ^= 1;
            let (at, port) = (
                tcp(0).checksum().field(),
                u16::from_be_bytes([frame[50], frame[51]]),
            );
            put(&mut frame, at, port);
            frame
        })
        .collect();
    let mut acknowledgement = one[2][..tcp(0).header_len()].to_vec();
    put(&mut acknowledgement, 16, 52);
    put(&mut acknowledgement, 24, 0);
    let sum = !checksum::sum(&acknowledgement[14..34]);
    put(&mut acknowledgement, 24, sum);
    let mixed = vec![
        one[0].clone(),
        two[0].clone(),
        one[1].clone(),
        two[1].clone(),
        acknowledgement.clone(),
        one[2].clone(),
        two[2].clone(),
    ];
    let written = join(&with(tcp(0).checksum(), mixed));
    let counts: Vec<_> = written
        .iter()
        .map(|(bytes, _, count)| (bytes[37], *count))
        .collect();
    let (a, b) = (one[0][37], two[0][37]);
    assert_eq!(counts, [(a, 2), (a, 1), (b, 3), (a, 1)]);
    assert_eq!(
        written[1].0, acknowledgement,
        "not overtaken by the data before it"
    );
}

#[test]
fn tagged_frames_are_cut_like_others_and_joined_by_nobody() {
    let tagged = |frame: &[u8]| [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat();
    for recipe in [tcp(5_000), v6_of(tcp(5_000))] {
        let checksum = recipe.checksum();
        let moved = PartialChecksum {
            start: checksum.start + 4,
            ..checksum
        };
        let offload = Offload {
            checksum: Some(moved),
            ..recipe.offload()
        };
        let pieces = cut(&tagged(&recipe.frame()), &offload);
        let plain: Vec<_> = recipe.pieces().iter().map(|piece| tagged(piece)).collect();
        assert_eq!(pieces, plain);
        let written = join(&with(moved, pieces));
        assert!(written.iter().all(|(_, _, count)| *count == 1));
        assert_eq!(written.len(), 5);
    }
}

fn v6_of(recipe: Recipe) -> Recipe {
    Recipe {
        kind: CutKind::Tcp6,
        is_v4: false,
        ..recipe
    }
}

#[test]
fn fin_and_push_go_with_the_last_piece_and_cwr_with_the_first() {
    let recipe = Recipe {
        flags: 0x10 | 0x08 | 0x01 | 0x80,
        ..tcp(3_000)
    };
    let flags: Vec<_> = recipe.pieces().iter().map(|piece| piece[47]).collect();
    assert_eq!(flags, [0x90, 0x10, 0x19]);
}

#[test]
fn headers_that_contradict_their_offload_are_not_cut() {
    let recipe = tcp(3_000);
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = recipe.frame();
        change(&mut frame);
        Splitter::new(&frame, &recipe.offload()).is_none()
    };
    assert!(!refused(&|_| ()));
    assert!(refused(&|frame| frame[13] = 0xdd), "not IPv4");
    assert!(
        refused(&|frame| frame[14] = 0x46),
        "options that are not there"
    );
    assert!(
        refused(&|frame| put(frame, 16, 60_000)),
        "longer than the frame"
    );
    assert!(
        refused(&|frame| put(frame, 16, 40)),
        "shorter than its headers"
    );
    assert!(refused(&|frame| frame[46] = 0x40), "less than a TCP header");
    assert!(refused(&|frame| frame.truncate(70)), "cut off");
    let tiny = Recipe {
        piece_len: 1,
        ..tcp(3_000)
    };
    assert!(
        Splitter::new(&tiny.frame(), &tiny.offload()).is_none(),
        "too many pieces"
    );
}
