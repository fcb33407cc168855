//! The facade: one peer's view of the mesh.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use rmesh_wire::{Instant, PeerId};

use crate::api::{
    Config, Endpoint, Event, Forwarding, Report, SendFailure, Target, TrafficSample, Transmit,
};
use crate::crypto::Crypto;

/// One peer's view of the mesh.
pub struct Mesh {}

#[allow(unused_variables, missing_docs)]
impl Mesh {
    /// A mesh of one peer, which knows nobody yet.
    pub fn new(config: Config, crypto: Box<dyn Crypto>, now: Instant) -> Self {
        Mesh {}
    }

    /// A datagram arrived at the shell: every handshake, every lane-0 record, every lane-0 relay
    /// datagram; others are ignored.
    pub fn handle_datagram(&mut self, source: SocketAddr, datagram: &[u8], now: Instant) {}

    /// Inner datagram of a relay datagram that a worker has verified and that is addressed to
    /// this peer: a handshake or a lane-0 record that came through `neighbour`.
    /// (Workers hand the whole lane != 0 relay datagram's inner bytes over only if it is not
    /// theirs to open.)
    pub fn handle_relayed(&mut self, neighbour: PeerId, inner: &[u8], now: Instant) {}

    /// The time asked for by [`Mesh::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {}

    /// The complete list of configured peers, as they resolve at the moment.
    pub fn handle_targets(&mut self, targets: Vec<Target>, now: Instant) {}

    /// Addresses where peers were reached in an earlier life; dialled once, then forgotten.
    pub fn handle_hints(&mut self, addresses: Vec<SocketAddr>, now: Instant) {}

    /// The complete list of this host's own addresses that others might reach.
    pub fn handle_local_addresses(&mut self, addresses: Vec<IpAddr>, now: Instant) {}

    /// The kernel refused to send to `destination`.
    pub fn handle_send_failure(
        &mut self,
        destination: SocketAddr,
        failure: SendFailure,
        now: Instant,
    ) {
    }

    /// What the data plane saw since the last call (call it every 100 ms with all that moved).
    pub fn handle_traffic(&mut self, samples: &[TrafficSample], now: Instant) {}

    /// A frame for `peer` waits for a session.
    pub fn handle_want(&mut self, peer: PeerId, now: Instant) {}

    /// Asks `peer` for a sign of life at once; without one it is down within about a second.
    pub fn handle_suspicion(&mut self, peer: PeerId, now: Instant) {}

    /// The complete list of this host's endpoints.
    pub fn handle_endpoints(&mut self, endpoints: Vec<Endpoint>, now: Instant) {}

    /// Sends opaque bytes (at most 1,100) to a reachable peer; lost like any datagram may be.
    pub fn handle_channel_send(&mut self, peer: PeerId, channel: u8, bytes: &[u8], now: Instant) {}

    /// Says good-bye to everybody, so that nobody has to find out by time.
    pub fn handle_shutdown(&mut self, now: Instant) {}

    /// Next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        None
    }

    /// Next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// When to call [`Mesh::handle_timeout`], and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }

    /// The snapshot for the data plane.
    pub fn forwarding(&self) -> Forwarding {
        Forwarding::default()
    }

    /// Everything `status` shows.
    pub fn report(&self, now: Instant) -> Report {
        unimplemented!()
    }

    /// Addresses at which peers are reached now: hints for the next life.
    pub fn known_addresses(&self) -> Vec<SocketAddr> {
        Vec::new()
    }

    /// This peer.
    pub fn id(&self) -> PeerId {
        PeerId::default()
    }

    /// Hash of what this peer believes of all reachable peers: equal on all of them once quiet.
    pub fn view_hash(&self) -> u64 {
        0
    }
}
