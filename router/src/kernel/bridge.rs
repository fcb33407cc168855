//! The bridge that joins this host's containers and the TAP.

use netlink_packet_route::link::{
    BridgeStpState, InfoBridge, InfoData, InfoKind, LinkAttribute, LinkInfo,
};
use rmesh_wire::Mac;

use crate::attach::locally_administered;

use super::link::{Link, address};
use super::netlink::{Netlink, failure};
use super::{KernelError, guard, owned, sysctl};

/// Frames that each of a TAP's queues holds. A worker that shares its core waits for a tick of the kernel's clock (4 ms at
/// 250 Hz) while others run: the usual 1,000 are what comes in that time at 250,000 frames a second.
const TAP_QUEUE_LEN: u32 = 3_000;

/// The bridge of this host. The kernel keeps it when the program ends, so that containers go on
/// talking to each other.
#[derive(Debug, Clone)]
pub struct Bridge {
    name: String,
    owner: String,
    index: u32,
    mac: Mac,
}

impl Bridge {
    /// Makes the bridge, or adopts it if it exists, in the caller's network namespace.
    ///
    /// Its MAC is its own, locally administered, chosen at random when it is made and kept when it
    /// is adopted (a bridge left alone takes a MAC of its ports and changes with them). The host
    /// has no address on it: no IPv6, no router advertisements, no answers to ARP for the host's
    /// other addresses; and nothing that comes in by it reaches the host's ports, see
    /// [`Bridge::guard`]. It runs no spanning tree, forwards at once, and floods multicast to every
    /// container. It and its ports of containers are marked as `owner`'s, see [`owned_links`]; one
    /// that rmesh did not make is refused, so that settings of nobody else's are ever changed.
    ///
    /// [`owned_links`]: super::owned_links
    pub fn ensure(name: &str, mtu_bytes: u16, owner: &str) -> Result<Bridge, KernelError> {
        let mut netlink = Netlink::open()?;
        let (found, made) = match netlink.link(name)? {
            Some(found) => (found, false),
            None => (create(&mut netlink, name, mtu_bytes)?, true),
        };
        if found.kind != Some(InfoKind::Bridge) {
            return Err(KernelError::NotABridge { name: name.into() });
        }
        // One that is down is what a crash left between the two steps of making it.
        if !made && found.is_up && !owned::is_marked(&found) {
            return Err(KernelError::NotOurBridge { name: name.into() });
        }
        sysctl::keep_ipv6_off(name)?;
        // The bridge has no address, but would answer ARP for all others of the host.
        sysctl::set("ipv4", name, "arp_ignore", "1")?;
        let mut attributes = vec![
            LinkAttribute::Mtu(mtu_bytes.into()),
            options(),
            owned::mark(owner),
        ];
        // Setting the address it has pins it.
        attributes.extend(address(found.mac));
        let bridge = Bridge {
            name: name.into(),
            owner: owner.into(),
            index: found.index,
            mac: found.mac.unwrap_or_default(),
        };
        // Before it is up: no frame gets through meanwhile.
        if let Err(error) = bridge.guard() {
            tracing::warn!(
                "{error}; containers can reach this host's ports through {name} if they guess"
            );
        }
        netlink.set_link_up(&found, attributes)?;
        Ok(bridge)
    }

    /// Drops whatever comes in by the bridge itself, so that containers reach no port of the host
    /// and nothing beyond it; true if that was not so before, for instance because somebody loaded
    /// another ruleset of nftables.
    ///
    /// # Errors
    /// If the kernel refuses, or has no nftables.
    pub fn guard(&self) -> Result<bool, KernelError> {
        guard::ensure(&self.name)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its interface index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whose it is.
    pub(crate) fn owner(&self) -> &str {
        &self.owner
    }

    /// Its MAC.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Makes an interface a port of the bridge, without IPv6 of the host's on it, and sets it up.
    pub fn add_port(&self, interface: &str, mtu_bytes: u16) -> Result<(), KernelError> {
        let mut netlink = Netlink::open()?;
        let link = netlink.link(interface)?.ok_or_else(|| {
            let cause = std::io::Error::from_raw_os_error(libc::ENODEV);
            let doing = format!("make {interface} a port of {}", self.name);
            failure(&doing, cause, String::new())
        })?;
        sysctl::keep_ipv6_off(interface)?;
        let mut attributes = vec![LinkAttribute::Mtu(mtu_bytes.into())];
        if link.controller != Some(self.index) {
            attributes.push(LinkAttribute::Controller(self.index));
        }
        match link.kind {
            Some(InfoKind::Veth) => attributes.push(owned::mark(&self.owner)),
            Some(InfoKind::Tun) => attributes.push(LinkAttribute::TxQueueLen(TAP_QUEUE_LEN)),
            _ => {}
        }
        netlink.set_link_up(&link, attributes)
    }

    /// Names of its ports.
    pub fn ports(&self) -> Result<Vec<String>, KernelError> {
        let links = Netlink::open()?.links()?.into_iter();
        let ports = links.filter(|link| link.controller == Some(self.index));
        Ok(ports.map(|link| link.name).collect())
    }

    /// Removes a bridge and what keeps containers from the host's ports; success too if there is
    /// none. Its ports stay, but are cut off.
    pub fn remove(name: &str) -> Result<(), KernelError> {
        let mut netlink = Netlink::open()?;
        match netlink.link(name)? {
            Some(link) if link.kind == Some(InfoKind::Bridge) => netlink.delete_link(name)?,
            Some(_) => return Err(KernelError::NotABridge { name: name.into() }),
            None => {}
        }
        Bridge::unguard(name)
    }

    /// Undoes [`Bridge::guard`] for the bridge of this name, there or not.
    pub fn unguard(name: &str) -> Result<(), KernelError> {
        if guard::guarded()?.iter().any(|guarded| guarded == name) {
            guard::remove(name)?;
        }
        Ok(())
    }
}

fn create(netlink: &mut Netlink, name: &str, mtu_bytes: u16) -> Result<Link, KernelError> {
    let doing = format!("make bridge {name}");
    let mut bytes = [0; 6];
    getrandom::fill(&mut bytes)
        .map_err(|cause| failure(&doing, std::io::Error::other(cause), String::new()))?;
    let mut attributes = vec![LinkAttribute::Mtu(mtu_bytes.into()), options()];
    attributes.extend(address(Some(locally_administered(bytes))));
    netlink.create_link(name, attributes)?;
    let cause = || std::io::Error::from_raw_os_error(libc::ENODEV);
    let found = netlink.link(name)?;
    found.ok_or_else(|| failure(&doing, cause(), " (somebody removed it)".into()))
}

/// No spanning tree and no delay: the mesh has no loops of its own. No multicast snooping: the
/// groups' listeners are on other hosts too.
fn options() -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Bridge),
        LinkInfo::Data(InfoData::Bridge(vec![
            InfoBridge::StpState(BridgeStpState::Disabled),
            InfoBridge::ForwardDelay(0),
            InfoBridge::MulticastSnooping(false),
        ])),
    ])
}
