//! Spreading records to the neighbours and taking in theirs.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use rmesh_wire::codec::{self, Bounded, Bytes};
use rmesh_wire::payload::{Head, PayloadKind};
use rmesh_wire::{Instant, PeerId, ShortId};

use super::Mesh;
use super::guard::Allowance;
use super::peer::Way;
use crate::api::{Event, Path};
use crate::crypto::peer_id;
use crate::limits::{
    LINKS_MAX, RECORDS_BURST, RECORDS_PER_S, SPREAD_BYTES_PER_S, SPREAD_BYTES_PER_S_OF_ALL,
};
use crate::tcp::is_tcp;
use crate::topology::control::{Announcement, CHANNEL_LEN_MAX, Control, pack_records, record_len};
use crate::topology::record::{AgedRecord, Body, Link, RecordKey};
use crate::topology::store::Outcome;

/// News arriving within this time is passed on together, …
const BATCH: Duration = Duration::from_millis(5);
/// … and where there is always more, what comes within this time.
const BATCH_BUSY: Duration = Duration::from_millis(25);
/// After so much that it is only announced: a message then tells of many.
const BATCH_FLOODED: Duration = Duration::from_millis(100);
/// Trees of a large mesh computed at once and in a second: where more is new everybody's links are in motion, and
/// so are the trees.
const TREES_BURST: u32 = 24;
const TREES_PER_S: u32 = 16;
/// Neighbours are asked after such a flood when nothing has come for this time, so many and so often.
const LOOK_AFTER: Duration = Duration::from_millis(750);
const LOOKS: u32 = 3;
const LOOKS_AT: usize = 2;
/// Bytes of a list of what is held, more or less.
const HAVE_LEN: usize = 640;
/// Bytes of an announcement in a message.
const ANNOUNCEMENT_LEN: usize = 26;
/// Of more records at once most are old news elsewhere: they are announced only.
const PUSHED_MAX: usize = 12;

/// Records to be passed on, and from whom each came.
#[derive(Default)]
pub(crate) struct Outbox {
    news: BTreeMap<RecordKey, Option<PeerId>>,
    /// The same in the order they came; each once.
    order: VecDeque<RecordKey>,
    due: Option<Instant>,
    passed_on: Instant,
    /// When a record was news last.
    pub(super) taken_last: Instant,
    /// When any repair was started last.
    pub(super) repaired_last: Instant,
    /// Trees that may be computed.
    trees: Allowance,
    /// Whether that was so much that it was only announced.
    flooded: bool,
    /// How often neighbours are still asked after that, and when they were last.
    looks: u32,
    looked: Instant,
    /// For news, and for what others ask for: who asks for more and more does not keep news from the others.
    passing: Budget,
    answering: Budget,
}

/// Bytes of records sent lately, of which only so many may be sent in a second.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    used: u32,
    since: Instant,
}

/// Bytes of records a peer may send in a second, with `peers` known. Few peers may send more each.
pub(super) fn spread_bytes_per_s(peers: usize) -> u32 {
    let peers = u32::try_from(peers).unwrap_or(u32::MAX).max(1);
    (SPREAD_BYTES_PER_S_OF_ALL / peers).max(SPREAD_BYTES_PER_S)
}

impl Budget {
    /// Whether more may be sent.
    pub(super) fn is_left(&mut self, per_s: u32, now: Instant) -> bool {
        let back = now.since(self.since).as_millis() * u128::from(per_s) / 1_000;
        if back > 0 {
            let back = u32::try_from(back).unwrap_or(u32::MAX);
            self.used = self.used.saturating_sub(back);
            self.since = now;
        }
        // At once a quarter, so that no second sees much more than its share.
        self.used < per_s / 4
    }

    pub(super) fn spend(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.used = self.used.saturating_add(bytes);
    }
}

impl Outbox {
    pub(crate) fn add(&mut self, key: RecordKey, from: Option<PeerId>, now: Instant) {
        if self.news.insert(key, from).is_none() {
            match from {
                Some(_) => self.order.push_back(key),
                None => self.order.push_front(key),
            }
        }
        let between = if self.flooded {
            BATCH_FLOODED
        } else {
            BATCH_BUSY
        };
        let due = (now + BATCH).max(self.passed_on + between);
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    /// Whether so much is to be passed on that no tree is computed for it, and it is only announced: whoever
    /// lacks it asks one that has it.
    fn is_busy(&self) -> bool {
        self.order.len() > PUSHED_MAX
    }

    fn has_trees(&mut self, now: Instant) -> bool {
        self.trees.is_left(TREES_BURST, TREES_PER_S, now)
    }

    fn take_tree(&mut self, now: Instant) -> bool {
        self.trees.take(TREES_BURST, TREES_PER_S, now)
    }

    fn next(&mut self) -> Option<(RecordKey, Option<PeerId>)> {
        let key = self.order.pop_front()?;
        self.news.remove_entry(&key)
    }
}

impl Mesh {
    pub(crate) fn flush_deadline(&self) -> Option<Instant> {
        let look = (self.outbox.looks > 0).then(|| self.look_at());
        [self.outbox.due, look].into_iter().flatten().min()
    }

    fn look_at(&self) -> Instant {
        self.outbox.taken_last.max(self.outbox.looked) + LOOK_AFTER
    }

    /// What was only announced does not reach everybody: when no more comes some neighbours are asked, and digests
    /// find what is missing.
    fn look_after_flood(&mut self, now: Instant) {
        if self.outbox.looks == 0 || now < self.look_at() {
            return;
        }
        self.outbox.looks -= 1;
        self.outbox.looked = now;
        let all: Vec<PeerId> = self.neighbours().iter().copied().collect();
        let turn = usize::try_from(self.random.public_u64() % 64).unwrap_or(0);
        let some = all.iter().cycle().skip(turn).take(LOOKS_AT.min(all.len()));
        for id in some {
            let path = self.peers.get_mut(id).and_then(|peer| peer.used_mut());
            path.into_iter().for_each(|path| path.ask_now(now));
        }
    }

    /// Passes news on to the neighbours below in their trees, tells others of them, and forgets what is too old.
    pub(crate) fn flush(&mut self, now: Instant) {
        for key in self.store.expire(self.me, now) {
            self.record_changed(&key, now);
            self.dirty.routes = true;
            self.dirty.gone = true;
        }
        self.look_after_flood(now);
        if self.outbox.due.is_none_or(|due| now < due) && !self.outbox_is_final() {
            return;
        }
        self.outbox.due = None;
        self.outbox.passed_on = now;
        let is_large = self.is_large();
        let is_busy = self.outbox.is_busy() || (is_large && !self.outbox.has_trees(now));
        self.outbox.flooded = is_busy;
        if !is_busy && !self.dirty.nodes.is_empty() {
            // Everybody passes a record on by the trees that it is part of.
            self.refresh_routes(now);
        }
        let mut neighbours: Vec<PeerId> = self.neighbours().iter().copied().collect();
        // Those that are told of much are the same ones for all of it: few messages tell of many records.
        let turn = usize::try_from(self.random.public_u64() % 64).unwrap_or(0);
        let turn = turn % neighbours.len().max(1);
        neighbours.rotate_left(turn);
        let per_s = spread_bytes_per_s(self.peers.len());
        let mut batches: BTreeMap<PeerId, Vec<AgedRecord>> = BTreeMap::new();
        let mut told: BTreeMap<PeerId, Vec<Announcement>> = BTreeMap::new();
        while let Some((key, from)) = self.outbox.next() {
            let Some((record, hash)) = self.store.get(&key).map(|s| (s.aged(now), s.hash())) else {
                continue;
            };
            let is_own = key.0 == self.me;
            let has_room = !is_busy && self.outbox.passing.is_left(per_s / 3, now);
            let pushed = is_own || (has_room && (!is_large || self.outbox.take_tree(now)));
            self.outbox.flooded |= !pushed;
            let audience = self.audience(key.0, from, &neighbours, pushed, is_busy);
            for neighbour in audience.pushed {
                self.outbox.passing.spend(record_len(&record));
                batches.entry(neighbour).or_default().push(record.clone());
            }
            for neighbour in audience.told {
                let announcement = Announcement { key, hash };
                self.outbox.passing.spend(ANNOUNCEMENT_LEN);
                told.entry(neighbour).or_default().push(announcement);
            }
        }
        if self.outbox.flooded {
            self.outbox.looks = LOOKS;
        }
        for (neighbour, records) in batches {
            for message in pack_records(records) {
                self.send_control(neighbour, &message, now);
            }
        }
        self.announce(told, now);
    }

    fn outbox_is_final(&self) -> bool {
        self.publisher_deadline().is_none() && !self.outbox.news.is_empty()
    }

    /// Sends a control message by the path in use.
    pub(crate) fn send_control(&mut self, id: PeerId, message: &Control, now: Instant) {
        if self.used_way(id).is_some()
            && let Some(payload) = self.control_payload(message)
        {
            self.send_by_used(id, &payload, now);
        }
    }

    fn used_way(&self, id: PeerId) -> Option<Way> {
        match self.peers.get(&id)?.chosen? {
            Path::Direct(address) => Some(Way::Direct(address)),
            Path::Relay(_) => Some(Way::Relay),
            Path::Tcp(_) => None,
        }
    }

    /// Sends a payload of the control side by the path in use.
    pub(super) fn send_by_used(&mut self, id: PeerId, payload: &[u8], now: Instant) {
        let Some(way) = self.used_way(id) else {
            return;
        };
        for datagram in self.seal_for_way(id, way, payload) {
            self.send_way(id, way, datagram, now);
        }
    }

    /// Sends a control message under one of several sessions, the way its peer was last heard.
    pub(crate) fn send_control_under(&mut self, index: u32, message: &Control, now: Instant) {
        let payload = self.control_payload(message);
        let sealed = payload.and_then(|payload| self.seal_under(index, &payload));
        if let Some((origin, datagrams)) = sealed {
            for datagram in datagrams {
                self.send_to(origin, datagram, now);
            }
        }
    }

    fn control_payload(&mut self, message: &Control) -> Option<Vec<u8>> {
        let mut payload = Vec::from(Head::new(PayloadKind::Control).encode());
        payload.extend_from_slice(&message.encode()?);
        if let Control::Records(records) = message {
            self.counters.records_sent += records.as_slice().len() as u64;
        }
        Some(payload)
    }

    pub(super) fn send_on_channel(&mut self, id: PeerId, channel: u8, bytes: &[u8], now: Instant) {
        if let Some(bytes) = Bytes::<CHANNEL_LEN_MAX>::new(Vec::from(bytes)) {
            self.send_control(id, &Control::Channel(channel, bytes), now);
        }
    }

    /// A control message arrived.
    pub(crate) fn on_control(&mut self, from: PeerId, body: &[u8], now: Instant) {
        let Ok(message) = codec::decode::<Control>(body) else {
            self.counters.datagrams_ignored += 1;
            return;
        };
        let answers = match message {
            Control::Records(records) => {
                return self.on_records(from, records.into_vec(), now);
            }
            Control::Buckets(digests) => self.store.on_buckets(digests.as_slice()),
            Control::Have(have) => self.store.on_have(&have, now),
            Control::Want(keys) => self.store.on_want(keys.as_slice(), now),
            Control::Announce(announced) => {
                return self.on_announce(from, announced.as_slice(), now);
            }
            Control::Channel(channel, bytes) => {
                let bytes = bytes.into_vec();
                self.events.push_back(Event::ChannelMessage {
                    peer: from,
                    channel,
                    bytes,
                });
                return;
            }
        };
        self.answer(from, answers, now);
    }

    /// Sends what a neighbour lacks: more of it when it asks again. It did not get these another way.
    fn answer(&mut self, to: PeerId, answers: Vec<Control>, now: Instant) {
        let per_s = spread_bytes_per_s(self.peers.len());
        for answer in answers {
            let len = match &answer {
                Control::Records(records) => records.as_slice().iter().map(record_len).sum(),
                Control::Have(_) => HAVE_LEN,
                _ => 0,
            };
            if len > 0 {
                // One that asks without end gets half of what there is for all.
                let own = self.peers.get_mut(&to).map(|peer| &mut peer.answered);
                let own = own.and_then(|own| own.is_left(per_s / 3, now).then_some(own));
                let Some(own) = own.filter(|_| self.outbox.answering.is_left(per_s / 3 * 2, now))
                else {
                    self.counters.answers_dropped += 1;
                    continue;
                };
                own.spend(len);
                self.outbox.answering.spend(len);
            }
            self.send_control(to, &answer, now);
        }
    }

    fn on_records(&mut self, from: PeerId, records: Vec<AgedRecord>, now: Instant) {
        let mut outdated = Vec::new();
        for aged in records {
            if self.is_own(&aged, now) {
                continue;
            }
            let origin = peer_id(&aged.signed.identity);
            if self.store.holds(origin, &aged.signed) {
                self.counters.records_known += 1;
                continue;
            }
            if !self.may_publish(origin, now) {
                self.counters.records_limited += 1;
                continue;
            }
            let links = self.store.node(&origin).map(|node| node.links.clone());
            match self.store.insert(aged, self.crypto.as_ref(), now) {
                Outcome::Taken(key) => {
                    self.counters.records_accepted += 1;
                    self.outbox.taken_last = now;
                    self.outbox.add(key, Some(from), now);
                    self.note_came(&key);
                    self.record_changed(&key, now);
                    self.record_taken(&key, now);
                    self.ask_who_lost_a_link(origin, links, now);
                    self.count_published(origin, now);
                }
                Outcome::Outdated(key) => {
                    self.counters.records_known += 1;
                    outdated.push(key);
                }
                Outcome::Known => self.counters.records_known += 1,
                Outcome::Refused => self.counters.records_refused += 1,
            }
        }
        let newer = outdated
            .iter()
            .filter_map(|key| Some(self.store.get(key)?.aged(now)));
        let newer = pack_records(newer.collect::<Vec<_>>());
        self.answer(from, newer, now);
    }

    fn note_came(&mut self, key: &RecordKey) {
        if let Some(stored) = self.store.get(key) {
            self.announced.came(key, stored.hash());
        }
    }

    /// Whether a peer has not published too much lately; forgeries in its name do not count.
    fn may_publish(&mut self, origin: PeerId, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&origin) else {
            return true;
        };
        let may = peer.records.is_left(RECORDS_BURST, RECORDS_PER_S, now);
        if !may {
            peer.limited = Some(now);
        }
        may
    }

    fn count_published(&mut self, origin: PeerId, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&origin) {
            peer.records.take(RECORDS_BURST, RECORDS_PER_S, now);
        }
    }

    /// Somebody has lost a link: its other end may be gone, and is asked for a sign of life at once by
    /// those that would otherwise notice when its next probe is due.
    fn ask_who_lost_a_link(
        &mut self,
        origin: PeerId,
        before: Option<Bounded<Link, LINKS_MAX>>,
        now: Instant,
    ) {
        let after = self.store.node(&origin).map(|node| node.links.as_slice());
        let after = after.unwrap_or_default();
        let is_lost = |link: &&Link| after.iter().all(|other| other.to != link.to);
        let before = before.as_ref().map_or(&[][..], Bounded::as_slice);
        let lost = before.iter().filter(is_lost);
        let lost: Vec<ShortId> = lost.map(|link| link.to).collect();
        if lost.is_empty() {
            return;
        }
        let mut ends: Vec<PeerId> = self.neighbours().iter().copied().collect();
        ends.retain(|id| lost.contains(&id.short_id()));
        for id in ends {
            let peer = self.peers.get_mut(&id);
            for path in peer.into_iter().flat_map(|peer| peer.direct.values_mut()) {
                path.ask_now(now);
            }
        }
    }

    /// Whether a record claims to be this peer's; a newer one than its own is outbid.
    fn is_own(&mut self, aged: &AgedRecord, now: Instant) -> bool {
        // Compared before anything is decoded: nearly every record is somebody else's.
        if aged.signed.identity != self.identity_public {
            return false;
        }
        let Some(record) = aged.signed.decode() else {
            return true;
        };
        let own = self
            .own_version(&record.key())
            .max(self.own_version(&(self.me, 0)));
        let newer = own.is_none_or(|own| record.version > own) && record.version.boot >= self.boot;
        if (newer || self.is_unknown_life(&record))
            && aged.signed.is_authentic(self.crypto.as_ref())
        {
            let age = Duration::from_millis(aged.age_ms.into());
            self.on_other_life(&record, age, newer, now);
        }
        true
    }

    /// News about a peer: its name, and where it may be reached.
    fn record_taken(&mut self, key: &RecordKey, now: Instant) {
        self.dirty.forwarding = true;
        self.news.record(key);
        let id = key.0;
        let stored = self.store.get(key).map(|stored| stored.record.body.clone());
        let Some(Body::Node(node)) = stored else {
            return;
        };
        if node.leaving {
            return self.on_leaving(id, now);
        }
        self.tell_other_lives(id, now);
        self.meet(id, &node.name, now);
        let published = node.addresses.as_slice();
        let is_way = |address: &&SocketAddr| {
            !self.own_addresses_met.contains(*address) && !self.is_containers(address.ip())
        };
        let ways: Vec<SocketAddr> = published.iter().filter(is_way).copied().collect();
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        for address in ways {
            peer.add_published(address, now);
        }
        peer.retain_candidates(|address| is_tcp(*address) || published.contains(address));
        let mut withdrawn = false;
        for (address, path) in peer.direct.iter_mut() {
            path.note_published(published.contains(address), now);
            withdrawn |= path.is_withdrawn();
        }
        if withdrawn {
            self.path_changed(id, "its address changed", now);
        }
    }

    /// A peer said good-bye: nothing leads to it any more.
    fn on_leaving(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.direct.clear();
        self.dirty.fast.insert(id);
        self.dirty.gone = true;
        peer.desired = false;
        peer.desires_us = false;
        let over: Vec<u32> = self
            .sessions
            .values()
            .filter(|session| session.agreement.peer == id)
            .map(|session| session.agreement.local_index)
            .collect();
        for index in over {
            self.drop_session(index, now);
        }
        self.path_changed(id, "it said good-bye", now);
    }
}
