//! The plain data that goes into and comes out of a [`crate::Plane`].

use std::collections::BTreeMap;
use std::fmt;
use std::iter::Sum;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rmesh_gossip::SendFailure;
use rmesh_wire::{Mac, PeerId};
use serde::{Deserialize, Serialize};

/// What a data plane is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaneOptions {
    /// Bridge the TAP is going to be a port of; for the log.
    pub bridge: String,
    /// Name of the TAP interface.
    pub tap: String,
    /// Addresses to listen at; empty means every address of both families.
    pub bind: Vec<IpAddr>,
    /// With no such addresses: the one interface to use.
    pub interface: Option<String>,
    /// UDP port; 0 asks for any.
    pub port: u16,
    /// MTU of the containers in bytes, for whoever makes the TAP a port of the bridge; the plane
    /// itself carries frames of any length.
    pub mtu_bytes: u16,
    /// Threads wanted; 0 and more than the port has queues are adjusted, see [`crate::Plane::note`].
    pub workers: usize,
    /// Bits a second carried for each peer whose traffic with others goes through this one; without, all.
    pub relay_limit: Option<u64>,
    /// What not to use, though it is there.
    pub without: Without,
}

/// What a data plane does without, though kernel or processor have it: to look for a fault, and to
/// measure what it is worth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Without {
    /// Super-frames: a TAP with virtio headers.
    pub super_frames: bool,
    /// AES instructions: sessions are sealed with ChaCha20-Poly1305.
    pub aes: bool,
    /// The kernel cuts runs of datagrams that are sent (`UDP_SEGMENT`).
    pub udp_segmentation: bool,
    /// The kernel joins runs of datagrams that are received (`UDP_GRO`).
    pub udp_receive_offload: bool,
    /// Source ports of their own for the workers.
    pub source_ports: bool,
}

/// What the data plane has to tell the control side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inbound {
    /// A handshake or a lane-0 datagram, for `Mesh::handle_datagram`.
    Datagram {
        /// Where it came from.
        source: SocketAddr,
        /// The whole UDP payload.
        bytes: Vec<u8>,
    },
    /// The inner datagram of a verified relay datagram, for `Mesh::handle_relayed`.
    Relayed {
        /// The neighbour that handed it over.
        neighbour: PeerId,
        /// The inner datagram.
        inner: Vec<u8>,
    },
    /// A frame for this peer waits for a session, for `Mesh::handle_want`.
    Want(PeerId),
    /// Frames move again, as `Plane::await_traffic` asked to be told.
    Traffic,
    /// The kernel refused to send; at most ten a second and destination.
    SendFailed {
        /// Where to.
        destination: SocketAddr,
        /// Why.
        failure: SendFailure,
    },
    /// The kernel refused to send from a source port that is not the one listened at; at most ten a second,
    /// destination and port. For `Mesh::handle_port_failure`.
    PortRefused {
        /// Where to.
        destination: SocketAddr,
        /// Its number.
        port: usize,
    },
    /// A second way round leads through somebody's LAN: a probe of `peer` came in by our bridge.
    SecondWay {
        /// Whose probe.
        peer: PeerId,
        /// Whether this peer therefore stopped flooding (its id is the larger one).
        suppressed: bool,
    },
}

/// Why a data plane could not start. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    /// A UDP socket could not be opened.
    #[error("cannot listen at UDP {address}: {source}; choose another --port or --bind")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// There is no such interface.
    #[error("there is no interface {name} on this host; `ip link` lists those there are")]
    Interface {
        /// Its name.
        name: String,
    },
    /// No family has a socket.
    #[error("neither IPv4 nor IPv6 is available on this host")]
    NoFamily,
    /// The TAP could not be made.
    #[error(
        "cannot make the TAP interface {name}: {source}; it needs root, /dev/net/tun, and no other \
         program using that name"
    )]
    Tap {
        /// Its name.
        name: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A thread or its wake-up descriptor could not be made.
    #[error("cannot start a data-plane worker: {0}")]
    Worker(std::io::Error),
}

/// What this machine's kernel and processor do for the data plane; without, everything works and
/// is slower.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaneCapabilities {
    /// TCP crosses the TAP in super-frames, and checksums are left to who needs them.
    pub tcp_super_frames: bool,
    /// So do UDP datagrams of one flow.
    pub udp_super_frames: bool,
    /// Datagrams of one length are sent in one (`UDP_SEGMENT`).
    pub udp_segmentation: bool,
    /// And received in one (`UDP_GRO`).
    pub udp_receive_offload: bool,
    /// AES-256-GCM is offered to peers.
    pub aes: bool,
    /// Threads that carry frames, each with a queue, sockets and lanes of its own.
    pub workers: usize,
}

impl fmt::Display for PlaneCapabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = [
            ("super-frames of TCP", self.tcp_super_frames),
            ("of UDP", self.udp_super_frames),
            ("UDP segmentation", self.udp_segmentation),
            ("UDP receive offload", self.udp_receive_offload),
            ("AES", self.aes),
        ];
        let names = |on: bool| {
            let named = each.iter().filter(|(_, is_on)| *is_on == on);
            named.map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
        };
        match self.workers {
            1 => f.write_str("1 worker; ")?,
            count => write!(f, "{count} workers; ")?,
        }
        match (names(true), names(false)) {
            (on, off) if off.is_empty() => write!(f, "{on}"),
            (on, off) if on.is_empty() => write!(f, "plain: without {off}"),
            (on, off) => write!(f, "{on}; without {off}"),
        }
    }
}

/// Event counts since the start, summed over workers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlaneCounters {
    /// Frames read from the bridge.
    pub frames_from_bridge: u64,
    /// Their bytes.
    pub bytes_from_bridge: u64,
    /// Reads that took: a super-frame of many frames comes in one.
    pub reads_from_bridge: u64,
    /// Writes that frames to the bridge took: many of one flow go in one.
    pub writes_to_bridge: u64,
    /// Frames written to the bridge.
    pub frames_to_bridge: u64,
    /// Their bytes.
    pub bytes_to_bridge: u64,
    /// Datagrams handed to the kernel.
    pub datagrams_sent: u64,
    /// Their bytes, UDP payload.
    pub datagram_bytes_sent: u64,
    /// Datagrams received, whatever became of them.
    pub datagrams_received: u64,
    /// Their bytes, UDP payload.
    pub datagram_bytes_received: u64,
    /// Datagrams passed on for others.
    pub relayed: u64,
    /// Frames this peer flooded.
    pub floods_originated: u64,
    /// Copies of other peers' floods passed on.
    pub floods_forwarded: u64,
    /// Other peers' floods delivered to the bridge.
    pub floods_delivered: u64,
    /// Fragments sent.
    pub fragments_sent: u64,
    /// Records sent that carried several small frames.
    pub bundles_sent: u64,
    /// ICMP messages to containers that a packet is too big for its path.
    #[serde(default)]
    pub too_big_told: u64,
    /// TCP connections whose largest segment was lowered to what a path carries.
    #[serde(default)]
    pub mss_clamped: u64,
    /// Payloads put together from fragments.
    pub reassembled: u64,
    /// Frames that waited for a session and were then sent.
    pub pending_sent: u64,
    /// MACs learned at the moment.
    pub learned_macs: u64,
    /// Sessions that cannot be used at the moment because their cipher is not spoken here.
    pub unusable_sessions: u64,
    /// What was dropped, by reason; reasons that never occurred are absent.
    pub drops: BTreeMap<String, u64>,
}

/// How frames cross between this host and a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// In datagrams straight to the peer.
    Direct,
    /// In datagrams that other peers pass on.
    Relay,
}

impl PathKind {
    /// All there are, in the order of the declaration.
    pub const ALL: [PathKind; 2] = [PathKind::Direct, PathKind::Relay];

    /// The word that `rmesh status` has for it.
    pub fn name(self) -> &'static str {
        match self {
            PathKind::Direct => "direct",
            PathKind::Relay => "relay",
        }
    }
}

/// What was exchanged with one peer since the start, by kind of path in the order of
/// [`PathKind::ALL`]; a peer that goes and comes back goes on counting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerCounters(pub [FrameCounters; PathKind::ALL.len()]);

impl PeerCounters {
    /// Each kind of path with what went over it.
    pub fn by_path(&self) -> impl Iterator<Item = (PathKind, FrameCounters)> {
        PathKind::ALL.into_iter().zip(self.0)
    }

    /// Over all kinds of path.
    pub fn total(&self) -> FrameCounters {
        self.0.into_iter().sum()
    }
}

/// Frames exchanged with one peer, before sealing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameCounters {
    /// Frames sent to it, floods included.
    pub frames_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Frames received from it, floods included.
    pub frames_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
}

impl Sum for FrameCounters {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(FrameCounters::default(), |sum, part| FrameCounters {
            frames_sent: sum.frames_sent + part.frames_sent,
            bytes_sent: sum.bytes_sent + part.bytes_sent,
            frames_received: sum.frames_received + part.frames_received,
            bytes_received: sum.bytes_received + part.bytes_received,
        })
    }
}

/// One MAC learned from traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnedMac {
    /// Which.
    pub mac: Mac,
    /// Behind which peer; `None` means behind this host's own bridge.
    pub peer: Option<PeerId>,
    /// Time since it was heard last.
    pub age: Duration,
}
