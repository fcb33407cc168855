//! Two rings meet: the one with fewer live addresses gives way, if nothing is in its way.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use rmesh_wire::{Instant, PeerId};

use super::Node;
use super::request::Served;
use crate::address::{Range, address};
use crate::api::{Answer, Refusal};
use crate::limits::ADOPTION_PATIENCE;
use crate::message::Body;
use crate::setup::{RingId, Setup};

/// Other rings that are looked at, at a time.
const OTHERS_MAX: usize = 8;

#[derive(Debug, Default)]
pub(super) struct State {
    others: BTreeMap<RingId, Other>,
}

#[derive(Debug)]
struct Other {
    setup: Setup,
    /// Live addresses of this ring and of the other, and since when it is those.
    live: (u32, u32),
    since: Instant,
}

impl State {
    pub(super) fn rings(&self) -> impl Iterator<Item = RingId> {
        self.others.keys().copied()
    }
}

impl Node {
    /// A peer is in another ring.
    pub(super) fn meet(&mut self, peer: PeerId) {
        self.send(peer, Body::AskSetup);
    }

    /// What another ring is.
    pub(super) fn consider(&mut self, from: PeerId, ring: RingId, setup: Setup) {
        let is_known = self.adoption.others.contains_key(&ring);
        if !is_known && self.adoption.others.len() >= OTHERS_MAX {
            self.refuse(from, "one ring too many");
            return;
        }
        let (live, since) = ((u32::MAX, u32::MAX), self.now);
        match self.adoption.others.get_mut(&ring) {
            Some(other) => other.setup = setup,
            None => {
                let other = Other { setup, live, since };
                self.adoption.others.insert(ring, other);
            }
        }
        self.drive_adoption();
        self.is_stale = true;
    }

    /// Live addresses of another ring by what its reachable members say; `None`: there are none.
    pub(super) fn live_of(&self, ring: RingId) -> Option<u32> {
        let members = self.peers.values();
        let members = members.filter(|p| p.is_reachable && p.ring == Some(ring.short()));
        members.map(|known| known.live).max()
    }

    pub(super) fn drive_adoption(&mut self) {
        if self.adoption.others.is_empty() {
            return;
        }
        let own_live = self.live_addresses();
        let Some(own) = self.ledger.ring_id else {
            return;
        };
        let rings: Vec<RingId> = self.adoption.others.keys().copied().collect();
        for ring in rings {
            let Some(theirs) = self.live_of(ring) else {
                self.adoption.others.remove(&ring);
                continue;
            };
            let Some(other) = self.adoption.others.get_mut(&ring) else {
                continue;
            };
            if other.live != (own_live, theirs) {
                other.live = (own_live, theirs);
                other.since = self.now;
            }
            let is_stable = self.now.since(other.since) >= ADOPTION_PATIENCE;
            let gives_way =
                (own_live, own) > (theirs, ring) && own_live == theirs || own_live < theirs;
            if is_stable && gives_way && self.conflicts(ring).is_empty() {
                self.adopt(ring);
                return;
            }
        }
    }

    /// Addresses of own containers that peers of another ring announce too.
    pub(super) fn conflicts(&self, ring: RingId) -> Vec<(u128, PeerId)> {
        let Some(other) = self.adoption.others.get(&ring) else {
            return Vec::new();
        };
        let own = self.ledger.space.allocated().map(|(at, _)| at);
        let own = own.filter(|at| other.setup.pool_of(*at).is_some());
        let taken = own.filter_map(|at| {
            let mut peers = self.announcers.of(at);
            let there = |peer: &PeerId| {
                self.peers
                    .get(peer)
                    .is_some_and(|known| known.ring == Some(ring.short()))
            };
            Some((at, peers.find(there)?))
        });
        taken.collect()
    }

    fn conflicts_in_words(&self, ring: RingId) -> Option<String> {
        let conflicts = self.conflicts(ring);
        let (at, peer) = conflicts.first()?;
        let holder = self
            .ledger
            .space
            .container_of(*at)
            .map(|key| String::from(key.as_ref()));
        Some(alloc::format!(
            "{} addresses are used in this ring and in {ring}: {} by {} here and by a container of \
             {} there; detach one of them",
            conflicts.len(),
            address(*at),
            holder.unwrap_or_default(),
            self.name(*peer),
        ))
    }

    /// Leaves this ring for another one; containers keep their addresses, which are asked for.
    fn adopt(&mut self, ring: RingId) {
        let Some(other) = self.adoption.others.remove(&ring) else {
            return;
        };
        self.new_incarnation("it joins another ring");
        self.adoption.others.clear();
        self.enter(ring, other.setup);
        self.follow_pending(Range::ALL);
        let there = self
            .peers
            .iter()
            .filter(|(_, p)| p.ring == Some(ring.short()));
        let there: Vec<PeerId> = there.map(|(peer, _)| *peer).collect();
        for peer in there.into_iter().take(OTHERS_MAX) {
            self.start_sync(peer);
        }
    }

    pub(super) fn begin_adoption(&mut self, peer: PeerId) -> Served {
        self.send(peer, Body::AskSetup);
        None
    }

    pub(super) fn serve_adoption(&mut self, peer: PeerId) -> Served {
        let theirs = self.peers.get(&peer)?.ring?;
        if theirs == self.ring_short() {
            return self.ledger.ring_id.map(|ring| Ok(Answer::Adopted(ring)));
        }
        let mut rings = self.adoption.others.keys().copied();
        let ring = rings.find(|ring| ring.short() == theirs)?;
        if let Some(why) = self.conflicts_in_words(ring) {
            return Some(Err(Refusal::Invalid(why)));
        }
        self.adopt(ring);
        Some(Ok(Answer::Adopted(ring)))
    }

    pub(super) fn adoption_in_words(&self) -> Vec<String> {
        let others = self.adoption.others.keys();
        let words = others.map(|ring| {
            let meets = alloc::format!("peers of another ring, {ring}, are there");
            match self.conflicts_in_words(*ring) {
                Some(conflicts) => alloc::format!("{meets}, and {conflicts}"),
                None => meets,
            }
        });
        words.collect()
    }

    pub(super) fn adoption_due(&self) -> Option<Instant> {
        let due = self
            .adoption
            .others
            .values()
            .map(|other| other.since + ADOPTION_PATIENCE);
        due.filter(|due| *due > self.now).min()
    }
}
