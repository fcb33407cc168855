use super::*;
use crate::port::checksum::{complete, is_equal, sum};
use proptest::prelude::*;

const SYN_ACK: u8 = 0x12;

/// A TCP segment with these options over IPv4 or IPv6, behind `tags` VLAN tags.
fn segment(is_v4: bool, tags: usize, flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    assert_eq!(options.len() % 4, 0);
    let words = (5 + options.len() / 4) as u8;
    let mut tcp = vec![0; 20];
    tcp[..4].copy_from_slice(&[0x30, 0x39, 0, 80]);
    (tcp[12], tcp[13]) = (words << 4, flags);
    let tcp = [&tcp, options, payload].concat();
    let len = (tcp.len() as u16).to_be_bytes();
    let total = (tcp.len() as u16 + 20).to_be_bytes();
    let ip = match is_v4 {
        true => [
            &[0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 6, 0, 0][..],
            &[10, 32, 0, 1, 10, 32, 0, 2],
        ]
        .concat(),
        false => [&[0x60, 0, 0, 0, len[0], len[1], 6, 64][..], &[0xfd; 32]].concat(),
    };
    let kind: &[u8] = if is_v4 { &[8, 0] } else { &[0x86, 0xdd] };
    let tags = [0x81, 0, 0, 7].repeat(tags);
    [&[2; 12], &tags[..], kind, &ip, &tcp].concat()
}

/// What the frame's TCP checksum is wrong by.
fn residue(frame: &[u8], opening: Opening) -> u16 {
    let addresses = match opening.is_v4 {
        true => &frame[opening.network + 12..opening.network + 20],
        false => &frame[opening.network + 8..opening.network + 40],
    };
    let tcp = &frame[opening.transport..];
    add(add(sum(addresses), 6), add(tcp.len() as u16, sum(tcp)))
}

fn partial(opening: Opening) -> PartialChecksum {
    PartialChecksum {
        start: opening.transport as u16,
        offset: CHECKSUM_AT as u16,
    }
}

/// Options as systems send them: the number at an even and at an odd place.
fn options(asked: u16) -> [Vec<u8>; 2] {
    let [high, low] = asked.to_be_bytes();
    [
        vec![
            2, 4, high, low, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7,
        ],
        vec![1, 2, 4, high, low, 1, 1, 0],
    ]
}

#[test]
fn a_syn_and_its_answer_ask_for_what_fits_and_nothing_else_is_touched() {
    for (is_v4, tags) in [(true, 0), (true, 1), (false, 0), (false, 2)] {
        for options in options(1_380) {
            let change = |flags: u8, frame_len: usize| {
                let mut frame = segment(is_v4, tags, flags, &options, b"");
                let before = frame.clone();
                let clamped = opening(&frame)
                    .is_some_and(|opening| opening.clamp(&mut frame, None, frame_len));
                let changed = before.iter().zip(&frame).filter(|(a, b)| a != b).count();
                (clamped, changed, frame)
            };
            let headers = 14 + tags * 4 + if is_v4 { 40 } else { 60 };
            for flags in [SYN, SYN_ACK] {
                assert_eq!(change(flags, headers + 1_380).1, 0, "it fits");
                let (clamped, changed, frame) = change(flags, headers + 1_200);
                assert!(clamped && (2..=4).contains(&changed), "{changed}");
                let found = opening(&frame).unwrap();
                assert_eq!(found.largest(&frame).unwrap().1, 1_200);
            }
            for flags in [0x10, 0x18, 0x11, 0x04, 0xc0] {
                assert_eq!(change(flags, 500).1, 0, "{flags:x} opens nothing");
            }
        }
    }
}

#[test]
fn fragments_other_protocols_and_nonsense_are_left_alone() {
    let syn = segment(true, 0, SYN, &options(1_380)[0], b"");
    assert!(opening(&syn).is_some());
    for (at, value) in [
        (20, 0x20),
        (21, 1),
        (23, 17),
        (14, 0x44),
        (14, 0x65),
        (17, 200),
        (46, 0xf0),
    ] {
        let mut other = syn.clone();
        other[at] = value;
        assert_eq!(opening(&other), None, "{value:x} at {at}");
    }
    for len in 0..syn.len() {
        assert_eq!(opening(&syn[..len]), None, "{len}");
    }
    for options in [
        &[2, 3, 5, 100][..],
        &[5, 0, 2, 4],
        &[0, 2, 4, 5],
        &[8, 200, 2, 4],
    ] {
        let mut frame = segment(true, 0, SYN, options, b"");
        let before = frame.clone();
        assert!(!opening(&frame).unwrap().clamp(&mut frame, None, 100));
        assert_eq!(frame, before);
    }
}

proptest! {
    #[test]
    fn a_right_checksum_stays_right_and_a_wrong_one_stays_wrong(
        is_v4 in any::<bool>(), tags in 0usize..3, asked in any::<u16>(), odd in 0usize..2,
        checksum in any::<u16>(), is_right in any::<bool>(), frame_len in 100usize..2_000,
        payload in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut frame = segment(is_v4, tags, SYN, &options(asked)[odd], &payload);
        let found = opening(&frame).unwrap();
        if is_right {
            let pseudo = residue(&frame, found);
            put(&mut frame, found.transport + CHECKSUM_AT, !pseudo);
            prop_assert!(is_equal(residue(&frame, found), 0));
        } else {
            put(&mut frame, found.transport + CHECKSUM_AT, checksum);
        }
        let before = residue(&frame, found);
        found.clamp(&mut frame, None, frame_len);
        prop_assert!(is_equal(residue(&frame, found), before));
    }

    #[test]
    fn a_partial_checksum_is_completed_to_a_right_one(
        is_v4 in any::<bool>(), asked in 1_000u16..9_000, odd in 0usize..2,
    ) {
        let mut frame = segment(is_v4, 0, SYN, &options(asked)[odd], b"data");
        let found = opening(&frame).unwrap();
        // What the kernel leaves: the sum of the pseudo header.
        let tcp_sum = sum(&frame[found.transport..]);
        let pseudo = subtract(residue(&frame, found), tcp_sum);
        put(&mut frame, found.transport + CHECKSUM_AT, pseudo);
        prop_assert!(found.clamp(&mut frame, Some(partial(found)), 800));
        prop_assert!(complete(&mut frame, partial(found)));
        prop_assert!(is_equal(residue(&frame, found), 0));
    }

    #[test]
    fn any_bytes_at_all_keep_their_length_and_change_in_four_bytes_at_most(
        mut frame in prop::collection::vec(any::<u8>(), 0..120), frame_len in 0usize..2_000,
    ) {
        let before = frame.clone();
        if let Some(found) = opening(&frame) {
            found.clamp(&mut frame, None, frame_len);
        }
        let changed = before.iter().zip(&frame).filter(|(a, b)| a != b).count();
        prop_assert!(changed <= 4 && before.len() == frame.len());
    }
}
