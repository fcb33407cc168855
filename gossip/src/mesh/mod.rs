//! The facade: one peer's view of the mesh.

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use ipnet::IpNet;
use rmesh_wire::codec::Signature;
use rmesh_wire::handshake::BINDING_CONTEXT;
use rmesh_wire::{Boot, Instant, PeerId, ShortId};
use zeroize::Zeroize as _;

use crate::api::{
    Config, Counters, Endpoint, Event, FastTransmit, Forwarding, Report, SendFailure, Target,
    TrafficSample, Transmit,
};
use crate::crypto::{Crypto, Key, peer_id};
use crate::limits::REKEY_AFTER;
use crate::plaintext::PlaintextPolicy;
use crate::random::Random;
use crate::topology::macs::Macs;
use crate::topology::{Routes, Store};

mod announce;
mod dial;
mod fast;
mod follow;
pub(crate) mod guard;
mod half_open;
mod handshake;
mod inside;
mod keepalive;
mod liveness;
mod members;
mod observed;
mod path;
mod path_mtu;
mod peer;
mod pieces;
mod publish;
mod receive;
mod relay;
mod repair;
mod session;
mod source_ports;
mod spread;
mod tcp;
mod timers;
mod traffic;
mod twin;
mod view;
mod watched;
mod ways;

use dial::Dialer;
use guard::Guard;
use half_open::HalfOpens;
use observed::Observed;
use peer::Peer;
use session::Session;
use twin::Twins;
use watched::Watched;

/// Where a datagram came from, and so where its answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Straight from this address.
    Direct(SocketAddr),
    /// Handed on by a neighbour for `source`, if it said for whom.
    Relayed {
        neighbour: PeerId,
        source: Option<ShortId>,
    },
    /// Through the kernel's VXLAN, from whoever's session it is under.
    Fast {
        peer: Option<PeerId>,
        /// Whether the checksum around it was right.
        is_intact: bool,
    },
}

impl Origin {
    fn address(self) -> Option<SocketAddr> {
        match self {
            Origin::Direct(address) => Some(address),
            Origin::Relayed { .. } | Origin::Fast { .. } => None,
        }
    }

    /// Where the sender is seen; of a TCP connection's end that is of no use to it.
    fn seen(self) -> Option<SocketAddr> {
        self.address()
            .filter(|address| !crate::tcp::is_tcp(*address))
    }
}

/// What has to be brought up to date before anybody looks.
#[derive(Default)]
struct Dirty {
    forwarding: bool,
    links: bool,
    routes: bool,
    /// Whom to be a neighbour of.
    overlay: bool,
    /// A peer may have nothing left to be known by.
    gone: bool,
    /// Peers whose node record is new or gone since the routes were followed.
    nodes: BTreeSet<PeerId>,
    /// Peers whose announcements, or whether they count, may have changed.
    macs: BTreeSet<PeerId>,
    /// Peers whose path is to be chosen again when the routes have been followed.
    choose: BTreeSet<PeerId>,
    /// Peers whose consent to plaintext is to be asked again.
    fast: BTreeSet<PeerId>,
}

/// One peer's view of the mesh.
pub struct Mesh {
    me: PeerId,
    name: String,
    boot: Boot,
    identity: Key,
    identity_public: [u8; 32],
    static_key: Key,
    binding: Signature,
    secret: Key,
    port: u16,
    tcp_port: Option<u16>,
    no_relay: bool,
    /// Connections by which somebody without the secret came.
    unwelcome: VecDeque<SocketAddr>,
    mtu_bytes: u16,
    advertise: Vec<SocketAddr>,
    policy: PlaintextPolicy,
    crypto: Box<dyn Crypto>,
    random: Random,

    local_addresses: Vec<IpAddr>,
    pools: Vec<IpNet>,
    observed: Observed,
    own_ports: source_ports::OwnPorts,
    keepalive: keepalive::Keepalive,
    own_addresses_met: BTreeSet<SocketAddr>,
    peers: Watched<PeerId, Peer>,
    /// Those of them with a session, or wanted in one way or another: all that have deadlines.
    active: BTreeSet<PeerId>,
    sessions: Watched<u32, Session>,
    kinds: timers::Kinds,
    half_opens: HalfOpens,
    guard: Guard,
    dialer: Dialer,
    store: Store,
    routes: Routes,
    macs: Macs,
    publisher: publish::Publisher,
    outbox: spread::Outbox,
    twins: Twins,
    announced: announce::Announced,
    deaths: traffic::Deaths,

    transmits: VecDeque<Transmit>,
    fast_transmits: VecDeque<FastTransmit>,
    events: VecDeque<Event>,
    counters: Counters,
    dirty: Dirty,
    news: members::News,
    /// When to see whether a session is missing.
    dial_check: Option<Instant>,
    routes_due: Option<Instant>,
    routes_followed: Instant,
    overlay_due: Option<Instant>,
    overlay_followed: Instant,
    refused_last: Option<Instant>,
    traffic_seen: Instant,
    next_refused_report: Instant,
    next_timeout: (Instant, &'static str),
    rekey_after: Duration,
}

impl Mesh {
    /// A mesh of one peer, which knows nobody yet.
    pub fn new(mut config: Config, crypto: Box<dyn Crypto>, now: Instant) -> Self {
        let mut random = Random::new(config.seed);
        config.seed.zeroize();
        let static_key = random.secret_key();
        let identity_public = crypto.identity_public(&config.identity);
        let guard = Guard::new(&config.secret, crypto.as_ref(), &mut random, now);
        let bound = [BINDING_CONTEXT, &crypto.static_public(&static_key)].concat();
        let binding = crypto.sign(&config.identity, &bound);
        let mut mesh = Mesh {
            me: peer_id(&identity_public),
            name: handshake::wire_name(&config.name),
            boot: config.boot,
            identity: config.identity,
            identity_public,
            static_key,
            binding,
            secret: config.secret,
            port: config.port,
            tcp_port: None,
            no_relay: false,
            unwelcome: VecDeque::new(),
            mtu_bytes: config.mtu_bytes,
            advertise: config.advertise,
            policy: PlaintextPolicy::default(),
            crypto,
            random,
            local_addresses: Vec::new(),
            pools: Vec::new(),
            observed: Observed::default(),
            own_ports: source_ports::OwnPorts::default(),
            keepalive: keepalive::Keepalive::default(),
            own_addresses_met: BTreeSet::new(),
            peers: Watched::default(),
            active: BTreeSet::new(),
            sessions: Watched::default(),
            kinds: timers::Kinds::default(),
            half_opens: HalfOpens::default(),
            guard,
            dialer: Dialer::default(),
            store: Store::default(),
            routes: Routes::default(),
            macs: Macs::default(),
            publisher: publish::Publisher::default(),
            outbox: spread::Outbox::default(),
            twins: Twins::new(now),
            announced: announce::Announced::default(),
            deaths: traffic::Deaths::default(),
            transmits: VecDeque::new(),
            fast_transmits: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
            dirty: Dirty {
                forwarding: true,
                links: true,
                routes: true,
                ..Dirty::default()
            },
            news: members::News::default(),
            dial_check: None,
            routes_due: None,
            routes_followed: Instant::ZERO,
            overlay_due: None,
            overlay_followed: Instant::ZERO,
            refused_last: None,
            traffic_seen: Instant::ZERO,
            next_refused_report: Instant::ZERO,
            next_timeout: (now, "start"),
            rekey_after: REKEY_AFTER,
        };
        mesh.settle(now);
        mesh
    }

    /// Renews sessions earlier than after [`REKEY_AFTER`]; never later.
    #[must_use]
    pub fn with_rekey_after(mut self, age: Duration) -> Self {
        self.rekey_after = age.min(REKEY_AFTER);
        self
    }

    /// Lets frames cross unencrypted between this side and those that allow it too.
    #[must_use]
    pub fn with_plaintext(mut self, policy: PlaintextPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// A datagram arrived that is the control side's: a handshake message, or a record or relay
    /// datagram of lane 0. Others are counted and ignored.
    pub fn handle_datagram(&mut self, source: SocketAddr, datagram: &[u8], now: Instant) {
        self.count_received(datagram);
        self.on_datagram(Origin::Direct(source), datagram, now);
        self.settle(now);
    }

    /// Inner datagram of a relay datagram that a worker verified as coming from `neighbour` and
    /// that is addressed to this peer, but not the worker's to open.
    pub fn handle_relayed(&mut self, neighbour: PeerId, inner: &[u8], now: Instant) {
        self.count_received(inner);
        self.on_datagram(
            Origin::Relayed {
                neighbour,
                source: None,
            },
            inner,
            now,
        );
        self.settle(now);
    }

    /// The time asked for by [`Mesh::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.run_timers(now);
        self.settle(now);
    }

    /// The complete list of configured peers, as they resolve at the moment.
    pub fn handle_targets(&mut self, targets: Vec<Target>, now: Instant) {
        self.set_targets(targets, now);
        self.settle(now);
    }

    /// Addresses where peers were reached in an earlier life; dialled for a while.
    pub fn handle_hints(&mut self, addresses: Vec<SocketAddr>, now: Instant) {
        self.add_hints(addresses, now);
        self.settle(now);
    }

    /// The complete list of this host's own addresses that others might reach.
    pub fn handle_local_addresses(&mut self, addresses: Vec<IpAddr>, now: Instant) {
        if self.local_addresses != addresses {
            self.keepalive.enter(&addresses);
            self.observed.move_on(now);
            self.local_addresses = addresses;
            self.node_changed(now);
            // A new address may open ways that were closed.
            for peer in self.peers.values_mut() {
                for path in peer.direct.values_mut() {
                    path.hurry(now);
                    // Its answer says from where this side is seen now.
                    path.ask_now(now);
                    path.search_again(now);
                }
                peer.fast.hurry(now);
                self.dirty.fast.insert(peer.id);
            }
        }
        self.settle(now);
    }

    /// The kernel refused to send to `destination`.
    pub fn handle_send_failure(
        &mut self,
        destination: SocketAddr,
        failure: SendFailure,
        now: Instant,
    ) {
        self.on_send_failure(destination, failure, now);
        self.settle(now);
    }

    /// What the data plane saw since the last call; to be called every 100 ms while records move.
    pub fn handle_traffic(&mut self, samples: &[TrafficSample], now: Instant) {
        self.on_traffic(samples, now);
        self.settle(now);
    }

    /// A frame for `peer` waits for a session.
    pub fn handle_want(&mut self, peer: PeerId, now: Instant) {
        self.on_want(peer, now);
        self.settle(now);
    }

    /// Asks `peer` for a sign of life at once; without one it is down within about a second.
    pub fn handle_suspicion(&mut self, peer: PeerId, now: Instant) {
        self.on_suspicion(peer, now);
        self.settle(now);
    }

    /// The complete list of this host's endpoints.
    pub fn handle_endpoints(&mut self, endpoints: Vec<Endpoint>, now: Instant) {
        self.endpoints_changed(endpoints, now);
        self.settle(now);
    }

    /// Sends opaque bytes to a reachable peer; like any datagram they may be lost. Longer than
    /// 1,100 bytes they are dropped; so they are for a peer without a session, which is then opened.
    pub fn handle_channel_send(&mut self, peer: PeerId, channel: u8, bytes: &[u8], now: Instant) {
        self.send_channel(peer, channel, bytes, now);
        self.settle(now);
    }

    /// Says good-bye to everybody, so that nobody has to find out by time. What is sent after
    /// this is up to the caller; the mesh publishes nothing more.
    pub fn handle_shutdown(&mut self, now: Instant) {
        self.publish_leaving(now);
        self.flush(now);
    }

    /// Next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Next heartbeat to send through the kernel's VXLAN.
    pub fn poll_fast_transmit(&mut self) -> Option<FastTransmit> {
        self.fast_transmits.pop_front()
    }

    /// Next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        let changed = core::mem::replace(&mut self.dirty.forwarding, false);
        self.news.members |= changed;
        changed.then_some(Event::ForwardingChanged)
    }

    /// When to call [`Mesh::handle_timeout`], and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        Some(self.next_timeout)
    }

    /// The snapshot for the data plane.
    pub fn forwarding(&self) -> Forwarding {
        self.build_forwarding()
    }

    /// Everything `status` shows.
    pub fn report(&self, now: Instant) -> Report {
        self.build_report(now)
    }

    /// This peer.
    pub fn id(&self) -> PeerId {
        self.me
    }

    /// Hash of what this peer believes of all reachable peers and itself: equal on all of them
    /// once the mesh is quiet.
    pub fn view_hash(&self) -> u64 {
        self.store
            .view_hash(|peer| *peer == self.me || self.routes.reaches(peer))
    }

    /// Digest of all records this peer holds: cheaper than [`Mesh::view_hash`], and equal where records are.
    pub fn digest(&self) -> rmesh_wire::probe::Digest {
        self.store.digest()
    }

    /// Some session of this peer, for fuzzers that speak as a member.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn fuzz_session(&mut self) -> Option<&mut Session> {
        self.sessions.values_mut().next()
    }

    fn count_received(&mut self, datagram: &[u8]) {
        self.counters.control_datagrams_received += 1;
        self.counters.control_bytes_received += datagram.len() as u64;
    }

    /// A name for a peer this side has met or heard of; what its record says goes before it.
    fn meet(&mut self, id: PeerId, name: &str, now: Instant) {
        if id == self.me {
            return;
        }
        let record = self.store.node(&id);
        let unknown = record.is_none();
        // A twin that gave way has another name, and said so when it called.
        let name = record.map_or(name, |node| node.name.as_str());
        let peer = self.peers.or_insert_with(id, || {
            // Its record comes over the new link, so one is wanted until then.
            self.dirty.overlay = true;
            self.dial_check.get_or_insert(now + dial::CHECK);
            self.active.insert(id);
            Peer {
                desired: unknown,
                ..Peer::new(id, now)
            }
        });
        if name.is_empty() || peer.name == name {
            return;
        }
        peer.name = String::from(name);
        if name == self.name {
            self.events.push_back(Event::NameShared {
                peer: id,
                name: String::from(name),
            });
        }
    }

    /// Somebody said where they see us.
    pub(crate) fn note_observed(&mut self, observed: Option<SocketAddr>, now: Instant) {
        let Some(address) = observed else { return };
        let is_elsewhere = !self.is_at_home(address) && !address.ip().is_unspecified();
        let is_new = is_elsewhere && self.observed.note(address, now);
        if self.judge_translation(now) || is_new {
            self.node_changed(now);
        }
    }

    /// Whether an address is one that this host has itself, without a translator.
    fn is_at_home(&self, address: SocketAddr) -> bool {
        self.local_addresses.contains(&address.ip()) && address.port() == self.port
    }

    /// Whether what a small mesh does at once is spaced ([`crate::limits::SPARSE_PEERS_MIN`]).
    fn is_large(&self) -> bool {
        self.peers.len() > crate::limits::SPARSE_PEERS_MIN
    }

    /// Peers with a session or wanted: all that anything has to be done about.
    fn active_peers(&self) -> impl Iterator<Item = &Peer> {
        self.active.iter().filter_map(|id| self.peers.get(id))
    }

    fn is_connected(&self, peer: PeerId) -> bool {
        let peer = self.peers.get(&peer);
        peer.is_some_and(|peer| peer.current.is_some() && peer.chosen.is_some())
    }

    /// Whether there is any way to dial the peer: an address, or a route.
    fn is_known(&self, peer: PeerId) -> bool {
        let met = self.peers.get(&peer);
        let addressed = met.is_some_and(|peer| !peer.direct.is_empty());
        addressed || self.next_hop(peer).is_some()
    }

    /// An index no session or handshake of this side has.
    fn fresh_index(&mut self) -> u32 {
        loop {
            let index = self.random.public_u32();
            let taken = self.sessions.contains_key(&index) || self.half_opens.contains(index);
            if index != 0 && !taken {
                return index;
            }
        }
    }
}

#[cfg(test)]
mod tests;
