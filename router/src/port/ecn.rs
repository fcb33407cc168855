//! The traffic class of a frame across the tunnel: congestion marks as RFC 6040 has them, code points as the
//! uniform model of RFC 2983 does on the way in; on the way out the frame keeps its own.

/// Congestion was met (RFC 3168 section 5): both bits of the field.
pub(crate) const CE: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_0: u8 = 0b10;
const ECT_1: u8 = 0b01;
const ETHERNET_LEN: usize = 14;
const VLAN_TAG_LEN: usize = 4;
const IPV4_LEN_MIN: usize = 20;
const IPV6_LEN: usize = 40;

enum Network {
    V4(usize),
    V6(usize),
}

/// Where the IP header of a frame begins, behind at most one VLAN tag.
fn network(frame: &[u8]) -> Option<Network> {
    let kind = |at: usize| frame.get(at..).and_then(|rest| rest.first_chunk::<2>());
    let (ethertype, start) = match kind(12)? {
        [0x81, 0x00] => (kind(12 + VLAN_TAG_LEN)?, ETHERNET_LEN + VLAN_TAG_LEN),
        other => (other, ETHERNET_LEN),
    };
    let (version, len) = match ethertype {
        [0x08, 0x00] => (4, IPV4_LEN_MIN),
        [0x86, 0xdd] => (6, IPV6_LEN),
        _ => return None,
    };
    let first = *frame.get(start..start + len)?.first()?;
    match (first >> 4 == version, version) {
        (false, _) => None,
        (true, 4) => Some(Network::V4(start)),
        (true, _) => Some(Network::V6(start)),
    }
}

/// The traffic class of a frame: code point and congestion field; 0 if it is not IP.
pub(crate) fn class_of(frame: &[u8]) -> u8 {
    match network(frame) {
        Some(Network::V4(at)) => frame.get(at + 1).copied().unwrap_or(0),
        Some(Network::V6(at)) => match frame.get(at..at + 2) {
            Some([first, second]) => first << 4 | second >> 4,
            _ => 0,
        },
        None => 0,
    }
}

/// Carries the congestion mark of the datagram a frame came in over to the frame (RFC 6040 section 4.2,
/// figure 4); false if the frame has to be dropped, since its ends would not understand the mark.
pub(crate) fn leave_tunnel(frame: &mut [u8], outer: u8) -> bool {
    let outer = outer & CE;
    if outer == NOT_ECT || outer == ECT_0 {
        return true;
    }
    let class = class_of(frame);
    let marked = match (class & CE, outer) {
        (NOT_ECT, CE) => return network(frame).is_none(),
        (NOT_ECT, _) => return true,
        (ECT_0, ECT_1) => ECT_1,
        (_, CE) => CE,
        (inner, _) => inner,
    };
    let new = (class & !CE) | marked;
    if new != class {
        set_class(frame, new);
    }
    true
}

fn set_class(frame: &mut [u8], class: u8) {
    match network(frame) {
        Some(Network::V4(at)) => {
            let Some(header) = frame.get_mut(at..at + IPV4_LEN_MIN) else {
                return;
            };
            let word = |header: &[u8], at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
            let before = word(header, 0);
            header[1] = class;
            // RFC 1624, equation 3: a wrong checksum stays as wrong as it was.
            let sum =
                u32::from(!word(header, 10)) + u32::from(!before) + u32::from(word(header, 0));
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = (sum & 0xffff) + (sum >> 16);
            header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        }
        Some(Network::V6(at)) => {
            if let Some([first, second]) = frame.get_mut(at..at + 2) {
                *first = *first & 0xf0 | class >> 4;
                *second = *second & 0x0f | class << 4;
            }
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(is_v6: bool, tagged: bool, class: u8, rest: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        if tagged {
            frame.extend([0x81, 0, 0, 7]);
        }
        let start = frame.len() + 2;
        frame.extend(if is_v6 { [0x86, 0xdd] } else { [8, 0] });
        let mut header = vec![0; if is_v6 { IPV6_LEN } else { IPV4_LEN_MIN }];
        for (byte, other) in header.iter_mut().zip(rest) {
            *byte = *other;
        }
        if is_v6 {
            header[0] = 0x60 | class >> 4;
            header[1] = class << 4 | header[1] & 0x0f;
        } else {
            (header[0], header[1]) = (0x45, class);
        }
        frame.extend(header);
        frame.extend([9; 8]);
        assert!(frame.len() > start);
        frame
    }

    fn sum(header: &[u8]) -> u16 {
        let words = header
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
        let sum: u32 = words.sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        ((sum & 0xffff) + (sum >> 16)) as u16
    }

    #[test]
    fn every_pair_of_fields_gives_what_rfc_6040_says() {
        // Rows: the frame's field; columns: the datagram's Not-ECT, ECT(0), ECT(1), CE. None: dropped.
        let table = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE); 4]),
        ];
        for (inner, row) in table {
            for (outer, expected) in [NOT_ECT, ECT_0, ECT_1, CE].into_iter().zip(row) {
                for (is_v6, tagged) in [(false, false), (false, true), (true, false), (true, true)]
                {
                    let mut bytes = frame(is_v6, tagged, 0xb8 | inner, &[]);
                    let kept = leave_tunnel(&mut bytes, 0x28 | outer);
                    let left = kept.then(|| class_of(&bytes));
                    let expected = expected.map(|field| 0xb8 | field);
                    assert_eq!(left, expected, "{inner:02b} {outer:02b}");
                }
            }
        }
        let mut arp = [&[2; 12][..], &[8, 6], &[0; 28]].concat();
        assert!(
            leave_tunnel(&mut arp, CE) && class_of(&arp) == 0,
            "no field, no mark"
        );
    }

    proptest! {
        #[test]
        fn only_the_field_changes_and_a_checksum_stays_as_right_as_it_was(
            is_v6: bool, tagged: bool, class: u8, outer: u8, right: bool,
            rest in prop::collection::vec(any::<u8>(), 40),
        ) {
            let mut before = frame(is_v6, tagged, class, &rest);
            let start = if tagged { 18 } else { 14 };
            if !is_v6 && right {
                before[start + 10..start + 12].fill(0);
                let checksum = !sum(&before[start..start + 20]);
                before[start + 10..start + 12].copy_from_slice(&checksum.to_be_bytes());
            }
            let mut after = before.clone();
            if leave_tunnel(&mut after, outer) {
                prop_assert_eq!(class_of(&after) & !CE, class & !CE);
                if !is_v6 {
                    let sums = [&before, &after].map(|frame| sum(&frame[start..start + 20]));
                    prop_assert_eq!(sums[0] % 0xffff, sums[1] % 0xffff);
                }
            }
            let changed = before.iter().zip(&after).enumerate().filter(|(_, (a, b))| a != b);
            for (at, _) in changed {
                let checksum = !is_v6 && (start + 10..start + 12).contains(&at);
                prop_assert!(at == start + 1 || checksum, "byte {}", at);
            }
        }

        #[test]
        fn any_bytes_are_taken(mut bytes in prop::collection::vec(any::<u8>(), 0..80), outer: u8) {
            let len = bytes.len();
            class_of(&bytes);
            leave_tunnel(&mut bytes, outer);
            prop_assert_eq!(bytes.len(), len);
        }
    }
}
