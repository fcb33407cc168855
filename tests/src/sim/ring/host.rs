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

/// How a client's word begins.
const LEASE: &str = "lease-";

fn is_lease(key: &str) -> bool {
    key.starts_with(LEASE)
}

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
    /// Whether it says what outlives it.
    pub(super) hands_over: bool,
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

    /// What its containers carry, as the daemon finds it at start. Of leases only the ledger tells.
    pub(super) fn running(&self, clock: Instant) -> Vec<(String, Vec<IpAddr>)> {
        let report = self.daemon.as_ref().map(|d| d.node.report(clock));
        let allocated = report.map(|report| report.allocated).unwrap_or_default();
        let is_known = |key: &str, ip: &IpAddr| {
            let mut allocated = allocated.iter();
            !is_lease(key) || allocated.any(|(at, of)| at == ip && of == key)
        };
        let known = self.containers.iter().map(|(key, ips)| {
            let ips = ips.iter().copied().filter(|ip| is_known(key, ip));
            (key.clone(), ips.collect())
        });
        known.collect()
    }

    /// Every address that the mesh is told of.
    pub(super) fn announced(&self) -> Vec<IpAddr> {
        let containers = self.containers.iter().filter(|(key, _)| !is_lease(key));
        let carried: BTreeSet<IpAddr> = containers.flat_map(|(_, ips)| ips).copied().collect();
        carried.into_iter().collect()
    }

    /// What only the ledger knows of.
    pub(super) fn leases(&self) -> Vec<String> {
        let keys = self.containers.keys().filter(|key| is_lease(key));
        keys.cloned().collect()
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

    /// A word of a client, for an address that no interface of this host has.
    pub(super) fn next_lease(&mut self) -> String {
        format!("{LEASE}{}", self.next_container())
    }

    pub(super) fn next_request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    /// The containers as the mesh announces them.
    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        let all = self.containers.iter();
        let all = all.filter(|(key, ips)| !ips.is_empty() && !is_lease(key));
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
