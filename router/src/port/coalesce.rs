//! Joins frames of one flow into super-frames that cross to the bridge in one write.
//!
//! Only what a cut (see [`super::split`]) would make again from the whole is joined: frames in
//! sequence whose headers differ in nothing but what counts up, whose checksums are partial, and
//! of which none but the last is shorter than the first. Everything else goes as it came. The
//! order of a flow's frames is kept.

use std::io::IoSlice;

use rmesh_wire::payload::PartialChecksum;

use super::checksum::add;
use super::offload::{Cut, CutKind, Offload};
use super::segment::Segment;
use super::split::{HEADERS_MAX, put};

/// Flows under way at once; beyond that the oldest is written.
const FLOWS_MAX: usize = 16;
/// Frames in one super-frame: 64 KiB of the usual ones, and what UDP allows.
const PIECES_MAX: usize = 64;
/// Parts in which a super-frame is written: headers and each payload.
pub(super) const PARTS_MAX: usize = PIECES_MAX + 1;
/// Longest super-frame without its Ethernet header: what the length field of IPv4 can say.
const NETWORK_LEN_MAX: usize = 65_535;
const ETHERNET_LEN: usize = 14;

/// A frame that may be joined with others, in memory that stays until it is written.
#[derive(Clone, Copy)]
pub(crate) struct Candidate<'a> {
    pub(crate) frame: &'a [u8],
    pub(crate) checksum: Option<PartialChecksum>,
}

/// Frames of one flow, by their numbers.
struct Run {
    head: Segment,
    pieces: [u16; PIECES_MAX],
    count: usize,
    payload_len: usize,
    is_closed: bool,
    is_pushed: bool,
}

/// The runs under way. Holds numbers, not bytes, so that it can be kept from batch to batch.
pub(crate) struct Coalescer {
    runs: Vec<Run>,
}

impl Default for Coalescer {
    fn default() -> Self {
        Coalescer {
            runs: Vec::with_capacity(FLOWS_MAX),
        }
    }
}

impl Coalescer {
    /// Writes the `count` frames that `candidate` names, joined where they may be and their kind
    /// is one that `joins`. `write` gets
    /// the parts of a frame, what it leaves to do, and of how many frames it was made.
    pub(crate) fn write_all<'a>(
        &mut self,
        count: u16,
        joins: impl Fn(CutKind) -> bool,
        candidate: impl Fn(u16) -> Option<Candidate<'a>>,
        mut write: impl FnMut(&[IoSlice<'_>], &Offload, usize),
    ) {
        self.runs.clear();
        for number in 0..count {
            let Some(new) = candidate(number) else {
                continue;
            };
            let segment = Segment::parse(new.frame, new.checksum);
            match segment.filter(|segment| joins(segment.kind)) {
                Some(segment) => self.push(number, (new, segment), &candidate, &mut write),
                None => self.pass(new, &candidate, &mut write),
            }
        }
        for run in self.runs.drain(..) {
            write_run(&run, &candidate, &mut write);
        }
    }

    fn push<'a>(
        &mut self,
        number: u16,
        (new, segment): (Candidate<'a>, Segment),
        candidate: &impl Fn(u16) -> Option<Candidate<'a>>,
        write: &mut impl FnMut(&[IoSlice<'_>], &Offload, usize),
    ) {
        let known = self.runs.iter().position(|run| {
            let first = candidate(run.pieces[0]);
            first.is_some_and(|first| segment.is_same_flow(new.frame, &run.head, first.frame))
        });
        if let Some(run) = known.and_then(|at| self.runs.get_mut(at))
            && let Some(first) = candidate(run.pieces[0])
            && run.take(number, &segment, new.frame, first.frame)
        {
            return;
        }
        if let Some(at) = known {
            write_run(&self.runs.remove(at), candidate, write);
        }
        if segment.base_sum.is_none() || segment.is_pushed {
            return write_alone(&new, write);
        }
        if self.runs.len() >= FLOWS_MAX {
            write_run(&self.runs.remove(0), candidate, write);
        }
        self.runs.push(Run::new(number, segment));
    }

    /// Writes a frame that is not joined. Who knows of which flow it is: it overtakes nothing
    /// between the same two.
    fn pass<'a>(
        &mut self,
        new: Candidate<'a>,
        candidate: &impl Fn(u16) -> Option<Candidate<'a>>,
        write: &mut impl FnMut(&[IoSlice<'_>], &Offload, usize),
    ) {
        let is_between = |run: &Run| {
            let first = candidate(run.pieces[0]);
            first.is_some_and(|first| first.frame.get(..12) == new.frame.get(..12))
        };
        while let Some(at) = self.runs.iter().position(is_between) {
            write_run(&self.runs.remove(at), candidate, write);
        }
        write_alone(&new, write);
    }
}

impl Run {
    fn new(number: u16, head: Segment) -> Self {
        let mut pieces = [0; PIECES_MAX];
        pieces[0] = number;
        Run {
            head,
            pieces,
            count: 1,
            payload_len: head.payload_len,
            is_closed: false,
            is_pushed: false,
        }
    }

    /// Adds a frame of the same flow if it goes on where this run ends.
    fn take(&mut self, number: u16, segment: &Segment, frame: &[u8], first: &[u8]) -> bool {
        let len = self.head.header_len - ETHERNET_LEN + self.payload_len + segment.payload_len;
        let fits = !self.is_closed
            && self.count < PIECES_MAX
            && segment.payload_len <= self.head.payload_len
            && len <= NETWORK_LEN_MAX;
        if !fits || !segment.continues(frame, (&self.head, first), self.count, self.payload_len) {
            return false;
        }
        self.pieces[self.count] = number;
        self.count += 1;
        self.payload_len += segment.payload_len;
        self.is_pushed = segment.is_pushed;
        self.is_closed = segment.is_pushed || segment.payload_len < self.head.payload_len;
        true
    }
}

fn write_alone(new: &Candidate<'_>, write: &mut impl FnMut(&[IoSlice<'_>], &Offload, usize)) {
    let offload = Offload {
        checksum: new.checksum,
        cut: None,
    };
    write(&[IoSlice::new(new.frame)], &offload, 1);
}

fn write_run<'a>(
    run: &Run,
    candidate: &impl Fn(u16) -> Option<Candidate<'a>>,
    write: &mut impl FnMut(&[IoSlice<'_>], &Offload, usize),
) {
    let Some(first) = candidate(run.pieces[0]) else {
        return;
    };
    let (Some(partial), Some(base_sum)) = (first.checksum, run.head.base_sum) else {
        return;
    };
    if run.count == 1 {
        return write_alone(&first, write);
    }
    let len = run.head.header_len;
    let mut headers = [0; HEADERS_MAX];
    let (Some(to), Some(from)) = (headers.get_mut(..len), first.frame.get(..len)) else {
        return;
    };
    to.copy_from_slice(from);
    run.patch(to, partial, base_sum);
    let mut parts = [IoSlice::new(&[]); PARTS_MAX];
    parts[0] = IoSlice::new(to);
    for (part, number) in parts[1..].iter_mut().zip(&run.pieces[..run.count]) {
        let payload = candidate(*number).and_then(|piece| piece.frame.get(len..));
        *part = IoSlice::new(payload.unwrap_or_default());
    }
    let offload = Offload {
        checksum: Some(partial),
        cut: Some(Cut {
            kind: run.head.kind,
            piece_len: run.head.payload_len as u16,
            header_len: len as u16,
        }),
    };
    write(&parts[..=run.count], &offload, run.count);
}

impl Run {
    /// Makes the first piece's headers those of the whole. Lengths fit: `take` saw to it.
    fn patch(&self, headers: &mut [u8], partial: PartialChecksum, base_sum: u16) {
        let transport = self.head.transport;
        let transport_len = (self.head.header_len - transport + self.payload_len) as u16;
        if transport == ETHERNET_LEN + 20 {
            put(headers, 16, transport_len + 20);
            put(headers, 24, 0);
            let checksum = !super::checksum::sum(headers.get(14..34).unwrap_or_default());
            put(headers, 24, checksum);
        } else {
            put(headers, 18, transport_len);
        }
        put(headers, partial.field(), add(base_sum, transport_len));
        if self.head.kind == CutKind::Udp {
            put(headers, transport + 4, transport_len);
        } else if self.is_pushed
            && let Some(flags) = headers.get_mut(transport + 13)
        {
            *flags |= 0x08;
        }
    }
}

#[cfg(test)]
mod tests;
