//! From a payload to sealed datagrams on their way: lanes, relay wrapping, fragments.

use std::sync::Arc;

use rmesh_wire::datagram::{HEADER_LEN, TAG_LEN};
use rmesh_wire::fragment::{FRAGMENT_HEADER_LEN, FRAGMENTS_MAX, FragmentHeader};
use rmesh_wire::payload::{HEAD_LEN, Head, PayloadKind};
use rmesh_wire::relay::{self, INNER_OFFSET, RelayEnds};
use rmesh_wire::{ShortId, payload};

use super::buffer::{Buffer, concatenate};
use super::outbox::Outbox;
use super::session::{Session, lane_of};
use super::stats::{Reason, WorkerStats};
use super::tables::{Route, Toward};
use crate::port::ecn;

/// Which worker of how many this is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Worker {
    pub(crate) number: usize,
    pub(crate) count: usize,
}

impl Worker {
    fn lane(self, epoch: u32) -> u8 {
        lane_of(self.number, self.count, epoch)
    }
}

/// The sending half of a worker.
pub(crate) struct Transmitter {
    pub(crate) worker: Worker,
    pub(crate) outbox: Outbox,
    stats: Arc<WorkerStats>,
    /// Where a payload that needs fragments is put together.
    scratch: Buffer,
    next_fragment_id: u32,
}

impl Transmitter {
    pub(crate) fn new(worker: Worker, outbox: Outbox, stats: Arc<WorkerStats>) -> Self {
        Transmitter {
            worker,
            outbox,
            stats,
            scratch: Buffer::default(),
            next_fragment_id: 0,
        }
    }

    /// Sends a payload, given as its head and the parts of its body.
    pub(crate) fn send_payload(
        &mut self,
        me: ShortId,
        route: &Route<'_>,
        head: Head,
        body: &[&[u8]],
    ) -> Result<(), Reason> {
        let len = HEAD_LEN + body.iter().map(|part| part.len()).sum::<usize>();
        let class = class_of_payload(&head, body);
        if len <= route.payload_len_max {
            let payload = (class, head, body);
            return send_record(self.worker, &mut self.outbox, me, route, payload);
        }
        self.send_fragments(me, route, class, (head, body))
    }

    fn send_fragments(
        &mut self,
        me: ShortId,
        route: &Route<'_>,
        class: u8,
        (head, body): (Head, &[&[u8]]),
    ) -> Result<(), Reason> {
        if !self.scratch.assign(&[&head.encode()]) || !self.scratch.append(body) {
            return Err(Reason::TooBig);
        }
        let payload = self.scratch.data();
        let room = route.payload_len_max;
        let piece_len = room.saturating_sub(HEAD_LEN + FRAGMENT_HEADER_LEN);
        if piece_len == 0 {
            return Err(Reason::TooBig);
        }
        let count = u8::try_from(payload.len().div_ceil(piece_len))
            .ok()
            .filter(|count| *count <= FRAGMENTS_MAX)
            .ok_or(Reason::TooBig)?;
        let id = self.next_fragment_id;
        self.next_fragment_id = id.wrapping_add(1);
        for (index, piece) in (0..count).zip(payload.chunks(piece_len)) {
            let offset = usize::from(index) * piece_len;
            let header = FragmentHeader {
                id,
                index,
                count,
                offset: u16::try_from(offset).map_err(|_| Reason::TooBig)?,
            };
            let head = Head {
                aux: header.aux(),
                ..Head::new(PayloadKind::Fragment)
            };
            let fields = header.encode();
            let body = [&fields[..], piece];
            let payload = (class, head, &body[..]);
            send_record(self.worker, &mut self.outbox, me, route, payload)?;
            self.stats.fragments_sent.add(1);
        }
        Ok(())
    }

    /// Passes a verified relay datagram on to the next hop, with the traffic class it came with.
    pub(crate) fn forward_relay(
        &mut self,
        (session, epoch, destination): (&Session, u32, &Toward),
        (ttl, class): (u8, u8),
        datagram: &[u8],
    ) -> Result<(), Reason> {
        let lane = self.worker.lane(epoch);
        let to = (destination, class);
        self.outbox.push(to, datagram.len(), |place| {
            place.copy_from_slice(datagram);
            session.rewrap(lane, ttl, place)
        })?;
        session.stats.of(self.worker.number).records_sent.add(1);
        Ok(())
    }
}

/// The traffic class of the frame in a payload, which its datagrams are to have.
fn class_of_payload(head: &Head, body: &[&[u8]]) -> u8 {
    let frame = match head.kind {
        PayloadKind::Frame => body.first(),
        // Behind the flood's own fields, or what a bundle has before its first frame.
        PayloadKind::Flood | PayloadKind::Bundle => body.get(1),
        _ => None,
    };
    frame.map_or(0, |frame| ecn::class_of(frame))
}

/// Puts a payload together where it is sent from, seals it there, and wraps it if it is to be
/// relayed.
fn send_record(
    worker: Worker,
    outbox: &mut Outbox,
    me: ShortId,
    route: &Route<'_>,
    (class, head, body): (u8, Head, &[&[u8]]),
) -> Result<(), Reason> {
    let to = (route.destination, class);
    let lane = worker.lane(route.epoch);
    debug_assert_ne!(lane, payload::CONTROL_LANE);
    let body_len = body.iter().map(|part| part.len()).sum::<usize>();
    let record_len = HEADER_LEN + HEAD_LEN + body_len + TAG_LEN;
    let fill = |text: &mut [u8]| {
        let (place, rest) = text.split_at_mut_checked(HEAD_LEN).ok_or(Reason::TooBig)?;
        place.copy_from_slice(&head.encode());
        concatenate(rest, body);
        Ok(())
    };
    let seal = |record: &mut [u8]| route.session.seal_record(lane, record, fill);
    let Some((neighbour, epoch)) = route.relay else {
        outbox.push(to, record_len, seal)?;
        route.session.stats.of(worker.number).records_sent.add(1);
        return Ok(());
    };
    let ends = RelayEnds {
        source: me,
        destination: route.session.peer.short_id(),
    };
    outbox.push(to, record_len + relay::OVERHEAD, |datagram| {
        let inner = datagram.get_mut(INNER_OFFSET..INNER_OFFSET + record_len);
        seal(inner.ok_or(Reason::TooBig)?)?;
        neighbour.wrap(worker.lane(epoch), ends, relay::TTL, datagram)
    })?;
    route.session.stats.of(worker.number).records_sent.add(1);
    neighbour.stats.of(worker.number).records_sent.add(1);
    Ok(())
}
