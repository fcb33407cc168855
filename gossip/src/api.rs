//! The plain data that goes into and comes out of a [`crate::Mesh`].

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use rmesh_wire::handshake::Cipher;
use rmesh_wire::{Boot, Mac, PeerId, ShortId};
use serde::{Deserialize, Serialize};

use crate::ProbeMarks;
use crate::crypto::Key;

mod floods;
mod source_ports;

pub use floods::{FloodTree, Floods};
pub use source_ports::{PortTransmit, SOURCE_PORTS_MAX, SourcePorts};

/// What a mesh is made with.
pub struct Config {
    /// Seed of the peer's Ed25519 identity key (RFC 8032).
    pub identity: Key,
    /// The mesh secret, already stretched if it was a passphrase.
    pub secret: Key,
    /// Human name; longer than 63 bytes is cut.
    pub name: String,
    /// This life of the peer; the counter must be durable already.
    pub boot: Boot,
    /// Seed of all randomness. The public and the secret stream are both derived from it.
    pub seed: [u8; 32],
    /// UDP port the shell listens on; paired with local addresses to make candidates.
    pub port: u16,
    /// MTU of the containers in bytes; published, so that a mismatch can be named.
    pub mtu_bytes: u16,
    /// Addresses to publish besides those found.
    pub advertise: Vec<SocketAddr>,
}

/// A configured peer: what the operator wrote, and what it resolves to at the moment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// As written by the operator; the key by which targets are told apart.
    pub name: String,
    /// Every address it resolves to, with port; empty if it does not resolve.
    pub addresses: Vec<SocketAddr>,
}

/// A datagram to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where to; by TCP if [`crate::tcp::tcp_remote`] says so.
    pub destination: SocketAddr,
    /// The whole UDP payload.
    pub bytes: Vec<u8>,
}

/// A heartbeat to be sent through the kernel's VXLAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FastTransmit {
    /// Whose heartbeat MAC to put into its frame.
    pub peer: PeerId,
    /// The other end of the tunnel.
    pub address: IpAddr,
    /// Payload of the frame.
    pub bytes: Vec<u8>,
    /// Whether the checksum around it is left to kernel and network card, as containers leave theirs.
    pub leaves_checksum: bool,
}

/// Why the kernel refused to send a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendFailure {
    /// ENETUNREACH, EHOSTUNREACH, EPERM and their like: the path is unusable now.
    Unreachable,
    /// Its way out of this host leads into the mesh itself, so it was not sent: no tunnel inside the tunnel.
    Inside,
    /// EMSGSIZE: the datagram is bigger than the interface takes.
    TooBig {
        /// Its UDP payload in bytes.
        len: u16,
    },
}

/// What the data plane saw of one peer since the last sample, in records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrafficSample {
    /// The peer at the other end.
    pub peer: PeerId,
    /// Records sent, whatever the path.
    pub sent: u64,
    /// Records that arrived over the direct path.
    pub received_direct: u64,
    /// Records that arrived through a relay.
    pub received_relayed: u64,
}

/// Something the shell or the operator has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// [`crate::Mesh::forwarding`] has changed; build and publish a new snapshot.
    ForwardingChanged,
    /// A peer became reachable.
    PeerUp {
        /// Who.
        peer: PeerId,
        /// Its human name.
        name: String,
    },
    /// A peer is no longer reachable on any path.
    PeerDown {
        /// Who.
        peer: PeerId,
        /// Its human name.
        name: String,
    },
    /// The path to a reachable peer changed.
    PathChanged {
        /// Who.
        peer: PeerId,
        /// Its human name.
        name: String,
        /// The path from now on.
        path: Path,
        /// Why, in words for the log.
        reason: &'static str,
    },
    /// What leaves through the kernel's VXLAN arrives with wrong checksums where they are left to the network
    /// card, or does not arrive: the kernel is to complete them.
    ChecksumsDamaged {
        /// Who said so, or whose answers show it.
        peer: PeerId,
        /// Its human name.
        name: String,
        /// The other end of the tunnel.
        address: IpAddr,
    },
    /// Frames for a peer go through the kernel's VXLAN from now on, or do not any more.
    FastPathChanged {
        /// Who.
        peer: PeerId,
        /// Its human name.
        name: String,
        /// The other end of the tunnel, if they do.
        address: Option<IpAddr>,
        /// Why, in words for the log.
        reason: &'static str,
    },
    /// The path in use stopped to carry datagrams of the length in use; shorter ones are sent until
    /// it is found what it does carry.
    PathShrank {
        /// Who is at its other end.
        peer: PeerId,
        /// Its human name.
        name: String,
    },
    /// A configured peer does not answer: unreachable, or a different secret.
    NoAnswer {
        /// The target as the operator wrote it.
        target: String,
    },
    /// Somebody without the right secret tried a handshake. Reported at most once a second.
    HandshakeRefused {
        /// Where it came from.
        source: SocketAddr,
    },
    /// Another peer has the same human name.
    NameShared {
        /// Who else.
        peer: PeerId,
        /// The name.
        name: String,
    },
    /// Another host runs with this peer's identity.
    TwinMet {
        /// The name it goes by.
        name: String,
        /// Where it is, if that is known.
        address: Option<SocketAddr>,
        /// Whether this peer takes no part in the mesh until that ends; otherwise the other does.
        gives_way: bool,
    },
    /// Another life of this peer has a boot counter at least as high; the shell must make
    /// `counter` durable. The mesh already goes on with it.
    BootRaised {
        /// The counter now in use.
        counter: u64,
    },
    /// A MAC moved too often and is frozen where it is (RFC 7432 section 15.1).
    MacFrozen {
        /// Which.
        mac: Mac,
        /// Where it stays.
        peer: PeerId,
    },
    /// A message of another peer on a channel the mesh only carries.
    ChannelMessage {
        /// Sender.
        peer: PeerId,
        /// Which channel.
        channel: u8,
        /// Opaque bytes.
        bytes: Vec<u8>,
    },
}

/// How datagrams for a peer leave this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// Straight to this address.
    Direct(SocketAddr),
    /// Wrapped for this neighbour.
    Relay(PeerId),
    /// Length-prefixed over a TCP connection with this address.
    Tcp(SocketAddr),
}

/// Everything the data plane needs, as one immutable snapshot.
#[derive(Debug, Clone, Default)]
pub struct Forwarding {
    /// This peer.
    pub me: PeerId,
    /// This life of it.
    pub boot: Boot,
    /// What tells this mesh's second-way probes from another's on a shared LAN, and from forged ones.
    pub probe_marks: ProbeMarks,
    /// Every session that may still receive, the newest of a peer last.
    pub sessions: Vec<SessionKeys>,
    /// Every reachable peer.
    pub peers: BTreeMap<PeerId, PeerForwarding>,
    /// Neighbour to hand a relayed datagram to, by destination.
    pub next_hops: BTreeMap<ShortId, PeerId>,
    /// The peer that announced each MAC, this one included.
    pub macs: BTreeMap<Mac, PeerId>,
    /// Broadcast tree of each source, this peer included.
    pub floods: Floods,
    /// What goes by the kernel's VXLAN.
    pub fast: FastForwarding,
}

/// What may go, and what goes, by the kernel's VXLAN.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FastForwarding {
    /// Addresses VXLAN may come from and go to: those at which peers are that agree to plaintext.
    pub allowed: BTreeSet<IpAddr>,
    /// The other end of each tunnel that heartbeats go through.
    pub tunnels: BTreeMap<PeerId, IpAddr>,
    /// Those of them that frames are to go through.
    pub in_use: BTreeMap<PeerId, IpAddr>,
}

/// One session, as the data plane uses it.
#[derive(Debug, Clone)]
pub struct SessionKeys {
    /// The other end.
    pub peer: PeerId,
    /// The index datagrams for this session arrive with.
    pub local_index: u32,
    /// The index to put into datagrams sent.
    pub remote_index: u32,
    /// How records are sealed.
    pub cipher: Cipher,
    /// Key of the records this side sends.
    pub seal_key: Key,
    /// Key of the records this side receives.
    pub open_key: Key,
}

/// How to reach a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerForwarding {
    /// Local index of the session to seal with; `None` while there is none yet (report a
    /// [`crate::Mesh::handle_want`] when a frame for the peer turns up).
    pub session: Option<u32>,
    /// Path in use; `None` while there is none.
    pub path: Option<Path>,
    /// Raised with each change of path, so that a worker can move to a fresh lane.
    pub path_epoch: u32,
    /// Largest UDP payload the path takes, in bytes, relay headers included.
    pub datagram_len_max: u16,
    /// Whether a search found that; otherwise it is assumed, and most likely more will pass soon.
    pub is_len_found: bool,
    /// Source ports that pass on the path, besides the one listened at.
    pub source_ports: SourcePorts,
}

/// A container's interface as its host announces it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// MAC address.
    pub mac: Mac,
    /// Addresses with their prefix lengths.
    pub addresses: Vec<ipnet::IpNet>,
    /// Human name; may be empty.
    pub name: String,
    /// Labels.
    pub labels: Vec<(String, String)>,
}

/// Another peer, as another core sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub peer: PeerId,
    /// Its name.
    pub name: String,
    /// Whether any path leads to it.
    pub reachable: bool,
    /// Whether there is a control link with it.
    pub neighbour: bool,
    /// Whether it answers where a configured peer should be.
    pub listed: bool,
}

/// Everything `status` shows of the mesh.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// This peer.
    pub id: PeerId,
    /// Its name.
    pub name: String,
    /// Whether nothing that is between others goes through it.
    pub no_relay: bool,
    /// This life.
    pub boot: Boot,
    /// Other peers, reachable or lately so.
    pub peers: Vec<PeerReport>,
    /// Configured peers.
    pub targets: Vec<TargetReport>,
    /// Endpoints of all peers.
    pub endpoints: Vec<EndpointReport>,
    /// Sentences about what an operator should look at.
    pub warnings: Vec<String>,
    /// Sessions open at the moment, replaced ones that only receive included.
    pub sessions: u64,
    /// Handshakes under way.
    pub half_open: u64,
    /// Signed records held, the own ones included.
    pub records: u64,
    /// How long ago a handshake was last refused.
    pub refused_ago: Option<Duration>,
    /// Event counts.
    pub counters: Counters,
}

/// One other peer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeerReport {
    /// Who.
    pub id: PeerId,
    /// Its name.
    pub name: String,
    /// Whether any path leads to it.
    pub reachable: bool,
    /// Whether a session is open.
    pub session: bool,
    /// Path in use.
    pub path: Option<Path>,
    /// How long the path has been in use.
    pub path_age: Duration,
    /// Smoothed round-trip time of the path in use.
    pub round_trip: Option<Duration>,
    /// How long ago anything of the peer last verified under the session in use.
    pub heard_ago: Option<Duration>,
    /// Largest IP packet sent on the path, in bytes; 0 without one.
    pub path_mtu_bytes: u16,
    /// Whether a search found it; it is assumed, or being searched, otherwise.
    #[serde(default)]
    pub path_mtu_found: bool,
    /// Source ports that frames leave from on the path in use, the one listened at included.
    #[serde(default)]
    pub source_ports: u8,
    /// Whether it carries nothing that is between others.
    #[serde(default)]
    pub no_relay: bool,
    /// Container MTU the peer published, in bytes.
    pub mtu_bytes: u16,
    /// Why the path is not the best kind, in words; empty if it is.
    pub reason: String,
    /// Every address tried for a direct path, with what came of it.
    pub candidates: Vec<CandidateReport>,
    /// The kernel's VXLAN; absent where this side's policy is to encrypt everything.
    #[serde(default)]
    pub fast: Option<FastReport>,
    /// How many of the last 64 probes of the path in use were not answered, in percent.
    #[serde(default)]
    pub loss_percent: Option<u8>,
    /// Its control links and their costs in microseconds.
    pub links: Vec<(PeerId, u32)>,
    /// Cost of the shortest route in microseconds, and its first hop.
    pub route: Option<(u32, PeerId)>,
    /// Hops of that route.
    pub hops: u8,
}

/// The kernel's VXLAN to one peer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FastReport {
    /// The other end, if both sides agree to plaintext.
    pub address: Option<IpAddr>,
    /// Whether frames go through it.
    pub in_use: bool,
    /// For how long that has been so.
    pub age: Duration,
    /// Why it is not used, or what is the matter with it; empty if all is well.
    pub reason: String,
    /// The same in one word, for programs.
    #[serde(default)]
    pub cause: String,
    /// Smoothed round trip of its heartbeats.
    pub round_trip: Option<Duration>,
    /// How many of the last 64 heartbeats were not answered, in percent.
    pub loss_percent: Option<u8>,
}

/// One address tried for a direct path.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CandidateReport {
    /// The address.
    pub address: SocketAddr,
    /// Whether it is tried by TCP.
    #[serde(default)]
    pub tcp: bool,
    /// What came of it: "alive", "no answer", "unreachable", "not tried yet".
    pub state: String,
    /// Smoothed round-trip time if alive.
    pub round_trip: Option<Duration>,
    /// Largest IP packet sent there if alive, in bytes.
    #[serde(default)]
    pub mtu_bytes: Option<u16>,
    /// Whether a search found it.
    #[serde(default)]
    pub mtu_found: bool,
    /// How many of the last 64 probes were not answered, in percent.
    #[serde(default)]
    pub loss_percent: Option<u8>,
    /// Where the other end sees this peer, by this way.
    #[serde(default)]
    pub seen_as: Option<SocketAddr>,
    /// How long the state has been what it is.
    #[serde(default)]
    pub age: Duration,
    /// Why it is not the path in use although it works; empty otherwise.
    #[serde(default)]
    pub reason: String,
}

/// One configured peer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TargetReport {
    /// As the operator wrote it.
    pub name: String,
    /// What it resolves to.
    pub addresses: Vec<SocketAddr>,
    /// The peer that answered there.
    pub peer: Option<PeerId>,
    /// "connected", "dialing", "does not resolve" or
    /// "no answer from host1:6783: unreachable, or a different secret".
    pub state: String,
    /// When it is tried next.
    pub retry_in: Option<Duration>,
}

/// One announced endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EndpointReport {
    /// The announcing peer.
    pub peer: PeerId,
    /// Whether that peer is reachable.
    pub reachable: bool,
    /// What it announced.
    pub endpoint: Endpoint,
    /// Its move counter.
    pub moves: u32,
    /// Whether this announcement is the one in force for its MAC.
    pub in_force: bool,
}

/// Counts of what happened, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Datagrams that were not rmesh's, of an unknown index or otherwise useless.
    pub datagrams_ignored: u64,
    /// Datagrams whose authentication failed.
    pub datagrams_forged: u64,
    /// Records seen before.
    pub datagrams_replayed: u64,
    /// Handshakes that failed, for whatever reason of `handshakes_refused_by`.
    pub handshakes_refused: u64,
    /// The same by reason.
    #[serde(default)]
    pub handshakes_refused_by: Refusals,
    /// First messages that were read before.
    #[serde(default)]
    pub handshakes_replayed: u64,
    /// First messages beyond an allowance: of their source, or of all together.
    #[serde(default)]
    pub handshakes_limited: u64,
    /// Senders of first messages asked to show that their address is theirs.
    #[serde(default)]
    pub cookies_sent: u64,
    /// Handshakes completed.
    pub handshakes_completed: u64,
    /// Datagrams relayed for others by the control side.
    pub datagrams_relayed: u64,
    /// Signed records accepted.
    pub records_accepted: u64,
    /// Signed records not taken because their peer publishes too many.
    #[serde(default)]
    pub records_limited: u64,
    /// Signed records that were announced, did not come and were asked for.
    #[serde(default)]
    pub records_fetched: u64,
    /// Messages with records that were asked for and not sent, for too many were.
    #[serde(default)]
    pub answers_dropped: u64,
    /// Signed records that were known already, or outdated.
    #[serde(default)]
    pub records_known: u64,
    /// Signed records sent, each as often as it was.
    #[serde(default)]
    pub records_sent: u64,
    /// Repairs begun with a neighbour whose digest differed.
    #[serde(default)]
    pub repairs_started: u64,
    /// Signed records refused: bad signature, out of bounds.
    pub records_refused: u64,
    /// Times that datagrams of the length in use stopped to pass on a path.
    #[serde(default)]
    pub path_mtu_lost: u64,
    /// Datagrams that were not sent because their way out of this host led into the mesh itself.
    #[serde(default)]
    pub sends_inside: u64,
    /// Outgoing datagrams dropped because the shell did not take them.
    pub transmits_dropped: u64,
    /// Control datagrams sent.
    #[serde(default)]
    pub control_datagrams_sent: u64,
    /// Their bytes, UDP payload.
    pub control_bytes_sent: u64,
    /// Control datagrams received, whatever became of them.
    #[serde(default)]
    pub control_datagrams_received: u64,
    /// Their bytes, UDP payload.
    #[serde(default)]
    pub control_bytes_received: u64,
}

/// Why handshakes were refused, and how often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refusals {
    /// Too short for what it says it is.
    pub malformed: u64,
    /// A first message of a secret generation that is not used here.
    pub generation: u64,
    /// A first message that does not show knowledge of the secret.
    pub secret: u64,
    /// A later message, or a cookie, that does not authenticate.
    pub forged: u64,
    /// The secret is right; the identity, the name or the ciphers offered are not.
    pub identity: u64,
    /// The secret is right; the version is not spoken here.
    #[serde(default)]
    pub version: u64,
}

impl Refusals {
    /// Each reason's name and count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("malformed", self.malformed),
            ("generation", self.generation),
            ("secret", self.secret),
            ("forged", self.forged),
            ("identity", self.identity),
            ("version", self.version),
        ]
        .into_iter()
    }
}

/// An address of this host, given to [`crate::Mesh::handle_local_addresses`].
pub type LocalAddress = IpAddr;
