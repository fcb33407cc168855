//! One simulated host: its disk, its run folder, its containers, and the daemon while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use rmesh_gossip::api::Endpoint;
use rmesh_ipam::{Member, Node, Range, RequestId, Ring, RingId};
use rmesh_wire::{Instant, Mac, PeerId};

use super::super::node::Node as Peer;
use super::super::random::Random;
use super::disk::{Disk, Token};

/// A daemon that was away for less than this goes on at once.
const RESUMES_WITHIN: Duration = Duration::from_secs(10);

/// What the daemon was asked for by a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Job {
    /// An address for a container.
    Attach {
        container: String,
        within: Range,
        exact: Option<IpAddr>,
    },
    /// A container is gone.
    Detach,
    /// The operator removes a peer.
    Remove { victim: usize, is_forced: bool },
    /// An address of a removed peer is let go.
    EndHold,
    /// The host is to be wiped.
    Leave,
}

/// A process that runs.
pub(super) struct Daemon {
    pub(super) node: Node,
    pub(super) jobs: BTreeMap<RequestId, Job>,
    /// What its node was told that others announce, by host.
    pub(super) told: BTreeMap<usize, Vec<IpAddr>>,
    pub(super) members: Vec<Member>,
    /// The ring as it was after the last step.
    pub(super) seen: Ring,
    pub(super) seen_in: Option<RingId>,
    /// And the writes queued by then.
    pub(super) seen_written: Option<u64>,
    /// What it may use, after the last step.
    pub(super) own: Vec<Range>,
    /// Whether the mesh has to be looked at.
    pub(super) is_look_due: bool,
}

/// One host.
pub(super) struct Host {
    pub(super) index: usize,
    /// Identity, and the mesh while wires are real.
    pub(super) peer: Peer,
    pub(super) disk: Disk,
    /// Lost when the host is rebooted.
    pub(super) token: Option<Token>,
    /// Addresses of every container that lives here, whether or not the daemon does.
    pub(super) containers: BTreeMap<String, BTreeSet<IpAddr>>,
    pub(super) daemon: Option<Daemon>,
    /// Counts the daemon's lives.
    pub(super) life: u32,
    /// How far its clock is ahead of the world's.
    pub(super) ahead: Duration,
    /// When its daemon last ran, by its own clock.
    pub(super) last_there: Instant,
    /// The operator has removed it, or is about to.
    pub(super) is_removed: bool,
    /// Removals of it that are not answered yet.
    pub(super) removals: usize,
    /// Its daemon is to crash at the next write.
    pub(super) is_doomed: bool,
    /// Its ledger knew a ring once: an empty one does not mean that there is none.
    pub(super) was_in_ring: bool,
    /// When the earliest wake-up on the calendar fires.
    pub(super) wake: Option<Instant>,
    pub(super) requests: u64,
    pub(super) container_count: u32,
    pub(super) random: Random,
}

impl Host {
    pub(super) fn new(peer: Peer, random: Random) -> Self {
        Host {
            index: peer.index,
            peer,
            disk: Disk::default(),
            token: None,
            containers: BTreeMap::new(),
            daemon: None,
            life: 0,
            ahead: Duration::ZERO,
            last_there: Instant::ZERO,
            is_removed: false,
            removals: 0,
            is_doomed: false,
            was_in_ring: false,
            wake: None,
            requests: 0,
            container_count: 0,
            random,
        }
    }

    pub(super) fn id(&self) -> PeerId {
        self.peer.id
    }

    pub(super) fn name(&self) -> String {
        self.peer.name()
    }

    /// The host's own clock at a moment of the world.
    pub(super) fn clock(&self, now: Instant) -> Instant {
        now + self.ahead
    }

    /// The moment of the world at which the host's clock shows `at`; `now` if that has passed.
    pub(super) fn moment(&self, at: Instant, now: Instant) -> Instant {
        let left = at.since(self.clock(now));
        now + left
    }

    /// How long its daemon has been away.
    pub(super) fn down_for(&self, now: Instant) -> Duration {
        self.clock(now).since(self.last_there)
    }

    pub(super) fn runs(&self) -> bool {
        self.daemon.is_some()
    }

    /// Every address its containers carry.
    pub(super) fn carried(&self) -> Vec<IpAddr> {
        let carried: BTreeSet<IpAddr> = self.containers.values().flatten().copied().collect();
        carried.into_iter().collect()
    }

    /// What its containers carry, as the daemon finds it at start.
    pub(super) fn running(&self) -> Vec<(String, Vec<IpAddr>)> {
        let all = self.containers.iter();
        all.map(|(key, ips)| (key.clone(), ips.iter().copied().collect()))
            .collect()
    }

    /// Whether a client waits for an address of a container.
    pub(super) fn is_attaching(&self, key: &str) -> bool {
        let waits = |job: &Job| matches!(job, Job::Attach { container, .. } if container == key);
        self.daemon
            .as_ref()
            .is_some_and(|daemon| daemon.jobs.values().any(waits))
    }

    /// Whether it may come back after it was removed: nobody is at it any more, and it was away for
    /// longer than a daemon may be that goes on at once.
    pub(super) fn may_return(&self, now: Instant) -> bool {
        let is_sure = self.token.is_some() && self.down_for(now) < RESUMES_WITHIN;
        self.is_removed && self.removals == 0 && !is_sure
    }

    pub(super) fn next_container(&mut self) -> String {
        self.container_count += 1;
        format!("c{}-{}", self.index, self.container_count)
    }

    pub(super) fn next_request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    /// The containers as the mesh announces them.
    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        let all = self.containers.iter().filter(|(_, ips)| !ips.is_empty());
        all.map(|(key, ips)| Endpoint {
            mac: mac_of(key),
            addresses: ips.iter().map(|ip| ipnet::IpNet::from(*ip)).collect(),
            name: key.clone(),
            labels: Vec::new(),
        })
        .collect()
    }
}

/// A MAC of its own for each container.
fn mac_of(key: &str) -> Mac {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let [_, _, _, a, b, c, d, e] = hash.to_be_bytes();
    Mac([2, a, b, c, d, e])
}
