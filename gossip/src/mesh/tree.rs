//! The trees that records travel down.
//!
//! Every peer's records go to all neighbours at first. Who gets them from two keeps the first of the
//! two as parent and tells the other, so that a tree is left: that of the first to arrive, whose ways
//! are the shortest (Leitão, Pereira and Rodrigues, Epidemic Broadcast Trees, 2007). What a broken
//! tree does not bring the digests find out, and whoever then gives a record gives the next as well.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use rmesh_wire::codec::Bounded;
use rmesh_wire::{Instant, PeerId, ShortId};

use super::Mesh;
use super::peer::Peer;
use crate::limits::PEERS_MAX;
use crate::topology::control::{Control, PRUNED_PER_MESSAGE};

/// Another neighbour becomes the parent if what it passes on comes so much earlier.
const EARLIER_BY: Duration = Duration::from_millis(20);
/// Neighbours that are asked for everything when one is gone.
const GRAFTS: usize = 2;

impl Mesh {
    /// A record of `origin` that was known already came from a neighbour: which of the neighbours
    /// that bring it is the slower and need not.
    pub(crate) fn slower(
        &mut self,
        origin: PeerId,
        from: PeerId,
        (first, first_at): (Option<PeerId>, Instant),
        now: Instant,
    ) -> Option<PeerId> {
        let (first, short) = (first.filter(|first| *first != from)?, origin.short_id());
        let parent = self.peers.get(&origin)?.parent;
        if parent != Some(from) {
            return Some(from);
        }
        // The parent was not the first. One that has been told already may not be relied upon.
        let is_open = |peer: &Peer| peer.is_neighbour() && !peer.told.contains(&short);
        let rival = self.peers.get(&first).filter(|peer| is_open(peer))?.id;
        if now.since(first_at) < EARLIER_BY {
            return Some(rival);
        }
        self.peers.get_mut(&origin)?.parent = Some(rival);
        Some(from)
    }

    /// A neighbour was the first to bring a record of `origin`.
    pub(crate) fn arrived_first(&mut self, origin: PeerId, from: PeerId) {
        let is_neighbour = |id: &PeerId| self.peers.get(id).is_some_and(Peer::is_neighbour);
        let parent = self.peers.get(&origin).and_then(|peer| peer.parent);
        let is_orphan = parent.is_none_or(|parent| !is_neighbour(&parent));
        if let Some(peer) = self.peers.get_mut(&origin).filter(|_| is_orphan) {
            peer.parent = Some(from);
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.told.remove(&origin.short_id());
        }
    }

    /// Tells neighbours whose records they need not pass on to this peer.
    pub(crate) fn prune(&mut self, useless: Vec<(PeerId, PeerId)>, now: Instant) {
        let mut of: BTreeMap<PeerId, Vec<ShortId>> = BTreeMap::new();
        for (neighbour, origin) in useless {
            let peer = self.peers.get_mut(&neighbour);
            if let Some(peer) = peer.filter(|peer| peer.is_neighbour()) {
                peer.told.insert(origin.short_id());
                of.entry(neighbour).or_default().push(origin.short_id());
            }
        }
        for (neighbour, origins) in of {
            for some in origins.chunks(PRUNED_PER_MESSAGE) {
                let prune = Control::Prune(Bounded::take_from(some.iter().copied()));
                self.send_control(neighbour, &prune, now);
            }
        }
    }

    /// A neighbour gets the records of these peers another way.
    pub(crate) fn on_prune(&mut self, from: PeerId, origins: &[ShortId]) {
        let known = |short: &&ShortId| {
            let end = |last: u8| {
                let mut id = [last; 16];
                id[..8].copy_from_slice(&short.0);
                PeerId(id)
            };
            self.peers.range(end(0)..=end(u8::MAX)).next().is_some()
        };
        let known: Vec<ShortId> = origins.iter().filter(known).copied().collect();
        let neighbour = self.peers.get_mut(&from).filter(|peer| peer.is_neighbour());
        if let Some(peer) = neighbour.filter(|peer| peer.pruned.len() < PEERS_MAX) {
            peer.pruned.extend(known);
        }
    }

    /// A neighbour has lost others: it takes everything again.
    pub(crate) fn on_graft(&mut self, from: PeerId) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.pruned.clear();
        }
    }

    /// Neighbours are gone, and with them whatever they alone passed on: others are asked for it.
    pub(crate) fn graft(&mut self, now: Instant) {
        let neighbours = self.active_peers().filter(|peer| peer.is_neighbour());
        let mut neighbours: Vec<PeerId> = neighbours.map(|peer| peer.id).collect();
        for _ in 0..GRAFTS.min(neighbours.len()) {
            let count = u64::try_from(neighbours.len()).unwrap_or(1);
            let at = usize::try_from(self.random.public_u64() % count.max(1)).unwrap_or(0);
            let neighbour = neighbours.swap_remove(at);
            if let Some(peer) = self.peers.get_mut(&neighbour) {
                peer.told.clear();
            }
            self.send_control(neighbour, &Control::Graft, now);
        }
    }
}
