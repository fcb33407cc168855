//! What can go wrong between rmesh and the kernel, in words an operator can act on.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The kernel did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// EPERM or EACCES.
    #[error("cannot {doing}: not permitted; run as root")]
    NotPermitted {
        /// What was being done.
        doing: String,
    },
    /// Any other refusal.
    #[error("cannot {doing}: {cause}{detail}")]
    Refused {
        /// What was being done.
        doing: String,
        /// What the kernel answered.
        cause: io::Error,
        /// The kernel's own explanation in parentheses, or nothing.
        detail: String,
    },
    /// The kernel took a request and said nothing.
    #[error("cannot {doing}: the kernel did not answer within {limit:?}; try again")]
    NoAnswer {
        /// What was being done.
        doing: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The answer was not the kind asked for.
    #[error("cannot {doing}: the kernel's answer makes no sense: {reason}")]
    Nonsense {
        /// What was being done.
        doing: String,
        /// What was wrong with it.
        reason: String,
    },
    /// The name of the bridge belongs to something else.
    #[error(
        "{name} exists and is not a bridge; choose another name with --bridge, or remove it \
         (`ip link delete {name}`)"
    )]
    NotABridge {
        /// The name.
        name: String,
    },
    /// A bridge that rmesh did not make.
    #[error(
        "bridge {name} exists and was not made by rmesh; choose another name with --bridge, or \
         remove it (`ip link delete {name}`)"
    )]
    NotOurBridge {
        /// The name.
        name: String,
    },
    /// The name of a VXLAN device belongs to something that rmesh did not make.
    #[error(
        "{name} exists and was not made by rmesh; remove it (`ip link delete {name}`), or choose \
         another name for the bridge with --bridge"
    )]
    NotOurTunnel {
        /// The name.
        name: String,
    },
    /// Somebody else has VXLAN's identifier or port.
    #[error(
        "cannot make VXLAN device {name}: UDP port {port}, or network {vni} at it, is in use on \
         this host (`ip -d link show type vxlan`, `ss -lun`); end that, or choose another port"
    )]
    TunnelTaken {
        /// Name of the device.
        name: String,
        /// The network identifier.
        vni: u32,
        /// The UDP port.
        port: u16,
    },
    /// Several things failed, of which the first is told.
    #[error("{first} (and {others} more)")]
    Several {
        /// The first.
        first: Box<KernelError>,
        /// How many came after it.
        others: usize,
    },
    /// No kernel takes such an interface name.
    #[error(
        "{name:?} cannot name an interface: it takes 1 to 15 bytes without '/', ':', '%' or blanks"
    )]
    InterfaceName {
        /// The name.
        name: String,
    },
}

impl KernelError {
    /// The error number behind it, if the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            KernelError::Refused { cause, .. } => cause.raw_os_error(),
            KernelError::Several { first, .. } => first.errno(),
            _ => None,
        }
    }
}

/// A container could not be attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The host's side of the work failed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Text that names no target.
    #[error(
        "{text:?} names no container: give the name of a network namespace (`ip netns list`), \
         an absolute path to one, or pid:N"
    )]
    TargetSyntax {
        /// The text.
        text: String,
    },
    /// A named namespace that does not exist.
    #[error(
        "no network namespace named {name} in /run/netns; `ip netns list` shows those that exist"
    )]
    NoSuchNamespace {
        /// Its name.
        name: String,
    },
    /// A path that does not exist.
    #[error("{} does not exist; a container's network namespace is /proc/PID/ns/net", path.display())]
    NoSuchPath {
        /// The path.
        path: PathBuf,
    },
    /// A process that has ended.
    #[error("process {pid} is gone")]
    ProcessGone {
        /// Its id.
        pid: u32,
    },
    /// A file that is something else.
    #[error("{target} is not a network namespace")]
    NotANamespace {
        /// As the operator wrote it.
        target: String,
    },
    /// The host itself was given as a container.
    #[error("{target} is the network namespace of the host itself; only containers are attached")]
    OwnNamespace {
        /// As the operator wrote it.
        target: String,
    },
    /// A namespace could not be opened or entered.
    #[error("cannot enter the network namespace of {target}: {cause}{hint}")]
    Enter {
        /// As the operator wrote it.
        target: String,
        /// What the kernel answered.
        cause: io::Error,
        /// What to do about it, or nothing.
        hint: &'static str,
    },
    /// The container has an interface of that name which rmesh did not make.
    #[error(
        "{target} already has an interface {interface} that is not rmesh's; choose another name \
         with --ifname"
    )]
    InterfaceTaken {
        /// As the operator wrote it.
        target: String,
        /// Name of the interface.
        interface: String,
    },
    /// An address no container can have.
    #[error("{address} cannot be given to a container: {reason}")]
    Address {
        /// The address.
        address: ipnet::IpNet,
        /// Why not.
        reason: &'static str,
    },
    /// More addresses than a container may have.
    #[error("{count} addresses are too many for one container; {limit} are allowed")]
    TooManyAddresses {
        /// How many were asked for.
        count: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// A MAC no interface can have.
    #[error("{mac} cannot be the MAC of an interface: it is a group address or all zeros")]
    Mac {
        /// The MAC.
        mac: rmesh_wire::Mac,
    },
    /// The interface was made but frames do not flow.
    #[error("{interface} in {target} did not come up within {limit:?}; what was made is removed")]
    NotUp {
        /// As the operator wrote it.
        target: String,
        /// Name of the interface.
        interface: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The announcement of an address could not be sent.
    #[error("cannot announce {address}: {cause}")]
    Announce {
        /// The address.
        address: IpAddr,
        /// What the kernel answered.
        cause: io::Error,
    },
    /// A record of an attachment that rmesh cannot have written.
    #[error("{host_interface} is not the host end of {interface} in {target}; left alone")]
    NotOurs {
        /// Interface on the host.
        host_interface: String,
        /// Interface in the container.
        interface: String,
        /// As the operator wrote it.
        target: String,
    },
}

impl AttachError {
    /// Whether the container does not exist, or no longer.
    pub fn is_target_gone(&self) -> bool {
        matches!(
            self,
            AttachError::NoSuchNamespace { .. }
                | AttachError::NoSuchPath { .. }
                | AttachError::ProcessGone { .. }
        )
    }
}
