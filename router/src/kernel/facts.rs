//! The host's links, addresses and routes, as a report shows them; nothing is decided by these.

use std::net::IpAddr;

use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteNextHop, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::Serialize;

use super::KernelError;
use super::link::Link;
use super::netlink::Netlink;

/// RT_TABLE_LOCAL (linux/rtnetlink.h): routes to this host's own addresses, which are listed anyway.
const TABLE_LOCAL: u32 = 255;

/// One interface.
#[derive(Debug, Clone, Serialize)]
pub struct HostLink {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `bridge`, `veth`, `tun`, …; absent for hardware.
    pub kind: Option<String>,
    /// Its MAC, if it is of Ethernet's kind.
    pub mac: Option<String>,
    /// Its MTU in bytes.
    pub mtu_bytes: u32,
    /// Index of the bridge it is a port of.
    pub controller: Option<u32>,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether its carrier is up too.
    pub operational: bool,
}

/// One address.
#[derive(Debug, Clone, Serialize)]
pub struct HostAddress {
    /// Index of the interface.
    pub link: u32,
    /// The address with its prefix length.
    pub address: String,
    /// Whether it can be reached from beyond the link, as far as the kernel knows.
    pub global: bool,
    /// False while duplicates are looked for, and where one was found.
    pub usable: bool,
}

/// One route of any table but the kernel's own of local addresses.
#[derive(Debug, Clone, Serialize)]
pub struct HostRoute {
    /// Destination with its prefix length.
    pub destination: String,
    /// `unicast`, `blackhole`, …
    pub kind: String,
    /// Number of its table.
    pub table: u32,
    /// Who made it: `kernel`, `boot`, `static`, `ra`, …
    pub protocol: String,
    /// Its metric.
    pub metric: Option<u32>,
    /// Source address it prefers.
    pub source: Option<IpAddr>,
    /// Where it leads; more than one shares the traffic.
    pub next_hops: Vec<HostNextHop>,
}

/// One way a route leads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct HostNextHop {
    /// Gateway, unless the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Index of the interface.
    pub link: Option<u32>,
}

/// All interfaces of the caller's network namespace.
pub fn host_links() -> Result<Vec<HostLink>, KernelError> {
    let links = Netlink::open()?.links()?;
    Ok(links.into_iter().map(HostLink::from).collect())
}

/// All addresses of the caller's network namespace.
pub fn host_addresses() -> Result<Vec<HostAddress>, KernelError> {
    let addresses = Netlink::open()?.addresses()?.into_iter();
    let shown = addresses.map(|address| HostAddress {
        link: address.link,
        address: address.net.to_string(),
        global: address.is_global,
        usable: !address.is_unusable,
    });
    Ok(shown.collect())
}

/// All routes of the caller's network namespace, but those to its own addresses.
pub fn host_routes() -> Result<Vec<HostRoute>, KernelError> {
    let mut netlink = Netlink::open()?;
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut any = RouteMessage::default();
        any.header.address_family = family;
        let listed = netlink.dump("list the routes", RouteNetlinkMessage::GetRoute(any))?;
        routes.extend(listed.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(message) => Some(read_route(message)),
            _ => None,
        }));
    }
    routes.retain(|route| route.table != TABLE_LOCAL);
    Ok(routes)
}

impl From<Link> for HostLink {
    fn from(link: Link) -> Self {
        HostLink {
            index: link.index,
            name: link.name,
            kind: link.kind.map(|kind| kind.to_string()),
            mac: link.mac.map(|mac| mac.to_string()),
            mtu_bytes: link.mtu_bytes,
            controller: link.controller,
            up: link.is_up,
            operational: link.is_operational,
        }
    }
}

fn read_route(message: RouteMessage) -> HostRoute {
    let header = message.header;
    let mut route = HostRoute {
        destination: "default".into(),
        kind: format!("{:?}", header.kind).to_lowercase(),
        table: header.table.into(),
        protocol: format!("{:?}", header.protocol).to_lowercase(),
        metric: None,
        source: None,
        next_hops: Vec::new(),
    };
    let mut only = HostNextHop::default();
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => {
                if let Some(address) = plain(&address) {
                    route.destination = format!("{address}/{}", header.destination_prefix_length);
                }
            }
            RouteAttribute::Table(table) => route.table = table,
            RouteAttribute::Priority(metric) => route.metric = Some(metric),
            RouteAttribute::PrefSource(address) => route.source = plain(&address),
            RouteAttribute::MultiPath(hops) => {
                route.next_hops = hops.into_iter().map(read_hop).collect();
            }
            other => read_into(&mut only, &other),
        }
    }
    if only != HostNextHop::default() {
        route.next_hops.push(only);
    }
    route
}

fn read_hop(hop: RouteNextHop) -> HostNextHop {
    let mut read = HostNextHop {
        gateway: None,
        link: Some(hop.interface_index),
    };
    for attribute in &hop.attributes {
        read_into(&mut read, attribute);
    }
    read
}

fn read_into(hop: &mut HostNextHop, attribute: &RouteAttribute) {
    match attribute {
        RouteAttribute::Gateway(address) => hop.gateway = plain(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => hop.gateway = Some((*address).into()),
        RouteAttribute::Via(RouteVia::Inet6(address)) => hop.gateway = Some((*address).into()),
        RouteAttribute::Oif(link) => hop.link = Some(*link),
        _ => {}
    }
}

fn plain(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::route::{RouteHeader, RouteProtocol};

    #[test]
    fn a_route_is_told_by_destination_gateway_and_interface() {
        let mut message = RouteMessage::default();
        message.header.destination_prefix_length = 8;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.attributes = vec![
            RouteAttribute::Destination(RouteAddress::Inet([10, 0, 0, 0].into())),
            RouteAttribute::Gateway(RouteAddress::Inet([192, 0, 2, 1].into())),
            RouteAttribute::Oif(3),
            RouteAttribute::Priority(100),
        ];
        let route = read_route(message);
        assert_eq!(route.destination, "10.0.0.0/8");
        assert_eq!((route.table, route.metric), (254, Some(100)));
        assert_eq!(route.protocol, "static");
        let gateway = Some([192, 0, 2, 1].into());
        let hop = HostNextHop {
            gateway,
            link: Some(3),
        };
        assert_eq!(route.next_hops, [hop]);
    }
}
