use super::*;
use crate::port::checksum::is_equal;
use proptest::prelude::*;

/// A packet with `len` bytes behind its header, between two hosts.
fn packet(is_v4: bool, tags: usize, protocol: u8, len: usize) -> Vec<u8> {
    let tags = [0x81, 0, 0, 7].repeat(tags);
    let payload: Vec<u8> = (0..len).map(|n| n as u8 | 0x80).collect();
    let header = match is_v4 {
        true => {
            let [high, low] = (len as u16 + 20).to_be_bytes();
            let start = [0x45, 0, high, low, 0, 9, 0x40, 0, 64, protocol, 0, 0];
            [&start[..], &[10, 32, 0, 1, 10, 32, 0, 2]].concat()
        }
        false => {
            let [high, low] = (len as u16).to_be_bytes();
            let start = [0x60, 0, 0, 0, high, low, protocol, 64];
            [&start[..], &[0xfd; 15], &[1], &[0xfd; 15], &[2]].concat()
        }
    };
    let kind: &[u8] = if is_v4 { &[8, 0] } else { &[0x86, 0xdd] };
    [
        &[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1],
        &tags[..],
        kind,
        &header,
        &payload,
    ]
    .concat()
}

fn told(frame: &[u8], frame_len_max: usize) -> Option<Vec<u8>> {
    let now = Instant::now();
    let mut too_big = TooBig::new(now);
    let message = too_big.message(&[frame], frame_len_max, now);
    message.map(<[u8]>::to_vec)
}

/// Checks everything about a message that a receiver does; gives the MTU and the quotation.
fn parse(message: &[u8], frame: &[u8]) -> (usize, Vec<u8>) {
    let (at, kind) = network(message).unwrap();
    assert_eq!(message[..6], frame[6..12], "to the sender");
    assert_eq!(message[6..12], frame[..6], "as from the destination");
    assert_eq!(message[12..at], frame[12..at], "the same tags");
    let (ip, packet) = (&message[at..], &frame[at..]);
    let long = |at: usize| usize::from(u16::from_be_bytes([ip[at], ip[at + 1]]));
    if kind == 0x0800 {
        assert_eq!((ip[0], ip[9], long(2)), (0x45, 1, ip.len()));
        assert!(is_equal(sum(&ip[..20]), 0) && is_equal(sum(&ip[20..]), 0));
        assert_eq!(
            (&ip[12..16], &ip[16..20]),
            (&packet[16..20], &packet[12..16])
        );
        assert_eq!((ip[20], ip[21], long(24)), (3, 4, 0));
        assert!(ip.len() <= 576);
        (long(26), ip[28..].to_vec())
    } else {
        assert_eq!((ip[0] >> 4, ip[6], long(4)), (6, 58, ip.len() - 40));
        let pseudo = add(long(4) as u16, 58);
        assert!(is_equal(add(pseudo, sum(&ip[8..])), 0));
        assert_eq!((&ip[8..24], &ip[24..40]), (&packet[24..40], &packet[8..24]));
        assert_eq!((ip[40], ip[41], long(44)), (2, 0, 0));
        assert!(ip.len() <= 1_280);
        (long(46), ip[48..].to_vec())
    }
}

#[test]
fn a_message_is_whole_and_says_what_fits() {
    for (is_v4, tags) in [(true, 0), (true, 2), (false, 0), (false, 1)] {
        for len in [1_400, 8_000] {
            let frame = packet(is_v4, tags, 17, len);
            let message = told(&frame, 1_350 + tags * 4).unwrap();
            let (mtu, quoted) = parse(&message, &frame);
            assert_eq!(mtu, 1_336);
            let at = 14 + tags * 4;
            assert!(quoted.len() >= 28 && frame[at..].starts_with(&quoted));
        }
    }
    // IPv6 carries 1,280 everywhere; what is longer is told, and nothing less is asked for.
    assert!(told(&packet(false, 0, 17, 1_240), 1_000).is_none());
    let frame = packet(false, 0, 17, 1_241);
    assert_eq!(parse(&told(&frame, 1_000).unwrap(), &frame).0, 1_280);
}

#[test]
fn who_must_not_be_told_is_not() {
    let fits = packet(true, 0, 17, 1_316);
    assert!(told(&fits, 1_350).is_none() && told(&fits, 1_349).is_some());
    // Offset, value: may be fragmented, not the first fragment, not from one host, not to one,
    // not IPv4 at all.
    let changes: [&[(usize, u8)]; 6] = [
        &[(20, 0)],
        &[(21, 5)],
        &[(26, 0)],
        &[(26, 224)],
        &[(30, 255)],
        &[(14, 0x65)],
    ];
    for change in changes {
        let mut frame = packet(true, 0, 17, 1_400);
        change.iter().for_each(|(at, value)| frame[*at] = *value);
        assert!(told(&frame, 1_350).is_none(), "{change:?}");
    }
    for (is_v4, error, echo) in [(true, 3, 8), (false, 1, 128)] {
        let mut frame = packet(is_v4, 0, if is_v4 { 1 } else { 58 }, 1_400);
        let kind_at = if is_v4 { 34 } else { 54 };
        frame[kind_at] = error;
        assert!(told(&frame, 1_350).is_none(), "no error about an error");
        frame[kind_at] = echo;
        assert!(told(&frame, 1_350).is_some());
    }
    let arp = [&[2; 12][..], &[8, 6], &[0; 1_400]].concat();
    assert!(told(&arp, 1_350).is_none());
}

#[test]
fn a_pair_is_told_once_a_second_and_all_together_no_more_than_allowed() {
    let start = Instant::now();
    let mut too_big = TooBig::new(start);
    let of = |number: u16| {
        let mut frame = packet(true, 0, 17, 1_400);
        frame[28..30].copy_from_slice(&number.to_be_bytes());
        frame
    };
    let mut count = [0, 0];
    for ms in 0..10_000 {
        let now = start + Duration::from_millis(ms);
        count[0] += u32::from(too_big.message(&[&of(1)], 1_350, now).is_some());
    }
    for ms in 10_000..12_000 {
        let now = start + Duration::from_millis(ms);
        for number in 0..20 {
            let frame = of((ms as u16).wrapping_mul(20).wrapping_add(number));
            count[1] += u32::from(too_big.message(&[&frame], 1_350, now).is_some());
        }
    }
    assert_eq!(count[0], 10);
    assert!((400..=502).contains(&count[1]), "{}", count[1]);
}

proptest! {
    /// Headers and payload apart, as a super-frame's pieces are.
    #[test]
    fn parts_tell_the_same_as_the_whole(
        is_v4 in any::<bool>(), len in 1_300usize..3_000, at in 0usize..60, max in 600usize..1_300,
    ) {
        let frame = packet(is_v4, 0, 6, len);
        let now = Instant::now();
        let (a, b) = frame.split_at(at);
        let mut too_big = TooBig::new(now);
        let apart = too_big.message(&[a, b], max, now).map(<[u8]>::to_vec);
        prop_assert_eq!(&apart, &told(&frame, max));
        parse(&apart.unwrap(), &frame);
    }

    #[test]
    fn nonsense_is_told_of_well_or_not_at_all(
        mut frame in prop::collection::vec(any::<u8>(), 0..1_500), v4 in any::<bool>(),
    ) {
        if frame.len() > 14 {
            frame[12..14].copy_from_slice(if v4 { &[8, 0] } else { &[0x86, 0xdd] });
        }
        if let Some(message) = told(&frame, 700) {
            parse(&message, &frame);
        }
    }
}
