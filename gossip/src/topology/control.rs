//! Control messages between neighbours, and the bucketed repair of whatever was lost (D8).
//!
//! Two neighbours whose digests differ exchange 256 bucket digests; each lists what it holds in
//! the buckets that differ; each then sends what the other lacks and asks for what it lacks
//! itself. Everything is idempotent, so lost messages only cost another round.

use alloc::vec::Vec;

use rmesh_wire::Instant;
use rmesh_wire::codec::{self, Bounded, Bytes};
use serde::{Deserialize, Serialize};

use super::record::{AgedRecord, RecordKey, Version};
use super::store::{Store, Stored};
use crate::limits::CONTROL_LEN_MAX;

/// Buckets of one exchange; their digests fill one datagram.
const BUCKETS: usize = 256;
/// Records in one message; far more than fit anyway.
const RECORDS_PER_MESSAGE: usize = 16;
/// Holdings in one message: 24 of at most 44 bytes and their buckets fit a datagram.
const HOLDINGS_PER_MESSAGE: usize = 20;
/// Keys in one message, likewise.
pub(crate) const WANTED_PER_MESSAGE: usize = 48;
/// Announcements in one message: 26 bytes each.
pub(crate) const ANNOUNCED_PER_MESSAGE: usize = 40;
/// Messages sent in answer to one message; the rest comes in the next round.
const ANSWERS_MAX: usize = 16;
/// Opaque bytes of a channel message.
pub(crate) const CHANNEL_LEN_MAX: usize = 1_100;

/// One control message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Control {
    /// Records that are news, or were asked for.
    Records(Bounded<AgedRecord, RECORDS_PER_MESSAGE>),
    /// 256 bucket digests of 4 bytes each.
    Buckets(Bytes<{ BUCKETS * 4 }>),
    /// What the sender holds.
    Have(Have),
    /// Records the sender lacks.
    Want(Bounded<RecordKey, WANTED_PER_MESSAGE>),
    /// Opaque bytes of another core.
    Channel(u8, Bytes<CHANNEL_LEN_MAX>),
    /// Records the sender holds, which most likely reach the receiver another way: it asks for what does not.
    Announce(Bounded<Announcement, ANNOUNCED_PER_MESSAGE>),
}

/// What the sender holds in some buckets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Have {
    /// Buckets listed completely in this message.
    whole: Bytes<HOLDINGS_PER_MESSAGE>,
    holdings: Bounded<Holding, HOLDINGS_PER_MESSAGE>,
}

/// One record the sender holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holding {
    key: RecordKey,
    version: Version,
}

/// One record the sender holds, and the hash of it that digests are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Announcement {
    pub(crate) key: RecordKey,
    pub(crate) hash: u64,
}

impl Control {
    /// The bytes of the message; `None` if it would not fit a datagram.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        codec::encode(self)
            .ok()
            .filter(|bytes| bytes.len() <= CONTROL_LEN_MAX)
    }
}

/// Bytes of a record in a message, at most.
pub(crate) fn record_len(record: &AgedRecord) -> usize {
    record.signed.bytes.as_slice().len() + 32 + 64 + 13
}

/// Packs records into as few messages as fit datagrams.
pub(crate) fn pack_records(records: impl IntoIterator<Item = AgedRecord>) -> Vec<Control> {
    let mut messages = Vec::new();
    let mut batch: Vec<AgedRecord> = Vec::new();
    // One message head and two length prefixes.
    let room = CONTROL_LEN_MAX - 8;
    let mut used = 0;
    for record in records {
        let len = record_len(&record);
        if !batch.is_empty() && (used + len > room || batch.len() >= RECORDS_PER_MESSAGE) {
            messages.push(Control::Records(Bounded::take_from(core::mem::take(
                &mut batch,
            ))));
            used = 0;
        }
        used += len;
        batch.push(record);
    }
    if !batch.is_empty() {
        messages.push(Control::Records(Bounded::take_from(batch)));
    }
    messages
}

impl Store {
    fn bucket_digests(&self) -> Vec<u8> {
        let digests = (0..=u8::MAX).map(|bucket| self.bucket_digest(bucket));
        let starts = digests.flat_map(|digest| digest.to_be_bytes().into_iter().take(4));
        starts.collect()
    }

    /// The message that starts a repair.
    pub(crate) fn buckets(&self) -> Control {
        Control::Buckets(Bytes::new(self.bucket_digests()).unwrap_or_default())
    }

    /// Answers bucket digests: lists what is held in those that differ.
    pub(crate) fn on_buckets(&self, theirs: &[u8]) -> Vec<Control> {
        let ours = self.bucket_digests();
        if theirs.len() != ours.len() {
            return Vec::new();
        }
        let differs = |bucket: u8| {
            let at = usize::from(bucket) * 4;
            ours.get(at..at + 4) != theirs.get(at..at + 4)
        };
        let holding = |stored: &Stored| Holding {
            key: stored.record.key(),
            version: stored.record.version,
        };
        let differing = (0..=u8::MAX).filter(|bucket| differs(*bucket));
        let lists = differing.map(|b| (b, self.in_bucket(b).map(holding).collect()));
        let lists: Vec<(u8, Vec<Holding>)> = lists.collect();
        let lists = lists
            .iter()
            .map(|(bucket, held)| (*bucket, held.as_slice()));
        let mut messages = pack_holdings(lists);
        messages.truncate(ANSWERS_MAX);
        messages
    }

    /// Answers a list of holdings: records the other lacks, and a request for those lacking here.
    pub(crate) fn on_have(&self, have: &Have, now: Instant) -> Vec<Control> {
        let listed = have.holdings.as_slice();
        let newer_here = |holding: &&Holding| {
            self.get(&holding.key)
                .is_some_and(|s| s.record.version > holding.version)
        };
        let lacking_here = |holding: &&Holding| {
            self.get(&holding.key)
                .is_none_or(|s| s.record.version < holding.version)
        };
        let unlisted = |stored: &&Stored| {
            let key = stored.record.key();
            listed.iter().all(|h| h.key != key)
        };
        let whole = have.whole.as_slice().iter();
        let whole = whole.flat_map(|bucket| self.in_bucket(*bucket));
        let newer = listed
            .iter()
            .filter(newer_here)
            .filter_map(|h| self.get(&h.key));
        let push = newer
            .chain(whole.filter(unlisted))
            .filter(|stored| stored.is_fresh(now))
            // What would not be sent is not copied: a short list may name a big part of the store.
            .take(ANSWERS_MAX * RECORDS_PER_MESSAGE)
            .map(|stored| stored.aged(now));
        let mut messages = pack_records(push);
        messages.truncate(ANSWERS_MAX);
        let wanted: Vec<RecordKey> = listed.iter().filter(lacking_here).map(|h| h.key).collect();
        if !wanted.is_empty() {
            messages.push(Control::Want(Bounded::take_from(wanted)));
        }
        messages
    }

    /// Answers a request for records.
    pub(crate) fn on_want(&self, keys: &[RecordKey], now: Instant) -> Vec<Control> {
        let held = keys.iter().filter_map(|key| self.get(key));
        let sent = held.filter(|stored| stored.is_fresh(now));
        let mut messages = pack_records(sent.map(|stored| stored.aged(now)));
        messages.truncate(ANSWERS_MAX * 3);
        messages
    }
}

fn pack_holdings<'a>(lists: impl Iterator<Item = (u8, &'a [Holding])>) -> Vec<Control> {
    let mut messages = Vec::new();
    let (mut whole, mut held): (Vec<u8>, Vec<Holding>) = (Vec::new(), Vec::new());
    let mut flush = |whole: &mut Vec<u8>, held: &mut Vec<Holding>| {
        if !whole.is_empty() || !held.is_empty() {
            messages.push(Control::Have(Have {
                whole: Bytes::new(core::mem::take(whole)).unwrap_or_default(),
                holdings: Bounded::take_from(core::mem::take(held)),
            }));
        }
    };
    for (bucket, list) in lists {
        if list.len() > HOLDINGS_PER_MESSAGE {
            // Too many for one message: listed in pieces, without the claim to be complete.
            for piece in list.chunks(HOLDINGS_PER_MESSAGE) {
                flush(&mut whole, &mut held);
                held.extend_from_slice(piece);
            }
            continue;
        }
        if held.len() + list.len() > HOLDINGS_PER_MESSAGE || whole.len() >= HOLDINGS_PER_MESSAGE {
            flush(&mut whole, &mut held);
        }
        whole.push(bucket);
        held.extend_from_slice(list);
    }
    flush(&mut whole, &mut held);
    messages
}
