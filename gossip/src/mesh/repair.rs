//! Finding out that a neighbour has other records, and mending it.
//!
//! Every probe carries a digest of all records. One that differs may only mean that news are under
//! way; if it still does a moment later, and nothing has come meanwhile, something was lost.

use alloc::vec::Vec;
use core::time::Duration;

use rmesh_wire::probe::Digest;
use rmesh_wire::{Instant, PeerId};

use super::Mesh;
use crate::limits::SPARSE_PEERS_MIN;
use crate::topology::control::Control;

/// News are under way for less than this, most of the time.
const UNDER_WAY: Duration = Duration::from_millis(300);
/// Digests in a row that must differ for a repair where news never cease.
const MISMATCHES: u32 = 2;
/// Probes that come together tell of one moment only: digests that differ are counted this often.
const MISMATCH_INTERVAL: Duration = Duration::from_millis(300);
/// A repair with one neighbour is started at most this often, …
const REPAIR_INTERVAL: Duration = Duration::from_millis(500);
/// … and with any in a large mesh: what one sends need not come from others as well.
const REPAIR_INTERVAL_ANY: Duration = Duration::from_millis(100);

/// After news some neighbours are told the digest once nothing has come for this long, …
const TELL_AFTER: Duration = Duration::from_millis(250);
/// … or at the latest so long after the first of them.
const TELL_WITHIN: Duration = Duration::from_secs(1);
/// How many are told: who has missed the news hears of them from one of its neighbours.
const TELLS: usize = 3;

/// When to tell neighbours the digest.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Telling {
    due: Option<Instant>,
    at_the_latest: Option<Instant>,
    /// Whom last: they take turns.
    last: PeerId,
}

/// A neighbour's digest that differed from the own one, to be looked at again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doubt {
    neighbour: PeerId,
    theirs: Digest,
    ours: Digest,
    due: Instant,
}

impl Mesh {
    /// A neighbour's digest came with its probe.
    pub(crate) fn compare_digest(&mut self, id: PeerId, theirs: Digest, now: Instant) {
        let ours = self.store.digest();
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.is_neighbour()) else {
            return;
        };
        peer.digest = theirs;
        if theirs == ours {
            peer.mismatches = 0;
            return;
        }
        if now >= peer.next_mismatch {
            peer.mismatches = peer.mismatches.saturating_add(1);
            peer.next_mismatch = now + MISMATCH_INTERVAL;
        }
        if peer.mismatches >= MISMATCHES {
            self.repair(id, now);
        } else {
            self.doubt.get_or_insert(Doubt {
                neighbour: id,
                theirs,
                ours,
                due: now + UNDER_WAY,
            });
        }
    }

    /// Looks again at the digest that differed a moment ago.
    pub(crate) fn resolve_doubt(&mut self, now: Instant) {
        let Some(doubt) = self.doubt.filter(|doubt| doubt.due <= now) else {
            return;
        };
        self.doubt = None;
        let still = |peer: &super::peer::Peer| peer.digest == doubt.theirs;
        let is_still = self.peers.get(&doubt.neighbour).is_some_and(still);
        if is_still && self.store.digest() == doubt.ours {
            self.repair(doubt.neighbour, now);
        }
    }

    pub(crate) fn doubt_deadline(&self) -> Option<Instant> {
        let doubt = self.doubt.map(|doubt| doubt.due);
        [doubt, self.telling.due].into_iter().flatten().min()
    }

    /// The records have changed: some neighbours are told so soon.
    pub(crate) fn tell_digest_soon(&mut self, now: Instant) {
        let latest = *self.telling.at_the_latest.get_or_insert(now + TELL_WITHIN);
        self.telling.due = Some(latest.min(now + TELL_AFTER));
    }

    /// Tells some neighbours the digest if it is time.
    pub(crate) fn tell_digest(&mut self, now: Instant) {
        if self.telling.due.is_none_or(|due| now < due) {
            return;
        }
        self.telling.due = None;
        self.telling.at_the_latest = None;
        let neighbours = self.active_peers().filter(|peer| peer.is_neighbour());
        let mut neighbours: Vec<PeerId> = neighbours.map(|peer| peer.id).collect();
        let next = neighbours.partition_point(|peer| *peer <= self.telling.last);
        neighbours.rotate_left(next);
        let Digest { count, xor, sum } = self.store.digest();
        for neighbour in neighbours.into_iter().take(TELLS) {
            self.telling.last = neighbour;
            self.send_control(neighbour, &Control::Digest(count, xor, sum), now);
        }
    }

    fn repair(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if now < peer.next_buckets || now < self.next_repair {
            return;
        }
        peer.next_buckets = now + REPAIR_INTERVAL;
        if self.peers.len() > SPARSE_PEERS_MIN {
            self.next_repair = now + REPAIR_INTERVAL_ANY;
        }
        self.counters.repairs_started += 1;
        let buckets = self.store.buckets();
        self.send_control(id, &buckets, now);
    }
}
