//! Bodies of requests and of small answers.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::AttachmentView;
use crate::failure::Failure;
use crate::peer_address::PeerAddress;

/// `POST /v1/attach`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AttachBody {
    /// Named network namespace, absolute path, or `pid:N`.
    pub(crate) target: String,
    /// Addresses with prefix lengths.
    #[serde(default)]
    pub(crate) ip: Vec<IpNet>,
    /// Where addresses that are not named come from: at most one subnet a family.
    #[serde(default)]
    pub(crate) subnet: Vec<IpNet>,
    /// Whether the container gets no address from here: it configures itself.
    #[serde(default)]
    pub(crate) no_ip: bool,
    /// Name of the interface in the container.
    #[serde(default = "interface_default")]
    pub(crate) ifname: String,
    /// Human name.
    #[serde(default)]
    pub(crate) name: String,
}

fn interface_default() -> String {
    rmesh_router::attach::INTERFACE_DEFAULT.into()
}

/// `POST /v1/detach`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DetachBody {
    /// As given to attach.
    pub(crate) target: String,
    /// Only this interface.
    #[serde(default)]
    pub(crate) ifname: Option<String>,
}

/// Answer to [`DetachBody`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DetachReply {
    /// What was detached; empty if nothing was attached.
    pub(crate) detached: Vec<AttachmentView>,
}

/// `POST /v1/connect`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConnectBody {
    /// Peers to connect to.
    pub(crate) peers: Vec<PeerAddress>,
    /// Whether all others are forgotten.
    #[serde(default)]
    pub(crate) replace: bool,
}

/// `POST /v1/forget`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForgetBody {
    /// Remembered peers: as given to connect, or a peer's name or the start of its id.
    pub(crate) peers: Vec<String>,
}

/// Answer to [`ConnectBody`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PeersReply {
    /// All peers remembered now.
    pub(crate) peers: Vec<PeerAddress>,
}

/// Answer to [`ForgetBody`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ForgetReply {
    /// Those forgotten.
    pub(crate) forgotten: Vec<PeerAddress>,
    /// All peers remembered now.
    pub(crate) peers: Vec<PeerAddress>,
}

/// `GET /v1/secret`.
#[derive(Serialize, Deserialize)]
pub(crate) struct SecretReply {
    /// The mesh secret in its `rmesh1-` form.
    pub(crate) secret: Zeroizing<String>,
}

/// Answer to `POST /v1/leave`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LeaveReply {
    /// Nothing is owned here any more.
    pub(crate) left: bool,
}

/// Answer to `POST /v1/stop`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StopReply {
    /// Process id of the daemon that stops now.
    pub(crate) pid: u32,
}

/// Every answer that is an error.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ErrorReply {
    /// What, why, what to do.
    pub(crate) error: Failure,
}
