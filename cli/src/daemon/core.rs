//! The one owner of the mesh: takes in what happened, and carries out what follows from it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use rmesh_gossip::api::Endpoint;
use rmesh_gossip::crypto::{Key, secret};
use rmesh_gossip::tcp::{over_tcp, unmarked};
use rmesh_gossip::{Event, Mesh, SendFailure, Transmit};
use rmesh_router::attach::Attachment;
use rmesh_router::kernel::Inside;
use rmesh_router::{Inbound, Plane};
use rmesh_wire::datagram::{Header, Kind};
use rmesh_wire::payload::RING_CHANNEL;
use rmesh_wire::{Instant, PeerId};

use super::call::{Call, Durable, Snapshot};
use super::clock::Clock;
use super::fast::FastLane;
use super::journal::Journal;
use super::ring::Ring;
use super::streams::Streams;
use super::targets::{Resolved, Targets};
use crate::failure::Failure;
use crate::ledger;
use crate::peer_address::PeerAddress;
use crate::rate::Rate;
use crate::state::{File, Saver};

/// How long after a start, or after new peers were named, their answer may still come.
const JOIN_LIMIT: Duration = Duration::from_secs(5);
/// How often the data plane's counts are looked at while frames move.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// Known addresses are saved at most this often.
const HINTS_INTERVAL: Duration = Duration::from_secs(10);
/// How long the mesh may wait for a raised boot counter to be durable; a peer is given up later.
const BOOT_SAVE_LIMIT: Duration = Duration::from_millis(500);
/// Addresses kept for the next life.
const HINTS_MAX: usize = 64;
/// A second way round counts for this long after it was last seen (three of its probes).
const SECOND_WAY_LIFETIME: Duration = Duration::from_secs(15);
/// Second ways remembered.
const SECOND_WAYS_MAX: usize = 64;

/// What a core is made of.
pub(super) struct Parts {
    pub(super) mesh: Mesh,
    pub(super) plane: Plane,
    pub(super) ring: Ring,
    pub(super) fast: FastLane,
    pub(super) streams: Streams,
    pub(super) inside: Inside,
    pub(super) clock: Clock,
    pub(super) saver: Saver,
    pub(super) targets: Targets,
    pub(super) attachments: Vec<Attachment>,
    pub(super) moved_aside: Vec<PathBuf>,
    pub(super) exposed: Vec<String>,
    pub(super) secret: Key,
    pub(super) bridge: String,
    pub(super) mtu_bytes: u16,
    pub(super) relay_limit: Option<Rate>,
}

/// The owner of the mesh and everything around it.
pub(super) struct Core {
    parts: Parts,
    journal: Journal,
    addresses: Vec<IpAddr>,
    joining_since: Instant,
    second_ways: BTreeMap<PeerId, (bool, Instant)>,
    hints: Vec<SocketAddr>,
    hints_saved: Instant,
    /// When the data plane's counts are looked at next; not until it says that frames move if this is `None`.
    next_sample: Option<Instant>,
    /// Whether the data plane says so.
    traffic_awaited: bool,
    /// Whether they are looked at once more all the same, when the thread is awake anyway.
    looks_once_more: bool,
    stopping: bool,
}

impl Core {
    pub(super) fn new(mut parts: Parts, hints: Vec<SocketAddr>) -> Self {
        let now = parts.clock.now();
        parts.mesh.handle_targets(parts.targets.resolved(), now);
        parts.mesh.handle_hints(hints.clone(), now);
        parts
            .mesh
            .handle_endpoints(endpoints(&parts.attachments), now);
        Core {
            parts,
            journal: Journal::default(),
            addresses: Vec::new(),
            joining_since: now,
            second_ways: BTreeMap::new(),
            hints,
            hints_saved: now,
            next_sample: Some(now),
            traffic_awaited: false,
            looks_once_more: false,
            stopping: false,
        }
    }

    /// Whether somebody asked for the end.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// The present.
    pub(super) fn now(&self) -> Instant {
        self.parts.clock.now()
    }

    /// When [`Core::handle_timeout`] is wanted.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let mesh = self.parts.mesh.poll_timeout().map(|(at, _)| at);
        let (ring, fast) = (self.parts.ring.deadline(), self.parts.fast.deadline());
        let due = [mesh, ring, fast, self.next_sample];
        due.into_iter().flatten().min()
    }

    /// The time of [`Core::deadline`] has come.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.next_sample.is_some_and(|due| due <= now) {
            self.sample(now);
        }
        let mesh = &mut self.parts.mesh;
        if mesh.poll_timeout().is_some_and(|(due, _)| due <= now) {
            mesh.handle_timeout(now);
        }
        self.parts.ring.handle_timeout(now);
        if self.parts.fast.deadline().is_some_and(|due| due <= now) {
            let counted = self.parts.fast.handle_timeout(now);
            self.parts.mesh.handle_fast_traffic(&counted, now);
        }
    }

    /// Heartbeats have arrived through the kernel's VXLAN.
    pub(super) fn handle_heartbeats(&mut self) {
        let now = self.parts.clock.now();
        for (payload, is_intact) in self.parts.fast.receive() {
            self.parts.mesh.handle_fast(&payload, is_intact, now);
        }
    }

    /// A descriptor that is readable when heartbeats have arrived.
    pub(super) fn heartbeats(&self) -> std::io::Result<Option<OwnedFd>> {
        self.parts.fast.heartbeats()
    }

    /// A TCP connection with this other end is over.
    pub(super) fn handle_closed(&mut self, remote: SocketAddr) {
        let now = self.parts.clock.now();
        self.parts.mesh.handle_tcp_closed(over_tcp(remote), now);
    }

    /// News of the ledger from the disk.
    pub(super) fn handle_ledger(&mut self, news: ledger::News) {
        let now = self.parts.clock.now();
        let Parts { ring, mesh, .. } = &mut self.parts;
        ring.handle_news(news, mesh, now);
    }

    /// Whether the ring has to be told what the containers carry.
    pub(super) fn wants_running(&mut self) -> bool {
        self.parts.ring.wants_running()
    }

    /// The pools, if they have to be compared with the routes of this host.
    pub(super) fn pools_to_compare(&mut self) -> Option<Vec<IpNet>> {
        let pools = self.parts.ring.pools_to_compare()?;
        let now = self.parts.clock.now();
        self.parts.mesh.handle_pools(pools.clone(), now);
        Some(pools)
    }

    /// The routes of this host may have changed.
    pub(super) fn compare_pools_again(&mut self) {
        self.parts.ring.compare_again();
    }

    /// News from the data plane.
    pub(super) fn handle_inbound(&mut self, inbound: Inbound) {
        let now = self.parts.clock.now();
        let Parts { mesh, streams, .. } = &mut self.parts;
        match inbound {
            Inbound::Datagram { source, bytes } => {
                if let Some(source) = streams.source(source) {
                    mesh.handle_datagram(source, &bytes, now);
                    streams.heard(source, mesh);
                    streams.hang_up(mesh);
                }
            }
            Inbound::Relayed { neighbour, inner } => mesh.handle_relayed(neighbour, &inner, now),
            Inbound::Want(peer) => mesh.handle_want(peer, now),
            Inbound::Traffic => {
                self.traffic_awaited = false;
                self.next_sample = Some(now);
            }
            Inbound::SendFailed {
                destination,
                failure,
            } => {
                if let Some(destination) = streams.source(destination) {
                    mesh.handle_send_failure(destination, failure, now);
                }
            }
            Inbound::PortRefused { destination, port } => {
                mesh.handle_port_failure(destination, port, now);
            }
            Inbound::SecondWay { peer, suppressed } => self.second_way(peer, suppressed, now),
        }
    }

    fn second_way(&mut self, peer: PeerId, suppressed: bool, now: Instant) {
        self.second_ways
            .retain(|_, (_, seen)| now < *seen + SECOND_WAY_LIFETIME);
        if self.second_ways.len() < SECOND_WAYS_MAX || self.second_ways.contains_key(&peer) {
            self.second_ways.insert(peer, (suppressed, now));
        }
        let words = format!(
            "the bridges of this host and of {} are also connected outside the mesh",
            peer.short()
        );
        self.journal.trouble(&words, now);
    }

    /// The data plane's counts since the last time.
    fn sample(&mut self, now: Instant) {
        let samples = self.parts.plane.samples();
        let is_quiet = samples.is_empty();
        self.next_sample = (!is_quiet).then_some(now + SAMPLE_INTERVAL);
        if !is_quiet {
            self.parts.mesh.handle_traffic(&samples, now);
        } else if !self.traffic_awaited {
            self.parts.plane.await_traffic();
            self.traffic_awaited = true;
            // What a worker counts at this very moment it may not tell.
            self.looks_once_more = true;
        }
    }

    /// This host's addresses, all of them.
    pub(super) fn handle_addresses(&mut self, addresses: Vec<IpAddr>) {
        if addresses == self.addresses {
            return;
        }
        let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        tracing::info!("addresses of this host: {}", shown.join(", "));
        self.addresses.clone_from(&addresses);
        let now = self.parts.clock.now();
        self.parts.mesh.handle_local_addresses(addresses, now);
    }

    /// The end of a lookup.
    pub(super) fn handle_resolved(&mut self, resolved: Resolved) {
        if self.parts.targets.take(resolved) {
            self.targets_changed();
        }
    }

    /// About once a second: lookups and hints.
    pub(super) fn handle_second(&mut self) {
        let now = self.parts.clock.now();
        if std::mem::take(&mut self.looks_once_more) {
            self.sample(now);
        }
        self.parts.ring.handle_second(now);
        self.parts.streams.judge(&self.parts.mesh);
        if self.parts.fast.is_on() {
            let learned = self.parts.plane.learned();
            self.parts.fast.note_learned(&learned, now);
        }
        if let Some(ring) = self.parts.ring.ring_to_remember(now) {
            drop(self.parts.saver.save(File::Ring, &ring));
        }
        if self.parts.targets.has_names() {
            let targets = self.parts.mesh.report(now).targets;
            let connected = targets.into_iter().filter(|t| t.state == "connected");
            let connected = connected.map(|target| target.name).collect();
            self.parts.targets.look_up(&connected, now);
        }
        if now >= self.hints_saved + HINTS_INTERVAL {
            self.save_hints();
        }
    }

    fn save_hints(&mut self) {
        let mut hints = self.parts.mesh.known_addresses();
        hints.sort_unstable();
        hints.truncate(HINTS_MAX);
        // Being alone is no reason to forget where the others were.
        if !hints.is_empty() && hints != self.hints {
            self.hints = hints;
            drop(self.parts.saver.save(File::Hints, &self.hints));
        }
        self.hints_saved = self.parts.clock.now();
    }

    /// Answers a call. An answer nobody waits for any more is dropped.
    pub(super) fn handle_call(&mut self, call: Call) {
        match call {
            Call::Snapshot(reply) => drop(reply.send(self.snapshot())),
            Call::Connect {
                peers,
                replace,
                reply,
            } => drop(reply.send(self.connect(&peers, replace))),
            Call::Forget { peers, reply } => {
                self.parts.targets.forget(&peers);
                drop(reply.send(self.peers_changed()));
            }
            Call::Suspect(peer) => {
                let now = self.parts.clock.now();
                self.parts.mesh.handle_suspicion(peer, now);
            }
            Call::Attached(attachment, reply) => {
                let same = |a: &Attachment| a.host_interface == attachment.host_interface;
                self.parts.attachments.retain(|a| !same(a));
                self.parts.attachments.push(*attachment);
                drop(reply.send(self.attachments_changed()));
            }
            Call::Detached(gone, reply) => {
                let same =
                    |a: &Attachment| gone.iter().any(|g| g.host_interface == a.host_interface);
                self.parts.attachments.retain(|a| !same(a));
                drop(reply.send(self.attachments_changed()));
            }
            Call::Ring {
                request,
                within,
                reply,
            } => {
                let now = self.parts.clock.now();
                self.parts.mesh.handle_demand(now);
                let ring = &mut self.parts.ring;
                ring.handle_request(request, now + within, reply, now);
            }
            Call::Outlook(addresses, reply) => {
                let now = self.parts.clock.now();
                drop(reply.send(self.parts.ring.outlook(&addresses, now)));
            }
            Call::Pools(reply) => drop(reply.send(self.parts.ring.pools())),
            Call::Running(running) => {
                let now = self.parts.clock.now();
                self.parts.ring.handle_running(&running, now);
            }
            Call::Overlaps(overlaps) => self.parts.ring.handle_overlaps(overlaps),
            Call::Secret(reply) => drop(reply.send(secret::format(&self.parts.secret))),
            Call::Stop => self.stopping = true,
        }
    }

    fn connect(
        &mut self,
        peers: &[PeerAddress],
        replace: bool,
    ) -> Result<(Vec<PeerAddress>, Durable), Failure> {
        self.parts.targets.connect(peers, replace)?;
        self.joining_since = self.parts.clock.now();
        Ok(self.peers_changed())
    }

    fn peers_changed(&mut self) -> (Vec<PeerAddress>, Durable) {
        self.targets_changed();
        let now = self.parts.clock.now();
        self.parts.targets.look_up(&Default::default(), now);
        let peers = self.parts.targets.peers();
        let saved = self.parts.saver.save(File::Peers, &peers);
        (peers, saved)
    }

    fn targets_changed(&mut self) {
        let now = self.parts.clock.now();
        let targets = self.parts.targets.resolved();
        self.parts.mesh.handle_targets(targets, now);
    }

    fn attachments_changed(&mut self) -> Durable {
        let now = self.parts.clock.now();
        let announced = endpoints(&self.parts.attachments);
        self.parts.mesh.handle_endpoints(announced, now);
        self.parts
            .saver
            .save(File::Attachments, &self.parts.attachments)
    }

    fn snapshot(&mut self) -> Snapshot {
        let now = self.parts.clock.now();
        let report = self.parts.mesh.report(now);
        let fresh = now < self.joining_since + JOIN_LIMIT;
        let joining = fresh && !self.parts.targets.is_empty() && report.peers.is_empty();
        self.second_ways
            .retain(|_, (_, seen)| now < *seen + SECOND_WAY_LIFETIME);
        let second_ways = self
            .second_ways
            .iter()
            .map(|(peer, (ours, _))| (*peer, *ours));
        Snapshot {
            joining,
            report,
            attachments: self.parts.attachments.clone(),
            moved_aside: self.parts.moved_aside.clone(),
            exposed: self.parts.exposed.clone(),
            port: self.parts.plane.port(),
            tcp_port: self.parts.streams.port(),
            tcp: self.parts.streams.counters(),
            bridge: self.parts.bridge.clone(),
            mtu_bytes: self.parts.mtu_bytes,
            relay_limit: self.parts.relay_limit,
            capabilities: self.parts.plane.capabilities(),
            addresses: self.addresses.clone(),
            uptime: now.since(Instant::ZERO),
            second_ways: second_ways.collect(),
            frames: self.parts.plane.counters(),
            fast: self.parts.fast.view(),
            peer_frames: self.parts.plane.peer_counters(),
            log_lines_suppressed: self.journal.suppressed(),
            learned: self.parts.plane.learned(),
            ring: self.parts.ring.view(now),
        }
    }

    /// Carries out whatever follows from the last inputs.
    pub(super) fn settle(&mut self) {
        // The workers know a session before the datagram leaves that lets the other end use it.
        self.announce();
        let now = self.parts.clock.now();
        let Parts { ring, mesh, .. } = &mut self.parts;
        ring.settle(mesh, now);
        self.transmit();
        // Failures of sending may have made the mesh try another way.
        self.announce();
        self.transmit();
    }

    /// Tells journal, disk and workers what is new.
    fn announce(&mut self) {
        let mut changed = false;
        let now = self.parts.clock.now();
        while let Some(event) = self.parts.mesh.poll_event() {
            changed |= event == Event::ForwardingChanged;
            if let Event::ChannelMessage {
                peer,
                channel: RING_CHANNEL,
                bytes,
            } = &event
            {
                self.parts.ring.handle_message(*peer, bytes, now);
                continue;
            }
            self.journal.log(&event, now);
            if let Event::ChecksumsDamaged { name, address, .. } = &event {
                self.parts.fast.complete_checksums(*address, name);
            }
            if let Event::BootRaised { counter } = event {
                // Before anybody hears of it, or the next start might use it again.
                let saver = &self.parts.saver;
                if !saver.save_within(File::Boot, &counter, BOOT_SAVE_LIMIT) {
                    tracing::error!("boot {counter} is not on disk after {BOOT_SAVE_LIMIT:?}");
                }
            }
        }
        if changed {
            let mut forwarding = self.parts.mesh.forwarding();
            self.parts.fast.follow(&forwarding, now);
            self.parts.streams.translate(&mut forwarding);
            self.parts.plane.publish(forwarding);
        }
    }

    fn transmit(&mut self) {
        while let Some(heartbeat) = self.parts.mesh.poll_fast_transmit() {
            self.parts.fast.send(&heartbeat);
        }
        while let Some(question) = self.parts.mesh.poll_port_transmit() {
            if self.parts.plane.send_from_port(&question).is_err() {
                let (to, now) = (question.destination, self.parts.clock.now());
                self.parts
                    .mesh
                    .handle_port_failure(to, question.number, now);
            }
        }
        while let Some(transmit) = self.parts.mesh.poll_transmit() {
            let destination = transmit.destination;
            if let Err(failure) = self.send(transmit) {
                let now = self.parts.clock.now();
                self.parts
                    .mesh
                    .handle_send_failure(destination, failure, now);
            }
        }
    }

    /// Sends a datagram, unless its way leads into the mesh itself. What a stranger gets, who may claim to be at
    /// a new address each time, costs no look at the routes; it came from outside.
    fn send(&mut self, mut transmit: Transmit) -> Result<(), SendFailure> {
        let is_for_stranger =
            Header::decode(&transmit.bytes).is_ok_and(|header| header.kind == Kind::Cookie);
        let to = unmarked(transmit.destination).ip();
        if !is_for_stranger && self.parts.inside.leads_inside(to) {
            return Err(SendFailure::Inside);
        }
        transmit.destination = self.parts.streams.destination(transmit.destination)?;
        self.parts.plane.send(&transmit)
    }

    /// Routes or interfaces of this host may have changed: ways that lead into the mesh itself now are left at
    /// once, those that did before are tried.
    pub(super) fn handle_routes(&mut self) {
        let now = self.parts.clock.now();
        let Parts { inside, mesh, .. } = &mut self.parts;
        inside.forget();
        for address in mesh.direct_addresses() {
            if inside.leads_inside(unmarked(address).ip()) {
                mesh.handle_send_failure(address, SendFailure::Inside, now);
            }
        }
        mesh.handle_routes(now);
    }

    /// Says good-bye, saves what is worth it, and ends the data plane.
    pub(super) fn shut_down(mut self) {
        let now = self.parts.clock.now();
        self.save_hints();
        self.parts.mesh.handle_shutdown(now);
        self.transmit();
        self.parts.plane.stop();
        let now = self.parts.clock.now();
        self.parts.ring.finish(now);
        self.parts.saver.finish();
    }
}

fn endpoints(attachments: &[Attachment]) -> Vec<Endpoint> {
    let endpoint = |attachment: &Attachment| Endpoint {
        mac: attachment.mac,
        addresses: attachment.addresses.clone(),
        name: attachment.name.clone(),
        labels: Vec::new(),
    };
    attachments.iter().map(endpoint).collect()
}
