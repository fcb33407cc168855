//! Sending over whatever way there is, and carrying control datagrams for others.

use alloc::vec::Vec;

use rmesh_wire::datagram::Header;
use rmesh_wire::relay::{RelayEnds, TTL};
use rmesh_wire::{Instant, PeerId, ShortId};

use super::peer::Way;
use super::session::Refusal;
use super::{Mesh, Origin};
use crate::api::{Path, Transmit};
use crate::limits::TRANSMITS_MAX;

impl Mesh {
    /// Queues a datagram for the shell.
    pub(crate) fn transmit(&mut self, destination: core::net::SocketAddr, bytes: Vec<u8>) {
        if self.transmits.len() >= TRANSMITS_MAX {
            self.transmits.pop_front();
            self.counters.transmits_dropped += 1;
        }
        self.counters.control_datagrams_sent += 1;
        self.counters.control_bytes_sent += bytes.len() as u64;
        self.transmits.push_back(Transmit { destination, bytes });
    }

    /// Sends a datagram back to, or on to, where `origin` says.
    pub(crate) fn send_to(&mut self, origin: Origin, datagram: Vec<u8>, now: Instant) {
        match origin {
            Origin::Direct(address) => self.transmit(address, datagram),
            Origin::Relayed {
                neighbour,
                source: Some(destination),
            } => {
                // What came under the session with its own source goes back so. Else the routes may know better by now
                // than the way it came.
                let straight = self.peers.get(&neighbour);
                let straight = straight.filter(|peer| peer.direct_address().is_some());
                let straight = straight.filter(|_| neighbour.short_id() == destination);
                let hop = straight.map(|_| neighbour);
                let hop = hop.or_else(|| self.relay_hop(destination, None));
                let hop = hop.unwrap_or(neighbour);
                let ends = RelayEnds {
                    source: self.me.short_id(),
                    destination,
                };
                self.forward(hop, ends, TTL, &datagram, now);
            }
            Origin::Fast {
                peer: Some(peer), ..
            } => self.transmit_fast(peer, datagram, false),
            Origin::Relayed { source: None, .. } | Origin::Fast { peer: None, .. } => {}
        }
    }

    /// Sends a datagram to a peer by one of its ways.
    pub(crate) fn send_way(&mut self, peer: PeerId, way: Way, datagram: Vec<u8>, now: Instant) {
        match way {
            Way::Direct(address) => {
                self.note_sent(peer, address, now);
                self.transmit(address, datagram);
            }
            Way::Relay => {
                let Some(neighbour) = self.next_hop(peer) else {
                    return;
                };
                let source = Some(peer.short_id());
                self.send_to(Origin::Relayed { neighbour, source }, datagram, now);
            }
        }
    }

    /// First hop of the routes to a peer that is not a direct neighbour on that route.
    pub(crate) fn next_hop(&self, peer: PeerId) -> Option<PeerId> {
        self.relay_hop(peer.short_id(), None)
            .filter(|hop| *hop != peer)
    }

    /// The neighbour to hand a datagram for `destination` to, which is not `from`.
    fn relay_hop(&self, destination: ShortId, from: Option<PeerId>) -> Option<PeerId> {
        let hop = self.routes.next_hop(destination);
        let usable = |hop: &PeerId| {
            Some(*hop) != from
                && self
                    .peers
                    .get(hop)
                    .is_some_and(|peer| peer.direct_address().is_some())
        };
        hop.filter(usable)
    }

    fn forward(&mut self, neighbour: PeerId, ends: RelayEnds, ttl: u8, inner: &[u8], now: Instant) {
        let Some(peer) = self.peers.get(&neighbour) else {
            return;
        };
        let (Some(Path::Direct(address)), Some(index)) = (peer.chosen, peer.current) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(&index) else {
            return;
        };
        let datagram = session.wrap(ends, ttl, inner);
        self.note_sent(neighbour, address, now);
        self.transmit(address, datagram);
    }

    /// Whatever is sent keeps the mapping of a translator.
    pub(crate) fn note_sent(&mut self, peer: PeerId, address: core::net::SocketAddr, now: Instant) {
        let peer = self.peers.get_mut(&peer);
        if let Some(path) = peer.and_then(|peer| peer.direct.get_mut(&address)) {
            path.mapping.sends(now);
        }
    }

    /// Carries nothing that is between others; their routes do not lead through this peer.
    #[must_use]
    pub fn without_relaying(mut self) -> Self {
        self.no_relay = true;
        self
    }

    /// A lane-0 relay datagram arrived.
    pub(crate) fn on_relay(&mut self, header: &Header, datagram: &[u8], now: Instant) {
        let Some((ends, inner)) = RelayEnds::split(datagram) else {
            self.counters.datagrams_ignored += 1;
            return;
        };
        let Some(session) = self.sessions.get_mut(&header.receiver) else {
            self.counters.datagrams_ignored += 1;
            return;
        };
        if let Err(refusal) = session.verify_relay(header, datagram) {
            return self.count_refusal(refusal);
        }
        let neighbour = session.agreement.peer;
        self.confirm(header.receiver, now);
        if ends.destination == self.me.short_id() {
            let origin = Origin::Relayed {
                neighbour,
                source: Some(ends.source),
            };
            return self.on_datagram(origin, inner, now);
        }
        let ttl = header.ttl.min(TTL).saturating_sub(1);
        if let Some(hop) = self
            .relay_hop(ends.destination, Some(neighbour))
            .filter(|_| ttl > 0 && !self.no_relay)
        {
            self.counters.datagrams_relayed += 1;
            self.forward(hop, ends, ttl, inner, now);
        }
    }

    pub(crate) fn count_refusal(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::Forged => self.counters.datagrams_forged += 1,
            Refusal::Replayed => self.counters.datagrams_replayed += 1,
        }
    }
}
