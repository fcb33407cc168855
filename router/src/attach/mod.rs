//! Joining containers to the bridge.
//!
//! A container is a network namespace. It gets one end of a veth pair, made directly inside it
//! under its final name; the other end is a port of the bridge.

mod announce;
mod carried;
mod check;
mod find;
mod mac;
mod target;
mod work;

use ipnet::IpNet;
use netlink_packet_route::link::InfoKind;
use rmesh_wire::Mac;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use crate::error::AttachError;
use crate::kernel::Bridge;
use crate::kernel::netlink::Netlink;
use crate::sys::netns::Netns;
pub use carried::carried;
pub use find::find;
pub(crate) use mac::locally_administered;
pub use mac::mac_for;
pub use target::{TargetSpec, netns_inode};
use work::Work;

/// Name of the interface in the container unless another is asked for.
pub const INTERFACE_DEFAULT: &str = "rmesh0";

/// What to attach, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The container.
    pub target: TargetSpec,
    /// Name of the interface in it.
    pub interface: String,
    /// Addresses with their prefix lengths; may be empty.
    pub addresses: Vec<IpNet>,
    /// MAC of the interface, see [`mac_for`]. One that is already attached keeps its own.
    pub mac: Mac,
    /// MTU of the interface, in bytes.
    pub mtu_bytes: u16,
    /// Human name; may be empty.
    pub name: String,
}

/// A container's interface as it was made; what [`detach`] needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The container as the operator wrote it.
    pub target: String,
    /// Inode of its network namespace, which tells namespaces apart as long as they live.
    pub netns_inode: u64,
    /// Name of the interface in the container.
    pub interface: String,
    /// Name of its other end, on the host.
    pub host_interface: String,
    /// MAC of the interface in the container.
    pub mac: Mac,
    /// Its addresses, in the order they were given.
    pub addresses: Vec<IpNet>,
    /// Human name; may be empty.
    pub name: String,
}

/// Attaches a container and returns when it can be reached: both ends are up, the bridge
/// forwards, and its addresses are announced to the neighbours.
///
/// Attaching what is attached changes nothing but its MTU; further addresses are added. Half-done
/// work is undone on any error.
pub fn attach(bridge: &Bridge, request: &Request) -> Result<Attachment, AttachError> {
    check::check(request)?;
    let netns = Netns::open(&request.target)?;
    let mut work = Work::open(bridge, request, netns)?;
    let made = work.ensure_pair()?;
    let mut added = Vec::new();
    let attached = work.bring_up(&mut added);
    if attached.is_err() {
        work.undo(made, &added);
    }
    attached
}

/// Sends the announcements of an attachment's addresses again, for instance after the mesh has
/// changed; success too if the namespace has vanished.
pub fn announce(attachment: &Attachment) -> Result<(), AttachError> {
    let netns = match Netns::open(&attachment.target.parse()?) {
        Err(error) if error.is_target_gone() => return Ok(()),
        opened => opened?,
    };
    if netns.inode() != attachment.netns_inode {
        return Ok(());
    }
    let (mut inside, packets) = work::open_inside(&netns)?;
    let Some(link) = inside.link(&attachment.interface)? else {
        return Ok(());
    };
    let mut addresses = attachment.addresses.iter();
    addresses.try_for_each(|net| announce::send(&packets, link.index, attachment.mac, net.addr()))
}

/// Removes the interface of an attachment; success too if the namespace or the interface has
/// vanished.
pub fn detach(attachment: &Attachment) -> Result<(), AttachError> {
    let not_ours = || AttachError::NotOurs {
        host_interface: attachment.host_interface.clone(),
        interface: attachment.interface.clone(),
        target: attachment.target.clone(),
    };
    let host_interface = host_interface(attachment.netns_inode, &attachment.interface);
    if host_interface != attachment.host_interface {
        return Err(not_ours());
    }
    let mut host = Netlink::open()?;
    match host.link(&host_interface)? {
        None => Ok(()),
        Some(link) if link.kind == Some(InfoKind::Veth) => Ok(host.delete_link(&host_interface)?),
        Some(_) => Err(not_ours()),
    }
}

/// Whether the host end of an attachment is still a port of the bridge.
pub fn is_present(bridge: &Bridge, attachment: &Attachment) -> bool {
    let found = Netlink::open().and_then(|mut host| host.link(&attachment.host_interface));
    let controller = found.ok().flatten().and_then(|link| link.controller);
    controller == Some(bridge.index())
}

/// Name of the host end of the interface `interface` in the namespace with this inode: `vr` and
/// eleven hexadecimal digits of a hash, so that it is found again without any record.
pub fn host_interface(netns_inode: u64, interface: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(netns_inode.to_be_bytes());
    hash.update(interface);
    let digest: [u8; 32] = hash.finalize().into();
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("vr{digits:.11}")
}
