//! From a payload to sealed datagrams on their way: lanes, relay wrapping, fragments.

use std::net::SocketAddr;
use std::sync::Arc;

use rmesh_wire::fragment::{FRAGMENT_HEADER_LEN, FRAGMENTS_MAX, FragmentHeader};
use rmesh_wire::payload::{HEAD_LEN, Head, PayloadKind};
use rmesh_wire::relay::{self, RelayEnds};
use rmesh_wire::{ShortId, payload};

use super::buffer::Buffer;
use super::outbox::Outbox;
use super::session::{Session, lane_of};
use super::stats::{Reason, WorkerStats};
use super::tables::Route;

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
    /// Where fragments are made.
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

    /// Sends the payload in `buffer`, whose content is used up.
    pub(crate) fn send_payload(
        &mut self,
        me: ShortId,
        route: &Route<'_>,
        buffer: &mut Buffer,
    ) -> Result<(), Reason> {
        if buffer.data().len() <= route.payload_len_max {
            return send_record(self.worker, &mut self.outbox, me, route, buffer);
        }
        self.send_fragments(me, route, buffer.data())
    }

    fn send_fragments(
        &mut self,
        me: ShortId,
        route: &Route<'_>,
        payload: &[u8],
    ) -> Result<(), Reason> {
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
            self.scratch
                .assign(&[&head.encode(), &header.encode(), piece]);
            let (outbox, scratch) = (&mut self.outbox, &mut self.scratch);
            send_record(self.worker, outbox, me, route, scratch)?;
            self.stats.fragments_sent.add(1);
        }
        Ok(())
    }

    /// Passes a verified relay datagram on to the next hop.
    pub(crate) fn forward_relay(
        &mut self,
        (session, epoch, destination): (&Session, u32, SocketAddr),
        ttl: u8,
        buffer: &mut Buffer,
    ) -> Result<(), Reason> {
        session.rewrap(self.worker.lane(epoch), ttl, buffer.data_mut())?;
        session.stats.of(self.worker.number).records_sent.add(1);
        self.outbox.push(buffer, destination);
        Ok(())
    }
}

/// Seals the payload in `buffer`, wraps it if it is to be relayed, and queues it.
fn send_record(
    worker: Worker,
    outbox: &mut Outbox,
    me: ShortId,
    route: &Route<'_>,
    buffer: &mut Buffer,
) -> Result<(), Reason> {
    let lane = worker.lane(route.epoch);
    debug_assert_ne!(lane, payload::CONTROL_LANE);
    route.session.seal_record(lane, buffer)?;
    let lane_stats = route.session.stats.of(worker.number);
    lane_stats.records_sent.add(1);
    if let Some((neighbour, epoch)) = route.relay {
        let ends = RelayEnds {
            source: me,
            destination: route.session.peer.short_id(),
        };
        neighbour.wrap(worker.lane(epoch), ends, relay::TTL, buffer)?;
        neighbour.stats.of(worker.number).records_sent.add(1);
    }
    outbox.push(buffer, route.destination);
    Ok(())
}
