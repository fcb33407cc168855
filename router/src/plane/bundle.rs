//! Small frames that were read together and go to one peer together: a record costs 32 bytes and a datagram
//! far more than a small frame does. None waits for another that is not there yet.

use std::time::Instant;

use rmesh_wire::PeerId;
use rmesh_wire::bundle::{self, BUNDLED_MAX, ENTRY_LEN};
use rmesh_wire::payload::{Head, PayloadKind};

use super::api::PathKind;
use super::engine::Engine;
use super::oversize::frame_len_max;
use super::receive::{Body, Place};
use super::session::Session;
use super::stats::Reason;
use super::tables::Tables;
use crate::port::ecn;
use crate::port::offload::Offload;

/// Frames up to this length are bundled. All of a bundle are lost together, so it is for those whose own
/// bytes are the smaller part of what they cost.
const SMALL_LEN_MAX: usize = 256;

/// Frames of the batch at hand that go to one peer next.
pub(crate) struct Bundle<'a> {
    peer: PeerId,
    /// Their traffic class: that of the datagram.
    class: u8,
    frames: [(&'a [u8], Head); BUNDLED_MAX],
    count: usize,
    /// Bytes they take of the record, and how many there are.
    len: usize,
    room: usize,
}

impl Default for Bundle<'_> {
    fn default() -> Self {
        Bundle {
            peer: PeerId::default(),
            class: 0,
            frames: [(&[], Head::new(PayloadKind::Frame)); BUNDLED_MAX],
            count: 0,
            len: 0,
            room: 0,
        }
    }
}

impl<'a> Bundle<'a> {
    /// Adds a frame that fits what is there.
    fn take(&mut self, peer: PeerId, class: u8, (frame, head): (&'a [u8], Head)) -> bool {
        let len = self.len + ENTRY_LEN + frame.len();
        let fits = (peer, class) == (self.peer, self.class) && len <= self.room;
        match self.frames.get_mut(self.count) {
            Some(place) if fits && self.count > 0 => *place = (frame, head),
            _ => return false,
        }
        (self.count, self.len) = (self.count + 1, len);
        true
    }

    /// Begins anew with a frame.
    fn begin(&mut self, peer: PeerId, class: u8, room: usize, frame: (&'a [u8], Head)) {
        (self.peer, self.class, self.room) = (peer, class, room);
        self.frames[0] = frame;
        (self.count, self.len) = (1, ENTRY_LEN + frame.0.len());
    }
}

/// The head of a frame that may be bundled.
fn head_of(frame: &[u8], offload: &Offload) -> Option<Head> {
    if frame.len() > SMALL_LEN_MAX || offload.cut.is_some() {
        return None;
    }
    match offload.checksum {
        None => Some(Head::new(PayloadKind::Frame)),
        Some(partial) => partial.head(),
    }
}

impl Engine {
    /// Lets a frame for `peer` wait in the bundle if it is small; false if it has to go alone, when
    /// whatever waited for the same peer has gone before.
    pub(crate) fn bundle<'a>(
        &mut self,
        bundle: &mut Bundle<'a>,
        peer: PeerId,
        (frame, offload): (&'a [u8], &Offload),
        tables: &Tables,
    ) -> bool {
        let Some(head) = head_of(frame, offload) else {
            if bundle.peer == peer {
                self.send_bundle(bundle, tables);
            }
            return false;
        };
        let class = ecn::class_of(frame);
        if bundle.take(peer, class, (frame, head)) {
            return true;
        }
        self.send_bundle(bundle, tables);
        let Some(route) = tables.route(peer) else {
            return false;
        };
        let room = frame_len_max(&route);
        let fits = frame.len() <= room;
        if fits {
            bundle.begin(peer, class, room, (frame, head));
        }
        fits
    }

    /// Sends what waits in the bundle; one frame as a record of its own.
    pub(crate) fn send_bundle(&mut self, bundle: &mut Bundle<'_>, tables: &Tables) {
        let count = std::mem::take(&mut bundle.count);
        let frames = bundle.frames.get(..count).unwrap_or_default();
        // The route was there when the bundle began, under the same snapshot.
        let (Some(((first, head), rest)), Some(route)) =
            (frames.split_first(), tables.route(bundle.peer))
        else {
            return;
        };
        let (me, transmitter) = (tables.me_short, &mut self.transmitter);
        let sent = if rest.is_empty() {
            transmitter.send_payload(me, &route, *head, &[first])
        } else {
            let mut entries = [[0; ENTRY_LEN]; BUNDLED_MAX];
            for (entry, (frame, head)) in entries.iter_mut().zip(frames) {
                *entry = bundle::encode(head, frame.len() as u16);
            }
            let mut parts: [&[u8]; 2 * BUNDLED_MAX] = [&[]; 2 * BUNDLED_MAX];
            for (pair, (entry, (frame, _))) in
                parts.chunks_exact_mut(2).zip(entries.iter().zip(frames))
            {
                pair.copy_from_slice(&[entry, frame]);
            }
            let parts = parts.get(..2 * count).unwrap_or_default();
            transmitter.send_payload(me, &route, Head::new(PayloadKind::Bundle), parts)
        };
        let len = frames.iter().map(|(frame, _)| frame.len()).sum();
        let lane = route.session.stats.of(self.transmitter.worker.number);
        match sent {
            Ok(()) => lane.count_sent(route.kind(), count as u64, len),
            Err(reason) => self.stats.drop_many(reason, count as u64),
        }
        if count > 1 && sent.is_ok() {
            self.stats.bundles_sent.add(1);
        }
    }

    /// Takes a bundle apart; a frame that is refused does not concern the others.
    pub(crate) fn handle_bundle(
        &mut self,
        sender: (&Session, PathKind),
        (body, place): (&mut [u8], Place),
        tables: &Tables,
        now: Instant,
    ) -> Result<(), Reason> {
        let mut at = 0;
        for _ in 0..BUNDLED_MAX {
            let Some((head, range)) = bundle::entry(body, at) else {
                break;
            };
            at = range.end;
            let from = place.from + range.start;
            let frame = body.get_mut(range).unwrap_or_default();
            let frame = Body::Placed(frame, Place { from, ..place });
            if let Err(reason) = self.handle_payload(sender, head, frame, tables, now) {
                self.stats.drop_one(reason);
            }
        }
        (at == body.len()).then_some(()).ok_or(Reason::BadPayload)
    }
}
