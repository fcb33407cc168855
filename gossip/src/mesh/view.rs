//! What others see of the mesh: the data plane's snapshot and the operator's report.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use rmesh_wire::{Instant, PeerId, ShortId};

use super::Mesh;
use super::path::PathState;
use super::peer::{Peer, state_of};
use super::session::Session;
use super::tcp::told;
use crate::ProbeMarks;
use crate::api::{
    CandidateReport, Endpoint, EndpointReport, Floods, Forwarding, PeerForwarding, PeerReport,
    Report,
};
use crate::tcp::{is_tcp, unmarked};
use crate::topology::record::{Body, EndpointRecord};

/// For how long a peer is named that published too much.
const LIMITED_SHOWN: Duration = Duration::from_secs(60);

impl Mesh {
    pub(crate) fn build_forwarding(&self) -> Forwarding {
        let mut sessions: Vec<&Session> = self.sessions.values().collect();
        sessions.sort_by_key(|session| session.established);
        let peers = self.peers.values().filter(|peer| peer.chosen.is_some());
        let routes = self.routes.iter().filter(|_| !self.no_relay);
        let next_hops = routes.map(|(peer, route)| (peer.short_id(), route.next_hop));
        Forwarding {
            me: self.me,
            boot: self.boot,
            probe_marks: ProbeMarks::new(&self.secret),
            sessions: sessions.into_iter().map(Session::keys).collect(),
            peers: peers.map(|peer| (peer.id, forwarding_of(peer))).collect(),
            next_hops: next_hops.collect(),
            macs: self.macs.iter().collect(),
            floods: Floods::over(self.routes.graph(), self.me),
            fast: self.fast_forwarding(),
        }
    }

    pub(crate) fn build_report(&self, now: Instant) -> Report {
        let named: BTreeMap<ShortId, PeerId> = self
            .store
            .nodes()
            .map(|(id, _)| (id.short_id(), id))
            .collect();
        Report {
            id: self.me,
            name: self.name.clone(),
            no_relay: self.no_relay,
            boot: self.boot,
            peers: self
                .peers
                .values()
                .map(|peer| self.peer_report(peer, &named, now))
                .collect(),
            targets: self.target_reports(now),
            endpoints: self.endpoint_reports(),
            warnings: self.warnings(now),
            sessions: self.sessions.len() as u64,
            half_open: self.half_opens.len() as u64,
            records: self.store.len() as u64,
            refused_ago: self.refused_last.map(|last| now.since(last)),
            counters: self.counters,
        }
    }

    fn peer_report(
        &self,
        peer: &Peer,
        named: &BTreeMap<ShortId, PeerId>,
        now: Instant,
    ) -> PeerReport {
        let node = self.store.node(&peer.id);
        let route = self.routes.get(&peer.id);
        let links = node.map_or(&[][..], |node| node.links.as_slice());
        let resolve = |link: &crate::topology::record::Link| {
            let id = named.get(&link.to)?;
            Some((*id, link.cost_us))
        };
        PeerReport {
            id: peer.id,
            name: peer.name.clone(),
            reachable: peer.chosen.is_some(),
            session: peer.current.is_some(),
            path: peer.chosen.map(told),
            path_age: now.since(peer.chosen_since),
            round_trip: peer.round_trip(),
            heard_ago: peer
                .current
                .and_then(|index| self.sessions.get(&index))
                .map(|session| now.since(session.heard)),
            path_mtu_bytes: peer.used().map_or(0, |path| path.packet_len().0),
            path_mtu_found: peer.used().is_some_and(|path| path.packet_len().1),
            source_ports: 1 + peer.ports.proven(peer.direct_address()).count(),
            no_relay: node.is_some_and(|node| node.is_no_relay()),
            mtu_bytes: node.map_or(0, |node| node.mtu_bytes),
            reason: peer.reason(now),
            candidates: peer
                .direct
                .iter()
                .map(|(address, path)| candidate_report(peer, *address, path, now))
                .collect(),
            fast: self.fast_report(peer, now),
            loss_percent: peer.used().and_then(|path| path.history().loss_percent()),
            links: links.iter().filter_map(resolve).collect(),
            route: route.map(|route| (route.cost_us, route.next_hop)),
            hops: route.map_or(0, |route| route.hops),
        }
    }

    fn announced(&self) -> impl Iterator<Item = (PeerId, &EndpointRecord)> {
        self.store.iter().flat_map(|stored| {
            let endpoints = match &stored.record.body {
                Body::Endpoints(endpoints) => endpoints.as_slice(),
                Body::Node(_) => &[],
            };
            endpoints
                .iter()
                .map(|endpoint| (stored.record.peer, endpoint))
        })
    }

    pub(crate) fn is_reachable(&self, peer: &PeerId) -> bool {
        *peer == self.me
            || self
                .peers
                .get(peer)
                .is_some_and(|peer| peer.chosen.is_some())
    }

    fn endpoint_reports(&self) -> Vec<EndpointReport> {
        let in_force: BTreeMap<_, _> = self.macs.iter().collect();
        let report = |(peer, record): (PeerId, &EndpointRecord)| EndpointReport {
            peer,
            reachable: self.is_reachable(&peer),
            in_force: in_force.get(&record.mac) == Some(&peer),
            moves: record.moves,
            endpoint: Endpoint {
                mac: record.mac,
                addresses: record
                    .addresses
                    .as_slice()
                    .iter()
                    .filter_map(|(ip, len)| ipnet::IpNet::new(*ip, *len).ok())
                    .collect(),
                name: record.name.clone(),
                labels: record.labels.as_slice().to_vec(),
            },
        };
        self.announced().map(report).collect()
    }

    pub(crate) fn name_of(&self, peer: &PeerId) -> String {
        let name = self
            .peers
            .get(peer)
            .map_or("this peer", |peer| peer.name.as_str());
        format!("{name} ({})", peer.short())
    }

    /// What an operator should look at.
    fn warnings(&self, now: Instant) -> Vec<String> {
        let mut warnings = self.twin_warnings();
        warnings.extend(self.name_warnings());
        let peers = self.peers.values();
        for peer in peers.filter(|peer| peer.chosen.is_some()) {
            let Some(node) = self.store.node(&peer.id) else {
                continue;
            };
            if node.mtu_bytes != self.mtu_bytes {
                warnings.push(format!(
                    "{} uses container MTU {}, this peer {}: launch all peers with one --mtu",
                    self.name_of(&peer.id),
                    node.mtu_bytes,
                    self.mtu_bytes
                ));
            }
        }
        warnings.extend(self.conflict_warnings());
        let limited = self.peers.values().filter(|peer| {
            let last = peer.limited.map(|last| now.since(last));
            last.is_some_and(|last| last < LIMITED_SHOWN)
        });
        warnings.extend(limited.map(|peer| {
            let name = self.name_of(&peer.id);
            format!("{name} publishes more records than allowed; others are not taken")
        }));
        warnings
    }

    /// Names that several peers go by.
    fn name_warnings(&self) -> Vec<String> {
        let mut named: BTreeMap<&str, Vec<PeerId>> = BTreeMap::new();
        named.entry(&self.name).or_default().push(self.me);
        for peer in self.peers.values() {
            named.entry(&peer.name).or_default().push(peer.id);
        }
        let shared = named.into_iter();
        let shared = shared.filter(|(name, peers)| !name.is_empty() && peers.len() > 1);
        let sentence = |(name, peers): (&str, Vec<PeerId>)| {
            let shown = |peer: &PeerId| match *peer == self.me {
                true => format!("this one ({})", peer.short()),
                false => format!("{}", peer.short()),
            };
            let peers: Vec<String> = peers.iter().map(shown).collect();
            let peers = peers.join(" and ");
            format!("peers {peers} have one name, {name}: launch one of them with another --name")
        };
        shared.map(sentence).collect()
    }

    fn conflict_warnings(&self) -> Vec<String> {
        let mut macs: BTreeMap<_, Vec<PeerId>> = BTreeMap::new();
        let mut addresses: BTreeMap<IpAddr, Vec<PeerId>> = BTreeMap::new();
        for (peer, endpoint) in self.announced().filter(|(peer, _)| self.is_reachable(peer)) {
            macs.entry(endpoint.mac).or_default().push(peer);
            for (ip, _) in endpoint.addresses.as_slice() {
                addresses.entry(*ip).or_default().push(peer);
            }
        }
        let names = |peers: &[PeerId]| {
            peers
                .iter()
                .map(|peer| self.name_of(peer))
                .collect::<Vec<_>>()
                .join(" and ")
        };
        let twice = |peers: &&Vec<PeerId>| peers.len() > 1;
        let macs = macs.iter().filter(|(_, p)| twice(p));
        let macs = macs.map(|(mac, p)| format!("MAC {mac} is announced by {}", names(p)));
        let addresses = addresses.iter().filter(|(_, p)| twice(p));
        let addresses = addresses.map(|(ip, p)| {
            format!(
                "address {ip} is announced by {}: detach one of the containers",
                names(p)
            )
        });
        macs.chain(addresses).collect()
    }
}

fn candidate_report(
    peer: &Peer,
    address: SocketAddr,
    path: &PathState,
    now: Instant,
) -> CandidateReport {
    let is_alive = path.is_alive();
    CandidateReport {
        address: unmarked(address),
        tcp: is_tcp(address),
        state: state_of(path, now),
        round_trip: path.round_trip().filter(|_| is_alive),
        mtu_bytes: is_alive.then(|| path.packet_len().0),
        mtu_found: path.packet_len().1,
        loss_percent: path.history().loss_percent(),
        seen_as: path.seen_as().filter(|_| is_alive),
        age: now.since(path.since),
        reason: peer.reason_against(address, path),
    }
}

fn forwarding_of(peer: &Peer) -> PeerForwarding {
    PeerForwarding {
        session: peer.current,
        path: peer.chosen.map(told),
        path_epoch: peer.path_epoch,
        datagram_len_max: peer.used().map_or(0, PathState::datagram_len),
        is_len_found: peer.used().is_some_and(|path| path.packet_len().1),
        source_ports: peer.ports.proven(peer.direct_address()),
    }
}
