//! The VXLAN devices, one a family of underlay addresses, and how the bridge treats its ports that
//! lead to other hosts.

use std::collections::BTreeSet;

use netlink_packet_route::link::{InfoKind, LinkAttribute};
use sha2::{Digest, Sha256};

use super::FastOptions;
use super::entries::{Family, Port};
use crate::kernel::KernelError;
use crate::kernel::link::Link;
use crate::kernel::netlink::{Netlink, failure, nonsense};
use crate::kernel::tunnel::{PortFlags, Tunnel};
use crate::kernel::{owned, sysctl};
use crate::sys::ethtool;

/// Longest interface name in bytes.
const NAME_LEN_MAX: usize = 15;
pub(super) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Indices of the interfaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Devices {
    pub(super) tap: u32,
    /// `None` if this host lacks the family.
    v4: Option<u32>,
    v6: Option<u32>,
}

impl Devices {
    pub(super) fn tunnel(&self, family: Family) -> Option<u32> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    pub(super) fn port(&self, port: Port) -> Option<u32> {
        match port {
            Port::Tap => Some(self.tap),
            Port::Tunnel(family) => self.tunnel(family),
        }
    }

    /// The port with this index.
    pub(super) fn which(&self, index: u32) -> Option<Port> {
        let ports = [
            Port::Tap,
            Port::Tunnel(Family::V4),
            Port::Tunnel(Family::V6),
        ];
        ports
            .into_iter()
            .find(|port| self.port(*port) == Some(index))
    }
}

/// Name of a bridge's device. That of a long name is told by a hash: names end at 15 bytes.
pub(super) fn name(bridge: &str, family: Family) -> String {
    let end = match family {
        Family::V4 => "vx4",
        Family::V6 => "vx6",
    };
    let plain = format!("{bridge}-{end}");
    if plain.len() <= NAME_LEN_MAX {
        return plain;
    }
    let [a, b, c, d, e, ..]: [u8; 32] = Sha256::digest(bridge).into();
    format!("{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}-{end}")
}

/// Makes, adopts and corrects devices and ports. Says in `words` what was not as it should be, of
/// which a start makes nothing.
pub(super) fn ensure(
    netlink: &mut Netlink,
    options: &FastOptions,
    words: &mut Vec<String>,
) -> Result<Devices, KernelError> {
    let mut devices = Devices::default();
    let mut refused = None;
    for family in FAMILIES {
        let made = match ensure_tunnel(netlink, options, family, words) {
            Ok(index) => Some(index),
            Err(error) if lacks_family(&error) => {
                refused = Some(error);
                None
            }
            Err(error) => return Err(error),
        };
        match family {
            Family::V4 => devices.v4 = made,
            Family::V6 => devices.v6 = made,
        }
    }
    if let (None, None, Some(error)) = (devices.v4, devices.v6, refused) {
        return Err(error);
    }
    let tap = find(netlink, &options.tap)?;
    if tap.controller != Some(options.bridge.index()) {
        words.push(format!(
            "{} was not a port of {}",
            tap.name,
            options.bridge.name()
        ));
        options.bridge.add_port(&tap.name, options.mtu_bytes)?;
    }
    set_flags(netlink, &tap.name, PortFlags::FLOODED, words)?;
    devices.tap = tap.index;
    Ok(devices)
}

/// Families on whose devices the kernel completes checksums.
pub(super) fn completing(options: &FastOptions, devices: &Devices) -> BTreeSet<Family> {
    let made = FAMILIES
        .into_iter()
        .filter(|family| devices.tunnel(*family).is_some());
    made.filter(|family| {
        let leaves = ethtool::leaves_checksums(&name(options.bridge.name(), *family));
        leaves.is_ok_and(|leaves| !leaves)
    })
    .collect()
}

/// Bytes of frames that have come by all of them.
pub(super) fn received(netlink: &mut Netlink, options: &FastOptions) -> Result<u64, KernelError> {
    let mut bytes = 0;
    for family in FAMILIES {
        let link = netlink.link(&name(options.bridge.name(), family))?;
        bytes += link.map_or(0, |link| link.received_bytes);
    }
    Ok(bytes)
}

/// Removes the devices of a bridge; success too if there are none.
pub(super) fn remove(netlink: &mut Netlink, bridge: &str) -> Result<(), KernelError> {
    for family in FAMILIES {
        let name = name(bridge, family);
        if let Some(link) = netlink.link(&name)? {
            check_ours(&link)?;
            netlink.delete_link(&name)?;
        }
    }
    Ok(())
}

fn ensure_tunnel(
    netlink: &mut Netlink,
    options: &FastOptions,
    family: Family,
    words: &mut Vec<String>,
) -> Result<u32, KernelError> {
    let name = name(options.bridge.name(), family);
    let wanted = Tunnel {
        vni: options.vni,
        udp_port: options.port,
        learns: false,
        is_whole: true,
        lacks_checksum: false,
        local: options.local(family),
    };
    let mut fault = None;
    let found = match netlink.link(&name)? {
        Some(link) => {
            check_ours(&link)?;
            if link.tunnel == Some(wanted) {
                Some(link)
            } else {
                fault = Some("was made for another mesh, port or address");
                netlink.delete_link(&name)?;
                None
            }
        }
        None => {
            fault = Some("was not there");
            None
        }
    };
    let link = match found {
        Some(link) => link,
        None => create(netlink, &name, wanted, family, options.mtu_bytes)?,
    };
    let fault = fault.or_else(|| fault_of(&link, options));
    join(netlink, options, &link, words).map_err(|error| taken(error, &name, wanted))?;
    words.extend(fault.map(|fault| format!("{name} {fault}")));
    Ok(link.index)
}

/// What somebody did to a device of ours.
fn fault_of(link: &Link, options: &FastOptions) -> Option<&'static str> {
    if !link.is_up {
        Some("was down")
    } else if link.controller != Some(options.bridge.index()) {
        Some("was not a port of the bridge")
    } else if link.mtu_bytes != u32::from(options.mtu_bytes) {
        Some("had another MTU")
    } else {
        None
    }
}

/// Makes a device a port of the bridge, marks it, and sets it up. One of a family that this host
/// lacks does not stay.
fn join(
    netlink: &mut Netlink,
    options: &FastOptions,
    link: &Link,
    words: &mut Vec<String>,
) -> Result<(), KernelError> {
    sysctl::keep_ipv6_off(&link.name)?;
    let mut attributes = Vec::new();
    if link.mtu_bytes != u32::from(options.mtu_bytes) {
        attributes.push(LinkAttribute::Mtu(options.mtu_bytes.into()));
    }
    if link.alias != owned::alias(options.bridge.owner()) {
        attributes.push(owned::mark(options.bridge.owner()));
    }
    if link.controller != Some(options.bridge.index()) {
        attributes.push(LinkAttribute::Controller(options.bridge.index()));
    }
    if !attributes.is_empty() {
        netlink.set_link(link, attributes)?;
    }
    // Before it is up: no frame gets through while it floods and learns.
    set_flags(netlink, &link.name, PortFlags::KNOWN_ONLY, words)?;
    if link.is_up {
        return Ok(());
    }
    let up = netlink.set_link_up(link, Vec::new());
    if up.as_ref().is_err_and(lacks_family) {
        netlink.delete_link(&link.name)?;
    }
    up
}

fn create(
    netlink: &mut Netlink,
    name: &str,
    tunnel: Tunnel,
    family: Family,
    mtu_bytes: u16,
) -> Result<Link, KernelError> {
    let attributes = vec![
        LinkAttribute::Mtu(mtu_bytes.into()),
        tunnel.attribute(family == Family::V6),
    ];
    netlink
        .create_link(name, attributes)
        .map_err(|error| taken(error, name, tunnel))?;
    let link = find(netlink, name)?;
    if link.tunnel == Some(tunnel) {
        return Ok(link);
    }
    // One that was adopted in vain would be made anew for ever.
    netlink.delete_link(name)?;
    let doing = format!("make VXLAN device {name}");
    Err(nonsense(
        &doing,
        "it is not as it was asked for; a newer kernel does it",
    ))
}

fn find(netlink: &mut Netlink, name: &str) -> Result<Link, KernelError> {
    netlink.link(name)?.ok_or_else(|| {
        let cause = std::io::Error::from_raw_os_error(libc::ENODEV);
        failure(&format!("use interface {name}"), cause, String::new())
    })
}

fn set_flags(
    netlink: &mut Netlink,
    name: &str,
    wanted: PortFlags,
    words: &mut Vec<String>,
) -> Result<(), KernelError> {
    let link = find(netlink, name)?;
    if link.port == Some(wanted) {
        return Ok(());
    }
    if link.is_up {
        words.push(format!("the bridge treated {name} like any port"));
    }
    netlink.set_link(&link, vec![wanted.attribute()])
}

/// Refuses what rmesh did not make. One that is down and not marked is what a crash left between
/// two steps of making it.
fn check_ours(link: &Link) -> Result<(), KernelError> {
    let ours = link.kind == Some(InfoKind::Vxlan) && (owned::is_marked(link) || !link.is_up);
    ours.then_some(()).ok_or_else(|| KernelError::NotOurTunnel {
        name: link.name.clone(),
    })
}

fn taken(error: KernelError, name: &str, tunnel: Tunnel) -> KernelError {
    match error.errno() {
        Some(libc::EEXIST | libc::EADDRINUSE) => KernelError::TunnelTaken {
            name: name.to_owned(),
            vni: tunnel.vni,
            port: tunnel.udp_port,
        },
        _ => error,
    }
}

/// Whether this host does without the family: built without it, or switched off at boot.
fn lacks_family(error: &KernelError) -> bool {
    let lacking = [libc::EAFNOSUPPORT, libc::EPFNOSUPPORT, libc::EADDRNOTAVAIL];
    error.errno().is_some_and(|errno| lacking.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        assert_eq!(name("rmesh", Family::V4), "rmesh-vx4");
        assert_eq!(name("elevenbytes", Family::V6), "elevenbytes-vx6");
        let long = name("twelve-bytes", Family::V6);
        assert_eq!(long.len(), 14);
        assert_ne!(long, name("twelve_bytes", Family::V6));
        assert_ne!(long, name("twelve-bytes", Family::V4));
    }
}
