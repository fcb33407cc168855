//! VXLAN devices (RFC 7348) and what a port of the bridge may carry.

use std::net::{IpAddr, Ipv6Addr};

use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVxlan, LinkAttribute,
    LinkInfo, VxlanDf,
};

/// What a VXLAN device was made with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tunnel {
    /// Its network identifier, 24 bits.
    pub(crate) vni: u32,
    /// The UDP port it is at, here and elsewhere.
    pub(crate) udp_port: u16,
    /// Whether it learns who is where from what it receives.
    pub(crate) learns: bool,
    /// Whether its IPv4 datagrams may not be cut on their way.
    pub(crate) is_whole: bool,
    /// Whether its datagrams over IPv6 have no checksum, or need none.
    pub(crate) lacks_checksum: bool,
    /// The address it sends from; the kernel chooses if this is `None`.
    pub(crate) local: Option<IpAddr>,
}

impl Tunnel {
    /// The attribute that makes such a device, for one family of addresses.
    pub(crate) fn attribute(&self, is_v6: bool) -> LinkAttribute {
        let mut options = vec![
            InfoVxlan::Id(self.vni),
            InfoVxlan::Port(self.udp_port),
            InfoVxlan::Learning(self.learns),
            InfoVxlan::Df(match self.is_whole {
                true => VxlanDf::Set,
                false => VxlanDf::Unset,
            }),
        ];
        match self.local {
            Some(IpAddr::V4(local)) => options.push(InfoVxlan::Local(local)),
            Some(IpAddr::V6(local)) => options.push(InfoVxlan::Local6(local)),
            // Only this tells the kernel which family is meant.
            None if is_v6 => options.push(InfoVxlan::Local6(Ipv6Addr::UNSPECIFIED)),
            None => {}
        }
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vxlan),
            LinkInfo::Data(InfoData::Vxlan(options)),
        ])
    }

    pub(super) fn read(options: &[InfoVxlan]) -> Tunnel {
        let mut tunnel = Tunnel::default();
        for option in options {
            match option {
                InfoVxlan::Id(vni) => tunnel.vni = *vni,
                InfoVxlan::Port(port) => tunnel.udp_port = *port,
                InfoVxlan::Learning(on) => tunnel.learns = *on,
                InfoVxlan::Local(ip) => tunnel.local = Some(IpAddr::V4(*ip)),
                InfoVxlan::Local6(ip) if !ip.is_unspecified() => {
                    tunnel.local = Some(IpAddr::V6(*ip));
                }
                InfoVxlan::Df(df) => tunnel.is_whole = *df == VxlanDf::Set,
                InfoVxlan::UDPZeroCsumTX(on) | InfoVxlan::UDPZeroCsumRX(on) => {
                    tunnel.lacks_checksum |= *on;
                }
                _ => {}
            }
        }
        tunnel
    }
}

/// What the bridge does with a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PortFlags {
    /// Nothing passes between two ports that are isolated.
    pub(crate) isolated: bool,
    /// Whether sources of what comes in by it are learned.
    pub(crate) learning: bool,
    /// Whether frames to unknown MACs leave by it.
    pub(crate) flood: bool,
    /// The same for multicast.
    pub(crate) multicast_flood: bool,
    /// The same for broadcast.
    pub(crate) broadcast_flood: bool,
}

impl PortFlags {
    /// A port that leads to other hosts and takes what is sent to nobody in particular.
    pub(crate) const FLOODED: PortFlags = PortFlags {
        isolated: true,
        learning: false,
        flood: true,
        multicast_flood: true,
        broadcast_flood: true,
    };
    /// One that leads to other hosts and takes known unicast only.
    pub(crate) const KNOWN_ONLY: PortFlags = PortFlags {
        isolated: true,
        learning: false,
        flood: false,
        multicast_flood: false,
        broadcast_flood: false,
    };

    /// The attribute that sets them, which also makes the bridge forget what it learned at the
    /// port.
    pub(crate) fn attribute(self) -> LinkAttribute {
        let options = vec![
            InfoBridgePort::Isolated(self.isolated),
            InfoBridgePort::Learning(self.learning),
            InfoBridgePort::UnicastFlood(self.flood),
            InfoBridgePort::MulticastFlood(self.multicast_flood),
            InfoBridgePort::BroadcastFlood(self.broadcast_flood),
            InfoBridgePort::Flush,
        ];
        LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(options)),
        ])
    }

    pub(super) fn read(options: &[InfoBridgePort]) -> PortFlags {
        let mut flags = PortFlags::default();
        for option in options {
            match option {
                InfoBridgePort::Isolated(on) => flags.isolated = *on,
                InfoBridgePort::Learning(on) => flags.learning = *on,
                InfoBridgePort::UnicastFlood(on) => flags.flood = *on,
                InfoBridgePort::MulticastFlood(on) => flags.multicast_flood = *on,
                InfoBridgePort::BroadcastFlood(on) => flags.broadcast_flood = *on,
                _ => {}
            }
        }
        flags
    }
}
