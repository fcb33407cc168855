//! Other peers, as far as the ring is concerned.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use rmesh_wire::{Instant, PeerId};

use super::Node;
use crate::address::{self, Range};
use crate::addresses::Addresses;
use crate::api::Member;
use crate::cell::OwnerId;
use crate::limits::{ANNOUNCED_PER_PEER_MAX, PEERS_MAX};
use crate::setup::Setup;

/// What is known of another peer.
#[derive(Debug, Clone, Default)]
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) is_reachable: bool,
    pub(super) is_neighbour: bool,
    pub(super) is_listed: bool,
    /// Since when it is reachable without a break.
    pub(super) reachable_since: Option<Instant>,
    /// When it was last said to be reachable.
    pub(super) last_reachable: Option<Instant>,
    /// Its incarnation, from its last message.
    pub(super) incarnation: Option<u64>,
    /// In which life it bears witness, from its last message.
    pub(super) life: Option<u64>,
    /// The ring it is in, in short; 0: none.
    pub(super) ring: Option<u64>,
    /// The highest write of that incarnation it was seen to depend on.
    pub(super) written: u64,
    /// Whether it acts as a witness of the setup with this stamp, by its last digest.
    pub(super) acts: bool,
    pub(super) stamp: crate::setup::Stamp,
    /// Whether it said that it has free addresses.
    pub(super) has_free: bool,
    /// Live addresses of its ring, by its last digest.
    pub(super) live: u32,
    /// When it last sent anything.
    pub(super) heard: Option<Instant>,
}

impl Peer {
    fn note_reach(&mut self, is_reachable: bool, now: Instant) {
        if self.is_reachable || is_reachable {
            self.last_reachable = Some(now);
        }
        self.is_reachable = is_reachable;
    }
}

impl Node {
    /// When a peer gave its last sign of life, at the latest: before this node's start nobody knows.
    pub(super) fn last_sign(&self, peer: PeerId) -> Instant {
        let known = self.peers.get(&peer);
        let signs = known.map(|known| [known.heard, known.last_reachable]);
        let signs = signs.into_iter().flatten().flatten();
        signs.chain([self.started]).max().unwrap_or(self.started)
    }

    /// The name of a peer for messages: as the mesh knows it, as it was when it was removed, or
    /// its id.
    pub(super) fn name(&self, peer: PeerId) -> String {
        if let Some(known) = self.peers.get(&peer)
            && !known.name.is_empty()
        {
            return known.name.clone();
        }
        let mut removed = self.ledger.removed.iter();
        match removed.find(|(owner, (name, _))| owner.peer == peer && !name.is_empty()) {
            Some((_, (name, _))) => name.clone(),
            None => alloc::format!("{}", peer.short()),
        }
    }

    pub(super) fn names(&self, peers: impl IntoIterator<Item = PeerId>) -> String {
        let names: Vec<String> = peers.into_iter().map(|peer| self.name(peer)).collect();
        names.join(", ")
    }

    /// Whether messages to a peer are likely to arrive; true of this peer itself.
    pub(super) fn is_reachable(&self, peer: PeerId) -> bool {
        peer == self.me
            || self
                .peers
                .get(&peer)
                .is_some_and(|known| known.is_reachable)
    }

    /// In which life an owner bears witness, by its last message; `None`: not known.
    pub(super) fn life_of(&self, owner: OwnerId) -> Option<u64> {
        if owner == self.owner() {
            return Some(self.ledger.life);
        }
        let known = self.peers.get(&owner.peer)?;
        known
            .life
            .filter(|_| known.incarnation == Some(owner.incarnation))
    }

    /// Whether an owner is a witness of a setup in the life it is in.
    pub(super) fn is_named(&self, setup: &Setup, owner: OwnerId) -> bool {
        self.life_of(owner)
            .is_some_and(|life| setup.names(owner, life))
    }

    /// The same of the setup that is in force.
    pub(super) fn is_witness(&self, owner: OwnerId) -> bool {
        let setup = self.ledger.setup.as_ref();
        setup.is_some_and(|setup| self.is_named(setup, owner))
    }

    /// Peers that are reachable and in this ring, with the owner each of them is now.
    pub(super) fn ring_members(&self) -> impl Iterator<Item = (OwnerId, &Peer)> {
        let ring = self.ring_short();
        self.peers.iter().filter_map(move |(peer, known)| {
            let incarnation = known.incarnation?;
            let is_in = known.is_reachable && ring != 0 && known.ring == Some(ring);
            is_in.then_some((
                OwnerId {
                    peer: *peer,
                    incarnation,
                },
                known,
            ))
        })
    }

    /// Takes over the complete list of members.
    pub(super) fn follow_members(&mut self, members: Vec<Member>) {
        let named: BTreeSet<PeerId> = members.iter().map(|member| member.peer).collect();
        for (peer, known) in &mut self.peers {
            if !named.contains(peer) {
                known.note_reach(false, self.now);
                known.is_neighbour = false;
                known.reachable_since = None;
            }
        }
        let mut new = Vec::new();
        for member in members {
            let peer = member.peer;
            if peer != self.me && self.follow_member(member) {
                new.push(peer);
            }
        }
        if !new.is_empty() {
            self.send_digests(&new);
            self.ask_anew();
        }
        self.is_stale = true;
    }

    /// Whether it is reachable now and was not before.
    fn follow_member(&mut self, member: Member) -> bool {
        let now = self.now;
        let Some(known) = self.peer_mut(member.peer) else {
            return false;
        };
        known.name = member.name;
        known.is_neighbour = member.neighbour;
        known.is_listed = member.listed;
        known.reachable_since = match known.reachable_since {
            Some(since) if member.reachable => Some(since),
            _ => member.reachable.then_some(now),
        };
        let is_new = member.reachable && !known.is_reachable;
        known.note_reach(member.reachable, now);
        is_new
    }

    /// What is known of a peer, made if there is room.
    pub(super) fn peer_mut(&mut self, peer: PeerId) -> Option<&mut Peer> {
        if !self.peers.contains_key(&peer) && self.peers.len() >= PEERS_MAX {
            return None;
        }
        Some(self.peers.entry(peer).or_default())
    }

    /// Takes note of everything a peer announces now.
    pub(super) fn follow_announced(&mut self, peer: PeerId, addresses: &[IpAddr]) {
        let is_known = self.announced.contains_key(&peer);
        if peer == self.me || (!is_known && self.announced.len() >= PEERS_MAX) {
            return;
        }
        let numbers = addresses.iter().map(|address| address::number(*address));
        let now: Addresses = numbers.take(ANNOUNCED_PER_PEER_MAX).collect();
        let before = self.announced.remove(&peer).unwrap_or_default();
        for gone in before.minus(&now) {
            self.announcers.remove(gone, peer);
        }
        for new in now.minus(&before) {
            self.announcers.insert(new, peer);
        }
        self.announced.insert(peer, now);
        self.announced_changed.insert(peer);
        self.is_stale = true;
    }

    /// What a peer announced of a range counts no more, from now on and after a restart.
    pub(super) fn forget_announced(&mut self, peer: PeerId, range: Range) {
        let Some(announced) = self.announced.get_mut(&peer) else {
            return;
        };
        let gone = announced.within(range).to_vec();
        announced.remove(&gone);
        for at in &gone {
            self.announcers.remove(*at, peer);
        }
        self.log_announced(peer, &gone, true);
    }

    /// Addresses that peers announced which do not answer now.
    pub(super) fn gone_announcers(&self) -> impl Iterator<Item = (u128, PeerId)> {
        let announced = self.announcers.within(Range::ALL);
        announced.filter(|(_, peer)| !self.is_reachable(*peer))
    }

    /// A peer other than `except` that announces an address.
    pub(super) fn announcer(&self, at: u128, except: PeerId) -> Option<PeerId> {
        self.announcers.of(at).find(|peer| *peer != except)
    }
}
