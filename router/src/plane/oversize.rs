//! Frames that are too long for their path: TCP is cut into shorter segments, everything else
//! crosses in sealed fragments, and who may not be fragmented is told.

use std::time::Instant;

use rmesh_wire::payload::{HEAD_LEN, PartialChecksum};

use super::engine::Engine;
use super::tables::Route;
use crate::port::checksum::{is_equal, sum};
use crate::port::offload::{Cut, CutKind, Offload};
use crate::port::split::network;

const TCP: u8 = 6;
/// Where the checksum is in a TCP header.
const CHECKSUM_AT: u16 = 16;
const ACK: u8 = 0x10;
/// SYN, RST and URG: such segments are not cut, nor does a network card cut them.
const WHOLE: u8 = 0x26;
/// Options whose content depends on the whole segment: signatures (RFC 2385, RFC 5925).
const SIGNATURES: [u8; 2] = [19, 29];
/// Segments are not made shorter than this: fragments are better then.
const SEGMENT_LEN_MIN: usize = 256;

/// Longest frame that one record on this route carries.
pub(crate) fn frame_len_max(route: &Route<'_>) -> usize {
    route.payload_len_max.saturating_sub(HEAD_LEN)
}

impl Engine {
    /// Tells the sender of a frame that does not fit. While it is only assumed what the path
    /// carries nobody is told: who is remembers it for minutes.
    pub(crate) fn tell_too_big(&mut self, route: &Route<'_>, parts: &[&[u8]], now: Instant) {
        if !route.is_len_found {
            return;
        }
        if let Some(message) = self.too_big.message(parts, frame_len_max(route), now)
            && self.port.write(message).is_ok()
        {
            self.stats.too_big_told.add(1);
        }
    }
}

/// How a frame has to be cut for frames of `len_max` bytes: a super-frame of TCP into shorter
/// segments than its sender says, a long segment of TCP like a super-frame. As it is otherwise.
pub(crate) fn fit(frame: &[u8], offload: &Offload, len_max: usize) -> Offload {
    let cut = match offload.cut {
        Some(cut) if cut.kind == CutKind::Udp => return *offload,
        Some(cut) => Some(cut),
        None if frame.len() <= len_max => return *offload,
        None => offload.checksum.and_then(|partial| segment(frame, partial)),
    };
    let shorter = cut.zip(offload.checksum).and_then(|(cut, partial)| {
        let transport = usize::from(partial.start);
        let header_len = transport + usize::from(frame.get(transport + 12)? >> 4) * 4;
        let room = len_max.checked_sub(header_len)?;
        let piece_len = usize::from(cut.piece_len);
        let is_short_enough = piece_len <= room || room < SEGMENT_LEN_MIN;
        let room = u16::try_from(room).ok()?;
        (!is_short_enough).then_some(Cut {
            piece_len: room,
            ..cut
        })
    });
    match shorter {
        Some(cut) => Offload {
            cut: Some(cut),
            ..*offload
        },
        None => *offload,
    }
}

/// A whole segment of TCP that may be cut, as a cut into itself.
fn segment(frame: &[u8], partial: PartialChecksum) -> Option<Cut> {
    let (network, ether_type) = network(frame)?;
    let transport = usize::from(partial.start);
    let kind = match ether_type {
        0x0800 if frame.get(network + 9) == Some(&TCP) => {
            let field = *frame.get(network + 6..network + 8)?.first_chunk()?;
            let is_whole = u16::from_be_bytes(field) & 0x3fff == 0;
            // A cut would make a wrong header checksum right.
            let is_right = is_equal(sum(frame.get(network..transport)?), 0);
            (is_whole && is_right).then_some(CutKind::Tcp4)?
        }
        0x86dd if frame.get(network + 6) == Some(&TCP) && transport == network + 40 => {
            CutKind::Tcp6
        }
        _ => return None,
    };
    let &[words, flags] = frame.get(transport + 12..transport + 14)?.first_chunk()?;
    let header_len = transport + usize::from(words >> 4) * 4;
    let options = frame.get(transport + 20..header_len)?;
    let may_be_cut = partial.offset == CHECKSUM_AT
        && flags & ACK != 0
        && flags & WHOLE == 0
        && !has_signature(options);
    let piece_len = u16::try_from(frame.len().checked_sub(header_len)?).ok()?;
    (may_be_cut && piece_len > 0).then_some(Cut {
        kind,
        piece_len,
        header_len: header_len as u16,
    })
}

fn has_signature(mut options: &[u8]) -> bool {
    while let Some((kind, rest)) = options.split_first() {
        let len = match (kind, rest.first()) {
            (0, _) => return false,
            (1, _) => 1,
            (kind, _) if SIGNATURES.contains(kind) => return true,
            (_, Some(len)) => usize::from(*len).max(2),
            (_, None) => return false,
        };
        options = options.get(len..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests;
