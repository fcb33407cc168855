//! The frames that are carried: headers are right, transport checksums partial where a container leaves them so.

use rmesh_router::port::offload::{Cut, CutKind, Offload};
use rmesh_wire::payload::PartialChecksum;

/// A frame as it is read from the bridge.
pub(crate) type Frame = (Vec<u8>, Offload);

const NETWORK: usize = 14;
const TRANSPORT: usize = NETWORK + 20;
/// A TCP header with time stamps, as nearly every segment has it.
const TCP_LEN: usize = 32;
const UDP_LEN: usize = 8;

/// Longest TCP payload and longest UDP payload of a packet of 1,328 bytes, which containers are told to send.
const TCP_PIECE: usize = 1_328 - 20 - TCP_LEN;
const UDP_PIECE: usize = 1_328 - 20 - UDP_LEN;

/// The MAC of the container at a peer.
pub(crate) fn mac(of: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, of]
}

/// `pieces` full segments of TCP in one, the `number`th of its flow.
pub(crate) fn tcp([from, to]: [u8; 2], pieces: usize, number: usize) -> Frame {
    let (start, len) = (number * pieces * TCP_PIECE, pieces * TCP_PIECE);
    tcp_segment([from, to], 40_000, start as u32, len)
}

/// One segment of TCP, of the flow from this port.
pub(crate) fn tcp_segment([from, to]: [u8; 2], port: u16, start: u32, len: usize) -> Frame {
    let mut frame = ipv4([from, to], 6, TCP_LEN + len);
    frame[TRANSPORT..TRANSPORT + 2].copy_from_slice(&port.to_be_bytes());
    frame[TRANSPORT + 2..TRANSPORT + 4].copy_from_slice(&[0x14, 0x51]);
    frame[TRANSPORT + 4..TRANSPORT + 8].copy_from_slice(&start.to_be_bytes());
    frame[TRANSPORT + 12..TRANSPORT + 14].copy_from_slice(&[(TCP_LEN as u8 / 4) << 4, 0x10]);
    frame[TRANSPORT + 20..TRANSPORT + 24].copy_from_slice(&[1, 1, 8, 10]);
    partial(&mut frame, 6, 16);
    let cut = Cut {
        kind: CutKind::Tcp4,
        piece_len: TCP_PIECE as u16,
        header_len: (TRANSPORT + TCP_LEN) as u16,
    };
    let offload = Offload {
        checksum: Some(place(16)),
        cut: (len > TCP_PIECE).then_some(cut),
    };
    (frame, offload)
}

/// `pieces` full datagrams of UDP in one.
pub(crate) fn udp(ends: [u8; 2], pieces: usize) -> Frame {
    let mut frame = udp_frame(ends, pieces * UDP_PIECE);
    partial(&mut frame, 17, 6);
    let cut = Cut {
        kind: CutKind::Udp,
        piece_len: UDP_PIECE as u16,
        header_len: (TRANSPORT + UDP_LEN) as u16,
    };
    let offload = Offload {
        checksum: Some(place(6)),
        cut: Some(cut),
    };
    (frame, offload)
}

/// A datagram of UDP with nothing left to do: nobody may join it with others.
pub(crate) fn small(ends: [u8; 2], len: usize) -> Frame {
    (udp_frame(ends, len), Offload::default())
}

/// A question about an IPv4 address to everybody (RFC 826).
pub(crate) fn broadcast(from: u8) -> Frame {
    let mut frame = vec![0; 42];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&mac(from));
    frame[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    (frame, Offload::default())
}

fn udp_frame(ends: [u8; 2], len: usize) -> Vec<u8> {
    let mut frame = ipv4(ends, 17, UDP_LEN + len);
    frame[TRANSPORT..TRANSPORT + 4].copy_from_slice(&[0x9c, 0x40, 0x14, 0x51]);
    let field = ((UDP_LEN + len) as u16).to_be_bytes();
    frame[TRANSPORT + 4..TRANSPORT + 6].copy_from_slice(&field);
    frame
}

fn ipv4([from, to]: [u8; 2], protocol: u8, transport_len: usize) -> Vec<u8> {
    let mut frame = vec![0; TRANSPORT + transport_len];
    frame[..6].copy_from_slice(&mac(to));
    frame[6..12].copy_from_slice(&mac(from));
    frame[12..NETWORK + 2].copy_from_slice(&[8, 0, 0x45, 0]);
    let len = (20 + transport_len) as u16;
    frame[NETWORK + 2..NETWORK + 4].copy_from_slice(&len.to_be_bytes());
    frame[NETWORK + 6..NETWORK + 10].copy_from_slice(&[0x40, 0, 64, protocol]);
    frame[NETWORK + 12..NETWORK + 16].copy_from_slice(&[10, 32, 0, from]);
    frame[NETWORK + 16..NETWORK + 20].copy_from_slice(&[10, 32, 0, to]);
    let checksum = !sum(&frame[NETWORK..TRANSPORT]);
    frame[NETWORK + 10..NETWORK + 12].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// Puts in what a host puts in that leaves the rest of the checksum to its network card.
fn partial(frame: &mut [u8], protocol: u8, offset: usize) {
    let mut pseudo = frame[NETWORK + 12..NETWORK + 20].to_vec();
    pseudo.extend([0, protocol]);
    pseudo.extend(((frame.len() - TRANSPORT) as u16).to_be_bytes());
    let at = TRANSPORT + offset;
    frame[at..at + 2].copy_from_slice(&sum(&pseudo).to_be_bytes());
}

fn place(offset: u16) -> PartialChecksum {
    PartialChecksum {
        start: TRANSPORT as u16,
        offset,
    }
}

/// RFC 1071, not inverted.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |&low| u32::from(low)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
