//! The records of all peers: which are kept, how old they are, and a digest of the set.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use rmesh_wire::probe::Digest;
use rmesh_wire::{Instant, PeerId};

use super::record::{AgedRecord, Body, Node, Record, RecordKey, SignedRecord, Version};
use crate::crypto::Crypto;
use crate::limits::{PEERS_MAX, RECORD_AGE_MAX, RECORD_APART_MAX, RECORD_END};

/// Sections kept of all peers together.
const RECORDS_MAX: usize = PEERS_MAX * 2;

/// A record that is kept.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) record: Record,
    signed: SignedRecord,
    /// When it was made, as far as its age tells.
    made: Instant,
    /// Its age when it arrived, beyond the start of the local clock.
    age_before: Duration,
    /// Since when no links lead to the peer, and how long that had been so for others before.
    apart: Option<(Instant, Duration)>,
    hash: u64,
}

impl Stored {
    /// The record with its age, to be sent on.
    pub(crate) fn aged(&self, now: Instant) -> AgedRecord {
        let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        AgedRecord {
            age_ms: millis(self.age(now)),
            apart_ms: millis(self.apart_for(now)),
            signed: self.signed.clone(),
        }
    }

    fn age(&self, now: Instant) -> Duration {
        self.age_before + now.since(self.made)
    }

    fn apart_for(&self, now: Instant) -> Duration {
        self.apart
            .map_or(Duration::ZERO, |(since, before)| before + now.since(since))
    }

    /// Whether it is young enough to be given to others; see [`RECORD_END`].
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        is_young(self.age(now), self.apart_for(now))
    }

    fn expires(&self) -> Instant {
        let by_age = self.made + RECORD_AGE_MAX.saturating_sub(self.age_before);
        let apart = self
            .apart
            .map(|(since, before)| since + RECORD_APART_MAX.saturating_sub(before));
        apart.map_or(by_age, |apart| apart.min(by_age))
    }
}

/// What became of a record that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Kept; it is news.
    Taken(RecordKey),
    /// Already there.
    Known,
    /// A newer one is there.
    Outdated(RecordKey),
    /// Malformed, forged, too old or beyond a bound.
    Refused,
}

fn is_young(age: Duration, apart: Duration) -> bool {
    age + RECORD_END < RECORD_AGE_MAX && apart + RECORD_END < RECORD_APART_MAX
}

/// All records.
#[derive(Debug, Default)]
pub(crate) struct Store {
    records: BTreeMap<RecordKey, Stored>,
    /// Peers that links lead to.
    reached: BTreeSet<PeerId>,
    /// When each of them expires.
    expiry: BTreeSet<(Instant, RecordKey)>,
    digest: Digest,
    /// The records by a part of their keys' hashes, as repairs compare them.
    buckets: BTreeMap<u8, Bucket>,
}

/// Some of the records.
#[derive(Debug, Default)]
struct Bucket {
    /// Exclusive or of their hashes.
    digest: u64,
    keys: BTreeSet<RecordKey>,
}

/// Which bucket a record is in.
pub(crate) fn bucket(key: &RecordKey) -> u8 {
    let (PeerId(peer), section) = key;
    let hash = finish(fnv(fnv(0xcbf2_9ce4_8422_2325, peer), &[*section]));
    hash.to_be_bytes()[0]
}

impl Store {
    /// Offers a record of another peer. Its signature is checked only if it would be news.
    pub(crate) fn insert(
        &mut self,
        aged: AgedRecord,
        crypto: &dyn Crypto,
        now: Instant,
    ) -> Outcome {
        let signed = aged.signed;
        let millis = |ms: u32| Duration::from_millis(ms.into());
        let (age, apart) = (millis(aged.age_ms), millis(aged.apart_ms));
        let young = is_young(age, apart);
        let Some(record) = signed.decode().filter(|_| young) else {
            return Outcome::Refused;
        };
        let key = record.key();
        if let Some(kept) = self.records.get(&key) {
            let (old, new) = (kept.record.version, record.version);
            // Two different records of one version: everybody keeps the smaller signature.
            let tie = old == new && kept.signed.signature <= signed.signature;
            if old > new {
                return Outcome::Outdated(key);
            }
            if tie {
                return Outcome::Known;
            }
        } else if self.records.len() >= RECORDS_MAX {
            return Outcome::Refused;
        }
        if self.is_stale(&record) {
            return Outcome::Known;
        }
        if !signed.is_authentic(crypto) {
            return Outcome::Refused;
        }
        let apart = (!self.reached.contains(&key.0)).then_some((now, apart));
        self.put(record, signed, (age, apart), now);
        Outcome::Taken(key)
    }

    /// Whether this very record is kept: many that come more than once are told apart by their
    /// signature, before anything is decoded.
    pub(crate) fn holds(&self, peer: PeerId, signed: &SignedRecord) -> bool {
        let mut sections = self.records.range((peer, 0)..=(peer, u8::MAX));
        sections.any(|(_, stored)| stored.signed == *signed)
    }

    /// Links lead to a peer now, or none do any more: from then on its records grow old.
    pub(crate) fn set_reached(&mut self, peer: PeerId, is_reached: bool, now: Instant) {
        let changed = match is_reached {
            true => self.reached.insert(peer),
            false => self.reached.remove(&peer),
        };
        if !changed {
            return;
        }
        for (key, stored) in self.records.range_mut((peer, 0)..=(peer, u8::MAX)) {
            self.expiry.remove(&(stored.expires(), *key));
            stored.apart = (!is_reached).then_some((now, Duration::ZERO));
            self.expiry.insert((stored.expires(), *key));
        }
    }

    /// Keeps a record without asking: it is the own one.
    pub(crate) fn put_own(&mut self, record: Record, signed: SignedRecord, now: Instant) {
        self.put(record, signed, (Duration::ZERO, None), now);
    }

    fn put(
        &mut self,
        record: Record,
        signed: SignedRecord,
        (age_before, apart): (Duration, Option<(Instant, Duration)>),
        now: Instant,
    ) {
        let key = record.key();
        self.remove(&key);
        let hash = record_hash(&record);
        self.digest = add(self.digest, hash);
        let bucket = self.buckets.entry(bucket(&key)).or_default();
        bucket.digest ^= hash;
        bucket.keys.insert(key);
        let stored = Stored {
            record,
            signed,
            made: now,
            age_before,
            apart,
            hash,
        };
        self.expiry.insert((stored.expires(), key));
        self.records.insert(key, stored);
        if key.1 == 0 {
            self.drop_stale_sections(key.0);
        }
    }

    fn remove(&mut self, key: &RecordKey) {
        if let Some(stored) = self.records.remove(key) {
            self.expiry.remove(&(stored.expires(), *key));
            self.digest = subtract(self.digest, stored.hash);
            if let Some(bucket) = self.buckets.get_mut(&bucket(key)) {
                bucket.digest ^= stored.hash;
                bucket.keys.remove(key);
            }
        }
    }

    /// An endpoint section that its peer's node record has outlived.
    fn is_stale(&self, record: &Record) -> bool {
        let Some(node) = self
            .records
            .get(&(record.peer, 0))
            .filter(|_| record.section > 0)
        else {
            return false;
        };
        let Body::Node(body) = &node.record.body else {
            return false;
        };
        let (version, of_node) = (record.version, node.record.version);
        let gone = record.section > body.sections || body.leaving;
        version.boot < of_node.boot || (gone && version < of_node)
    }

    fn drop_stale_sections(&mut self, peer: PeerId) {
        let sections = self.records.range((peer, 1)..=(peer, u8::MAX));
        let stale: Vec<RecordKey> = sections
            .filter(|(_, s)| self.is_stale(&s.record))
            .map(|(key, _)| *key)
            .collect();
        for key in stale {
            self.remove(&key);
        }
    }

    /// Forgets records that were not refreshed; returns which.
    pub(crate) fn expire(&mut self, except: PeerId, now: Instant) -> Vec<RecordKey> {
        let due = self.expiry.iter().take_while(|(at, _)| *at <= now);
        let of_others = due.filter(|(_, key)| key.0 != except);
        let over: Vec<RecordKey> = of_others.map(|(_, key)| *key).collect();
        for key in &over {
            self.remove(key);
        }
        over
    }

    /// When the next record of another peer expires.
    pub(crate) fn deadline(&self, except: PeerId) -> Option<Instant> {
        let mut of_others = self.expiry.iter().filter(|(_, key)| key.0 != except);
        of_others.next().map(|(at, _)| *at)
    }

    /// One record.
    pub(crate) fn get(&self, key: &RecordKey) -> Option<&Stored> {
        self.records.get(key)
    }

    /// Exclusive or of the hashes in one bucket.
    pub(crate) fn bucket_digest(&self, bucket: u8) -> u64 {
        self.buckets.get(&bucket).map_or(0, |bucket| bucket.digest)
    }

    /// The records of one bucket.
    pub(crate) fn in_bucket(&self, bucket: u8) -> impl Iterator<Item = &Stored> {
        let keys = self.buckets.get(&bucket).into_iter();
        let keys = keys.flat_map(|bucket| &bucket.keys);
        keys.filter_map(|key| self.records.get(key))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// All records.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Stored> {
        self.records.values()
    }

    /// The node record of a peer that is not leaving.
    pub(crate) fn node(&self, peer: &PeerId) -> Option<&Node> {
        match &self.records.get(&(*peer, 0))?.record.body {
            Body::Node(node) if !node.leaving => Some(node),
            Body::Node(_) | Body::Endpoints(_) => None,
        }
    }

    /// The endpoint sections of a peer.
    pub(crate) fn sections(&self, peer: &PeerId) -> impl Iterator<Item = &Stored> {
        let sections = self.records.range((*peer, 1)..=(*peer, u8::MAX));
        sections.map(|(_, stored)| stored)
    }

    /// All node records of peers that are not leaving.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (PeerId, &Node)> + Clone {
        self.records
            .iter()
            .filter(|(key, _)| key.1 == 0)
            .filter_map(|(key, stored)| match &stored.record.body {
                Body::Node(node) if !node.leaving => Some((key.0, node)),
                Body::Node(_) | Body::Endpoints(_) => None,
            })
    }

    /// Digest of the whole set.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// Hash of the records of the peers for which `counts` is true.
    pub(crate) fn view_hash(&self, counts: impl Fn(&PeerId) -> bool) -> u64 {
        let counted = self.records.iter().filter(|(key, _)| counts(&key.0));
        counted
            .fold(Digest::default(), |digest, (_, stored)| {
                add(digest, stored.hash)
            })
            .sum
    }
}

fn add(digest: Digest, hash: u64) -> Digest {
    Digest {
        count: digest.count.wrapping_add(1),
        xor: digest.xor ^ hash,
        sum: digest.sum.wrapping_add(hash),
    }
}

fn subtract(digest: Digest, hash: u64) -> Digest {
    Digest {
        count: digest.count.wrapping_sub(1),
        xor: digest.xor ^ hash,
        sum: digest.sum.wrapping_sub(hash),
    }
}

/// Hash of a record's name and version (FNV-1a with SplitMix64's finish). Only members publish
/// records, and a member that makes its own records collide only hides itself.
fn record_hash(record: &Record) -> u64 {
    let Version { boot, sequence } = record.version;
    let mut hash = fnv(0xcbf2_9ce4_8422_2325, &record.peer.0);
    hash = fnv(hash, &[record.section]);
    for word in [boot.counter, boot.random, sequence] {
        hash = fnv(hash, &word.to_be_bytes());
    }
    finish(hash)
}

/// FNV-1a over `bytes`, going on from `hash`.
pub(crate) fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// SplitMix64's finish: spreads every bit over all others.
pub(crate) fn finish(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

impl Stored {
    /// What digests are made of.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}
