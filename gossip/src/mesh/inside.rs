//! No tunnel inside the tunnel (DESIGN D9): what is an address of the mesh's own network is not a way to a peer.
//!
//! An address that a container has is never one. One of a pool is only where an interface of its host has it,
//! for pools may overlap with the network between the hosts; that a datagram to it does not leave by the
//! bridge the shell sees to, for each address ([`crate::SendFailure::Inside`]).

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use rmesh_wire::Instant;

use super::Mesh;
use super::peer::Peer;
use crate::topology::record::Body;

impl Mesh {
    /// What containers' addresses are taken from.
    pub fn handle_pools(&mut self, pools: Vec<IpNet>, now: Instant) {
        if self.pools != pools {
            self.pools = pools;
            self.node_changed(now);
        }
        self.settle(now);
    }

    /// The routes of this host have changed: what led into the mesh itself may lead out now.
    pub fn handle_routes(&mut self, now: Instant) {
        for peer in self.peers.values_mut() {
            let paths = peer.direct.values_mut();
            let inside = paths.filter(|path| path.inside);
            inside.for_each(|path| path.hurry(now));
        }
        self.settle(now);
    }

    /// Addresses at which peers are reached directly now: hints for the next life.
    pub fn known_addresses(&self) -> Vec<SocketAddr> {
        self.peers
            .values()
            .filter_map(Peer::direct_address)
            .map(crate::tcp::unmarked)
            .collect()
    }

    /// Where peers answer now.
    pub fn direct_addresses(&self) -> Vec<SocketAddr> {
        let all = self.peers.values().flat_map(|peer| peer.direct.iter());
        let alive = all.filter(|(_, path)| path.is_alive());
        alive.map(|(address, _)| *address).collect()
    }

    /// Whether others see this peer at an address that a container could have, and no interface of this host
    /// outside the mesh has: they see it through the mesh.
    pub(crate) fn is_seen_inside(&self, ip: IpAddr) -> bool {
        self.is_of_pool(ip) && !self.local_addresses.contains(&ip.to_canonical())
    }

    /// Whether somebody announces a container with this address.
    pub(crate) fn is_containers(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let announced = |body: &Body| match body {
            Body::Endpoints(endpoints) => {
                let addresses = endpoints.as_slice().iter();
                let mut addresses = addresses.flat_map(|endpoint| endpoint.addresses.as_slice());
                addresses.any(|(address, _)| *address == ip)
            }
            Body::Node(_) => false,
        };
        self.is_of_pool(ip)
            && self
                .store
                .iter()
                .any(|stored| announced(&stored.record.body))
    }

    fn is_of_pool(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.pools.iter().any(|pool| pool.contains(&ip))
    }
}
