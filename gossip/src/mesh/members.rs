//! What another core has to know of the mesh: who is there, and what each of them announces.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use rmesh_wire::{Instant, PeerId};

use super::Mesh;
use crate::api::Member;
use crate::topology::record::{Body, RecordKey};

/// What changed since it was last asked for.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Something of [`Mesh::members`].
    pub(crate) members: bool,
    /// Peers with a new record.
    announcers: BTreeSet<PeerId>,
}

impl News {
    /// A record of that peer was taken.
    pub(crate) fn record(&mut self, key: &RecordKey) {
        self.announcers.insert(key.0);
    }
}

impl Mesh {
    /// All other peers, if anything may have changed since the last call that returned them.
    pub fn poll_members(&mut self) -> Option<Vec<Member>> {
        let changed = core::mem::replace(&mut self.news.members, false);
        changed.then(|| self.members())
    }

    /// A peer that published a record since the last call, and every address its containers carry.
    ///
    /// A peer that is gone, or says good-bye and leaves containers behind, is none: what it last announced
    /// still counts. Nor is one of whom only a part is known; it comes up again when the rest arrives.
    pub fn poll_announced(&mut self) -> Option<(PeerId, Vec<IpAddr>)> {
        while let Some(peer) = self.news.announcers.pop_first() {
            if let Some(addresses) = self.announced_by(peer) {
                return Some((peer, addresses));
            }
        }
        None
    }

    /// Lets [`Mesh::poll_members`] and [`Mesh::poll_announced`] tell everything again.
    pub fn tell_again(&mut self) {
        self.news.members = true;
        let known = self.store.nodes().map(|(peer, _)| peer);
        self.news.announcers = known.collect();
    }

    fn members(&self) -> Vec<Member> {
        let listed: BTreeSet<PeerId> = self.listed().collect();
        let member = |peer: &super::peer::Peer| Member {
            peer: peer.id,
            name: peer.name.clone(),
            reachable: peer.chosen.is_some(),
            neighbour: peer.is_neighbour(),
            listed: listed.contains(&peer.id),
        };
        self.peers.values().map(member).collect()
    }

    fn announced_by(&self, peer: PeerId) -> Option<Vec<IpAddr>> {
        let node = &self
            .store
            .get(&(peer, 0))
            .filter(|_| peer != self.me)?
            .record;
        let (boot, sections) = match &node.body {
            Body::Node(body) if body.leaving && body.sections > 0 => return None,
            Body::Node(body) => (node.version.boot, body.sections),
            Body::Endpoints(_) => return None,
        };
        let mut addresses = Vec::new();
        for section in 1..=sections {
            let record = &self.store.get(&(peer, section))?.record;
            let Body::Endpoints(endpoints) = &record.body else {
                return None;
            };
            // One of an earlier life will be replaced.
            if record.version.boot != boot {
                return None;
            }
            let carried = endpoints.as_slice().iter();
            let carried = carried.flat_map(|endpoint| endpoint.addresses.as_slice());
            addresses.extend(carried.map(|(address, _)| *address));
        }
        Some(addresses)
    }

    /// Opaque bytes for another peer. If there is no session with it yet one is opened.
    pub(crate) fn send_channel(&mut self, id: PeerId, channel: u8, bytes: &[u8], now: Instant) {
        let has_session = self
            .peers
            .get(&id)
            .is_some_and(|peer| peer.current.is_some());
        if !has_session {
            self.on_want(id, now);
        }
        self.send_on_channel(id, channel, bytes, now);
    }

    /// How many other peers are configured: a name that leads back to this peer is none, and two that
    /// lead to one peer are one.
    pub fn targets_of_others(&self) -> usize {
        let others = self.dialer.targets.iter();
        let others = others.filter(|(_, target)| !target.is_me());
        let distinct: BTreeSet<Result<PeerId, &String>> = others
            .map(|(name, target)| target.peer().ok_or(name))
            .collect();
        distinct.len()
    }
}

#[cfg(test)]
mod tests;
