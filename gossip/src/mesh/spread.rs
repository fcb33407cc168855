//! Spreading records to the neighbours and taking in theirs.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cell::OnceCell;
use core::net::SocketAddr;
use core::time::Duration;

use rmesh_wire::codec::{self, Bytes};
use rmesh_wire::payload::{Head, PayloadKind};
use rmesh_wire::probe::Digest;
use rmesh_wire::{Instant, PeerId};

use super::Mesh;
use super::peer::{Peer, Way};
use crate::api::{Event, Path};
use crate::tcp::is_tcp;
use crate::topology::control::{CHANNEL_LEN_MAX, Control, pack_records};
use crate::topology::macs::Announcement;
use crate::topology::record::{AgedRecord, Body, RecordKey};
use crate::topology::store::Outcome;
use crate::topology::{Graph, Routes, overlay};

/// News arriving within this time is passed on together.
const BATCH: Duration = Duration::from_millis(5);
/// Digests in a row that must differ before a repair: one may just be news under way.
const MISMATCHES: u32 = 2;
/// Changed records within this time are followed together: one computation for all of them.
const ROUTES_COALESCE: Duration = Duration::from_millis(10);
/// Routes are followed at most this often while records keep changing: one change is followed at
/// once, a burst of them does not cost a computation each (the hold-down of RFC 8405).
const ROUTES_HOLD: Duration = Duration::from_millis(50);
/// A repair with one neighbour is started at most this often.
const REPAIR_INTERVAL: Duration = Duration::from_millis(500);

/// Records to be passed on, and from whom each came.
#[derive(Default)]
pub(crate) struct Outbox {
    news: BTreeMap<RecordKey, Option<PeerId>>,
    due: Option<Instant>,
}

impl Outbox {
    pub(crate) fn add(&mut self, key: RecordKey, from: Option<PeerId>, now: Instant) {
        self.news.insert(key, from);
        self.due.get_or_insert(now + BATCH);
    }
}

/// Probes that come together tell of one moment only: digests that differ are counted this often.
const MISMATCH_INTERVAL: Duration = Duration::from_millis(300);

impl Mesh {
    pub(crate) fn flush_deadline(&self) -> Option<Instant> {
        self.outbox.due
    }

    /// Passes news on to every neighbour it did not come from, and forgets what is too old.
    pub(crate) fn flush(&mut self, now: Instant) {
        if self.store.expire(self.me, now) {
            self.dirty.routes = true;
        }
        if self.outbox.due.is_none_or(|due| now < due) && !self.outbox_is_final() {
            return;
        }
        self.outbox.due = None;
        let news = core::mem::take(&mut self.outbox.news);
        let neighbours: Vec<PeerId> = self
            .peers
            .values()
            .filter(|peer| peer.is_neighbour())
            .map(|peer| peer.id)
            .collect();
        for neighbour in neighbours {
            let fresh = news.iter().filter(|(_, from)| **from != Some(neighbour));
            let records: Vec<AgedRecord> = fresh
                .filter_map(|(key, _)| Some(self.store.get(key)?.aged(now)))
                .collect();
            for message in pack_records(records) {
                self.send_control(neighbour, &message, now);
            }
        }
    }

    fn outbox_is_final(&self) -> bool {
        self.publisher_deadline().is_none() && !self.outbox.news.is_empty()
    }

    /// Sends a control message by the path in use.
    pub(crate) fn send_control(&mut self, id: PeerId, message: &Control, now: Instant) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let way = match peer.chosen {
            Some(Path::Direct(address)) => Way::Direct(address),
            Some(Path::Relay(_)) => Way::Relay,
            Some(Path::Tcp(_)) | None => return,
        };
        let Some(payload) = self.control_payload(message) else {
            return;
        };
        for datagram in self.seal_for_way(id, way, &payload) {
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
        for answer in answers {
            self.send_control(from, &answer, now);
        }
    }

    fn on_records(&mut self, from: PeerId, records: Vec<AgedRecord>, now: Instant) {
        let mut outdated = Vec::new();
        for aged in records {
            if self.is_own(&aged, now) {
                continue;
            }
            match self.store.insert(aged, self.crypto.as_ref(), now) {
                Outcome::Taken(key) => {
                    self.counters.records_accepted += 1;
                    self.outbox.add(key, Some(from), now);
                    self.routes_changed(now);
                    self.record_taken(&key, now);
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
        for message in pack_records(newer.collect::<Vec<_>>()) {
            self.send_control(from, &message, now);
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
        for (address, path) in &mut peer.direct {
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
        peer.desired = false;
        peer.desires_us = false;
        let over: Vec<u32> = self
            .sessions
            .values()
            .filter(|session| session.agreement.peer == id)
            .map(|session| session.agreement.local_index)
            .collect();
        for index in over {
            self.drop_session(index);
        }
        self.path_changed(id, "it said good-bye", now);
    }

    /// A neighbour's digest came with its probe.
    pub(crate) fn compare_digest(&mut self, id: PeerId, digest: Digest, now: Instant) {
        let same = digest == self.store.digest();
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.is_neighbour()) else {
            return;
        };
        if same {
            peer.mismatches = 0;
        } else if now >= peer.next_mismatch {
            peer.mismatches = peer.mismatches.saturating_add(1);
            peer.next_mismatch = now + MISMATCH_INTERVAL;
            let is_first = peer.mismatches < MISMATCHES;
            // Whether that was news under way shows soon, and not only with the next question.
            if let Some(path) = peer.used_mut().filter(|_| is_first) {
                path.ask_by(now + MISMATCH_INTERVAL);
            }
        }
        if peer.mismatches >= MISMATCHES && now >= peer.next_buckets {
            peer.next_buckets = now + REPAIR_INTERVAL;
            self.counters.repairs_started += 1;
            let buckets = self.store.buckets();
            self.send_control(id, &buckets, now);
        }
    }

    /// Records changed: the routes follow soon.
    pub(crate) fn routes_changed(&mut self, now: Instant) {
        let soon = now + ROUTES_COALESCE;
        self.routes_due
            .get_or_insert(soon.max(self.routes_followed + ROUTES_HOLD));
    }

    /// Follows changed records: routes, whom to be a neighbour of, paths that depend on both.
    pub(crate) fn refresh_routes(&mut self, now: Instant) {
        self.routes_due = None;
        self.routes_followed = now;
        let graph = Graph::from_store(&self.store);
        let routes = graph.routes(&self.me);
        let known: Vec<PeerId> = self
            .store
            .nodes()
            .map(|(peer, _)| peer)
            .filter(|peer| *peer != self.me)
            .collect();
        let peers = &self.peers;
        let trip = |peer: &PeerId| peers.get(peer).filter(|p| p.has_direct())?.round_trip();
        let mut desired = overlay::desired(&self.me, &known, trip);
        let direct = peers
            .values()
            .filter(|peer| peer.has_direct())
            .map(|peer| &peer.id);
        desired.extend(overlay::bridges(&self.me, direct, &graph));
        for (id, peer) in &mut self.peers {
            // A peer without a record has just been met: its record follows over the new link.
            let wanted = desired.contains(id) || self.store.node(id).is_none();
            if core::mem::replace(&mut peer.desired, wanted) != wanted {
                self.dirty.links = true;
            }
        }
        self.set_routes(routes);
        self.set_graph(graph);
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            self.choose(id, "the routes changed", now);
        }
        self.forget_peers();
        self.refresh_macs(now);
    }

    pub(crate) fn set_graph(&mut self, graph: Graph) {
        if graph != self.graph {
            self.graph = graph;
            self.floods = OnceCell::new();
            self.dirty.forwarding = true;
        }
    }

    fn set_routes(&mut self, routes: Routes) {
        if routes != self.routes {
            self.dirty.forwarding = true;
        }
        self.hops = routes
            .iter()
            .map(|(peer, route)| (peer.short_id(), route.next_hop))
            .collect();
        self.routes = routes;
    }

    /// Peers of whom nothing is left, neither record nor session, are forgotten.
    fn forget_peers(&mut self) {
        let open: alloc::collections::BTreeSet<PeerId> = self
            .sessions
            .values()
            .map(|session| session.agreement.peer)
            .collect();
        let store = &self.store;
        self.peers
            .retain(|id, _| store.get(&(*id, 0)).is_some() || open.contains(id));
    }

    pub(crate) fn refresh_macs(&mut self, now: Instant) {
        let (me, routes, peers) = (self.me, &self.routes, &self.peers);
        // The kernel may go on carrying frames for one whose router is restarting.
        let is_held = |peer: &PeerId| {
            let peer = peers.get(peer);
            peer.is_some_and(|peer: &Peer| peer.fast.in_use().is_some())
        };
        let is_there = |peer: &PeerId| routes.reaches(peer) || is_held(peer);
        let in_force = self
            .store
            .iter()
            .filter(|stored| stored.record.peer == me || is_there(&stored.record.peer));
        let announcements = in_force.flat_map(|stored| {
            let endpoints = match &stored.record.body {
                Body::Endpoints(endpoints) => endpoints.as_slice(),
                Body::Node(_) => &[],
            };
            let peer = stored.record.peer;
            endpoints.iter().map(move |e| Announcement {
                mac: e.mac,
                peer,
                moves: e.moves,
            })
        });
        for (mac, peer) in self.macs.refresh(announcements, now) {
            self.events.push_back(Event::MacFrozen { mac, peer });
        }
    }
}
