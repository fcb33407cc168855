//! The one route a container needs besides those its addresses bring, and which way packets would go.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::KernelError;
use super::link::Link;
use super::netlink::Netlink;

/// 224.0.0.0/4, all IPv4 multicast (RFC 5771).
const MULTICAST: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 0);
const MULTICAST_PREFIX_LEN: u8 = 4;

impl Netlink {
    /// The interface by which a packet to this address would leave; `None` if none would.
    pub(crate) fn way_out(&mut self, to: IpAddr) -> Result<Option<u32>, KernelError> {
        let mut message = RouteMessage::default();
        let (family, to, len) = match to {
            IpAddr::V4(ip) => (AddressFamily::Inet, RouteAddress::Inet(ip), 32),
            IpAddr::V6(ip) => (AddressFamily::Inet6, RouteAddress::Inet6(ip), 128),
        };
        message.header.address_family = family;
        message.header.destination_prefix_length = len;
        message.attributes = vec![RouteAttribute::Destination(to)];
        let answer = self.get("look up a route", RouteNetlinkMessage::GetRoute(message));
        let Some(RouteNetlinkMessage::NewRoute(route)) = answer? else {
            return Ok(None);
        };
        let out = |attribute: &RouteAttribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        };
        Ok(route.attributes.iter().find_map(out))
    }

    /// Sends IPv4 multicast out of this interface, unless there is such a route already. IPv6 has
    /// one for each interface from the start.
    pub(crate) fn ensure_multicast_route(&mut self, link: &Link) -> Result<(), KernelError> {
        let mut any = RouteMessage::default();
        any.header.address_family = AddressFamily::Inet;
        let listed = self.dump("list the routes", RouteNetlinkMessage::GetRoute(any))?;
        if listed.iter().any(is_multicast_route) {
            return Ok(());
        }
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = MULTICAST_PREFIX_LEN;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Link;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![
            RouteAttribute::Destination(RouteAddress::Inet(MULTICAST)),
            RouteAttribute::Oif(link.index),
        ];
        let doing = format!("route multicast out of {}", link.name);
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        match self.change(&doing, RouteNetlinkMessage::NewRoute(message), flags) {
            Err(error) if error.errno() == Some(libc::EEXIST) => Ok(()),
            other => other,
        }
    }
}

fn is_multicast_route(message: &RouteNetlinkMessage) -> bool {
    let RouteNetlinkMessage::NewRoute(route) = message else {
        return false;
    };
    let destination = RouteAttribute::Destination(RouteAddress::Inet(MULTICAST));
    route.header.destination_prefix_length == MULTICAST_PREFIX_LEN
        && route.header.table == RouteHeader::RT_TABLE_MAIN
        && route.attributes.contains(&destination)
}
