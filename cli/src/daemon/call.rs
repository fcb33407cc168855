//! What may be asked of the one task that owns the mesh.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use rmesh_gossip::Report;
use rmesh_ipam::{Answer, Outlook, Range, Refusal, Request};
use rmesh_router::attach::Attachment;
use rmesh_router::{LearnedMac, PeerCounters, PlaneCapabilities, PlaneCounters};
use rmesh_wire::PeerId;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use super::addresses::container_key;
use super::fast::FastView;
use super::ring::{Reply, RingView};
use crate::failure::{Failure, FailureKind};
use crate::peer_address::PeerAddress;
use crate::rate::Rate;
use crate::state::StateError;
use crate::tcp::TcpCounters;

/// Calls waiting for the task; beyond it callers wait within their time limit.
pub(crate) const CALLS_MAX: usize = 64;

/// Tells when something has become durable.
pub(crate) type Durable = oneshot::Receiver<Result<(), StateError>>;

/// One call and where its answer goes.
pub(crate) enum Call {
    /// Everything there is to show.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Further configured peers.
    Connect {
        peers: Vec<PeerAddress>,
        replace: bool,
        reply: oneshot::Sender<Result<(Vec<PeerAddress>, Durable), Failure>>,
    },
    /// Fewer configured peers; answers with those left.
    Forget {
        peers: Vec<PeerAddress>,
        reply: oneshot::Sender<(Vec<PeerAddress>, Durable)>,
    },
    /// A peer has to show that it lives.
    Suspect(PeerId),
    /// A container was attached.
    Attached(Box<Attachment>, oneshot::Sender<Durable>),
    /// Containers were detached or have vanished.
    Detached(Vec<Attachment>, oneshot::Sender<Durable>),
    /// Something of the ring.
    Ring {
        request: Request,
        /// How long the answer may take.
        within: Duration,
        reply: Reply,
    },
    /// What there is to know of the ring beyond a snapshot, and who owns these addresses; nothing
    /// while the disk does not let there be a ring.
    Outlook(Vec<IpAddr>, oneshot::Sender<Option<Outlook>>),
    /// The pools of the ring; none before there is one.
    Pools(oneshot::Sender<Vec<Range>>),
    /// What every container of this host carries, by key. Nothing is being attached meanwhile.
    Running(Vec<(String, Vec<IpAddr>)>),
    /// Pools of the ring that routes of this host lead elsewhere, in words.
    Overlaps(Vec<String>),
    /// The mesh secret, as text.
    Secret(oneshot::Sender<Zeroizing<String>>),
    /// End.
    Stop,
}

/// Everything the API shows.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// What the mesh says.
    pub(crate) report: Report,
    /// Containers of this host.
    pub(crate) attachments: Vec<Attachment>,
    /// Damaged state files that were moved aside, as found at the start.
    pub(crate) moved_aside: Vec<PathBuf>,
    /// What others could do with folders and keys until the start, in words.
    pub(crate) exposed: Vec<String>,
    /// UDP port.
    pub(crate) port: u16,
    /// TCP port that others can call.
    pub(crate) tcp_port: Option<u16>,
    /// Counts of what goes by TCP.
    pub(crate) tcp: TcpCounters,
    /// Name of the bridge.
    pub(crate) bridge: String,
    /// MTU of the containers in bytes.
    pub(crate) mtu_bytes: u16,
    /// What is carried for each other peer.
    pub(crate) relay_limit: Option<Rate>,
    /// What kernel and processor do for the data plane.
    pub(crate) capabilities: PlaneCapabilities,
    /// Addresses of this host.
    pub(crate) addresses: Vec<IpAddr>,
    /// Time since the start.
    pub(crate) uptime: Duration,
    /// Whether an answer of the first configured peer may still come.
    pub(crate) joining: bool,
    /// Peers to which there is a second way round, and whether this peer stopped flooding to it.
    pub(crate) second_ways: Vec<(PeerId, bool)>,
    /// Counts of the data plane.
    pub(crate) frames: PlaneCounters,
    /// The kernel's VXLAN; nothing where it is not used.
    pub(crate) fast: FastView,
    /// Frames exchanged with each peer.
    pub(crate) peer_frames: BTreeMap<PeerId, PeerCounters>,
    /// Log lines left out because they had just been logged.
    pub(crate) log_lines_suppressed: u64,
    /// MACs seen and not announced.
    pub(crate) learned: Vec<LearnedMac>,
    /// What the ring says.
    pub(crate) ring: RingView,
}

impl Snapshot {
    /// Name of a peer, or its short id if it is not known.
    pub(crate) fn name_of(&self, peer: PeerId) -> String {
        if peer == self.report.id {
            return self.report.name.clone();
        }
        let known = self.report.peers.iter().find(|p| p.id == peer);
        let known = known
            .map(|p| &p.name)
            .or_else(|| self.ring.names.get(&peer));
        known.map_or_else(|| peer.short().to_string(), Clone::clone)
    }
}

impl Snapshot {
    /// The container that the ring has under this key, as the operator wrote it.
    pub(crate) fn target_of(&self, key: &str) -> String {
        let mut attached = self.attachments.iter();
        let found = attached.find(|a| container_key(a.netns_inode, &a.interface) == key);
        found.map_or_else(|| key.into(), |a| a.target.clone())
    }
}

/// A way to call the task.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    calls: mpsc::Sender<Call>,
}

impl Handle {
    /// A handle, and the end the task listens at.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Call>) {
        let (calls, queue) = mpsc::channel(CALLS_MAX);
        (Handle { calls }, queue)
    }

    /// Sends a call that has no answer.
    pub(crate) async fn tell(&self, call: Call) -> Result<(), Failure> {
        self.calls.send(call).await.map_err(|_| stopping())
    }

    /// Sends a call and waits for its answer.
    pub(crate) async fn ask<T>(
        &self,
        call: impl FnOnce(oneshot::Sender<T>) -> Call,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        self.tell(call(reply)).await?;
        answer.await.map_err(|_| stopping())
    }

    /// Asks the ring; its answer or refusal comes within that time if the disk answers.
    pub(crate) async fn ring(
        &self,
        request: Request,
        within: Duration,
    ) -> Result<Result<Answer, Refusal>, Failure> {
        self.ask(|reply| Call::Ring {
            request,
            within,
            reply,
        })
        .await
    }

    /// What there is to know of the ring beyond a snapshot, and who owns these addresses.
    pub(crate) async fn outlook(&self, addresses: Vec<IpAddr>) -> Result<Option<Outlook>, Failure> {
        self.ask(|reply| Call::Outlook(addresses, reply)).await
    }

    /// Everything there is to show.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, Failure> {
        self.ask(Call::Snapshot).await
    }
}

/// Waits until something is on disk.
pub(crate) async fn durable(what: &str, durable: Durable) -> Result<(), Failure> {
    match durable.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(not_kept(what, &error.to_string())),
        Err(_) => Err(not_kept(what, "too many files wait to be written")),
    }
}

fn not_kept(what: &str, why: &str) -> Failure {
    let todo = "it is in force, but will not survive a restart: see to the disk and do it again";
    Failure::failed(format!("cannot save {what}"), why).todo(todo)
}

fn stopping() -> Failure {
    let why = "the daemon is stopping";
    Failure::new(FailureKind::Unavailable, "no answer", why).todo("start it again: rmesh launch")
}
