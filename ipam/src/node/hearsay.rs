//! What a removed peer last announced, as everybody who answers knows it: those addresses are held.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use rmesh_wire::codec::Bounded;
use rmesh_wire::{Instant, PeerId};

use super::Node;
use super::proposal::Retry;
use crate::address::Range;
use crate::cell::OwnerId;
use crate::limits::{
    ADDRESSES_MAX, ANNOUNCED_PER_PEER_MAX, GONE_MAX, HEARSAY_PATIENCE, RANGES_MAX,
};
use crate::message::Body;

/// Who has yet to tell what a peer announced.
#[derive(Debug)]
pub(super) struct Hearsay {
    asked: BTreeSet<PeerId>,
    until: Instant,
    retry: Retry,
}

impl Node {
    /// Asks all members what a peer announced.
    pub(super) fn begin_hearsay(&mut self, peer: PeerId) {
        let asked: BTreeSet<PeerId> = self.ring_members().map(|(owner, _)| owner.peer).collect();
        let until = self.now + HEARSAY_PATIENCE;
        let retry = Retry::new(self.now);
        let hearsay = Hearsay {
            asked,
            until,
            retry,
        };
        self.hearsay.insert(peer, hearsay);
        self.drive_hearsay();
    }

    pub(super) fn drive_hearsay(&mut self) {
        let now = self.now;
        self.hearsay
            .retain(|_, hearsay| now < hearsay.until && !hearsay.asked.is_empty());
        let mut asks: Vec<(PeerId, PeerId)> = Vec::new();
        for (peer, hearsay) in &mut self.hearsay {
            if hearsay.retry.is_due(now, &mut self.random) {
                asks.extend(hearsay.asked.iter().map(|member| (*member, *peer)));
            }
        }
        for (member, peer) in asks {
            self.send(member, Body::AskAnnounced { peer, from: 0 });
        }
    }

    pub(super) fn on_ask_announced(&mut self, from: OwnerId, peer: PeerId, first: u128) {
        let announced = self.announced.get(&peer);
        let rest = Range::new(first, u128::MAX).unwrap_or(Range::ALL);
        let mut rest = announced
            .into_iter()
            .flat_map(|known| known.within(rest))
            .copied();
        let addresses: Vec<u128> = rest.by_ref().take(ADDRESSES_MAX).collect();
        let next = rest.next();
        let addresses = Bounded::take_from(addresses);
        self.send(
            from.peer,
            Body::Announced {
                peer,
                addresses,
                next,
            },
        );
    }

    pub(super) fn on_announced(
        &mut self,
        from: OwnerId,
        peer: PeerId,
        addresses: &[u128],
        next: Option<u128>,
    ) {
        // Only what was asked for: nobody speaks for a peer that is there.
        let Some(hearsay) = self.hearsay.get_mut(&peer) else {
            return;
        };
        if !hearsay.asked.contains(&from.peer) {
            return;
        }
        if next.is_none() {
            hearsay.asked.remove(&from.peer);
        }
        let known = self.announced.entry(peer).or_default();
        known.add(addresses, ANNOUNCED_PER_PEER_MAX);
        for at in addresses.iter().filter(|at| known.contains(**at)) {
            self.announcers.insert(*at, peer);
        }
        self.announced_changed.insert(peer);
        match next {
            Some(next) => self.send(from.peer, Body::AskAnnounced { peer, from: next }),
            None => self.drive_hearsay(),
        }
    }

    /// Whether this life has asked what peers that are not there had in use. An owner that begins anew
    /// may have lost the holds it had written down; others remember why there were any.
    pub(super) fn has_heard_of_gone(&mut self) -> bool {
        if let Some(until) = self.heard_of_gone {
            return self.now >= until && self.hearsay.is_empty();
        }
        self.heard_of_gone = Some(self.now + HEARSAY_PATIENCE);
        let members = self.ring_members().map(|(owner, _)| owner.peer);
        let members: Vec<PeerId> = members.take(RANGES_MAX).collect();
        for member in members {
            self.send(member, Body::AskGone);
        }
        false
    }

    pub(super) fn on_ask_gone(&mut self, from: OwnerId) {
        let known = self.announced.iter();
        let gone = known.filter(|(peer, told)| !told.is_empty() && !self.is_reachable(**peer));
        let gone = gone
            .map(|(peer, _)| *peer)
            .filter(|peer| *peer != from.peer);
        let gone = Bounded::take_from(gone.take(GONE_MAX).collect::<Vec<PeerId>>());
        self.send(from.peer, Body::Gone(gone));
    }

    pub(super) fn on_gone(&mut self, peers: &[PeerId]) {
        // Only what was asked for, and while it is waited for.
        if self.heard_of_gone.is_none_or(|until| self.now >= until) {
            return;
        }
        for peer in peers {
            let is_gone = *peer != self.me && !self.is_reachable(*peer);
            if is_gone && self.hearsay.len() < GONE_MAX && !self.hearsay.contains_key(peer) {
                self.begin_hearsay(*peer);
            }
        }
    }

    pub(super) fn hearsay_due(&self) -> Option<Instant> {
        let due = self
            .hearsay
            .values()
            .map(|hearsay| hearsay.until.min(hearsay.retry.next));
        let heard = self.heard_of_gone.filter(|until| *until > self.now);
        due.chain(heard).min()
    }
}
