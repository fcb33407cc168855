//! Signs of life and equal rings: digests, range reconciliation, setups.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use rmesh_wire::codec::Bounded;
use rmesh_wire::{Instant, PeerId};

use super::Node;
use super::proposal::Retry;
use crate::address::Range;
use crate::cell::OwnerId;
use crate::entry::Entry;
use crate::limits::{ANNOUNCED_EVERY, DIGEST_EVERY, HOLD_MAX};
use crate::message::{Body, Digest};
use crate::packed::RUNS_MAX;
use crate::setup::{RingId, Setup, Stamp};
use crate::sync::{self, Sync};

impl Node {
    /// Has [`Node::poll_timeout`] ask for what is routine so much later: for a caller that is awake before that for
    /// something else, calls [`Node::handle_timeout`] then, and need not wake for this.
    #[must_use]
    pub fn with_slack(mut self, slack: Duration) -> Self {
        self.slack = slack;
        self
    }

    /// One digest to one neighbour every now and then, and what else is done rarely.
    pub(super) fn drive_gossip(&mut self) {
        if self.now < self.next_digest {
            return;
        }
        self.next_digest = self.now + self.random.jittered(DIGEST_EVERY);
        let reachable = self.peers.iter().filter(|(_, known)| known.is_reachable);
        let (near, far): (Vec<_>, Vec<_>) = reachable.partition(|(_, known)| known.is_neighbour);
        let candidates = if near.is_empty() { far } else { near };
        let pick = self.random.below(candidates.len());
        if let Some(peer) = candidates.get(pick).map(|(peer, _)| **peer) {
            self.send_digest(peer);
        }
        self.write_announced();
        self.end_old_holds();
        self.is_stale = true;
    }

    pub(super) fn send_digest(&mut self, peer: PeerId) {
        self.send_digests(&[peer]);
    }

    /// A digest to each of them. What all are told is found out once: a thousand peers may be new.
    pub(super) fn send_digests(&mut self, peers: &[PeerId]) {
        let setup = self.ledger.setup.as_ref();
        let common = Digest {
            stamp: setup.map(|setup| setup.stamp).unwrap_or_default(),
            hash: self.ledger.ring.hash(),
            seen: 0,
            seen_as: 0,
            acts: self.is_installed(),
            has_free: self.may_use() && self.ledger.space.free_count() > 0,
            live: self.live_addresses(),
        };
        for peer in peers {
            let known = self.peers.get(peer);
            let digest = Digest {
                seen: known.map_or(0, |known| known.written),
                seen_as: known.and_then(|known| known.incarnation).unwrap_or(0),
                ..common.clone()
            };
            self.send(*peer, Body::Digest(digest));
        }
    }

    pub(super) fn on_digest(&mut self, from: OwnerId, digest: &Digest) {
        if let Some(known) = self.peers.get_mut(&from.peer) {
            let is_news = (known.acts, known.stamp) != (digest.acts, digest.stamp);
            known.has_free = digest.has_free;
            known.acts = digest.acts;
            known.stamp = digest.stamp;
            known.live = digest.live;
            if is_news {
                self.stir();
            }
        }
        if digest.seen_as == self.ledger.incarnation && digest.seen > self.gate.queued() {
            self.seen_ahead(from.peer);
            return;
        }
        let theirs = self
            .peers
            .get(&from.peer)
            .and_then(|known| known.ring)
            .unwrap_or(0);
        match (self.ring_short(), theirs) {
            (0, 0) => {}
            (0, _) => self.send(from.peer, Body::AskSetup),
            (_, 0) => self.send_setup(from.peer),
            (ours, theirs) if ours != theirs => self.meet(from.peer),
            _ => self.compare_digest(from, digest),
        }
    }

    fn compare_digest(&mut self, from: OwnerId, digest: &Digest) {
        let ours = self
            .ledger
            .setup
            .as_ref()
            .map(|setup| setup.stamp)
            .unwrap_or_default();
        if digest.stamp > ours {
            self.send(from.peer, Body::AskSetup);
        } else if digest.stamp < ours {
            self.send_setup(from.peer);
        }
        if digest.hash != self.ledger.ring.hash() {
            self.start_sync(from.peer);
        }
    }

    /// Witnesses that are there, and whose last word is of another setup than this one.
    fn silent_witnesses(&self, stamp: Stamp) -> impl Iterator<Item = PeerId> {
        let witnesses = self.witnesses().filter(|w| self.is_current(*w));
        let known = witnesses.filter_map(|w| Some((w.peer, self.peers.get(&w.peer)?)));
        let silent = known.filter(move |(_, known)| known.stamp < stamp);
        silent.map(|(peer, _)| peer)
    }

    /// Asks witnesses of a new setup whether they act in it: only some peers hear it from them
    /// without having asked.
    pub(super) fn drive_probes(&mut self) {
        let Some(stamp) = self.ledger.setup.as_ref().map(|setup| setup.stamp) else {
            return;
        };
        if self.silent_witnesses(stamp).next().is_none() {
            self.probes = None;
            return;
        }
        let now = self.now;
        let probes = self.probes.get_or_insert_with(|| Retry::new(now));
        if !probes.is_due(self.now, &mut self.random) {
            return;
        }
        for peer in self.silent_witnesses(stamp).collect::<Vec<PeerId>>() {
            self.send(peer, Body::Probe);
        }
    }

    pub(super) fn probes_due(&self) -> Option<Instant> {
        self.probes.as_ref().map(|probes| probes.next)
    }

    /// Begins to make the rings of both peers equal.
    pub(super) fn start_sync(&mut self, peer: PeerId) {
        let description = sync::describe(&self.ledger.ring, Range::ALL);
        self.send(peer, Body::Sync(description));
    }

    pub(super) fn on_sync(&mut self, from: OwnerId, message: &Sync) {
        if !message.runs().is_empty() && !self.take_in(from, message.runs()) {
            return;
        }
        for answer in sync::answer(&self.ledger.ring, message) {
            self.send(from.peer, Body::Sync(answer));
        }
    }

    pub(super) fn send_setup(&mut self, peer: PeerId) {
        if let (Some(ring), Some(setup)) = (self.ledger.ring_id, self.ledger.setup.clone()) {
            self.send(peer, Body::Setup { ring, setup });
        }
    }

    pub(super) fn on_setup(&mut self, from: OwnerId, ring: RingId, setup: Setup) {
        if !setup.is_sound() {
            self.refuse(from.peer, "a setup that cannot be");
            return;
        }
        match self.ledger.ring_id {
            None => self.join_ring(from.peer, ring, setup),
            Some(ours) if ours == ring => self.learn_setup(setup),
            Some(_) => self.consider(from.peer, ring, setup),
        }
    }

    /// A setup of this ring that is known to be chosen.
    pub(super) fn learn_setup(&mut self, setup: Setup) {
        let ours = self.ledger.setup.as_ref().map(|setup| setup.stamp);
        if ours.is_some_and(|ours| setup.stamp <= ours) {
            return;
        }
        let accepted = self.ledger.setup_accepted.as_ref();
        let installed = accepted.is_some_and(|(_, accepted)| *accepted == setup);
        self.log(&Entry::SetupChosen { setup, installed });
        self.setup_changed();
        let neighbours = self
            .peers
            .iter()
            .filter(|(_, p)| p.is_neighbour && p.is_reachable);
        let neighbours: Vec<PeerId> = neighbours.map(|(peer, _)| *peer).collect();
        for peer in neighbours {
            self.send_setup(peer);
        }
        self.is_stale = true;
    }

    /// Addresses in this ring's pools that reachable peers of this ring announce, and own ones.
    pub(super) fn live_addresses(&self) -> u32 {
        let pools = self.pools();
        let own = self.ledger.space.allocated();
        let own = own
            .filter(|(at, _)| pools.iter().any(|pool| pool.contains(*at)))
            .count();
        let others = self
            .ring_members()
            .filter_map(|(owner, _)| self.announced.get(&owner.peer));
        let others = others.map(|addresses| {
            let inside = pools.iter().map(|pool| addresses.within(*pool).len());
            inside.sum::<usize>()
        });
        u32::try_from(own + others.sum::<usize>()).unwrap_or(u32::MAX)
    }

    /// Writes down what others announce, now and then.
    fn write_announced(&mut self) {
        if self.now < self.announced_due {
            return;
        }
        self.announced_due = self.now + ANNOUNCED_EVERY;
        for peer in core::mem::take(&mut self.announced_changed) {
            let now = self.announced.get(&peer).cloned().unwrap_or_default();
            let before = self.ledger.announced.get(&peer).cloned();
            let is_new = before.is_none();
            let before = before.unwrap_or_default();
            let (gone, new) = (before.minus(&now), now.minus(&before));
            self.log_announced(peer, &gone, true);
            self.log_announced(peer, &new, false);
            if is_new && new.is_empty() {
                let addresses = Bounded::default();
                self.log(&Entry::Announced {
                    peer,
                    addresses,
                    gone: false,
                });
            }
            // Kept once from now on.
            let written = self.ledger.announced.get(&peer);
            if let Some(written) = written.filter(|written| **written == now) {
                self.announced.insert(peer, written.clone());
            }
        }
    }

    pub(super) fn log_announced(&mut self, peer: PeerId, addresses: &[u128], gone: bool) {
        for chunk in addresses.chunks(RUNS_MAX) {
            let addresses = Bounded::take_from(chunk.iter().copied());
            self.log(&Entry::Announced {
                peer,
                addresses,
                gone,
            });
        }
    }

    fn end_old_holds(&mut self) {
        let held = self.ledger.space.held();
        let old = held.filter(|(_, hold)| self.now.since(hold.since) >= HOLD_MAX);
        let old: BTreeSet<Range> = old.map(|(range, _)| range).collect();
        for range in old {
            self.end_hold(range);
        }
    }
}
