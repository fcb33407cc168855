//! Where things are in a frame, what a network card makes of it, and what it is when nobody looks at
//! how it was cut.

use rmesh_router::port::offload::{CutKind, Offload};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const URG: u8 = 0x20;
pub const CWR: u8 = 0x80;
const FRAGMENT_HEADER: u8 = 44;

/// One's-complement sum (RFC 1071) of big-endian words; never 0 unless all bytes are.
pub fn sum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let words = words.map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
    let mut total: u64 = words.sum();
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    total as u16
}

pub fn field(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// An IP packet in a frame that is all that its headers say.
#[derive(Debug, Clone, Copy)]
pub struct View {
    pub network: usize,
    pub is_v4: bool,
    pub protocol: u8,
    pub transport: usize,
    pub end: usize,
    pub is_fragment: bool,
}

impl View {
    pub fn of(frame: &[u8]) -> Option<View> {
        let mut network = 14;
        while matches!(frame.get(network - 2..network)?, [0x81, 0] | [0x88, 0xa8]) {
            network += 4;
        }
        let packet = frame.get(network..)?;
        let view = match field(frame, network - 2) {
            0x0800 if packet.len() >= 20 && packet[0] >> 4 == 4 => View {
                network,
                is_v4: true,
                protocol: packet[9],
                transport: network + usize::from(packet[0] & 15) * 4,
                end: network + usize::from(field(packet, 2)),
                is_fragment: field(packet, 6) & 0x3fff != 0,
            },
            0x86dd if packet.len() >= 40 && packet[0] >> 4 == 6 => View::of_v6(network, packet)?,
            _ => return None,
        };
        let is_whole = view.transport >= network + 20 && view.transport <= view.end;
        (is_whole && view.end <= frame.len()).then_some(view)
    }

    fn of_v6(network: usize, packet: &[u8]) -> Option<View> {
        let (mut protocol, mut at, mut is_fragment) = (packet[6], 40, false);
        while matches!(protocol, 0 | 43 | 60 | FRAGMENT_HEADER) {
            let header = packet.get(at..at + 8)?;
            is_fragment |= protocol == FRAGMENT_HEADER;
            at += if is_fragment {
                8
            } else {
                8 + usize::from(header[1]) * 8
            };
            protocol = header[0];
            if is_fragment {
                break;
            }
        }
        Some(View {
            network,
            is_v4: false,
            protocol,
            transport: network + at,
            end: network + 40 + usize::from(field(packet, 4)),
            is_fragment,
        })
    }

    fn addresses<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        let (from, len) = if self.is_v4 { (12, 8) } else { (8, 32) };
        &frame[self.network + from..][..len]
    }

    /// What the transport checksum counts beside the transport's bytes.
    pub fn pseudo_sum(&self, frame: &[u8]) -> u16 {
        let len = (self.end - self.transport) as u32;
        let rest = [&len.to_be_bytes()[..], &[0, self.protocol]].concat();
        sum(&[self.addresses(frame), &rest])
    }

    fn tcp(&self, frame: &[u8]) -> Option<Tcp> {
        let header = frame.get(self.transport..self.end)?;
        let is_tcp = self.protocol == TCP && !self.is_fragment && header.len() >= 20;
        let len = usize::from(header.get(12)? >> 4) * 4;
        (is_tcp && (20..=header.len()).contains(&len)).then(|| Tcp {
            payload: self.transport + len,
            sequence: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            flags: header[13],
        })
    }
}

struct Tcp {
    payload: usize,
    sequence: u32,
    flags: u8,
}

/// Which frames must keep their order: those of one connection, all pieces of one packet, all
/// others of one kind between the same two.
pub fn flow(frame: &[u8]) -> Vec<u8> {
    let Some(view) = View::of(frame) else {
        // What only looks like an IP packet may have any queue of a port, by what stands where its addresses
        // would, so each is a flow of its own.
        let is_ip = frame[12..14] == [8, 0] || frame[12..14] == [0x86, 0xdd];
        return [if is_ip { frame } else { &frame[..14] }, b"-"].concat();
    };
    let what = match (view.is_fragment, view.protocol) {
        (true, _) if view.is_v4 => &frame[view.network + 4..view.network + 6],
        (true, _) => &frame[view.transport - 4..view.transport],
        (false, TCP | UDP) if view.end >= view.transport + 4 => {
            &frame[view.transport..view.transport + 4]
        }
        _ => &[],
    };
    let kind = [view.protocol, u8::from(view.is_fragment)];
    [&frame[..view.network], view.addresses(frame), &kind, what].concat()
}

/// The frames that a network card would have sent.
pub fn cut(frame: &[u8], offload: &Offload) -> Vec<Vec<u8>> {
    let Some(partial) = offload.checksum else {
        return vec![frame.to_vec()];
    };
    let complete = |mut piece: Vec<u8>| {
        let whole = !sum(&[&piece[partial.start.into()..]]);
        put(
            &mut piece,
            partial.field(),
            if whole == 0 { 0xffff } else { whole },
        );
        piece
    };
    let Some(cut) = offload.cut else {
        return vec![complete(frame.to_vec())];
    };
    let view = View::of(frame).expect("a super-frame is an IP packet");
    let start = usize::from(partial.start);
    let payload = match cut.kind {
        CutKind::Udp => start + 8,
        CutKind::Tcp4 | CutKind::Tcp6 => view.tcp(frame).expect("a TCP super-frame").payload,
    };
    let whole_len = (view.end - start) as u16;
    let chunks: Vec<&[u8]> = frame[payload..view.end]
        .chunks(cut.piece_len.into())
        .collect();
    let piece = |(number, chunk): (usize, &&[u8])| {
        let mut piece = [&frame[..payload], chunk].concat();
        let len = (piece.len() - start) as u16;
        // The partial checksum has the length in it.
        let base = sum(&[
            &field(frame, partial.field()).to_be_bytes(),
            &(!whole_len).to_be_bytes(),
            &len.to_be_bytes(),
        ]);
        put(&mut piece, partial.field(), base);
        let network_len = (piece.len() - view.network) as u16;
        if view.is_v4 {
            put(&mut piece, view.network + 2, network_len);
            let identification = field(frame, view.network + 4).wrapping_add(number as u16);
            put(&mut piece, view.network + 4, identification);
            put(&mut piece, view.network + 10, 0);
            let checksum = !sum(&[&piece[view.network..start]]);
            put(&mut piece, view.network + 10, checksum);
        } else {
            put(&mut piece, view.network + 4, network_len - 40);
        }
        if cut.kind == CutKind::Udp {
            put(&mut piece, start + 4, len);
        } else {
            let done = (number * usize::from(cut.piece_len)) as u32;
            let at = view
                .tcp(frame)
                .expect("as before")
                .sequence
                .wrapping_add(done);
            piece[start + 4..start + 8].copy_from_slice(&at.to_be_bytes());
            if number > 0 {
                piece[start + 13] &= !CWR;
            }
            if number + 1 < chunks.len() {
                piece[start + 13] &= !(FIN | PSH);
            }
        }
        complete(piece)
    };
    chunks.iter().enumerate().map(piece).collect()
}

/// Takes out what may differ between two frames that are the same to everybody: the identification
/// of a packet that may not be fragmented (RFC 6864), and which of two zeros a right TCP checksum
/// was written as. In place of a checksum is by how much it is wrong.
pub fn normal(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let Some(view) = View::of(&frame) else {
        return frame;
    };
    let error = |sum: u16| if sum == 0xffff { 0 } else { sum };
    if view.is_v4 {
        let wrong = error(sum(&[&frame[view.network..view.transport]]));
        if field(&frame, view.network + 6) & 0x4000 != 0 {
            put(&mut frame, view.network + 4, 0);
        }
        put(&mut frame, view.network + 10, wrong);
    }
    if view.tcp(&frame).is_some() {
        let wrong = error(sum(&[
            &view.pseudo_sum(&frame).to_be_bytes(),
            &frame[view.transport..view.end],
        ]));
        put(&mut frame, view.transport + 16, wrong);
    }
    frame
}

/// Joins what follows on each other in one connection, whoever cut it where. The frames are normal,
/// of one flow, and in order.
pub fn joined(frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for frame in frames {
        match all.last_mut() {
            Some(last) if continues(last, &frame) => append(last, &frame),
            _ => all.push(frame),
        }
    }
    // Lengths mean nothing any more.
    for frame in &mut all {
        if let Some(view) = View::of(frame).filter(|view| view.tcp(frame).is_some()) {
            let len_at = if view.is_v4 { 2 } else { 4 };
            put(frame, view.network + len_at, 0);
        }
    }
    all
}

fn continues(last: &[u8], frame: &[u8]) -> bool {
    let (Some(view), Some(next)) = (View::joined(last), View::of(frame)) else {
        return false;
    };
    let (Some(a), Some(b)) = (view.tcp(last), next.tcp(frame)) else {
        return false;
    };
    let headers = |bytes: &[u8], view: &View, end: usize| {
        let mut headers = bytes[..end].to_vec();
        let len_at = if view.is_v4 { 2 } else { 4 };
        put(&mut headers, view.network + len_at, 0);
        if view.is_v4 {
            put(&mut headers, view.network + 4, 0);
        }
        headers[view.transport + 4..view.transport + 8].fill(0);
        headers[view.transport + 13] &= !(FIN | PSH | CWR);
        headers
    };
    let alone = SYN | RST | URG;
    let is_in_sequence = b.sequence == a.sequence.wrapping_add((last.len() - a.payload) as u32);
    a.flags & (FIN | PSH | alone) == 0
        && b.flags & (CWR | alone) == 0
        && last.len() > a.payload
        && frame.len() > b.payload
        && next.end == frame.len()
        && is_in_sequence
        && headers(last, &view, a.payload) == headers(frame, &next, b.payload)
}

impl View {
    /// Of a frame whose length field is that of its first piece only.
    fn joined(frame: &[u8]) -> Option<View> {
        let view = View::of(frame)?;
        Some(View {
            end: frame.len(),
            ..view
        })
    }
}

fn append(last: &mut Vec<u8>, frame: &[u8]) {
    let (view, next) = (
        View::of(last).expect("looked at"),
        View::of(frame).expect("looked at"),
    );
    let payload = next.tcp(frame).expect("looked at").payload;
    last[view.transport + 13] |= frame[next.transport + 13];
    last.extend_from_slice(&frame[payload..]);
}
