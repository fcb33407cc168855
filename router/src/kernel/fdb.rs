//! Forwarding entries: the bridge's, by which port a MAC is reached, and a VXLAN device's, at which
//! address (bridge(8), RTM_NEWNEIGH of family AF_BRIDGE).

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rmesh_wire::Mac;

use super::KernelError;
use super::netlink::Netlink;

/// What an entry says of a MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fdb {
    /// The bridge's: it is behind this port, and no frame from elsewhere changes that.
    Port {
        /// Whether it was set and not learned, and cannot be moved by a frame.
        is_fixed: bool,
    },
    /// The bridge's: it is the host's own.
    Local,
    /// A VXLAN device's: it is at this address.
    Tunnel(IpAddr),
}

/// An entry as the kernel shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FdbEntry {
    /// Index of the port, of the bridge if local, or of the VXLAN device.
    pub(crate) link: u32,
    pub(crate) mac: Mac,
    pub(crate) says: Fdb,
}

impl Netlink {
    /// All entries that concern no VLAN, of all bridges and VXLAN devices.
    pub(crate) fn fdb(&mut self) -> Result<Vec<FdbEntry>, KernelError> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        let request = RouteNetlinkMessage::GetNeighbour(message);
        let messages = self.dump("list the forwarding entries", request)?;
        let entries = messages.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewNeighbour(message) => read(&message),
            _ => None,
        });
        Ok(entries.collect())
    }

    /// Makes an entry or changes the one of this MAC, in one step.
    pub(crate) fn put_fdb(&mut self, doing: &str, entry: FdbEntry) -> Result<(), KernelError> {
        let request = RouteNetlinkMessage::NewNeighbour(message(entry));
        self.change(doing, request, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Deletes an entry; success too if there is none.
    pub(crate) fn delete_fdb(&mut self, doing: &str, entry: FdbEntry) -> Result<(), KernelError> {
        let mut message = message(entry);
        // A VXLAN device deletes all addresses of the MAC if it is told none.
        message
            .attributes
            .retain(|attribute| !matches!(attribute, NeighbourAttribute::Destination(_)));
        match self.change(doing, RouteNetlinkMessage::DelNeighbour(message), 0) {
            Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
            other => other,
        }
    }
}

fn message(entry: FdbEntry) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = entry.link;
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(entry.mac.0.to_vec())];
    let (state, flags) = match entry.says {
        // Without "sticky", a frame of a container that uses the MAC would move the entry.
        Fdb::Port { .. } => (
            NeighbourState::Noarp,
            NeighbourFlags::Controller | NeighbourFlags::Sticky,
        ),
        Fdb::Local => (NeighbourState::Permanent, NeighbourFlags::Own),
        Fdb::Tunnel(address) => {
            let destination = NeighbourAttribute::Destination(address.into());
            message.attributes.push(destination);
            (NeighbourState::Permanent, NeighbourFlags::Own)
        }
    };
    (message.header.state, message.header.flags) = (state, flags);
    message
}

/// `None` for entries of other kinds.
fn read(message: &NeighbourMessage) -> Option<FdbEntry> {
    let (mut mac, mut address, mut of_bridge) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac);
            }
            NeighbourAttribute::Destination(to) => address = ip(to),
            NeighbourAttribute::Controller(_) => of_bridge = true,
            NeighbourAttribute::Vlan(_) => return None,
            _ => {}
        }
    }
    let header = &message.header;
    let says = match (of_bridge, address) {
        (true, _) if header.state == NeighbourState::Permanent => Fdb::Local,
        (true, _) => Fdb::Port {
            is_fixed: header.state == NeighbourState::Noarp
                && header.flags.contains(NeighbourFlags::Sticky),
        },
        (false, Some(address)) => Fdb::Tunnel(address),
        // Multicast filters of network cards are listed too.
        (false, None) => return None,
    };
    Some(FdbEntry {
        link: header.ifindex,
        mac: mac?,
        says,
    })
}

/// The crate tells the family by the message's, which is AF_BRIDGE here.
fn ip(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(ip) => Some((*ip).into()),
        NeighbourAddress::Inet6(ip) => Some((*ip).into()),
        NeighbourAddress::Other(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes.as_slice()).ok().map(IpAddr::from),
            16 => <[u8; 16]>::try_from(bytes.as_slice())
                .ok()
                .map(IpAddr::from),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_as_it_was_written() {
        let addresses = ["10.0.0.1", "fd00::1"].map(|ip| Fdb::Tunnel(ip.parse().unwrap()));
        for says in addresses {
            let entry = FdbEntry {
                link: 7,
                mac: Mac([2, 0, 0, 0, 0, 1]),
                says,
            };
            assert_eq!(read(&message(entry)), Some(entry));
        }
    }

    #[test]
    fn the_bridges_entries_are_told_by_their_controller() {
        let entry = FdbEntry {
            link: 7,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            says: Fdb::Port { is_fixed: true },
        };
        let mut message = message(entry);
        assert_eq!(read(&message), None);
        message.attributes.push(NeighbourAttribute::Controller(3));
        assert_eq!(read(&message), Some(entry));
        message.header.flags = NeighbourFlags::default();
        let learned = Fdb::Port { is_fixed: false };
        assert_eq!(read(&message).map(|entry| entry.says), Some(learned));
        message.attributes.push(NeighbourAttribute::Vlan(1));
        assert_eq!(read(&message), None);
    }
}
