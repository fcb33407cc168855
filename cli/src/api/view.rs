//! What the API shows, made for people and scripts: ids as text, units in the names.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use rmesh_gossip::api::Counters;
use rmesh_router::PlaneCapabilities;
use rmesh_router::attach::Attachment;
use serde::{Deserialize, Serialize};

/// `GET /v1/status`: the first page.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StatusView {
    /// Version of the daemon.
    pub(crate) version: String,
    /// This peer's id, 32 hexadecimal digits.
    pub(crate) id: String,
    /// Its human name.
    pub(crate) name: String,
    /// Process id of the daemon.
    pub(crate) pid: u32,
    /// Starts of this peer so far.
    pub(crate) boot: u64,
    /// Time since the start, in milliseconds.
    pub(crate) uptime_ms: u64,
    /// `alone` (no peers configured or seen), `joining` (none answered yet), `connected`, or
    /// `disconnected` (peers known, none reachable).
    pub(crate) state: String,
    /// Which traffic is encrypted.
    pub(crate) encryption: String,
    /// UDP port.
    pub(crate) port: u16,
    /// TCP port at which the same is to be had where UDP does not pass; `null` if nobody can call there.
    #[serde(default)]
    pub(crate) tcp_port: Option<u16>,
    /// Whether nothing that is between other peers goes through this host.
    #[serde(default)]
    pub(crate) no_relay: bool,
    /// Bits a second that are carried for each peer whose traffic with others goes through this host; `null` if there is
    /// no limit.
    #[serde(default)]
    pub(crate) relay_limit_bits_per_s: Option<u64>,
    /// Addresses of this host that others may reach.
    pub(crate) addresses: Vec<IpAddr>,
    /// Name of the bridge.
    pub(crate) bridge: String,
    /// MTU of the containers in bytes.
    pub(crate) mtu_bytes: u16,
    /// What kernel and processor do for the data plane.
    #[serde(default)]
    pub(crate) capabilities: PlaneCapabilities,
    /// Other peers known.
    pub(crate) peers_total: usize,
    /// Other peers reachable.
    pub(crate) peers_reachable: usize,
    /// Reachable peers whose containers' unicast frames go by the kernel's VXLAN, not encrypted.
    #[serde(default)]
    pub(crate) peers_plaintext: usize,
    /// Datagrams to VXLAN's port that were dropped, for they came from an address that is not a live
    /// plaintext peer's.
    #[serde(default)]
    pub(crate) vxlan_dropped_in: u64,
    /// Reachable peers whose path is direct.
    pub(crate) peers_direct: usize,
    /// Reachable peers whose path leads through another.
    pub(crate) peers_relayed: usize,
    /// Reachable peers whose path is a TCP connection.
    #[serde(default)]
    pub(crate) peers_tcp: usize,
    /// Configured peers.
    pub(crate) targets: Vec<TargetView>,
    /// Sentences about what an operator should look at.
    pub(crate) warnings: Vec<String>,
    /// Containers attached on this host.
    pub(crate) attached: usize,
    /// Where their addresses come from, in one line.
    #[serde(default)]
    pub(crate) ring: String,
    /// Counts of the control side.
    pub(crate) control: Counters,
    /// Counts of the data plane.
    pub(crate) frames: serde_json::Value,
}

/// One configured peer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TargetView {
    /// `host:port`.
    pub(crate) name: String,
    /// What it resolves to.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Id of the peer that answered there.
    pub(crate) peer: Option<String>,
    /// `connected`, `dialing`, `does not resolve`, or `no answer from …`.
    pub(crate) state: String,
    /// When it is tried next, in milliseconds.
    pub(crate) retry_in_ms: Option<u64>,
}

/// How datagrams for a peer leave this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum PathView {
    /// By the kernel's VXLAN, not encrypted.
    Vxlan {
        /// The other end of the tunnel.
        address: IpAddr,
    },
    /// Straight to this address.
    Direct {
        /// Address and port.
        address: SocketAddr,
    },
    /// Through another peer.
    Relay {
        /// Its id.
        peer: String,
        /// Its name.
        name: String,
    },
    /// By a TCP connection with this address.
    Tcp {
        /// Address and port of the other end.
        address: SocketAddr,
    },
}

/// `GET /v1/peers`: one of a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PeerView {
    /// Its id, 32 hexadecimal digits.
    pub(crate) id: String,
    /// Its human name.
    pub(crate) name: String,
    /// Whether any path leads to it.
    pub(crate) reachable: bool,
    /// Whether an end-to-end session is open.
    pub(crate) session: bool,
    /// Path in use for containers' unicast frames.
    pub(crate) path: Option<PathView>,
    /// Path in use for what is encrypted, and so for broadcasts.
    #[serde(default)]
    pub(crate) sealed_path: Option<PathView>,
    /// The kernel's VXLAN; absent where this peer encrypts everything.
    #[serde(default)]
    pub(crate) fast: Option<FastView>,
    /// How many of the last 64 probes of the path in use were not answered, in percent.
    #[serde(default)]
    pub(crate) loss_percent: Option<u8>,
    /// How long the path has been in use, in milliseconds.
    pub(crate) path_age_ms: u64,
    /// Smoothed round-trip time of the path in use, in microseconds.
    pub(crate) round_trip_us: Option<u64>,
    /// Largest IP packet sent on the path, in bytes; 0 without one.
    pub(crate) path_mtu_bytes: u16,
    /// Whether a search found it; it is assumed, or still being searched, otherwise.
    #[serde(default)]
    pub(crate) path_mtu_found: bool,
    /// Source ports that frames leave from on the path in use, the one listened at included.
    #[serde(default)]
    pub(crate) source_ports: u8,
    /// Container MTU the peer published, in bytes.
    pub(crate) mtu_bytes: u16,
    /// Whether it carries nothing that is between others.
    #[serde(default)]
    pub(crate) no_relay: bool,
    /// Why the path is not the best kind; empty if it is.
    pub(crate) reason: String,
    /// Frame bytes sent to it.
    pub(crate) bytes_sent: u64,
    /// Frame bytes received from it.
    pub(crate) bytes_received: u64,
    /// Every address tried for a direct path.
    pub(crate) candidates: Vec<CandidateView>,
    /// Its control links.
    pub(crate) links: Vec<LinkView>,
    /// Shortest route to it.
    pub(crate) route: Option<RouteView>,
}

/// The kernel's VXLAN to one peer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FastView {
    /// The other end, if both sides agree to plaintext.
    pub(crate) address: Option<IpAddr>,
    /// Whether frames go through it.
    pub(crate) in_use: bool,
    /// For how long that has been so, in milliseconds.
    pub(crate) age_ms: u64,
    /// Why it is not used, or what is the matter with it; empty if all is well.
    pub(crate) reason: String,
    /// Smoothed round trip of its heartbeats, in microseconds.
    pub(crate) round_trip_us: Option<u64>,
    /// How many of the last 64 heartbeats were not answered, in percent.
    pub(crate) loss_percent: Option<u8>,
    /// Bytes that the kernel has sent by it, headers included.
    pub(crate) bytes_sent: u64,
}

/// One address tried for a direct path.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CandidateView {
    /// The address.
    pub(crate) address: SocketAddr,
    /// Whether it is tried by TCP.
    #[serde(default)]
    pub(crate) tcp: bool,
    /// `alive`, `no answer`, `unreachable` or `not tried yet`.
    pub(crate) state: String,
    /// Smoothed round-trip time, in microseconds.
    pub(crate) round_trip_us: Option<u64>,
    /// Largest IP packet sent there, in bytes.
    #[serde(default)]
    pub(crate) mtu_bytes: Option<u16>,
    /// Whether a search found it.
    #[serde(default)]
    pub(crate) mtu_found: bool,
    /// How many of the last 64 probes were not answered, in percent.
    #[serde(default)]
    pub(crate) loss_percent: Option<u8>,
    /// Where that peer sees this one, by this way; `null` if it has not said so.
    #[serde(default)]
    pub(crate) seen_as: Option<SocketAddr>,
    /// How long the state has been what it is, in milliseconds.
    #[serde(default)]
    pub(crate) age_ms: u64,
    /// Why it is not in use although it works; empty otherwise.
    #[serde(default)]
    pub(crate) reason: String,
}

/// One control link of a peer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LinkView {
    /// Id of the peer at its other end.
    pub(crate) peer: String,
    /// Name of that peer.
    pub(crate) name: String,
    /// Measured cost in microseconds.
    pub(crate) cost_us: u32,
}

/// A route.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RouteView {
    /// Id of the first peer on the way.
    pub(crate) next_hop: String,
    /// Its name.
    pub(crate) name: String,
    /// Cost in microseconds.
    pub(crate) cost_us: u32,
    /// Number of links.
    pub(crate) hops: u8,
}

/// `GET /v1/endpoints`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EndpointsView {
    /// Announced interfaces of all peers.
    pub(crate) endpoints: Vec<EndpointView>,
    /// MACs seen and not announced by anybody.
    pub(crate) learned: Vec<LearnedView>,
}

/// One announced interface.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EndpointView {
    /// Id of the peer it is on.
    pub(crate) peer: String,
    /// Name of that peer.
    pub(crate) peer_name: String,
    /// Whether that peer is reachable.
    pub(crate) reachable: bool,
    /// MAC address.
    pub(crate) mac: String,
    /// Addresses with prefix lengths.
    pub(crate) addresses: Vec<IpNet>,
    /// Human name.
    pub(crate) name: String,
    /// Its move counter.
    pub(crate) moves: u32,
    /// Whether this announcement is the one in force for its MAC.
    pub(crate) in_force: bool,
}

/// One learned MAC.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LearnedView {
    /// MAC address.
    pub(crate) mac: String,
    /// Id of the peer it was seen behind; absent if it is on this host.
    pub(crate) peer: Option<String>,
    /// Time since it was last seen, in milliseconds.
    pub(crate) age_ms: u64,
}

/// `GET /v1/attachments`: one of a list; also the answer to `POST /v1/attach`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AttachmentView {
    /// As given to attach.
    pub(crate) target: String,
    /// Human name.
    pub(crate) name: String,
    /// Interface in the container.
    pub(crate) interface: String,
    /// Its other end on the host.
    pub(crate) host_interface: String,
    /// MAC of the interface in the container.
    pub(crate) mac: String,
    /// Its addresses with prefix lengths.
    pub(crate) addresses: Vec<IpNet>,
}

impl From<&Attachment> for AttachmentView {
    fn from(attachment: &Attachment) -> Self {
        AttachmentView {
            target: attachment.target.clone(),
            name: attachment.name.clone(),
            interface: attachment.interface.clone(),
            host_interface: attachment.host_interface.clone(),
            mac: attachment.mac.to_string(),
            addresses: attachment.addresses.clone(),
        }
    }
}
