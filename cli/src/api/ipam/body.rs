//! Bodies of requests about the ring, and of their answers.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Count;

/// `POST /v1/ipam/claim`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClaimBody {
    /// The address.
    pub(crate) address: IpAddr,
    /// Its prefix length in the container; by default that of the container's network or the pool.
    #[serde(default)]
    pub(crate) prefix_len: Option<u8>,
    /// As for attach.
    pub(crate) target: String,
    /// Name of the interface in the container.
    #[serde(default = "interface_default")]
    pub(crate) ifname: String,
}

fn interface_default() -> String {
    rmesh_router::attach::INTERFACE_DEFAULT.into()
}

/// Answer to [`ClaimBody`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ClaimReply {
    /// The address with its prefix length.
    pub(crate) address: IpNet,
    /// The container.
    pub(crate) target: String,
    /// Name of the interface in it.
    pub(crate) interface: String,
    /// Whether the container is attached, and carries the address now; else it is kept for it.
    pub(crate) attached: bool,
}

/// `POST /v1/ipam/allocate`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AllocateBody {
    /// The client's word for whatever gets the address.
    pub(crate) container: String,
    /// Where it is to come from; by default the first pool of the family.
    #[serde(default)]
    pub(crate) subnet: Option<IpNet>,
    /// Without a subnet: IPv6 instead of IPv4.
    #[serde(default)]
    pub(crate) ipv6: bool,
}

/// Answer to [`AllocateBody`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AllocateReply {
    /// The address with the prefix length of the subnet or pool.
    pub(crate) address: IpNet,
    /// As it was asked for.
    pub(crate) container: String,
}

/// `POST /v1/ipam/release`: one of the three.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReleaseBody {
    /// This address.
    #[serde(default)]
    pub(crate) address: Option<IpAddr>,
    /// All addresses of this container.
    #[serde(default)]
    pub(crate) target: Option<String>,
    /// All addresses that were allocated for this word.
    #[serde(default)]
    pub(crate) container: Option<String>,
}

/// Answer to [`ReleaseBody`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ReleaseReply {
    /// Addresses that are free again.
    pub(crate) released: Vec<IpAddr>,
}

/// `POST /v1/ipam/pools`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PoolBody {
    /// A whole subnet.
    pub(crate) pool: IpNet,
}

/// Answer to [`PoolBody`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PoolReply {
    /// The pool.
    pub(crate) pool: IpNet,
    /// Whether it was not there before.
    pub(crate) added: bool,
}

/// `POST /v1/ipam/adopt`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdoptBody {
    /// The other ring as it is shown, or a peer in it: its name or the start of its id.
    pub(crate) to: String,
}

/// Answer to [`AdoptBody`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AdoptReply {
    /// The ring this peer is in now.
    pub(crate) ring: String,
}

/// `POST /v1/peers/remove`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RemoveBody {
    /// A peer's name or the start of its id.
    pub(crate) peer: String,
    /// Although it answers, or although most witnesses do not.
    #[serde(default)]
    pub(crate) force: bool,
}

/// Answer to [`RemoveBody`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RemoveReply {
    /// Id of the peer.
    pub(crate) peer: String,
    /// Its name.
    pub(crate) name: String,
    /// What this peer owns instead, as prefixes or first-last.
    pub(crate) taken: Vec<String>,
    /// Addresses among them that are held for the removed peer.
    pub(crate) held: Count,
    /// When the last hold ends, in milliseconds; nothing if none is held here.
    pub(crate) held_for_ms: Option<u64>,
}
