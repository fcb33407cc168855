//! Cuts a super-frame into the frames that its sender's network card would have made of it.
//!
//! As the kernel does (`tcp_gso_segment`, `__udp_gso_segment`, `inet_gso_segment`): sequence
//! numbers and IPv4 identifications count up, FIN and PSH stay with the last piece, CWR with the
//! first. Checksums stay partial: nothing of the payload is read.

use rmesh_wire::payload::PartialChecksum;

use super::checksum::{add, subtract, sum};
use super::offload::{CutKind, Offload};

/// Headers of a piece, at most: Ethernet with two tags, IPv4 or IPv6 with options, TCP with
/// options.
pub(crate) const HEADERS_MAX: usize = 256;
/// Pieces a super-frame may have: 64 KiB in the shortest segments that Linux sends (`tcp_min_snd_mss`, 48
/// bytes, 12 of them time stamps) are 1,820.
pub(crate) const PIECES_MAX: usize = 2_048;

const ETHERNET_LEN: usize = 14;
const TAG_LEN: usize = 4;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// Where the network header begins and which it is, behind any VLAN tags (at most two).
pub(crate) fn network(frame: &[u8]) -> Option<(usize, u16)> {
    let mut at = ETHERNET_LEN;
    for _ in 0..3 {
        let kind = u16::from_be_bytes(*frame.get(at - 2..at)?.first_chunk()?);
        if !matches!(kind, 0x8100 | 0x88a8) {
            return Some((at, kind));
        }
        at += TAG_LEN;
    }
    None
}

/// A super-frame being cut.
pub(crate) struct Splitter<'a> {
    /// Those of the next piece and of the one behind it, which take turns: what was written a moment ago, in
    /// small parts, can only be read as a whole when everything written before has reached the cache.
    headers: [[u8; HEADERS_MAX]; 2],
    header_len: usize,
    network: usize,
    is_v4: bool,
    partial: PartialChecksum,
    kind: CutKind,
    /// The partial checksum without the length that is part of the pseudo header.
    base_sum: u16,
    /// The sum of IPv4's header without the fields that differ from piece to piece.
    network_sum: u16,
    identification: u16,
    sequence: u32,
    flags: u8,
    payload: &'a [u8],
    piece_len: usize,
    at: usize,
    index: u16,
}

impl<'a> Splitter<'a> {
    /// Begins to cut; `None` if the headers are not what `offload` says, or there would be more
    /// than [`PIECES_MAX`].
    pub(crate) fn new(frame: &'a [u8], offload: &Offload) -> Option<Self> {
        let (partial, cut) = (offload.checksum?, offload.cut?);
        let (network, ether_type) = network(frame)?;
        let transport = usize::from(partial.start);
        let field = |at: usize| Some(u16::from_be_bytes(*frame.get(at..at + 2)?.first_chunk()?));
        let is_v4 = ether_type == 0x0800 && cut.kind != CutKind::Tcp6;
        let end = if is_v4 {
            let words = frame.get(network)? & 0x0f;
            let fits = words >= 5 && network + usize::from(words) * 4 == transport;
            (fits).then_some(network + usize::from(field(network + 2)?))?
        } else {
            let is_v6 = ether_type == 0x86dd && cut.kind != CutKind::Tcp4;
            (is_v6 && transport >= network + 40)
                .then_some(network + 40 + usize::from(field(network + 4)?))?
        };
        let (own_len, checksum_at) = match cut.kind {
            CutKind::Udp => (8, 6),
            _ => (usize::from(frame.get(transport + 12)? >> 4) * 4, 16),
        };
        let header_len = transport + own_len;
        let is_whole = usize::from(partial.offset) == checksum_at && own_len > checksum_at;
        let payload = frame.get(header_len..end).filter(|_| is_whole)?;
        let piece_len = usize::from(cut.piece_len);
        if payload.is_empty() || payload.len().div_ceil(piece_len) > PIECES_MAX {
            return None;
        }
        let mut headers = [0; HEADERS_MAX];
        headers
            .get_mut(..header_len)?
            .copy_from_slice(frame.get(..header_len)?);
        if is_v4 {
            for at in [2, 4, 10] {
                put(&mut headers, network + at, 0);
            }
        }
        let transport_len = u16::try_from(end - transport).ok()?;
        let mut splitter = Splitter {
            headers: [headers; 2],
            header_len,
            network,
            is_v4,
            partial,
            kind: cut.kind,
            base_sum: subtract(field(partial.field())?, transport_len),
            network_sum: sum(headers.get(network..transport)?),
            identification: field(network + 4)?,
            sequence: u32::from_be_bytes(*frame.get(transport + 4..)?.first_chunk()?),
            flags: frame.get(transport + 13).copied().unwrap_or_default(),
            payload,
            piece_len,
            at: 0,
            index: 0,
        };
        splitter.write_headers(0, 0);
        Some(splitter)
    }

    /// The next piece: its headers, and its part of the payload.
    pub(crate) fn next(&mut self) -> Option<(&[u8], &'a [u8])> {
        let rest = self
            .payload
            .get(self.at..)
            .filter(|rest| !rest.is_empty())?;
        let piece = rest.get(..self.piece_len).unwrap_or(rest);
        self.at += piece.len();
        let turn = usize::from(self.index % 2);
        self.index = self.index.wrapping_add(1);
        self.write_headers(self.index, self.at);
        Some((self.headers[turn].get(..self.header_len)?, piece))
    }

    /// Makes the headers of piece `index`, whose payload is at `at`.
    fn write_headers(&mut self, index: u16, at: usize) {
        let left = self.payload.len() - at;
        let piece_len = left.min(self.piece_len);
        self.patch_network(index, piece_len);
        self.patch_transport(index, (at, piece_len), piece_len == left);
    }

    /// Lengths fit 16 bits: those of the whole did.
    fn patch_network(&mut self, index: u16, piece_len: usize) {
        let headers = &mut self.headers[usize::from(index % 2)];
        let network = self.network;
        let len = (self.header_len - network + piece_len) as u16;
        if !self.is_v4 {
            put(headers, network + 4, len - 40);
            return;
        }
        let identification = self.identification.wrapping_add(index);
        put(headers, network + 2, len);
        put(headers, network + 4, identification);
        let checksum = !add(add(self.network_sum, len), identification);
        put(headers, network + 10, checksum);
    }

    fn patch_transport(&mut self, index: u16, (at, piece_len): (usize, usize), is_last: bool) {
        let headers = &mut self.headers[usize::from(index % 2)];
        let transport = usize::from(self.partial.start);
        let len = (self.header_len - transport + piece_len) as u16;
        put(headers, self.partial.field(), add(self.base_sum, len));
        if self.kind == CutKind::Udp {
            put(headers, transport + 4, len);
            return;
        }
        let sequence = self.sequence.wrapping_add(at as u32);
        if let Some(field) = headers.get_mut(transport + 4..transport + 8) {
            field.copy_from_slice(&sequence.to_be_bytes());
        }
        let not_here = match (index, is_last) {
            (0, true) => 0,
            (0, false) => FIN | PSH,
            (_, true) => CWR,
            (_, false) => FIN | PSH | CWR,
        };
        if let Some(flags) = headers.get_mut(transport + 13) {
            *flags = self.flags & !not_here;
        }
    }
}

/// Writes a big-endian field, if it is inside.
pub(crate) fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}
