//! Addresses of interfaces: the host's own, by which others may reach it, and containers'.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::KernelError;
use super::link::Link;
use super::netlink::Netlink;

/// One address of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// Index of the interface.
    pub(crate) link: u32,
    /// The address with its prefix length.
    pub(crate) net: IpNet,
    /// Whether it can be reached from beyond the link, as far as the kernel knows.
    pub(crate) is_global: bool,
    /// Whether it has no lifetime: somebody gave it, no router advertised it.
    pub(crate) is_permanent: bool,
    /// Whether duplicate detection is under way or has failed (RFC 4862 section 5.4).
    pub(crate) is_unusable: bool,
}

/// Global unicast addresses of interfaces that are up, or of the one with the name `only`, except loopback, the bridge
/// and its ports.
///
/// The order is the kernel's: by interface, oldest first.
pub fn local_addresses(bridge: &str, only: Option<&str>) -> Result<Vec<IpAddr>, KernelError> {
    let mut netlink = Netlink::open()?;
    let links = netlink.links()?;
    let bridge = links
        .iter()
        .find(|link| link.name == bridge)
        .map(|l| l.index);
    let carries_others = |link: &Link| bridge.is_some_and(|b| link.controller == Some(b));
    let usable: Vec<u32> = links
        .iter()
        .filter(|link| link.is_up && !link.is_loopback)
        .filter(|link| only.is_none_or(|only| link.name == only))
        .filter(|link| Some(link.index) != bridge && !carries_others(link))
        .map(|link| link.index)
        .collect();
    let mut found = Vec::new();
    for address in netlink.addresses()? {
        let ip = address.net.addr();
        let good = address.is_global && !address.is_unusable && is_global_unicast(ip);
        if good && usable.contains(&address.link) && !found.contains(&ip) {
            found.push(ip);
        }
    }
    Ok(found)
}

/// Private and unique local addresses count: the other hosts may well be in the same network.
fn is_global_unicast(ip: IpAddr) -> bool {
    let special = ip.is_loopback() || ip.is_multicast() || ip.is_unspecified();
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip == Ipv4Addr::BROADCAST,
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some(),
    };
    !special && !link_local
}

impl Netlink {
    /// All addresses of all interfaces.
    pub(crate) fn addresses(&mut self) -> Result<Vec<Address>, KernelError> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let messages = self.dump("list the addresses", request)?;
        let addresses = messages.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(message) => read(&message),
            _ => None,
        });
        Ok(addresses.collect())
    }

    /// Gives an interface an address, usable at once: no duplicate detection, because rmesh knows
    /// who has which address.
    pub(crate) fn add_address(&mut self, link: &Link, net: IpNet) -> Result<(), KernelError> {
        let doing = format!("give {} the address {net}", link.name);
        let mut message = message(link, net);
        match net {
            IpNet::V4(net) if net.prefix_len() < 31 => {
                let broadcast = AddressAttribute::Broadcast(net.broadcast());
                message.attributes.push(broadcast);
            }
            IpNet::V4(_) => {}
            IpNet::V6(_) => {
                message.header.flags = AddressHeaderFlags::Nodad;
                let flags = AddressAttribute::Flags(AddressFlags::Nodad);
                message.attributes.push(flags);
            }
        }
        let request = RouteNetlinkMessage::NewAddress(message);
        self.change(&doing, request, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Takes an address from an interface.
    pub(crate) fn delete_address(&mut self, link: &Link, net: IpNet) -> Result<(), KernelError> {
        let doing = format!("take the address {net} from {}", link.name);
        self.change(
            &doing,
            RouteNetlinkMessage::DelAddress(message(link, net)),
            0,
        )
    }
}

fn message(link: &Link, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = match net {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.header.prefix_len = net.prefix_len();
    message.header.index = link.index;
    message.attributes = vec![
        AddressAttribute::Local(net.addr()),
        AddressAttribute::Address(net.addr()),
    ];
    message
}

fn read(message: &AddressMessage) -> Option<Address> {
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    let (mut local, mut prefix) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => prefix = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    // On a point-to-point link `Address` is the other end's; IPv6 mostly has no `Local`.
    let net = IpNet::new(local.or(prefix)?, message.header.prefix_len).ok()?;
    Some(Address {
        link: message.header.index,
        net,
        is_global: message.header.scope == AddressScope::Universe,
        is_permanent: flags.contains(AddressFlags::Permanent),
        is_unusable: flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed),
    })
}
