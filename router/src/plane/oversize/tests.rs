use super::*;
use crate::port::checksum::complete;
use crate::port::split::Splitter;

/// TCP over IPv4 with `options`; its checksum is partial.
fn segment(flags: u8, options: &[u8], payload_len: usize) -> (Vec<u8>, Offload) {
    let words = (5 + options.len() / 4) as u8;
    let payload: Vec<u8> = (0..payload_len).map(|n| (n * 7 / 8) as u8).collect();
    let total = (40 + options.len() + payload_len) as u16;
    let [high, low] = total.to_be_bytes();
    let ethernet = [&[2; 12][..], &[8, 0]].concat();
    let mut ip = [
        0x45, 0, high, low, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    set_header_checksum(&mut ip);
    let mut tcp = [
        0,
        1,
        0,
        2,
        0,
        0,
        0,
        9,
        0,
        0,
        0,
        1,
        words << 4,
        flags,
        9,
        9,
        0,
        0,
        0,
        0,
    ];
    let pseudo = 6 + 20 + options.len() as u16 + payload_len as u16 + 2 * 0x0a00 + 3;
    tcp[16..18].copy_from_slice(&pseudo.to_be_bytes());
    let checksum = PartialChecksum {
        start: 34,
        offset: 16,
    };
    let offload = Offload {
        checksum: Some(checksum),
        cut: None,
    };
    (
        [&ethernet[..], &ip, &tcp, options, &payload].concat(),
        offload,
    )
}

fn set_header_checksum(ip: &mut [u8]) {
    ip[10..12].fill(0);
    let checksum = !sum(ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// The frames that come out, their checksums complete.
fn pieces(frame: &[u8], offload: &Offload) -> Vec<Vec<u8>> {
    let partial = offload.checksum.unwrap();
    let mut splitter = Splitter::new(frame, offload).unwrap();
    let mut pieces = Vec::new();
    while let Some((headers, piece)) = splitter.next() {
        let mut whole = [headers, piece].concat();
        assert!(complete(&mut whole, partial));
        pieces.push(whole);
    }
    pieces
}

#[test]
fn a_long_segment_becomes_two_right_ones_that_hold_the_same_bytes() {
    let (frame, offload) = segment(0x18, &[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8], 1_276);
    assert_eq!(fit(&frame, &offload, frame.len()), offload, "it fits");
    let fitted = fit(&frame, &offload, 1_200);
    let pieces = pieces(&frame, &fitted);
    let lens: Vec<usize> = pieces.iter().map(Vec::len).collect();
    assert_eq!(lens, [1_200, 66 + 1_276 - (1_200 - 66)]);
    let payload: Vec<u8> = pieces
        .iter()
        .flat_map(|piece| piece[66..].to_vec())
        .collect();
    assert_eq!(payload, frame[66..]);
    for piece in &pieces {
        use crate::port::checksum::{add, is_equal, sum};
        let pseudo = add(sum(&piece[26..34]), 6 + (piece.len() - 34) as u16);
        assert!(is_equal(add(sum(&piece[34..]), pseudo), 0));
    }
    assert_eq!(
        (pieces[0][47], pieces[1][47]),
        (0x10, 0x18),
        "pushed at the end"
    );
    assert_eq!(pieces[1][38..42], (9u32 + 1_200 - 66).to_be_bytes());
}

#[test]
fn a_super_frame_is_cut_shorter_and_only_as_short_as_needed() {
    let (frame, offload) = segment(0x10, &[], 20_000);
    let cut = |piece_len| Offload {
        cut: Some(Cut {
            kind: CutKind::Tcp4,
            piece_len,
            header_len: 54,
        }),
        ..offload
    };
    assert_eq!(
        fit(&frame, &cut(1_146), 1_200),
        cut(1_146),
        "no copy is changed"
    );
    assert_eq!(fit(&frame, &cut(1_400), 1_200), cut(1_146));
    let all = pieces(&frame, &fit(&frame, &cut(1_400), 1_200));
    assert!(all.iter().all(|piece| piece.len() <= 1_200));
    assert_eq!(
        all.iter().map(|piece| piece.len() - 54).sum::<usize>(),
        20_000
    );
    let datagrams = Offload {
        cut: Some(Cut {
            kind: CutKind::Udp,
            ..cut(1_400).cut.unwrap()
        }),
        ..offload
    };
    assert_eq!(
        fit(&frame, &datagrams, 1_200),
        datagrams,
        "datagrams stay whole"
    );
}

#[test]
fn what_must_stay_whole_does() {
    for flags in [0x12, 0x14, 0x30, 0x08] {
        let (frame, offload) = segment(flags, &[], 1_300);
        assert_eq!(fit(&frame, &offload, 1_200), offload, "{flags:x}");
    }
    let signature = [&[1, 1, 19, 18][..], &[7; 16]].concat();
    let (frame, offload) = segment(0x10, &signature, 1_300);
    assert_eq!(fit(&frame, &offload, 1_200), offload);
    let (mut frame, offload) = segment(0x10, &[], 1_300);
    let none = Offload::default();
    assert_eq!(fit(&frame, &none, 1_200), none, "its checksum is whole");
    assert_eq!(fit(&frame, &offload, 300), offload, "the path is tiny");
    assert_ne!(fit(&frame, &offload, 1_200), offload);
    frame[24] ^= 1;
    assert_eq!(fit(&frame, &offload, 1_200), offload, "a wrong header");
    frame[20] = 0x20;
    set_header_checksum(&mut frame[14..34]);
    assert_eq!(fit(&frame, &offload, 1_200), offload, "a fragment");
    (frame[20], frame[23]) = (0, 17);
    set_header_checksum(&mut frame[14..34]);
    assert_eq!(fit(&frame, &offload, 1_200), offload, "not TCP");
}
