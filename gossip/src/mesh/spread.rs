//! Spreading records to the neighbours and taking in theirs.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use rmesh_wire::codec::{self, Bytes};
use rmesh_wire::payload::{Head, PayloadKind};
use rmesh_wire::probe::Digest;
use rmesh_wire::{Instant, PeerId};

use super::Mesh;
use super::peer::Way;
use crate::api::{Event, Path};
use crate::tcp::is_tcp;
use crate::topology::control::{CHANNEL_LEN_MAX, Control, pack_records};
use crate::topology::record::{AgedRecord, Body, RecordKey};
use crate::topology::store::Outcome;

/// News arriving within this time is passed on together.
const BATCH: Duration = Duration::from_millis(5);
/// Digests in a row that must differ before a repair: one may just be news under way.
const MISMATCHES: u32 = 2;
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
        for key in self.store.expire(self.me, now) {
            self.record_changed(&key, now);
            self.dirty.routes = true;
            self.dirty.gone = true;
        }
        if self.outbox.due.is_none_or(|due| now < due) && !self.outbox_is_final() {
            return;
        }
        self.outbox.due = None;
        let news = core::mem::take(&mut self.outbox.news);
        let neighbours = self.active_peers().filter(|peer| peer.is_neighbour());
        let neighbours: Vec<PeerId> = neighbours.map(|peer| peer.id).collect();
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
                    self.record_changed(&key, now);
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
}
