//! Frames of every kind that containers send, made from a seed.

use rmesh_router::port::offload::{Cut, CutKind, Offload};
use rmesh_wire::Mac;
use rmesh_wire::payload::PartialChecksum;

use super::dice::Dice;
use super::packet::{ACK, CWR, FIN, PSH, RST, SYN, TCP, UDP, URG, View, field, put, sum};
use crate::support::mac;

/// MTU of the interfaces.
pub const MTU: usize = 9_216;
/// Longest packet that is no super-frame: with two tags the interface still takes it.
const PACKET_LEN_MAX: usize = MTU - 8;
/// Longest super-frame, Ethernet header included.
const FRAME_LEN_MAX: usize = 65_535;
/// Flows of each run.
const FLOWS: usize = 24;
const ICMP: u8 = 1;
/// Numbered frames that show how far the others have come.
pub const MARKER: [u8; 2] = [0x88, 0xb6];

/// A frame as a container's kernel hands it over.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    pub bytes: Vec<u8>,
    pub offload: Offload,
}

/// What a transport checksum is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sum {
    Partial,
    /// Partial, and wrong once it is completed.
    PartialWrong,
    Right,
    Wrong,
    /// Only of UDP over IPv4.
    Absent,
}

/// What the packets of one connection have in common.
struct Flow {
    to: Mac,
    tags: Vec<u8>,
    is_v4: bool,
    number: u8,
    /// Options of IPv4, or kinds of extension headers of IPv6.
    extra: Vec<u8>,
    tcp_options: Vec<u8>,
    class: u8,
    lifetime: u8,
    may_be_fragmented: bool,
    sequence: u32,
    identification: u16,
}

impl Flow {
    fn new(number: usize, dice: &mut Dice) -> Flow {
        let tag = |kind: [u8; 2], dice: &mut Dice| vec![kind[0], kind[1], dice.byte(), dice.byte()];
        let tags = match dice.range(0, 6) {
            0 => tag([0x81, 0], dice),
            1 => [tag([0x88, 0xa8], dice), tag([0x81, 0], dice)].concat(),
            _ => Vec::new(),
        };
        let is_v4 = number.is_multiple_of(2);
        let extra = match (dice.range(0, 4), is_v4) {
            (0, true) => dice.pick(&[[1, 1, 1, 1], [148, 4, 0, 0]]).to_vec(),
            (0, false) => dice.pick(&[&[0][..], &[60], &[0, 60]]).to_vec(),
            _ => Vec::new(),
        };
        let timestamps = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
        Flow {
            // Everybody's are few: a storm is cut.
            to: if number == FLOWS - 1 {
                Mac::BROADCAST
            } else {
                mac(2)
            },
            tags,
            is_v4,
            number: number as u8,
            extra,
            tcp_options: dice
                .pick(&[&[][..], &timestamps, &[1, 1, 1, 1], &[1; 40]])
                .to_vec(),
            class: dice.byte(),
            lifetime: dice.byte().max(1),
            may_be_fragmented: dice.once_in(2),
            sequence: u32::MAX - dice.range(0, 200_000) as u32,
            identification: dice.range(0, 65_536) as u16,
        }
    }

    /// Bytes before the transport header.
    fn headers_len(&self) -> usize {
        let network = if self.is_v4 {
            20 + self.extra.len()
        } else {
            40 + 8 * self.extra.len()
        };
        14 + self.tags.len() + network
    }

    /// A frame with this transport; `fragment` is the field of IPv4's flags and offset.
    fn frame(&self, protocol: u8, transport: &[u8], fragment: u16) -> Vec<u8> {
        let kind = if self.is_v4 { [8, 0] } else { [0x86, 0xdd] };
        let mut frame = [&self.to.0[..], &mac(1).0, &self.tags, &kind].concat();
        let network = frame.len();
        if self.is_v4 {
            let len = (20 + self.extra.len() + transport.len()) as u16;
            frame.extend([0x45 + (self.extra.len() / 4) as u8, self.class]);
            for word in [len, self.identification, fragment] {
                frame.extend(word.to_be_bytes());
            }
            frame.extend([
                self.lifetime,
                protocol,
                0,
                0,
                10,
                1,
                0,
                self.number,
                10,
                1,
                1,
                self.number,
            ]);
            frame.extend(&self.extra);
            let checksum = !sum(&[&frame[network..]]);
            put(&mut frame, network + 10, checksum);
        } else {
            let len = (8 * self.extra.len() + transport.len()) as u16;
            frame.extend([0x60 | self.class >> 4, self.class << 4, 0, self.number]);
            frame.extend(len.to_be_bytes());
            let mut kinds = self.extra.iter().copied().chain([protocol]);
            frame.extend([kinds.next().unwrap_or_default(), self.lifetime]);
            for end in [1, 2] {
                frame.extend([
                    0xfd,
                    1,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    end,
                    self.number,
                ]);
            }
            // Each is one option of padding.
            kinds.for_each(|next| frame.extend([next, 0, 1, 4, 0, 0, 0, 0]));
        }
        frame.extend(transport);
        frame
    }

    fn fragment_field(&self) -> u16 {
        if self.may_be_fragmented { 0 } else { 0x4000 }
    }

    fn tcp(&mut self, dice: &mut Dice, super_frame: bool) -> Frame {
        let header_len = 20 + self.tcp_options.len();
        let before = self.headers_len();
        let room = PACKET_LEN_MAX - (before - 14) - header_len;
        let (payload_len, piece_len) = if super_frame {
            let most = if dice.once_in(3) { room } else { 1_400 };
            let piece_len = dice.range(200, most + 1);
            let most = FRAME_LEN_MAX - before - header_len;
            (dice.length(piece_len + 1, most), piece_len)
        } else {
            (dice.length(0, room), 0)
        };
        let mut flags = ACK | if dice.once_in(4) { PSH } else { 0 };
        if dice.once_in(8) {
            flags |= dice.pick(&[FIN, CWR, 0x40]);
        }
        if !super_frame && dice.once_in(12) {
            flags |= dice.pick(&[SYN, RST, URG]);
        }
        if dice.once_in(16) {
            self.sequence = self.sequence.wrapping_add(dice.range(1, 100_000) as u32);
        }
        let mut transport = vec![0x13, self.number, 0x14, self.number];
        transport.extend(self.sequence.to_be_bytes());
        transport.extend([9, 9, 9, dice.pick(&[9, 9, 9, 9, 9, 9, 10])]);
        transport.extend([((header_len / 4) << 4) as u8, flags, 0x20, 0, 0, 0, 0, 0]);
        transport.extend(&self.tcp_options);
        transport.extend(dice.bytes(payload_len));
        self.sequence = self.sequence.wrapping_add(payload_len as u32);
        let how = match super_frame {
            true => dice.pick(&[Sum::Partial, Sum::Partial, Sum::Partial, Sum::PartialWrong]),
            false => dice.pick(&[
                Sum::Partial,
                Sum::Partial,
                Sum::Partial,
                Sum::Right,
                Sum::Wrong,
                Sum::PartialWrong,
            ]),
        };
        let kind = if self.is_v4 {
            CutKind::Tcp4
        } else {
            CutKind::Tcp6
        };
        let cut = super_frame.then(|| cut(kind, piece_len, before + header_len));
        self.sent(TCP, transport, how, cut)
    }

    fn udp(&mut self, dice: &mut Dice, super_frame: bool) -> Frame {
        let before = self.headers_len();
        let room = PACKET_LEN_MAX - (before - 14) - 8;
        let (payload_len, piece_len) = if super_frame {
            let piece_len = dice.range(20, 1_400);
            let most = (piece_len * 60).min(FRAME_LEN_MAX - before - 8);
            (dice.length(piece_len + 1, most), piece_len)
        } else {
            (dice.length(0, room), 0)
        };
        let mut transport = vec![0x23, self.number, 0x24, self.number];
        transport.extend((8 + payload_len as u16).to_be_bytes());
        transport.extend([0, 0]);
        transport.extend(dice.bytes(payload_len));
        let how = match (super_frame, self.is_v4) {
            (true, _) => dice.pick(&[Sum::Partial, Sum::Partial, Sum::PartialWrong]),
            (false, false) => dice.pick(&[Sum::Partial, Sum::Partial, Sum::Right, Sum::Wrong]),
            (false, true) => dice.pick(&[
                Sum::Partial,
                Sum::Partial,
                Sum::Right,
                Sum::Wrong,
                Sum::Absent,
            ]),
        };
        let cut = super_frame.then(|| cut(CutKind::Udp, piece_len, before + 8));
        self.sent(UDP, transport, how, cut)
    }

    /// A message of the kernel's whose checksum it leaves to the card: no kind that records tell of.
    fn icmp(&mut self, dice: &mut Dice) -> Frame {
        let transport = [vec![8, 0, 0, 0], dice.bytes(60)].concat();
        let protocol = if self.is_v4 { ICMP } else { 58 };
        let frame = self.frame(protocol, &transport, self.fragment_field());
        self.identification = self.identification.wrapping_add(1);
        let offload = Offload {
            checksum: dice.once_in(2).then(|| partial(self.headers_len(), 2)),
            cut: None,
        };
        Frame {
            bytes: frame,
            offload,
        }
    }

    fn sent(&mut self, protocol: u8, transport: Vec<u8>, how: Sum, cut: Option<Cut>) -> Frame {
        let mut bytes = self.frame(protocol, &transport, self.fragment_field());
        let view = View::of(&bytes).expect("an IP packet");
        let start = self.headers_len();
        let partial = partial(start, if protocol == TCP { 16 } else { 6 });
        let pseudo = view.pseudo_sum(&bytes);
        let right = match !sum(&[&pseudo.to_be_bytes(), &transport]) {
            0 => 0xffff,
            right => right,
        };
        let checksum = match how {
            Sum::Partial => pseudo,
            Sum::PartialWrong => pseudo ^ 0x0101,
            Sum::Right => right,
            Sum::Wrong => right ^ 0x2020,
            Sum::Absent => 0,
        };
        put(&mut bytes, partial.field(), checksum);
        let pieces = cut.map_or(1, |cut| transport.len() / usize::from(cut.piece_len) + 1);
        self.identification = self.identification.wrapping_add(pieces as u16);
        let is_partial = matches!(how, Sum::Partial | Sum::PartialWrong);
        let checksum = is_partial.then_some(partial);
        Frame {
            bytes,
            offload: Offload { checksum, cut },
        }
    }

    /// The fragments of one datagram, as the sending kernel makes them.
    fn fragments(&mut self, dice: &mut Dice) -> Vec<Frame> {
        let len = dice.range(100, 6_000);
        let payload = dice.bytes(len);
        let datagram = [
            &[0x33, self.number, 0x34, self.number][..],
            &(8 + payload.len() as u16).to_be_bytes(),
            &[1, 1],
            &payload,
        ]
        .concat();
        let step = dice.range(3, 160) * 8;
        self.identification = self.identification.wrapping_add(1);
        let count = datagram.len().div_ceil(step);
        let piece = |(number, piece): (usize, &[u8])| {
            let more = number + 1 < count;
            let offset = (number * step / 8) as u16;
            if self.is_v4 {
                return self.frame(UDP, piece, offset | u16::from(more) << 13);
            }
            let [a, b] = (offset << 3 | u16::from(more)).to_be_bytes();
            let [c, d] = self.identification.to_be_bytes();
            self.frame(44, &[&[UDP, 0, a, b, 0, 0, c, d], piece].concat(), 0)
        };
        let frames = datagram.chunks(step).enumerate().map(piece);
        frames.map(whole).collect()
    }
}

fn cut(kind: CutKind, piece_len: usize, header_len: usize) -> Cut {
    Cut {
        kind,
        piece_len: piece_len as u16,
        header_len: header_len as u16,
    }
}

fn partial(start: usize, offset: u16) -> PartialChecksum {
    PartialChecksum {
        start: start as u16,
        offset,
    }
}

/// A frame that leaves nothing to do.
fn whole(bytes: Vec<u8>) -> Frame {
    Frame {
        bytes,
        offload: Offload::default(),
    }
}

fn ethernet(kind: [u8; 2], body: &[u8]) -> Frame {
    whole([&mac(2).0[..], &mac(1).0, &kind, body].concat())
}

/// A numbered frame that belongs to no flow.
pub fn marker(number: u64) -> Frame {
    ethernet(MARKER, &[&number.to_be_bytes()[..], &[0; 46]].concat())
}

/// Frames that lie about what they are.
fn damaged(flow: &mut Flow, dice: &mut Dice) -> Frame {
    let mut frame = match dice.once_in(2) {
        true => flow.tcp(dice, false),
        false => flow.udp(dice, false),
    };
    frame.offload = Offload::default();
    let len = frame.bytes.len();
    match dice.range(0, 3) {
        0 => frame.bytes.truncate(dice.range(60.min(len), len + 1)),
        1 => frame.bytes.extend(vec![0; dice.range(0, 50)]),
        _ => {
            let at = dice.range(14 + flow.tags.len(), len);
            frame.bytes[at] ^= 1 << dice.range(0, 8);
        }
    }
    frame.bytes.truncate(MTU + 14);
    // Marks are the tunnel's to change, and openings get shorter segments: neither may come about here.
    let view = View::of(&frame.bytes)
        .filter(|view| view.protocol == TCP && view.end > view.transport + 14);
    if let Some(view) = view {
        frame.bytes[view.transport + 13] &= !SYN;
    }
    frame
}

/// Frames that must be among those tried.
fn special(dice: &mut Dice) -> Vec<Frame> {
    let mut frames = vec![
        ethernet(
            [8, 6],
            &[&[0, 1, 8, 0, 6, 4, 0, 1][..], &[7; 20], &[0; 18]].concat(),
        ),
        // An LLC frame: a length instead of a type.
        ethernet([0, 46], &dice.bytes(46)),
        ethernet([0x88, 0xb5], &dice.bytes(MTU)),
        ethernet([0x88, 0xb5], &dice.bytes(46)),
        ethernet([8, 0], &dice.bytes(46)),
        ethernet([0x86, 0xdd], &dice.bytes(300)),
        ethernet(
            [0x81, 0],
            &[&[0, 5, 0x88, 0xb5][..], &dice.bytes(46)].concat(),
        ),
    ];
    for number in 0..8 {
        let mut flow = Flow::new(100 + number, dice);
        // Half of them without options, so that they can be joined again.
        if number < 4 {
            (flow.extra, flow.tags) = (Vec::new(), Vec::new());
        }
        frames.extend(
            [48, 88, 536, 1_460, 8_948].map(|piece_len| longest(&mut flow, dice, piece_len)),
        );
        frames.extend(flow.fragments(dice));
        // As short as Ethernet allows: 60 bytes, the packet itself less.
        let mut short = flow.udp(dice, false);
        let keep = flow.headers_len() + 8;
        short.bytes.truncate(keep);
        short = flow.sent(
            UDP,
            vec![0x23, 100, 0x24, 100, 0, 8, 0, 0],
            Sum::Right,
            None,
        );
        short.bytes.resize(keep.max(60), 0);
        frames.push(short);
        if flow.is_v4 {
            let mut bad = flow.tcp(dice, false);
            let at = 14 + flow.tags.len() + 10;
            let wrong = field(&bad.bytes, at) ^ 0x4242;
            put(&mut bad.bytes, at, wrong);
            frames.push(bad);
        }
    }
    frames
}

/// A TCP super-frame of 65,535 bytes.
fn longest(flow: &mut Flow, dice: &mut Dice, piece_len: usize) -> Frame {
    let header_len = 20 + flow.tcp_options.len();
    let before = flow.headers_len();
    let mut transport = vec![0x15, flow.number, 0x16, flow.number];
    transport.extend(flow.sequence.to_be_bytes());
    transport.extend([
        9,
        9,
        9,
        9,
        ((header_len / 4) << 4) as u8,
        ACK | PSH,
        0x20,
        0,
        0,
        0,
        0,
        0,
    ]);
    transport.extend(&flow.tcp_options);
    transport.extend(dice.bytes(FRAME_LEN_MAX - before - header_len));
    flow.sequence = flow
        .sequence
        .wrapping_add((transport.len() - header_len) as u32);
    let kind = if flow.is_v4 {
        CutKind::Tcp4
    } else {
        CutKind::Tcp6
    };
    // What remains of the shortest segments that Linux makes (tcp_min_snd_mss) beside time stamps.
    let piece_len = (piece_len - flow.tcp_options.len()).max(36);
    flow.sent(
        TCP,
        transport,
        Sum::Partial,
        Some(cut(kind, piece_len, before + header_len)),
    )
}

/// The special ones, and so many others.
pub fn frames(seed: u64, count: usize) -> Vec<Frame> {
    let dice = &mut Dice(seed);
    let mut frames = special(dice);
    let mut flows: Vec<Flow> = (0..FLOWS).map(|number| Flow::new(number, dice)).collect();
    while frames.len() < count {
        let at = if dice.once_in(30) {
            FLOWS - 1
        } else {
            dice.range(0, FLOWS - 1)
        };
        let flow = &mut flows[at];
        let may_be_super = flow.to != Mac::BROADCAST;
        match dice.range(0, 100) {
            0..22 if may_be_super => frames.push(flow.tcp(dice, true)),
            22..32 if may_be_super => frames.push(flow.udp(dice, true)),
            32..60 => frames.push(flow.tcp(dice, false)),
            60..76 => frames.push(flow.udp(dice, false)),
            76..82 => frames.extend(flow.fragments(dice)),
            82..88 => {
                let (kind, len) = (
                    dice.pick(&[[8, 6], [0x88, 0xb5], [0x88, 0xcc], [0, 100]]),
                    dice.length(46, MTU),
                );
                frames.push(ethernet(kind, &dice.bytes(len)));
            }
            88..94 => frames.push(damaged(flow, dice)),
            _ => frames.push(flow.icmp(dice)),
        }
    }
    frames
}
