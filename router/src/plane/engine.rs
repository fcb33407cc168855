//! A worker's state and what it does with frames of this host's bridge.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rmesh_wire::flood::{self, FLOOD_HEADER_LEN, FloodHeader};
use rmesh_wire::payload::{Head, PartialChecksum, PayloadKind};
use rmesh_wire::{Mac, PeerId, ethernet};

use super::api::LearnedMac;
use super::buffer::Buffer;
use super::bundle::Bundle;
use super::delivery::Deliveries;
use super::fdb::{Fdb, Place};
use super::forward::{Decision, decide};
use super::inbox::Inbox;
use super::oversize::{fit, frame_len_max};
use super::pending::Pending;
use super::reassembly::Reassembly;
use super::screen::Screen;
use super::shared::Shared;
use super::stats::{Reason, WorkerStats};
use super::tables::{Route, Tables};
use super::too_big::TooBig;
use super::transmit::Transmitter;
use crate::port::offload::Offload;
use crate::port::split::Splitter;
use crate::port::{FrameBatch, Port, checksum};

/// Everything one worker owns, and what it shares with the others. All frames of a flow come to one
/// worker, so those that wait for a session are its own.
pub(crate) struct Engine {
    pub(crate) port: Box<dyn Port>,
    pub(crate) transmitter: Transmitter,
    pub(crate) inbox: Inbox,
    pub(crate) stats: Arc<WorkerStats>,
    pub(crate) fdb: Fdb,
    pub(crate) shared: Arc<Shared>,
    pub(crate) reassembly: Reassembly,
    pending: Pending,
    pub(crate) screen: Screen,
    next_aging: Instant,
    /// When to look for a second way: the first worker does so for all, and another only if it has found
    /// a sign of one.
    next_probe: Option<Instant>,
    /// Where a frame whose checksum is completed here is put together.
    whole: Buffer,
    /// Frames of the batch at hand for the bridge.
    pub(crate) deliveries: Deliveries,
    pub(crate) too_big: TooBig,
}

/// Time between two rounds of looking after old state.
pub(crate) const TICK: Duration = Duration::from_millis(100);
/// A worker that has nothing to look after wakes after this time all the same.
const LONG_REST: Duration = Duration::from_secs(3_600);
/// Time between two looks at all learned MACs.
const AGING_EVERY: Duration = Duration::from_secs(10);

impl Engine {
    pub(crate) fn new(
        port: Box<dyn Port>,
        transmitter: Transmitter,
        inbox: Inbox,
        (stats, shared): (Arc<WorkerStats>, Arc<Shared>),
        now: Instant,
    ) -> Self {
        let next_probe = (transmitter.worker.number == 0).then_some(now);
        Engine {
            port,
            transmitter,
            inbox,
            stats,
            fdb: Fdb::default(),
            shared,
            reassembly: Reassembly::default(),
            pending: Pending::default(),
            screen: Screen::new(now),
            next_aging: now + AGING_EVERY,
            next_probe,
            whole: Buffer::default(),
            deliveries: Deliveries::default(),
            too_big: TooBig::new(now),
        }
    }

    /// A new snapshot: what waited may go now.
    pub(crate) fn handle_tables(&mut self, tables: &Tables, now: Instant) {
        if self.is_first() {
            let known = |source| tables.is_source(source);
            self.shared.broadcasts().floods.retain(known);
        }
        let ready = self.pending.take_ready(|peer| tables.route(peer).is_some());
        for (peer, frame) in ready {
            self.send_frame(peer, (&frame.bytes, &frame.offload), tables, now);
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
        if self.next_probe.is_some_and(|due| due <= now) {
            self.probe_second_way(tables, now);
        }
        if now >= self.next_aging {
            self.next_aging = now + AGING_EVERY;
            self.fdb.expire(now);
            self.count_learned();
        }
    }

    /// Each worker knows them all.
    fn count_learned(&self) {
        if self.is_first() {
            self.stats.learned_macs.set(self.fdb.len() as u64);
        }
    }

    /// Whether this worker does what one has to do for all.
    fn is_first(&self) -> bool {
        self.transmitter.worker.number == 0
    }

    /// Takes in what other workers have learned.
    pub(crate) fn handle_news(&mut self, now: Instant) {
        let news = self.shared.news(self.transmitter.worker.number);
        for (mac, place) in news.into_iter().flatten() {
            self.fdb.hear(mac, place, now);
            self.count_learned();
        }
    }

    /// A frame has come by a way it should not have.
    pub(crate) fn look_for_second_way(&mut self, tables: &Tables, now: Instant) {
        self.shared.broadcasts().second_way.suspect(now);
        self.probe_second_way(tables, now);
    }

    fn probe_second_way(&mut self, tables: &Tables, now: Instant) {
        let mut broadcasts = self.shared.broadcasts();
        let due = broadcasts.second_way.poll_probe(tables, now);
        let next = broadcasts.second_way.next_probe();
        drop(broadcasts);
        self.next_probe = (self.is_first() || due.is_none()).then_some(next);
        if let Some(probe) = due {
            // A bridge that is down loses the probe and nothing else.
            let _ = self.port.write(&probe);
        }
    }

    /// How long nothing has to be looked after, [`TICK`] at least.
    pub(crate) fn rest(&self, now: Instant) -> Duration {
        if !self.pending.is_empty() || !self.reassembly.is_empty() {
            return TICK;
        }
        // What is not there does not age.
        let aging = (self.fdb.len() > 0).then_some(self.next_aging);
        let next = self.next_probe.into_iter().chain(aging).min();
        let rest = next.map(|next| next.saturating_duration_since(now));
        rest.unwrap_or(LONG_REST).max(TICK)
    }

    /// Tells the control side that frames moved since `before`, if it wants to be told.
    pub(crate) fn tell_traffic(&self, before: u64) {
        let moved = self.stats.moved() != before;
        if moved && self.shared.takes_traffic() && !self.inbox.traffic() {
            // There was no room; it is told by whatever moves next.
            self.shared.await_traffic();
        }
    }

    pub(crate) fn learned(&mut self, now: Instant) -> Vec<LearnedMac> {
        self.fdb.expire(now);
        self.count_learned();
        self.fdb.list(now)
    }

    /// Carries what the bridge sent.
    pub(crate) fn handle_frames(&mut self, batch: &FrameBatch, tables: &Tables, now: Instant) {
        let mut bundle = Bundle::default();
        for (frame, offload) in batch.frames() {
            self.stats.reads_from_bridge.add(1);
            self.stats.bytes_from_bridge.add(frame.len() as u64);
            self.handle_frame((frame, offload), &mut bundle, tables, now);
        }
        self.send_bundle(&mut bundle, tables);
    }

    fn handle_frame<'a>(
        &mut self,
        (frame, offload): (&'a [u8], &Offload),
        bundle: &mut Bundle<'a>,
        tables: &Tables,
        now: Instant,
    ) {
        let decision = decide(frame, tables, &self.fdb, now);
        if let Some((_, source)) = ethernet::addresses(frame)
            && self.is_elsewhere(source, tables, now)
        {
            self.look_for_second_way(tables, now);
        }
        let carried_or_local = matches!(
            decision,
            Decision::Unicast(_) | Decision::Flood | Decision::Drop(Reason::Local)
        );
        if carried_or_local && let Some((_, source)) = ethernet::addresses(frame) {
            self.learn(source, Place::Local, tables, now);
        }
        let frames = match decision {
            Decision::Unicast(peer) if self.bundle(bundle, peer, (frame, offload), tables) => 1,
            Decision::Unicast(peer) => self.send_frame(peer, (frame, offload), tables, now),
            Decision::Flood => self.originate_floods((frame, offload), tables, now),
            Decision::SecondWay(peer) => {
                self.handle_second_way(peer, tables, now);
                1
            }
            Decision::Drop(reason) => {
                self.stats.drop_one(reason);
                1
            }
        };
        self.stats.frames_from_bridge.add(frames);
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
            self.learn_unannounced(source, place, now);
        }
    }

    /// The same for one that is known to be nobody's.
    pub(crate) fn learn_unannounced(&mut self, source: Mac, place: Place, now: Instant) {
        if self.fdb.learn(source, place, now) {
            self.shared
                .tell(self.transmitter.worker.number, source, place);
            self.count_learned();
        }
    }

    fn handle_second_way(&mut self, peer: PeerId, tables: &Tables, now: Instant) {
        self.stats.drop_one(Reason::SecondWayProbe);
        let mut broadcasts = self.shared.broadcasts();
        let news = broadcasts.second_way.handle_probe(tables.me, peer, now);
        self.next_probe = Some(broadcasts.second_way.next_probe());
        drop(broadcasts);
        if let Some(suppressed) = news {
            self.inbox.second_way(peer, suppressed);
        }
    }

    /// Sends a frame to one peer, cut if it is a super-frame, or lets it wait for the way there.
    /// Gives how many frames that were.
    fn send_frame(
        &mut self,
        peer: PeerId,
        (frame, offload): (&[u8], &Offload),
        tables: &Tables,
        now: Instant,
    ) -> u64 {
        let Some(route) = tables.route(peer) else {
            self.wait_for(peer, (frame, offload), now);
            return 1;
        };
        let len_max = frame_len_max(&route);
        let offload = &fit(frame, offload, len_max);
        if offload.cut.is_some() {
            return self.send_pieces(&route, (frame, offload), tables, now);
        }
        if frame.len() > len_max {
            self.tell_too_big(&route, &[frame], now);
        }
        let head = match offload.checksum {
            None => Some(Head::new(PayloadKind::Frame)),
            Some(partial) => partial.head(),
        };
        let sent = match head {
            Some(head) => self
                .transmitter
                .send_payload(tables.me_short, &route, head, &[frame]),
            None => self.send_completed(&route, (frame, offload), tables),
        };
        self.count_sent(&route, sent, frame.len());
        1
    }

    fn count_sent(&self, route: &Route<'_>, sent: Result<(), Reason>, len: usize) {
        match sent {
            Ok(()) => {
                let lane = route.session.stats.of(self.transmitter.worker.number);
                lane.count_sent(route.kind(), 1, len);
            }
            Err(reason) => self.stats.drop_one(reason),
        }
    }

    /// Sends each piece of a super-frame as a record of its own, which may be lost alone.
    fn send_pieces(
        &mut self,
        route: &Route<'_>,
        (frame, offload): (&[u8], &Offload),
        tables: &Tables,
        now: Instant,
    ) -> u64 {
        let head = offload.checksum.and_then(PartialChecksum::head);
        let (Some(mut splitter), Some(head)) = (Splitter::new(frame, offload), head) else {
            self.stats.drop_one(Reason::BadSuperFrame);
            return 1;
        };
        let (mut frames, mut sent, mut bytes) = (0, 0, 0);
        while let Some((headers, piece)) = splitter.next() {
            let body = [headers, piece];
            let len = headers.len() + piece.len();
            if frames == 0 && len > frame_len_max(route) {
                self.tell_too_big(route, &body, now);
            }
            let transmitter = &mut self.transmitter;
            match transmitter.send_payload(tables.me_short, route, head, &body) {
                Ok(()) => (sent, bytes) = (sent + 1, bytes + len),
                Err(reason) => self.stats.drop_one(reason),
            }
            frames += 1;
        }
        let lane = route.session.stats.of(self.transmitter.worker.number);
        lane.count_sent(route.kind(), sent, bytes);
        frames
    }

    /// Sends a frame whose checksum is of no kind that records can tell of.
    fn send_completed(
        &mut self,
        route: &Route<'_>,
        (frame, offload): (&[u8], &Offload),
        tables: &Tables,
    ) -> Result<(), Reason> {
        let partial = offload.checksum.ok_or(Reason::BadSuperFrame)?;
        if !self.whole.assign(&[frame]) || !checksum::complete(self.whole.data_mut(), partial) {
            return Err(Reason::BadSuperFrame);
        }
        let head = Head::new(PayloadKind::Frame);
        let body = [self.whole.data()];
        self.transmitter
            .send_payload(tables.me_short, route, head, &body)
    }

    fn wait_for(&mut self, peer: PeerId, frame: (&[u8], &Offload), now: Instant) {
        let pushed = self.pending.push(peer, frame, now);
        if !pushed.queued {
            self.stats.drop_one(Reason::PendingFull);
        }
        if pushed.want {
            self.inbox.want(peer);
        }
    }

    /// Floods a frame, cut if it is a super-frame. Those who get it may be many and of any kind,
    /// so checksums are completed here. Gives how many frames that were.
    fn originate_floods(
        &mut self,
        (frame, offload): (&[u8], &Offload),
        tables: &Tables,
        now: Instant,
    ) -> u64 {
        let Some(partial) = offload.checksum else {
            self.originate_flood(frame, tables, now);
            return 1;
        };
        let mut whole = self.whole.take();
        let mut flood = |parts: &[&[u8]]| {
            if whole.assign(parts) && checksum::complete(whole.data_mut(), partial) {
                self.originate_flood(whole.data(), tables, now);
            }
        };
        let mut frames = 0;
        match (offload.cut, Splitter::new(frame, offload)) {
            (None, _) => {
                flood(&[frame]);
                frames = 1;
            }
            (Some(_), Some(mut splitter)) => {
                while let Some((headers, piece)) = splitter.next() {
                    flood(&[headers, piece]);
                    frames += 1;
                }
            }
            (Some(_), None) => {
                self.stats.drop_one(Reason::BadSuperFrame);
                frames = 1;
            }
        }
        self.whole = whole;
        frames
    }

    fn originate_flood(&mut self, frame: &[u8], tables: &Tables, now: Instant) {
        let Some(tree) = tables.flood_tree(tables.me_short) else {
            return; // Nobody else is there.
        };
        let sequence = match self.shared.broadcasts().originate(now) {
            Ok(sequence) => sequence,
            Err(reason) => return self.stats.drop_one(reason),
        };
        let header = FloodHeader {
            source: tables.me_short,
            boot: tables.boot_random,
            sequence,
        };
        for child in &tree.children {
            self.send_flood(*child, &header, flood::TTL, frame, tables);
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
        let sent = self
            .transmitter
            .send_payload(tables.me_short, &route, head, &[&fields, frame]);
        if let Err(reason) = sent {
            self.stats.drop_one(reason);
            return false;
        }
        let lane = route.session.stats.of(self.transmitter.worker.number);
        lane.count_sent(route.kind(), 1, frame.len());
        true
    }

    /// Sends what was sealed and tells the control side what failed.
    pub(crate) fn flush(&mut self, now: Instant) {
        self.transmitter.outbox.flush();
        while let Some(failed) = self.transmitter.outbox.pop_failure() {
            self.inbox.send_failed(failed, now);
        }
    }
}
