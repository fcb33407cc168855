//! One frame of a flow, as coalescing looks at it.

use rmesh_wire::payload::PartialChecksum;

use super::checksum::{is_equal, subtract, sum};
use super::offload::CutKind;

const NETWORK: usize = 14;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
/// Don't Fragment, in the field of IPv4's flags and fragment offset.
const DF: u8 = 0x40;

/// A TCP segment or UDP datagram over IPv4 or IPv6, without IP options, tags or fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) kind: CutKind,
    is_v4: bool,
    pub(super) transport: usize,
    pub(super) header_len: usize,
    pub(super) payload_len: usize,
    pub(super) sequence: u32,
    /// Ends a run: somebody waits for it.
    pub(super) is_pushed: bool,
    /// The partial checksum without its length; `None` if this one must stay alone.
    pub(super) base_sum: Option<u16>,
}

impl Segment {
    /// `None` if the frame is of another kind, or if its lengths or IPv4 checksum are wrong.
    #[inline]
    pub(super) fn parse(frame: &[u8], partial: Option<PartialChecksum>) -> Option<Self> {
        let is_v4 = match frame.get(12..14)? {
            [0x08, 0x00] => true,
            [0x86, 0xdd] => false,
            _ => return None,
        };
        let (transport, protocol) = match is_v4 {
            true => (NETWORK + 20, v4_protocol(frame)?),
            false => (NETWORK + 40, v6_protocol(frame)?),
        };
        let (kind, own_len, checksum_at) = match protocol {
            6 => {
                let words = frame.get(transport + 12)? >> 4;
                let kind = if is_v4 { CutKind::Tcp4 } else { CutKind::Tcp6 };
                (kind, usize::from(words) * 4, 16)
            }
            17 => (CutKind::Udp, 8, 6),
            _ => return None,
        };
        let transport_len = u16::try_from(frame.len().checked_sub(transport)?).ok()?;
        let payload_len = usize::from(transport_len).checked_sub(own_len)?;
        let flags = frame.get(transport + 13).copied().unwrap_or_default();
        let is_plain = match kind {
            CutKind::Udp => field(frame, transport + 4)? == transport_len,
            _ => own_len >= 20 && frame[transport + 12] & 0x0f == 0 && flags & !PSH == ACK,
        };
        let base_sum = partial
            .filter(|at| usize::from(at.start) == transport && at.offset == checksum_at)
            .filter(|_| is_plain && payload_len > 0)
            .and_then(|at| Some(subtract(field(frame, at.field())?, transport_len)));
        Some(Segment {
            kind,
            is_v4,
            transport,
            header_len: transport + own_len,
            payload_len,
            sequence: u32::from_be_bytes(*frame.get(transport + 4..)?.first_chunk()?),
            is_pushed: kind != CutKind::Udp && flags & PSH != 0,
            base_sum,
        })
    }

    /// Whether two frames are of one flow: MACs, addresses, protocol and ports.
    #[inline]
    pub(super) fn is_same_flow(&self, frame: &[u8], other: &Segment, others: &[u8]) -> bool {
        let from = if self.is_v4 {
            NETWORK + 12
        } else {
            NETWORK + 8
        };
        let ports_end = self.transport + 4;
        self.kind == other.kind
            && self.is_v4 == other.is_v4
            && frame.get(..12) == others.get(..12)
            && frame.get(from..ports_end) == others.get(from..ports_end)
    }

    /// Whether everything that a cut would copy is the same in `frame` as in the first of its run,
    /// `count` pieces and `sum_len` payload bytes earlier.
    pub(super) fn continues(
        &self,
        frame: &[u8],
        first: (&Segment, &[u8]),
        count: usize,
        payload_len: usize,
    ) -> bool {
        let (head, firsts) = first;
        let (Some(sum), Some(first_sum)) = (self.base_sum, head.base_sum) else {
            return false;
        };
        is_equal(sum, first_sum)
            && self.header_len == head.header_len
            && match self.is_v4 {
                true => same_v4(frame, firsts, count),
                false => frame.get(14..18) == firsts.get(14..18) && frame.get(21) == firsts.get(21),
            }
            && (self.kind == CutKind::Udp
                || (self.sequence == head.sequence.wrapping_add(payload_len as u32)
                    && self.same_tcp(frame, firsts)))
    }

    /// Acknowledgement, window, urgent pointer and options; flags were looked at before.
    fn same_tcp(&self, frame: &[u8], first: &[u8]) -> bool {
        let at = self.transport;
        let same = |from: usize, to: usize| frame.get(from..to) == first.get(from..to);
        same(at + 8, at + 13) && same(at + 14, at + 16) && same(at + 18, self.header_len)
    }
}

/// Service class, lifetime and flags; and an identification that a cut makes again, or that does
/// not matter because nothing of this may be fragmented (RFC 6864).
fn same_v4(frame: &[u8], first: &[u8], count: usize) -> bool {
    let (Some(own), Some(base)) = (field(frame, 18), field(first, 18)) else {
        return false;
    };
    let counts_up = own == base.wrapping_add(count as u16);
    let is_atomic = frame.get(20).is_some_and(|flags| flags & DF != 0);
    frame.get(14..16) == first.get(14..16)
        && frame.get(20..23) == first.get(20..23)
        && (counts_up || (is_atomic && own == base))
}

fn v4_protocol(frame: &[u8]) -> Option<u8> {
    let header = frame.get(NETWORK..NETWORK + 20)?;
    let is_whole = field(header, 6)? & 0xbfff == 0;
    let fits = usize::from(field(header, 2)?) == frame.len() - NETWORK;
    (header[0] == 0x45 && is_whole && fits && is_equal(sum(header), 0)).then_some(header[9])
}

fn v6_protocol(frame: &[u8]) -> Option<u8> {
    let header = frame.get(NETWORK..NETWORK + 40)?;
    let fits = usize::from(field(header, 4)?) == frame.len() - NETWORK - 40;
    (header[0] >> 4 == 6 && fits).then_some(header[6])
}

fn field(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..at + 2)?.first_chunk()?))
}
