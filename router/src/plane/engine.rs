//! A worker's state and what it does with frames of this host's bridge.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rmesh_wire::flood::{self, FLOOD_HEADER_LEN, FloodHeader};
use rmesh_wire::payload::{Head, PayloadKind};
use rmesh_wire::{Mac, PeerId, ethernet};

use super::api::LearnedMac;
use super::bucket::Bucket;
use super::buffer::Buffer;
use super::fdb::{Fdb, Place};
use super::floods::{self, Floods};
use super::forward::{Decision, decide};
use super::inbox::Inbox;
use super::pending::Pending;
use super::reassembly::Reassembly;
use super::screen;
use super::second_way::SecondWay;
use super::stats::{Reason, WorkerStats};
use super::tables::Tables;
use super::transmit::Transmitter;
use crate::port::{FrameBatch, Port};

/// Everything one worker owns. Learned MACs, flood windows and waiting frames are the worker's
/// alone, which is right while a port has one queue; more queues have to share the first two.
pub(crate) struct Engine {
    pub(crate) port: Box<dyn Port>,
    pub(crate) transmitter: Transmitter,
    pub(crate) inbox: Inbox,
    pub(crate) stats: Arc<WorkerStats>,
    pub(crate) fdb: Fdb,
    pub(crate) floods: Floods,
    pub(crate) reassembly: Reassembly,
    pub(crate) second_way: SecondWay,
    pending: Pending,
    own_floods: Bucket,
    /// For datagrams of lane 0 whose session no snapshot has.
    pub(crate) unknown: Bucket,
    next_aging: Instant,
    flood_sequence: u64,
    /// Where a flood's copy for one child is made, and that of a control datagram to be verified.
    pub(crate) copy: Buffer,
}

/// Time between two rounds of looking after old state.
pub(crate) const TICK: Duration = Duration::from_millis(100);
/// Time between two looks at all learned MACs.
const AGING_EVERY: Duration = Duration::from_secs(10);

impl Engine {
    pub(crate) fn new(
        port: Box<dyn Port>,
        transmitter: Transmitter,
        inbox: Inbox,
        stats: Arc<WorkerStats>,
        now: Instant,
    ) -> Self {
        Engine {
            port,
            transmitter,
            inbox,
            stats,
            fdb: Fdb::default(),
            floods: Floods::default(),
            reassembly: Reassembly::default(),
            second_way: SecondWay::new(now),
            pending: Pending::default(),
            own_floods: floods::allowance(now),
            unknown: screen::allowance(now),
            next_aging: now + AGING_EVERY,
            flood_sequence: 0,
            copy: Buffer::default(),
        }
    }

    /// A new snapshot: what waited may go now.
    pub(crate) fn handle_tables(&mut self, tables: &Tables, now: Instant) {
        self.floods
            .retain(|source| tables.flood_tree(source).is_some());
        let ready = self.pending.take_ready(|peer| tables.route(peer).is_some());
        let mut buffer = Buffer::default();
        for (peer, frame) in ready {
            buffer.assign(&[&frame]);
            self.send_frame(peer, &mut buffer, tables, now);
            self.stats.pending_sent.add(1);
        }
    }

    /// Looks after everything that ages; to be called about every [`TICK`].
    pub(crate) fn handle_tick(&mut self, tables: &Tables, now: Instant) {
        let expired = self.pending.expire(now);
        self.stats.drop_many(Reason::PendingExpired, expired);
        self.reassembly.expire(now);
        let abandoned = self.reassembly.take_abandoned();
        self.stats.drop_many(Reason::ReassemblyAbandoned, abandoned);
        self.probe_second_way(tables, now);
        if now >= self.next_aging {
            self.next_aging = now + AGING_EVERY;
            self.fdb.expire(now);
        }
        self.stats.learned_macs.set(self.fdb.len() as u64);
    }

    /// A frame has come by a way it should not have.
    pub(crate) fn look_for_second_way(&mut self, tables: &Tables, now: Instant) {
        self.second_way.suspect(now);
        self.probe_second_way(tables, now);
    }

    fn probe_second_way(&mut self, tables: &Tables, now: Instant) {
        if let Some(probe) = self.second_way.poll_probe(tables, now) {
            // A bridge that is down loses the probe and nothing else.
            let _ = self.port.write(&probe);
        }
    }

    /// Whether something may become too old soon.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(crate) fn learned(&mut self, now: Instant) -> Vec<LearnedMac> {
        self.fdb.expire(now);
        self.fdb.list(now)
    }

    /// Carries what the bridge sent.
    pub(crate) fn handle_frames(&mut self, batch: &mut FrameBatch, tables: &Tables, now: Instant) {
        for buffer in batch.frames_mut() {
            self.stats.frames_from_bridge.add(1);
            self.stats.bytes_from_bridge.add(buffer.data().len() as u64);
            self.handle_frame(buffer, tables, now);
        }
    }

    fn handle_frame(&mut self, buffer: &mut Buffer, tables: &Tables, now: Instant) {
        let decision = decide(buffer.data(), tables, &self.fdb, now);
        if let Some((_, source)) = ethernet::addresses(buffer.data())
            && self.is_elsewhere(source, tables, now)
        {
            self.look_for_second_way(tables, now);
        }
        let carried_or_local = matches!(
            decision,
            Decision::Unicast(_) | Decision::Flood | Decision::Drop(Reason::Local)
        );
        if carried_or_local && let Some((_, source)) = ethernet::addresses(buffer.data()) {
            self.learn(source, Place::Local, tables, now);
        }
        match decision {
            Decision::Unicast(peer) => self.send_frame(peer, buffer, tables, now),
            Decision::Flood => self.originate_flood(buffer, tables, now),
            Decision::SecondWay(peer) => self.handle_second_way(peer, tables, now),
            Decision::Drop(reason) => self.stats.drop_one(reason),
        }
    }

    /// Whether a frame of our own bridge comes from a MAC that is behind another peer.
    fn is_elsewhere(&self, source: Mac, tables: &Tables, now: Instant) -> bool {
        match tables.announced(source) {
            Some(owner) => owner != tables.me,
            None => matches!(self.fdb.place(source, now), Some(Place::Remote(_))),
        }
    }

    /// Learns where `source` is, unless somebody announced it.
    pub(crate) fn learn(&mut self, source: Mac, place: Place, tables: &Tables, now: Instant) {
        if tables.announced(source).is_none() {
            self.fdb.learn(source, place, now);
        }
    }

    fn handle_second_way(&mut self, peer: PeerId, tables: &Tables, now: Instant) {
        self.stats.drop_one(Reason::SecondWayProbe);
        if let Some(suppressed) = self.second_way.handle_probe(tables.me, peer, now) {
            self.inbox.second_way(peer, suppressed);
        }
    }

    /// Sends the frame in `buffer` to one peer, or lets it wait for the way there.
    fn send_frame(&mut self, peer: PeerId, buffer: &mut Buffer, tables: &Tables, now: Instant) {
        let Some(route) = tables.route(peer) else {
            self.wait_for(peer, buffer.data(), now);
            return;
        };
        let len = buffer.data().len();
        let head = Head::new(PayloadKind::Frame).encode();
        let sent = if buffer.prepend(&head) {
            self.transmitter
                .send_payload(tables.me_short, &route, buffer)
        } else {
            Err(Reason::TooBig)
        };
        match sent {
            Ok(()) => {
                let lane = route.session.stats.of(self.transmitter.worker.number);
                lane.count_sent(route.kind(), len);
            }
            Err(reason) => self.stats.drop_one(reason),
        }
    }

    fn wait_for(&mut self, peer: PeerId, frame: &[u8], now: Instant) {
        let pushed = self.pending.push(peer, frame, now);
        if !pushed.queued {
            self.stats.drop_one(Reason::PendingFull);
        }
        if pushed.want {
            self.inbox.want(peer);
        }
    }

    fn originate_flood(&mut self, buffer: &Buffer, tables: &Tables, now: Instant) {
        if self.second_way.is_suppressed(now) {
            return self.stats.drop_one(Reason::Suppressed);
        }
        let Some(tree) = tables.flood_tree(tables.me_short) else {
            return; // Nobody else is there.
        };
        if !self.own_floods.take(now) {
            return self.stats.drop_one(Reason::Storm);
        }
        // Workers share no counter: each has the numbers of its own remainder.
        let worker = self.transmitter.worker;
        self.flood_sequence += 1;
        let header = FloodHeader {
            source: tables.me_short,
            boot: tables.boot_random,
            sequence: self.flood_sequence * worker.count as u64 + worker.number as u64,
        };
        for child in &tree.children {
            self.send_flood(*child, &header, flood::TTL, buffer.data(), tables);
        }
        self.stats.floods_originated.add(1);
    }

    /// Sends one copy of a flood; false if that was not possible.
    pub(crate) fn send_flood(
        &mut self,
        child: PeerId,
        header: &FloodHeader,
        ttl: u8,
        frame: &[u8],
        tables: &Tables,
    ) -> bool {
        let Some(route) = tables.route(child) else {
            self.stats.drop_one(Reason::NoPath);
            return false;
        };
        let head = Head {
            flags: ttl,
            ..Head::new(PayloadKind::Flood)
        };
        let fields: [u8; FLOOD_HEADER_LEN] = header.encode();
        let copied = self.copy.assign(&[&head.encode(), &fields, frame]);
        let sent = if copied {
            self.transmitter
                .send_payload(tables.me_short, &route, &mut self.copy)
        } else {
            Err(Reason::TooBig)
        };
        if let Err(reason) = sent {
            self.stats.drop_one(reason);
            return false;
        }
        let lane = route.session.stats.of(self.transmitter.worker.number);
        lane.count_sent(route.kind(), frame.len());
        true
    }

    /// Sends what was sealed and tells the control side what failed.
    pub(crate) fn flush(&mut self, now: Instant) {
        self.transmitter.outbox.flush();
        while let Some((destination, failure)) = self.transmitter.outbox.pop_failure() {
            self.inbox.send_failed(destination, failure, now);
        }
    }
}
