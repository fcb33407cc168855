//! What follows from changed records and paths: routes, MACs, whom to be a neighbour of.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use rmesh_wire::{Instant, PeerId};

use super::Mesh;
use super::peer::Peer;
use crate::api::Event;
use crate::limits::FULL_MESH_PEERS_MAX;
use crate::topology::macs::Announced;
use crate::topology::overlay;
use crate::topology::record::{Body, RecordKey};

/// Changed records within this time are followed together: one computation for all of them.
const ROUTES_COALESCE: Duration = Duration::from_millis(10);
/// Routes are followed at most this often while records keep changing: one change is followed at
/// once, a burst of them does not cost a computation each (the hold-down of RFC 8405).
const ROUTES_HOLD: Duration = Duration::from_millis(50);
/// Whom to be a neighbour of is asked at most this often, for each peer there is: what that costs
/// grows with their number, and where many have just come there will be more in a moment.
const OVERLAY_HOLD_PER_PEER: Duration = Duration::from_micros(500);
/// … and not later than this.
const OVERLAY_HOLD_MAX: Duration = Duration::from_secs(1);

impl Mesh {
    /// A record is new or gone: what follows from it is looked at soon.
    pub(crate) fn record_changed(&mut self, key: &RecordKey, now: Instant) {
        if key.1 == 0 {
            self.dirty.nodes.insert(key.0);
        }
        self.dirty.macs.insert(key.0);
        self.routes_changed(now);
    }

    /// Something that routes depend on changed: they follow soon.
    pub(crate) fn routes_changed(&mut self, now: Instant) {
        let soon = now + ROUTES_COALESCE;
        self.routes_due
            .get_or_insert(soon.max(self.routes_followed + ROUTES_HOLD));
    }

    /// Follows changed records: routes, paths that depend on them, and who has which MAC.
    pub(crate) fn refresh_routes(&mut self, now: Instant) {
        self.routes_due = None;
        self.routes_followed = now;
        let changed = core::mem::take(&mut self.dirty.nodes);
        let followed = self.routes.follow(&self.me, &self.store, &changed);
        if followed.is_news {
            self.dirty.forwarding = true;
            self.dirty.overlay = true;
        }
        for (peers, is_reached) in [(followed.gained, true), (followed.lost, false)] {
            for peer in peers {
                self.store.set_reached(peer, is_reached, now);
                self.dirty.macs.insert(peer);
            }
        }
        let mut to_choose = core::mem::take(&mut self.dirty.choose);
        to_choose.extend(followed.touched);
        for id in to_choose {
            self.choose(id, "the routes changed", now);
        }
        self.forget_peers();
        self.refresh_macs(now);
    }

    /// Asks whom to be a neighbour of, unless that was asked a moment ago.
    pub(crate) fn follow_overlay(&mut self, now: Instant) {
        let known = u32::try_from(self.peers.len()).unwrap_or(u32::MAX);
        let hold = OVERLAY_HOLD_PER_PEER.saturating_mul(known);
        let due = self.overlay_followed + hold.min(OVERLAY_HOLD_MAX);
        if self.peers.len() > FULL_MESH_PEERS_MAX && now < due {
            self.overlay_due = Some(due);
            return;
        }
        self.overlay_due = None;
        self.overlay_followed = now;
        self.refresh_overlay(now);
    }

    fn refresh_overlay(&mut self, now: Instant) {
        let known: Vec<PeerId> = self
            .store
            .nodes()
            .map(|(peer, _)| peer)
            .filter(|peer| *peer != self.me)
            .collect();
        let peers = &self.peers;
        let trip = |peer: &PeerId| peers.get(peer).filter(|p| p.has_direct())?.round_trip();
        let roles = overlay::Roles::of(self.store.nodes());
        let mut desired = overlay::desired(&self.me, &known, &roles, trip);
        let direct = self.active_peers().filter(|peer| peer.has_direct());
        let direct = direct.map(|peer| &peer.id);
        desired.extend(overlay::bridges(
            &self.me,
            direct,
            self.routes.graph(),
            &roles,
        ));
        for (id, peer) in &mut self.peers {
            // A peer without a record has just been met: its record follows over the new link.
            let wanted = desired.contains(id) || self.store.node(id).is_none();
            if core::mem::replace(&mut peer.desired, wanted) != wanted {
                self.dirty.links = true;
                self.dial_check.get_or_insert(now + super::dial::CHECK);
                self.active.insert(*id);
            }
        }
    }

    /// Peers of whom nothing is left, neither record nor session, are forgotten.
    fn forget_peers(&mut self) {
        if !core::mem::replace(&mut self.dirty.gone, false) {
            return;
        }
        let open: BTreeSet<PeerId> = self
            .sessions
            .values()
            .map(|session| session.agreement.peer)
            .collect();
        let store = &self.store;
        self.peers
            .retain(|id, _| store.get(&(*id, 0)).is_some() || open.contains(id));
    }

    /// Brings the MAC table up to date with what changed peers announce.
    pub(crate) fn refresh_macs(&mut self, now: Instant) {
        for peer in core::mem::take(&mut self.dirty.macs) {
            let announced = self.announced_in_force(peer);
            self.macs.announce(peer, announced);
        }
        for (mac, peer) in self.macs.settle(now) {
            self.events.push_back(Event::MacFrozen { mac, peer });
        }
    }

    fn announced_in_force(&self, peer: PeerId) -> Announced {
        // The kernel may go on carrying frames for one whose router is restarting.
        let entry = self.peers.get(&peer);
        let is_held = entry.is_some_and(|peer: &Peer| peer.fast.in_use().is_some());
        if peer != self.me && !is_held && !self.routes.reaches(&peer) {
            return Announced::new();
        }
        let endpoints = self.store.sections(&peer).flat_map(|stored| {
            let body = match &stored.record.body {
                Body::Endpoints(endpoints) => endpoints.as_slice(),
                Body::Node(_) => &[],
            };
            body.iter()
        });
        endpoints.map(|e| (e.mac, e.moves)).collect()
    }
}
