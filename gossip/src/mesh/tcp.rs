//! The way of last resort: the same datagrams by TCP, where UDP does not pass (DESIGN D1, D9).
//!
//! Marked addresses ([`crate::tcp`]) are candidates like others, and prove themselves by the same probes. They are
//! tried once no address of a peer has answered by UDP for [`UDP_PATIENCE`] and nobody relays, and forgotten
//! when UDP has worked for a while again. A host that reaches nobody by UDP keeps a second such link, so that
//! it does not hang on one neighbour.

use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use rmesh_wire::{Instant, PeerId};

use super::Mesh;
use super::path::PathState;
use super::peer::Peer;
use crate::api::Path;
use crate::tcp::{is_tcp, over_tcp};

/// TCP is tried where UDP has not been answered for this long.
pub(crate) const UDP_PATIENCE: Duration = Duration::from_secs(5);
/// Time between two attempts at one peer: doubles from the first to the last.
const RETRY: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(60)];
/// A connection that no peer has answered by is given up after this time.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(10);
/// TCP is left for good once UDP has worked for this long.
const UDP_SETTLED: Duration = Duration::from_secs(15);
/// Addresses of a peer tried at once, and connections with it.
pub(crate) const ADDRESSES_MAX: usize = 4;
/// Links by TCP of a host that reaches nobody by UDP.
const LINKS_WANTED: usize = 2;
/// What such a link costs more than its round trip: a way by UDP through others is better.
const LINK_COST: Duration = Duration::from_millis(100);
/// Connections to be ended that are remembered; others end by time.
const UNWELCOME_MAX: usize = 64;
/// Where the port is in a node record's capabilities.
const PORT_SHIFT: u32 = 16;

/// What is known of TCP to one peer.
#[derive(Debug, Default)]
pub(crate) struct TcpState {
    /// Since when no address has answered by UDP.
    lost: Option<Instant>,
    next: Instant,
    wait: Duration,
}

/// The capabilities of a host that listens at this TCP port; 0 means that it does not.
pub(crate) fn capability(port: u16) -> u32 {
    u32::from(port) << PORT_SHIFT
}

impl Peer {
    /// Whether an address works by UDP.
    pub(crate) fn has_udp(&self) -> bool {
        self.alive_by(false).next().is_some()
    }

    /// Addresses that work, by TCP or by UDP.
    fn alive_by(&self, tcp: bool) -> impl Iterator<Item = &PathState> {
        let of_kind = self
            .direct
            .iter()
            .filter(move |(at, _)| is_tcp(**at) == tcp);
        of_kind.map(|(_, path)| path).filter(|path| path.is_alive())
    }

    /// Round trip of the control link with it, and what it costs that TCP carries it.
    pub(crate) fn link_trip(&self) -> Option<Duration> {
        let trip = |tcp: bool| self.alive_by(tcp).filter_map(PathState::round_trip).min();
        trip(false).or_else(|| Some(trip(true)? + LINK_COST))
    }

    /// Whether TCP is used with it, or may be before long.
    pub(crate) fn concerns_tcp(&self) -> bool {
        let by_tcp = self.direct.keys().any(|address| is_tcp(*address));
        by_tcp || (self.tcp.lost.is_some() && self.current.is_some())
    }

    /// When what is known of TCP to it changes by itself.
    fn tcp_ends(&self) -> Option<Instant> {
        let settled = self.alive_by(false).map(|path| path.since + UDP_SETTLED);
        let settled = settled.min();
        let of_tcp = self.direct.iter().filter(|(address, _)| is_tcp(**address));
        let ends = of_tcp.filter_map(|(_, path)| {
            let given_up = (!path.is_alive()).then(|| path.since + GIVEN_UP_AFTER);
            [given_up, settled].into_iter().flatten().min()
        });
        ends.min()
    }
}

impl Mesh {
    /// Lets peers be reached by TCP too, where UDP does not pass. Others can do so at `port`; 0 if nobody can.
    #[must_use]
    pub fn with_tcp(mut self, port: u16) -> Self {
        self.tcp_port = Some(port);
        self
    }

    /// Whether a marked address is one by which a known peer is reached, or tried.
    pub fn has_way(&self, address: SocketAddr) -> bool {
        self.peers
            .values()
            .any(|peer| peer.direct.contains_key(&address))
    }

    /// The connection behind a marked address has ended, or could not be opened.
    pub fn handle_tcp_closed(&mut self, address: SocketAddr, now: Instant) {
        let closed = self.peers.values_mut().filter_map(|peer| {
            let path = peer.direct.remove(&address)?;
            path.is_alive().then_some(peer.id)
        });
        for id in closed.collect::<Vec<_>>() {
            self.path_changed(id, "its TCP connection ended", now);
        }
        self.settle(now);
    }

    /// Next connection that is to be ended, for what came by it was refused.
    pub fn poll_unwelcome(&mut self) -> Option<SocketAddr> {
        self.unwelcome.pop_front()
    }

    pub(crate) fn note_unwelcome(&mut self, source: SocketAddr) {
        if is_tcp(source) && self.unwelcome.len() < UNWELCOME_MAX && !self.has_way(source) {
            self.unwelcome.push_back(source);
        }
    }

    pub(crate) fn is_tcp_on(&self) -> bool {
        self.tcp_port.is_some()
    }

    /// What came of the ways to a peer: whether TCP is to be thought of.
    pub(crate) fn note_udp(&mut self, id: PeerId, now: Instant) {
        let is_on = self.is_tcp_on();
        let Some(peer) = self.peers.get_mut(&id).filter(|_| is_on) else {
            return;
        };
        if peer.alive_by(true).next().is_some() {
            peer.tcp.wait = Duration::ZERO;
        }
        match peer.has_udp() {
            true => peer.tcp.lost = None,
            false => _ = peer.tcp.lost.get_or_insert(now),
        }
    }

    /// Where a peer can be called by TCP, as its record has it.
    pub(crate) fn tcp_addresses(&self, id: PeerId) -> Vec<SocketAddr> {
        let mut addresses = Vec::new();
        let Some(node) = self.store.node(&id).filter(|_| self.is_tcp_on()) else {
            return addresses;
        };
        let port = u16::try_from(node.capabilities >> PORT_SHIFT).unwrap_or(0);
        for address in node.addresses.as_slice().iter().filter(|_| port != 0) {
            let marked = over_tcp(SocketAddr::new(address.ip(), port));
            let is_own = self.local_addresses.contains(&address.ip().to_canonical());
            if !is_own && !self.is_containers(address.ip()) && !addresses.contains(&marked) {
                addresses.push(marked);
            }
        }
        addresses.truncate(ADDRESSES_MAX);
        addresses
    }

    /// When TCP to a peer is tried next.
    fn tcp_due(&self, peer: &Peer, now: Instant) -> Option<Instant> {
        let lost = peer.tcp.lost?;
        let is_wanted = peer.desired || peer.desires_us || now < peer.wanted_until;
        if !is_wanted || peer.current.is_none() || peer.alive_by(true).next().is_some() {
            return None;
        }
        let is_needed = match peer.chosen {
            None => true,
            Some(Path::Relay(_)) => peer.desired && self.is_second_link_wanted(),
            Some(Path::Direct(_) | Path::Tcp(_)) => false,
        };
        is_needed.then(|| (lost + UDP_PATIENCE).max(peer.tcp.next))
    }

    fn is_second_link_wanted(&self) -> bool {
        let by_tcp = |peer: &&Peer| peer.direct.keys().any(|address| is_tcp(*address));
        !self.peers.values().any(Peer::has_udp)
            && self.peers.values().filter(by_tcp).count() < LINKS_WANTED
    }

    pub(crate) fn tcp_deadline(&self, now: Instant) -> Option<Instant> {
        let peers = self.kinds.tcp.iter();
        let peers = peers.filter_map(|id| self.peers.get(id));
        let due = peers.flat_map(|peer| [self.tcp_due(peer, now), peer.tcp_ends()]);
        due.flatten().min()
    }

    /// Tries TCP where it is due, and forgets it where it is of no more use.
    pub(crate) fn watch_tcp(&mut self, now: Instant) {
        if self.tcp_deadline(now).is_none_or(|due| due > now) {
            return;
        }
        let ended = self.peers.values();
        let ended = ended.filter(|peer| peer.tcp_ends().is_some_and(|due| due <= now));
        for id in ended.map(|peer| peer.id).collect::<Vec<_>>() {
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            let is_settled = peer
                .alive_by(false)
                .any(|path| now >= path.since + UDP_SETTLED);
            peer.direct.retain(|address, path| {
                let is_over =
                    is_settled || (!path.is_alive() && now >= path.since + GIVEN_UP_AFTER);
                !is_tcp(*address) || !is_over
            });
        }
        let is_due =
            |mesh: &Mesh, peer: &Peer| mesh.tcp_due(peer, now).is_some_and(|due| due <= now);
        let due = self.peers.values().filter(|peer| is_due(self, peer));
        for id in due.map(|peer| peer.id).collect::<Vec<_>>() {
            let addresses = self.tcp_addresses(id);
            // One that was tried just now may be enough.
            if !self.peers.get(&id).is_some_and(|peer| is_due(self, peer)) {
                continue;
            }
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            let [first, last] = RETRY;
            peer.tcp.wait = (peer.tcp.wait * 2).clamp(first, last);
            peer.tcp.next = now + peer.tcp.wait;
            for address in addresses {
                peer.add_candidate(address, now);
            }
        }
    }
}

/// A path as others are told of it.
pub(crate) fn told(path: Path) -> Path {
    match path {
        Path::Direct(address) => crate::tcp::tcp_remote(address).map_or(path, Path::Tcp),
        Path::Relay(_) | Path::Tcp(_) => path,
    }
}

#[cfg(test)]
pub(crate) mod tests;
