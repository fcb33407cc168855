//! Joining containers to the bridge.
//!
//! A container is a network namespace. It gets one end of a veth pair, made directly inside it
//! under its final name; the other end is a port of the bridge.

mod mac;
mod target;

use ipnet::IpNet;
use rmesh_wire::Mac;
use serde::{Deserialize, Serialize};

pub use crate::error::AttachError;
use crate::kernel::Bridge;
pub(crate) use mac::locally_administered;
pub use mac::mac_for;
pub use target::{TargetSpec, netns_inode};

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
/// Attaching what is attached changes nothing; further addresses are added. Half-done work is
/// undone on any error.
pub fn attach(bridge: &Bridge, request: &Request) -> Result<Attachment, AttachError> {
    let _ = (bridge, request);
    unimplemented!()
}

/// Removes the interface of an attachment; success too if the namespace or the interface has
/// vanished.
pub fn detach(attachment: &Attachment) -> Result<(), AttachError> {
    let _ = attachment;
    unimplemented!()
}

/// Whether the host end of an attachment is still a port of the bridge.
pub fn is_present(bridge: &Bridge, attachment: &Attachment) -> bool {
    let _ = (bridge, attachment);
    unimplemented!()
}
