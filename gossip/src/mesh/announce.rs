//! Who passes which record on to whom, and what happens to those that do not come.
//!
//! A record travels down the shortest-path tree of its peer, which everybody computes from the same records, as
//! broadcasts do. Some of the neighbours that are not below in the tree are told that it is here; whoever has
//! been told of a record that does not come asks for it (Leitão, Pereira and Rodrigues, Epidemic Broadcast Trees,
//! 2007, with trees that need no upkeep). So a tree that differs from peer to peer for a moment, or a lost datagram,
//! costs a round trip.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use rmesh_wire::codec::Bounded;
use rmesh_wire::{Instant, PeerId};

use super::Mesh;
use super::peer::Peer;
use super::spread::{Budget, spread_bytes_per_s};
use crate::topology::control::{ANNOUNCED_PER_MESSAGE, Announcement, Control, WANTED_PER_MESSAGE};
use crate::topology::record::RecordKey;

/// A record that was announced is asked for after this time: down the tree it comes a little later than from
/// the nearest neighbour, and no two hosts of a continent are further apart.
const FETCH_AFTER: Duration = Duration::from_millis(60);
/// … and from the next who announced it so long after that, and twice as long each time it still does not come.
const FETCH_AGAIN: Duration = Duration::from_millis(250);
const FETCHES_MAX: u32 = 6;
/// What a record takes, more or less: no more of them are asked for than may come in a second.
const RECORD_LEN: usize = 512;
/// In a large mesh those that are due within this time are asked for together.
const FETCH_EVERY: Duration = Duration::from_millis(50);
/// Neighbours remembered as holders of a missing record.
const HOLDERS_MAX: usize = 3;
/// Records that are waited for at once; of others the digests tell.
const MISSING_MAX: usize = 4_096;
/// Neighbours to whom a record is announced: each peer hears of it so often on average, which all but one in
/// fifty hear at least once.
const ANNOUNCED_TO: usize = 4;
/// … and so many where nothing goes down trees: some of them may just have died.
const ANNOUNCED_ALONE_TO: usize = 6;

/// Neighbours of a large mesh that get a record of which nobody knows the tree.
const UNTREED: usize = 4;

/// Records that neighbours announced and that are not here yet.
#[derive(Debug, Default)]
pub(crate) struct Announced {
    missing: BTreeMap<RecordKey, Missing>,
    /// When each is asked for, the first first.
    order: BTreeSet<(Instant, RecordKey)>,
    fetching: Budget,
    /// Until then enough has been asked for.
    rests_until: Instant,
}

#[derive(Debug)]
struct Missing {
    hash: u64,
    holders: Vec<PeerId>,
    due: Instant,
    fetches: u32,
}

impl Announced {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let first = self.order.first();
        first.map(|(due, _)| (*due).max(self.rests_until))
    }

    fn put(&mut self, key: RecordKey, missing: Missing) {
        self.order.insert((missing.due, key));
        self.missing.insert(key, missing);
    }

    fn take(&mut self, key: &RecordKey) -> Option<Missing> {
        let missing = self.missing.remove(key)?;
        self.order.remove(&(missing.due, *key));
        Some(missing)
    }

    fn take_due(&mut self, now: Instant) -> Option<(RecordKey, Missing)> {
        let (_, key) = self.order.first().filter(|(due, _)| *due <= now)?;
        let key = *key;
        Some((key, self.take(&key)?))
    }

    /// A record is here.
    pub(crate) fn came(&mut self, key: &RecordKey, hash: u64) {
        if self.missing.get(key).is_some_and(|m| m.hash == hash) {
            self.take(key);
        }
    }
}

/// To whom one record goes.
pub(super) struct Audience {
    /// Those that get it.
    pub(super) pushed: Vec<PeerId>,
    /// Those that are told of it.
    pub(super) told: Vec<PeerId>,
}

impl Mesh {
    /// To whom a record of `origin` goes: whether it is `pushed` at all, or only announced. Where no links lead
    /// from its peer to this one nobody knows a tree, and it goes to all.
    pub(super) fn audience(
        &mut self,
        origin: PeerId,
        from: Option<PeerId>,
        neighbours: &[PeerId],
        pushed: bool,
        is_busy: bool,
    ) -> Audience {
        let is_large = self.is_large();
        let others = neighbours.iter().filter(|to| Some(**to) != from);
        let (pushed, mut rest): (Vec<PeerId>, Vec<PeerId>) = match pushed {
            false => (Vec::new(), others.copied().collect()),
            true => match self.routes.graph().flood_tree(&self.me, origin.short_id()) {
                Some(tree) => others.partition(|to| tree.children.contains(to)),
                None => {
                    let others: Vec<PeerId> = others.copied().collect();
                    let some = if is_large { UNTREED } else { others.len() };
                    let (some, rest) = others.split_at(some.min(others.len()));
                    (some.to_vec(), rest.to_vec())
                }
            },
        };
        if !is_busy {
            let start = usize::try_from(self.random.public_u64() % 64).unwrap_or(0);
            let turn = start % rest.len().max(1);
            rest.rotate_left(turn);
        }
        rest.truncate(if is_busy {
            ANNOUNCED_ALONE_TO
        } else {
            ANNOUNCED_TO
        });
        Audience { pushed, told: rest }
    }

    /// Tells neighbours what is here.
    pub(super) fn announce(&mut self, told: BTreeMap<PeerId, Vec<Announcement>>, now: Instant) {
        for (neighbour, announcements) in told {
            for some in announcements.chunks(ANNOUNCED_PER_MESSAGE) {
                let message = Control::Announce(Bounded::take_from(some.iter().copied()));
                self.send_control(neighbour, &message, now);
            }
        }
    }

    /// A neighbour holds these records.
    pub(crate) fn on_announce(&mut self, from: PeerId, announced: &[Announcement], now: Instant) {
        if !self.peers.get(&from).is_some_and(Peer::is_neighbour) {
            return;
        }
        for Announcement { key, hash } in announced {
            let held = self.store.get(key).is_some_and(|held| held.hash() == *hash);
            if key.0 == self.me || held {
                continue;
            }
            let is_full = self.announced.missing.len() >= MISSING_MAX;
            match self.announced.missing.get_mut(key) {
                Some(known) => {
                    // Who held another version most likely has this one too, and is not forgotten for what another says.
                    known.hash = *hash;
                    if known.holders.len() < HOLDERS_MAX && !known.holders.contains(&from) {
                        known.holders.push(from);
                    }
                }
                None if !is_full => {
                    let missing = Missing {
                        hash: *hash,
                        holders: alloc::vec![from],
                        due: now + FETCH_AFTER,
                        fetches: 0,
                    };
                    self.announced.put(*key, missing);
                }
                None => {}
            }
        }
    }

    /// Asks for what was announced and has not come.
    pub(crate) fn fetch_announced(&mut self, now: Instant) {
        let mut wanted: BTreeMap<PeerId, Vec<RecordKey>> = BTreeMap::new();
        if now < self.announced.rests_until {
            return;
        }
        let per_s = spread_bytes_per_s(self.peers.len());
        loop {
            if !self.announced.fetching.is_left(per_s, now) {
                self.announced.rests_until = now + FETCH_EVERY;
                break;
            }
            let Some((key, mut missing)) = self.announced.take_due(now) else {
                break;
            };
            let held = self.store.get(&key);
            if held.is_some_and(|held| held.hash() == missing.hash) {
                continue;
            }
            let can_give = |id: &PeerId| self.peers.get(id).is_some_and(Peer::is_neighbour);
            missing.holders.retain(can_give);
            let holders = missing.holders.len();
            if holders == 0 || missing.fetches >= FETCHES_MAX {
                continue;
            }
            // One of them, and another the next time.
            let turn = usize::try_from(self.random.public_u64() % 64).unwrap_or(0);
            missing.holders.rotate_left(1);
            let Some(holder) = missing.holders.get(turn % holders) else {
                continue;
            };
            wanted.entry(*holder).or_default().push(key);
            self.announced.fetching.spend(RECORD_LEN);
            missing.due = now + FETCH_AGAIN * (1 << missing.fetches.min(3));
            missing.fetches += 1;
            self.announced.put(key, missing);
        }
        if self.is_large() && !wanted.is_empty() {
            self.announced.rests_until = self.announced.rests_until.max(now + FETCH_EVERY);
        }
        for (neighbour, keys) in wanted {
            self.counters.records_fetched += keys.len() as u64;
            for some in keys.chunks(WANTED_PER_MESSAGE) {
                let want = Control::Want(Bounded::take_from(some.iter().copied()));
                self.send_control(neighbour, &want, now);
            }
        }
    }
}
