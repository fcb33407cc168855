//! What this peer says of itself, and when it says it again.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use rmesh_wire::codec::{self, Bounded};
use rmesh_wire::{Instant, Mac, PeerId};

use super::Mesh;
use super::handshake::wire_name;
use crate::api::{Endpoint, Event};
use crate::limits::{LABEL_LEN_MAX, RECORD_REFRESH, SECTIONS_MAX};
use crate::topology::record::{
    Body, EndpointRecord, Link, NO_RELAY, Node, RECORD_LEN_MAX, Record, RecordKey, TRANSLATED,
    Version, is_usable,
};

/// Changes within this time are published together.
const COALESCE: Duration = Duration::from_millis(20);
/// … and a record of more than lost links follows another only after this time for each peer there is: while
/// a large mesh starts, everybody's links change again and again.
const HOLD_PER_PEER: Duration = Duration::from_millis(2);
/// … and not longer, however many peers somebody makes up.
const HOLD_MAX: Duration = Duration::from_secs(2);
/// Room for the head of an endpoint section, in bytes.
const SECTION_HEAD_LEN: usize = 80;
/// A link's cost is published again if it changed by a quarter and by this much …
const COST_STEP_US: u32 = 2_000;
/// … and at most this often.
const COST_INTERVAL: Duration = Duration::from_secs(5);

/// What is published, and what is to be.
#[derive(Default)]
pub(crate) struct Publisher {
    sequence: u64,
    endpoints: Vec<EndpointRecord>,
    sections: Vec<Body>,
    node_due: Option<Instant>,
    refresh_at: Option<Instant>,
    links: Vec<Link>,
    left: bool,
    node_published: Instant,
}

impl Mesh {
    /// Something the node record says has changed.
    pub(crate) fn node_changed(&mut self, now: Instant) {
        self.publish_node_at((now + COALESCE).max(self.publisher.node_published + self.hold()));
    }

    fn hold(&self) -> Duration {
        let peers = u32::try_from(self.peers.len()).unwrap_or(u32::MAX);
        HOLD_PER_PEER.saturating_mul(peers).min(HOLD_MAX)
    }

    fn publish_node_at(&mut self, due: Instant) {
        let earlier = self.publisher.node_due.map_or(due, |known| known.min(due));
        self.publisher.node_due = Some(earlier);
    }

    /// The set of control links may have changed; looked at once the input is dealt with.
    pub(crate) fn links_changed(&mut self, _now: Instant) {
        self.dirty.links = true;
    }

    /// Publishes the control links as they are now, if they differ: a lost link at once, because
    /// everybody's routes lead over it, others with what else there is to say.
    pub(crate) fn refresh_links(&mut self, now: Instant) {
        let mut links: Vec<(bool, Link)> = Vec::new();
        let active: Vec<PeerId> = self.active.iter().copied().collect();
        for id in active {
            let peer = self.peers.get_mut(&id).filter(|peer| peer.is_neighbour());
            let Some(peer) = peer else { continue };
            let measured = peer.link_trip().map_or(1, cost_of);
            let cost_us = match peer.published_cost {
                Some((cost_us, _)) => cost_us,
                None => {
                    peer.published_cost = Some((measured, now));
                    measured
                }
            };
            let to = peer.id.short_id();
            links.push((!peer.desired, Link { to, cost_us }));
        }
        // Of too many those stay that this side wants as well.
        links.sort_unstable();
        links.truncate(crate::limits::LINKS_MAX);
        let mut links: Vec<Link> = links.into_iter().map(|(_, link)| link).collect();
        links.sort_unstable();
        if links == self.publisher.links {
            return;
        }
        let lost = self
            .publisher
            .links
            .iter()
            .any(|old| links.iter().all(|l| l.to != old.to));
        self.publisher.links = links;
        if lost {
            // Routes over a dead link must not be used for another moment.
            self.dirty.routes = true;
            self.publish_node_at(now.max(self.publisher.node_published + self.hold() / 8));
            self.run_publisher(now);
        } else {
            self.node_changed(now);
        }
    }

    /// A round trip was measured: publish the link's cost again if it changed enough.
    pub(crate) fn cost_changed(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let trip = peer.round_trip();
        let trip = if peer.has_udp() {
            trip
        } else {
            peer.link_trip()
        };
        let (Some(trip), Some((published, when))) = (trip, peer.published_cost) else {
            return;
        };
        let cost_us = cost_of(trip);
        let step = cost_us.abs_diff(published);
        let enough = step > COST_STEP_US && step > published / 4;
        if enough && now.since(when) >= COST_INTERVAL {
            peer.published_cost = Some((cost_us, now));
            self.links_changed(now);
        }
    }

    /// Takes over the complete list of this host's endpoints and publishes what changed.
    pub(crate) fn endpoints_changed(&mut self, endpoints: Vec<Endpoint>, now: Instant) {
        let known: BTreeMap<Mac, u32> = self
            .publisher
            .endpoints
            .iter()
            .map(|e| (e.mac, e.moves))
            .collect();
        let records: Vec<EndpointRecord> = endpoints
            .into_iter()
            .map(|endpoint| {
                let moves = known.get(&endpoint.mac).copied();
                let moves = moves.unwrap_or_else(|| self.next_moves(&endpoint.mac));
                endpoint_record(endpoint, moves)
            })
            .collect();
        if records == self.publisher.endpoints {
            return;
        }
        self.publisher.endpoints = records;
        let sections = into_sections(&self.publisher.endpoints);
        let before = core::mem::replace(&mut self.publisher.sections, sections);
        let changed: Vec<(u8, Body)> = (1..=SECTIONS_MAX)
            .zip(self.publisher.sections.iter())
            .filter(|(section, body)| before.get(usize::from(*section) - 1) != Some(*body))
            .map(|(section, body)| (section, body.clone()))
            .collect();
        // The node record comes first: it says which sections are current.
        if before.len() != self.publisher.sections.len() {
            self.publish_node(now);
        }
        for (section, body) in changed {
            self.publish(section, body, now);
        }
    }

    /// One above the highest move counter others announce for `mac`.
    fn next_moves(&self, mac: &Mac) -> u32 {
        let others = self
            .store
            .iter()
            .filter(|stored| stored.record.peer != self.me);
        let announced = others.flat_map(|stored| match &stored.record.body {
            Body::Endpoints(endpoints) => endpoints.as_slice(),
            Body::Node(_) => &[],
        });
        let highest = announced.filter(|e| e.mac == *mac).map(|e| e.moves).max();
        highest.map_or(0, |moves| moves.saturating_add(1))
    }

    fn own_addresses(&self) -> Vec<SocketAddr> {
        let local = self
            .local_addresses
            .iter()
            .map(|ip| SocketAddr::new(*ip, self.port));
        let observed = self.observed.addresses();
        let observed = observed.filter(|address| !self.is_seen_inside(address.ip()));
        let all = self.advertise.iter().copied().chain(local).chain(observed);
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in all {
            if is_usable(&address) && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    fn capabilities(&self) -> u32 {
        // Who can be called from outside needs no mapping.
        let is_translated = self.observed.is_translated() && self.advertise.is_empty();
        self.tcp_port.map_or(0, super::tcp::capability)
            | if self.no_relay { NO_RELAY } else { 0 }
            | if is_translated { TRANSLATED } else { 0 }
    }

    fn node_body(&self, leaving: bool, now: Instant) -> Body {
        Body::Node(Node {
            name: self.name.clone(),
            addresses: Bounded::take_from(self.own_addresses()),
            mtu_bytes: self.mtu_bytes,
            capabilities: self.capabilities(),
            up_ms: self.up_ms(now),
            twin: self.twins.published(),
            links: Bounded::take_from(self.publisher.links.iter().copied()),
            sections: u8::try_from(self.publisher.sections.len()).unwrap_or(SECTIONS_MAX),
            leaving,
        })
    }

    fn publish_node(&mut self, now: Instant) {
        self.publisher.node_due = None;
        self.publisher.node_published = now;
        self.publish(0, self.node_body(false, now), now);
    }

    fn publish(&mut self, section: u8, body: Body, now: Instant) {
        if self.publisher.left {
            return;
        }
        self.publisher.sequence += 1;
        let version = Version {
            boot: self.boot,
            sequence: self.publisher.sequence,
        };
        let record = Record {
            peer: self.me,
            section,
            version,
            body,
        };
        let signed = record.sign(self.crypto.as_ref(), &self.identity, self.identity_public);
        let Some(signed) = signed else { return };
        let key = record.key();
        self.store.put_own(record, signed, now);
        self.outbox.add(key, None, now);
        let refresh_at = now + self.refresh_in();
        self.publisher.refresh_at.get_or_insert(refresh_at);
        self.record_changed(&key, now);
        self.dirty.forwarding = true;
    }

    pub(crate) fn publish_everything(&mut self, now: Instant) {
        self.publish_node(now);
        let sections = self.publisher.sections.clone();
        for (section, body) in (1..=SECTIONS_MAX).zip(sections) {
            self.publish(section, body, now);
        }
        self.publisher.refresh_at = Some(now + self.refresh_in());
    }

    /// Not everybody's at once where all were started together.
    fn refresh_in(&mut self) -> Duration {
        let spread = u64::try_from((RECORD_REFRESH / 4).as_millis()).unwrap_or(1);
        RECORD_REFRESH - Duration::from_millis(self.random.public_u64() % spread.max(1))
    }

    /// The last record: this peer is going away. It has no sections only if no container is left behind.
    pub(crate) fn publish_leaving(&mut self, now: Instant) {
        self.publisher.links.clear();
        let body = self.node_body(true, now);
        self.publisher.sections.clear();
        self.publish(0, body, now);
        self.publisher.left = true;
    }

    /// Somebody holds a record of this peer that is not outdone by its own: of an earlier life whose
    /// boot counter was lost, or of a twin that is to give way. Outbid it.
    pub(crate) fn outbid(&mut self, version: Version, now: Instant) {
        if version.boot == self.boot {
            self.publisher.sequence = self.publisher.sequence.max(version.sequence);
        } else {
            self.boot.counter = version.boot.counter.saturating_add(1);
            self.events.push_back(Event::BootRaised {
                counter: self.boot.counter,
            });
        }
        self.publish_everything(now);
    }

    pub(crate) fn run_publisher(&mut self, now: Instant) {
        if self.publisher.refresh_at.is_some_and(|at| at <= now) {
            self.publish_everything(now);
        } else if self.publisher.node_due.is_some_and(|due| due <= now) {
            self.publish_node(now);
        }
    }

    pub(crate) fn publisher_deadline(&self) -> Option<Instant> {
        let due = [self.publisher.node_due, self.publisher.refresh_at];
        due.into_iter()
            .flatten()
            .min()
            .filter(|_| !self.publisher.left)
    }

    /// The record this peer last published in each section, and its key.
    pub(crate) fn own_version(&self, key: &RecordKey) -> Option<Version> {
        self.store.get(key).map(|stored| stored.record.version)
    }
}

fn cost_of(round_trip: Duration) -> u32 {
    u32::try_from(round_trip.as_micros())
        .unwrap_or(u32::MAX)
        .max(1)
}

fn endpoint_record(endpoint: Endpoint, moves: u32) -> EndpointRecord {
    let fits = |(key, value): &(String, String)| {
        key.len() <= LABEL_LEN_MAX && value.len() <= LABEL_LEN_MAX
    };
    EndpointRecord {
        mac: endpoint.mac,
        addresses: Bounded::take_from(
            endpoint
                .addresses
                .iter()
                .map(|net| (net.addr(), net.prefix_len())),
        ),
        name: wire_name(&endpoint.name),
        labels: Bounded::take_from(endpoint.labels.into_iter().filter(fits)),
        moves,
    }
}

/// Packs endpoints, in their order, into sections that fit a record.
fn into_sections(endpoints: &[EndpointRecord]) -> Vec<Body> {
    let mut sections = Vec::new();
    let mut section: Vec<EndpointRecord> = Vec::new();
    let mut used = SECTION_HEAD_LEN;
    for endpoint in endpoints {
        let len = codec::encode(endpoint).map_or(RECORD_LEN_MAX, |bytes| bytes.len());
        let full = section.len() >= crate::limits::ENDPOINTS_PER_SECTION;
        if !section.is_empty() && (full || used + len > RECORD_LEN_MAX) {
            sections.push(Body::Endpoints(Bounded::take_from(core::mem::take(
                &mut section,
            ))));
            used = SECTION_HEAD_LEN;
        }
        used += len;
        section.push(endpoint.clone());
    }
    if !section.is_empty() {
        sections.push(Body::Endpoints(Bounded::take_from(section)));
    }
    sections.truncate(usize::from(SECTIONS_MAX));
    sections
}
