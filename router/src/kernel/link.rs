//! Interfaces: finding, changing, making and deleting them.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    BridgePortState, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage, State,
};
use rmesh_wire::Mac;

use super::KernelError;
use super::netlink::{Netlink, nonsense};
use super::tunnel::{PortFlags, Tunnel};

/// Longest interface name in bytes (IFNAMSIZ without its zero byte).
const NAME_LEN_MAX: usize = 15;

/// What is of interest in an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// Its index, unique in its namespace.
    pub(crate) index: u32,
    /// Its name.
    pub(crate) name: String,
    /// What somebody noted about it.
    pub(crate) alias: String,
    /// Its MAC, if it is of Ethernet's kind.
    pub(crate) mac: Option<Mac>,
    /// Its MTU in bytes.
    pub(crate) mtu_bytes: u32,
    /// Index of the bridge it is a port of.
    pub(crate) controller: Option<u32>,
    /// Index of the other end of a veth pair, in that one's namespace.
    pub(crate) other_end: Option<u32>,
    /// Its kind, for virtual ones.
    pub(crate) kind: Option<InfoKind>,
    /// Whether it is administratively up.
    pub(crate) is_up: bool,
    /// Whether it is a loopback.
    pub(crate) is_loopback: bool,
    /// Whether it is up and its carrier too (RFC 2863 ifOperStatus).
    pub(crate) is_operational: bool,
    /// Whether it is a port of a bridge that forwards.
    pub(crate) is_forwarding: bool,
    /// Bytes of frames that have come by it.
    pub(crate) received_bytes: u64,
    /// What it was made with, for a VXLAN device.
    pub(crate) tunnel: Option<Tunnel>,
    /// What the bridge that it is a port of does with it.
    pub(crate) port: Option<PortFlags>,
}

/// One end of a veth pair.
pub(crate) struct End<'a> {
    /// Name of the interface.
    pub(crate) name: &'a str,
    /// Its MAC; the kernel chooses one if there is none.
    pub(crate) mac: Option<Mac>,
}

/// Refuses what the kernel does not take as the name of an interface (dev_valid_name), and '%',
/// which it takes for a pattern.
pub(crate) fn check_name(name: &str) -> Result<(), KernelError> {
    let plain = |c: char| !(c.is_whitespace() || c.is_control() || "/:%".contains(c));
    let fits = (1..=NAME_LEN_MAX).contains(&name.len());
    let valid = fits && name != "." && name != ".." && name.chars().all(plain);
    valid
        .then_some(())
        .ok_or_else(|| KernelError::InterfaceName { name: name.into() })
}

impl Netlink {
    /// Finds an interface by name.
    pub(crate) fn link(&mut self, name: &str) -> Result<Option<Link>, KernelError> {
        check_name(name)?;
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        let doing = format!("look at interface {name}");
        match self.get(&doing, RouteNetlinkMessage::GetLink(message)) {
            Ok(Some(RouteNetlinkMessage::NewLink(message))) => Ok(Some(Link::from(message))),
            Ok(_) => Err(nonsense(&doing, "it does not describe an interface")),
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All interfaces.
    pub(crate) fn links(&mut self) -> Result<Vec<Link>, KernelError> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let messages = self.dump("list the interfaces", request)?;
        let links = messages.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(message) => Some(Link::from(message)),
            _ => None,
        });
        Ok(links.collect())
    }

    /// Makes an interface.
    pub(crate) fn create_link(
        &mut self,
        name: &str,
        mut attributes: Vec<LinkAttribute>,
    ) -> Result<(), KernelError> {
        check_name(name)?;
        attributes.insert(0, LinkAttribute::IfName(name.to_owned()));
        let mut message = LinkMessage::default();
        message.attributes = attributes;
        let request = RouteNetlinkMessage::NewLink(message);
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.change(&format!("make interface {name}"), request, flags)
    }

    /// Makes a veth pair: one end here, the other directly in another namespace.
    pub(crate) fn create_veth(
        &mut self,
        here: &End<'_>,
        there: &End<'_>,
        netns: BorrowedFd<'_>,
        mtu_bytes: u16,
    ) -> Result<(), KernelError> {
        check_name(there.name)?;
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(there.name.to_owned()),
            LinkAttribute::Mtu(mtu_bytes.into()),
            LinkAttribute::NetNsFd(netns.as_raw_fd()),
        ];
        peer.attributes.extend(address(there.mac));
        let mut attributes = vec![
            LinkAttribute::Mtu(mtu_bytes.into()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        attributes.extend(address(here.mac));
        self.create_link(here.name, attributes)
    }

    /// Changes attributes of an interface, and leaves it up or down as it is.
    pub(crate) fn set_link(
        &mut self,
        link: &Link,
        attributes: Vec<LinkAttribute>,
    ) -> Result<(), KernelError> {
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        message.attributes = attributes;
        let request = RouteNetlinkMessage::NewLink(message);
        self.change(&format!("change interface {}", link.name), request, 0)
    }

    /// Changes attributes of an interface and sets it up.
    pub(crate) fn set_link_up(
        &mut self,
        link: &Link,
        attributes: Vec<LinkAttribute>,
    ) -> Result<(), KernelError> {
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes = attributes;
        // The only request that may also carry the options of a bridge.
        let request = RouteNetlinkMessage::NewLink(message);
        self.change(&format!("set up interface {}", link.name), request, 0)
    }

    /// Deletes an interface; success too if there is none.
    pub(crate) fn delete_link(&mut self, name: &str) -> Result<(), KernelError> {
        let Some(link) = self.link(name)? else {
            return Ok(());
        };
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        let request = RouteNetlinkMessage::DelLink(message);
        match self.change(&format!("delete interface {name}"), request, 0) {
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
            other => other,
        }
    }
}

/// The attribute for a MAC.
pub(super) fn address(mac: Option<Mac>) -> Option<LinkAttribute> {
    mac.map(|Mac(bytes)| LinkAttribute::Address(bytes.to_vec()))
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Link {
            index: message.header.index,
            is_up: flags.contains(LinkFlags::Up),
            is_loopback: flags.contains(LinkFlags::Loopback),
            ..Link::default()
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::IfAlias(alias) => link.alias = alias,
                LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(Mac),
                LinkAttribute::Mtu(mtu_bytes) => link.mtu_bytes = mtu_bytes,
                LinkAttribute::Controller(index) => link.controller = Some(index),
                LinkAttribute::Link(index) => link.other_end = Some(index),
                LinkAttribute::OperState(state) => link.is_operational = state == State::Up,
                LinkAttribute::LinkInfo(infos) => link.read_infos(infos),
                LinkAttribute::Stats64(stats) => link.received_bytes = stats.rx_bytes,
                _ => {}
            }
        }
        link
    }
}

impl Link {
    fn read_infos(&mut self, infos: Vec<LinkInfo>) {
        for info in infos {
            match info {
                LinkInfo::Kind(kind) => self.kind = Some(kind),
                LinkInfo::PortData(InfoPortData::BridgePort(port)) => {
                    let forwarding = InfoBridgePort::State(BridgePortState::Forwarding);
                    self.is_forwarding = port.contains(&forwarding);
                    self.port = Some(PortFlags::read(&port));
                }
                LinkInfo::Data(InfoData::Vxlan(options)) => {
                    self.tunnel = Some(Tunnel::read(&options));
                }
                _ => {}
            }
        }
    }

    /// Whether both are the ends of one veth pair; their namespaces must differ.
    pub(crate) fn is_paired_with(&self, other: &Link) -> bool {
        let veth = |link: &Link| link.kind == Some(InfoKind::Veth);
        veth(self)
            && veth(other)
            && self.other_end == Some(other.index)
            && other.other_end == Some(self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_are_the_kernels() {
        for name in ["rmesh", "eth0.5", "a", "exactly15bytes_"] {
            assert!(check_name(name).is_ok(), "{name:?}");
        }
        let wrong = [
            "",
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "a%d",
            "a\0",
            "sixteen-bytes-xx",
        ];
        for name in wrong {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
