//! Hosts that carry what others send.

use std::{io, net::IpAddr};

use crate::{LabError, Namespace, error::Attempt, netlink};

impl Namespace {
    /// Carries IPv4 packets between its interfaces from now on.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn forward_packets(&self) -> Result<(), LabError> {
        self.set("ipv4/ip_forward", "1")
    }

    /// Sends what has no route of its own by this neighbour, IPv4 only.
    ///
    /// # Errors
    /// If the neighbour is not on one of its wires, or has an IPv6 address.
    pub fn route_by_default(&self, gateway: IpAddr) -> Result<(), LabError> {
        let add = || match gateway {
            IpAddr::V4(gateway) => netlink::add_default_route(gateway),
            IpAddr::V6(_) => Err(io::ErrorKind::Unsupported.into()),
        };
        self.enter(add)
            .attempt(|| format!("route what leaves {} by {gateway}", self.name()))
    }

    /// Drops IPv4 packets that have no route without a word, as an internet does with those to
    /// private addresses.
    ///
    /// # Errors
    /// If it has a default route, or the kernel refuses.
    pub fn drop_unrouted(&self) -> Result<(), LabError> {
        self.enter(netlink::add_blackhole_route)
            .attempt(|| format!("drop what has no route in {}", self.name()))
    }
}
