//! A few peers on a wire with latency, told as stories. The large simulations are in `tests`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use rmesh_gossip::api::Endpoint;
use rmesh_gossip::crypto::model::ModelCrypto;
use rmesh_gossip::crypto::real::RealCrypto;
use rmesh_gossip::crypto::{Crypto, Key};
use rmesh_gossip::{Config, Event, Mesh, Path, Target, TrafficSample};
use rmesh_wire::{Boot, Instant, Mac, PeerId};

const LATENCY: Duration = Duration::from_millis(2);

fn crypto(real: bool) -> Box<dyn Crypto> {
    if real {
        Box::new(RealCrypto::default())
    } else {
        Box::new(ModelCrypto)
    }
}

struct Wire {
    now: Instant,
    nodes: BTreeMap<u8, Mesh>,
    /// Pairs that cannot exchange datagrams.
    cut: BTreeSet<(u8, u8)>,
    flying: Vec<(Instant, u8, u8, Vec<u8>)>,
    events: BTreeMap<u8, Vec<Event>>,
    captured: Vec<(u8, u8, Vec<u8>)>,
    real: bool,
}

fn address(node: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, node], 6783))
}

fn pair(a: u8, b: u8) -> (u8, u8) {
    (a.min(b), a.max(b))
}

impl Wire {
    fn new(real: bool) -> Self {
        Wire {
            now: Instant::from_nanos(1_000_000_000),
            nodes: BTreeMap::new(),
            cut: BTreeSet::new(),
            flying: Vec::new(),
            events: BTreeMap::new(),
            captured: Vec::new(),
            real,
        }
    }

    fn launch(&mut self, node: u8, boot: u64, secret: u8, peers: &[u8]) {
        let mut seed = [node; 32];
        seed[31] = u8::try_from(boot).unwrap();
        let config = Config {
            identity: Key([node; 32]),
            secret: Key([secret; 32]),
            name: format!("host{node}"),
            boot: Boot {
                counter: boot,
                random: boot * 1000 + u64::from(node),
            },
            seed,
            port: 6783,
            mtu_bytes: 1328,
            advertise: Vec::new(),
        };
        let mut mesh = Mesh::new(config, crypto(self.real), self.now);
        mesh.handle_local_addresses(vec![address(node).ip()], self.now);
        let target = |peer: &u8| Target {
            name: format!("host{peer}"),
            addresses: vec![address(*peer)],
        };
        mesh.handle_targets(peers.iter().map(target).collect(), self.now);
        self.nodes.insert(node, mesh);
    }

    fn id(&self, node: u8) -> PeerId {
        self.nodes[&node].id()
    }

    fn drain(&mut self, node: u8) {
        let Some(mesh) = self.nodes.get_mut(&node) else {
            return;
        };
        while let Some(transmit) = mesh.poll_transmit() {
            let SocketAddr::V4(to) = transmit.destination else {
                continue;
            };
            let to = to.ip().octets()[3];
            if !self.cut.contains(&pair(node, to)) {
                self.captured.push((node, to, transmit.bytes.clone()));
                self.flying
                    .push((self.now + LATENCY, node, to, transmit.bytes));
            }
        }
        while let Some(event) = mesh.poll_event() {
            self.events.entry(node).or_default().push(event);
        }
    }

    /// Runs for `duration`, or until `done`; returns the time it took.
    fn run_until(&mut self, limit: Duration, done: impl Fn(&Wire) -> bool) -> Option<Duration> {
        let start = self.now;
        while self.now.since(start) < limit {
            for node in self.nodes.keys().copied().collect::<Vec<_>>() {
                let mesh = self.nodes.get_mut(&node).unwrap();
                if mesh.poll_timeout().is_some_and(|(due, _)| due <= self.now) {
                    mesh.handle_timeout(self.now);
                }
                self.drain(node);
            }
            let due = self
                .flying
                .extract_if(.., |(at, ..)| *at <= self.now)
                .collect::<Vec<_>>();
            for (_, from, to, bytes) in due {
                if let Some(mesh) = self.nodes.get_mut(&to) {
                    mesh.handle_datagram(address(from), &bytes, self.now);
                    self.drain(to);
                }
            }
            if done(self) {
                return Some(self.now.since(start));
            }
            self.now = self.now + Duration::from_millis(1);
        }
        None
    }

    fn run(&mut self, duration: Duration) {
        self.run_until(duration, |_| false);
    }

    fn path(&self, from: u8, to: u8) -> Option<Path> {
        let to = self.id(to);
        self.nodes[&from].forwarding().peers.get(&to)?.path
    }

    fn has_session(&self, from: u8, to: u8) -> bool {
        let to = self.id(to);
        let forwarding = self.nodes[&from].forwarding();
        forwarding
            .peers
            .get(&to)
            .is_some_and(|peer| peer.session.is_some())
    }

    fn all_direct(&self) -> bool {
        let nodes = self.nodes.keys();
        nodes.clone().all(|a| {
            nodes
                .clone()
                .all(|b| a == b || self.path(*a, *b) == Some(Path::Direct(address(*b))))
        })
    }

    fn same_view(&self) -> bool {
        let views: BTreeSet<u64> = self.nodes.values().map(Mesh::view_hash).collect();
        views.len() == 1
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn chain(real: bool) -> Wire {
    let mut wire = Wire::new(real);
    wire.cut.insert((1, 3));
    wire.launch(1, 1, 7, &[2]);
    wire.launch(2, 1, 7, &[]);
    wire.launch(3, 1, 7, &[2]);
    wire
}

fn relayed(wire: &Wire) -> bool {
    let b = wire.id(2);
    wire.path(1, 3) == Some(Path::Relay(b))
        && wire.path(3, 1) == Some(Path::Relay(b))
        && wire.has_session(1, 3)
        && wire.has_session(3, 1)
}

#[test]
fn three_peers_meet_though_only_one_was_named() {
    for real in [false, true] {
        let mut wire = Wire::new(real);
        wire.launch(1, 1, 7, &[2]);
        wire.launch(2, 1, 7, &[]);
        wire.launch(3, 1, 7, &[2]);
        let took = wire.run_until(secs(5), |w| w.all_direct() && w.same_view());
        println!("real crypto {real}: met within {took:?}");
        assert!(took.is_some_and(|took| took < secs(1)));
    }
}

#[test]
fn two_ends_of_a_chain_have_their_own_session_through_the_middle() {
    for real in [false, true] {
        let mut wire = chain(real);
        let took = wire.run_until(secs(10), |w| relayed(w) && w.same_view());
        println!("real crypto {real}: relayed within {took:?}");
        assert!(took.is_some_and(|took| took < secs(2)));
        let (a, c) = (wire.id(1), wire.id(3));
        let of_b = wire.nodes[&2].forwarding().sessions;
        let of_a = wire.nodes[&1].forwarding().sessions;
        let end_to_end = of_a.iter().find(|session| session.peer == c).unwrap();
        assert!(of_b.iter().all(|s| s.seal_key != end_to_end.seal_key));
        assert!(of_b.iter().any(|session| session.peer == a));
    }
}

#[test]
fn a_restored_link_is_used_again_and_a_silent_cut_falls_back_to_the_relay() {
    let mut wire = chain(false);
    wire.run_until(secs(10), relayed).unwrap();
    wire.run(secs(20));
    wire.cut.clear();
    let took = wire.run_until(secs(10), Wire::all_direct);
    println!("direct after {took:?}");
    assert!(took.is_some_and(|took| took <= secs(5)));
    wire.run(secs(5));
    wire.cut.insert((1, 3));
    // Traffic flows: the data plane says every 100 ms that nothing comes back.
    let start = wire.now;
    while !relayed(&wire) && wire.now.since(start) < secs(10) {
        let (a, c) = (wire.id(1), wire.id(3));
        for (node, peer) in [(1, c), (3, a)] {
            let sample = TrafficSample {
                peer,
                sent: 5,
                received_direct: 0,
                received_relayed: 0,
            };
            let now = wire.now;
            wire.nodes
                .get_mut(&node)
                .unwrap()
                .handle_traffic(&[sample], now);
        }
        wire.run(Duration::from_millis(100));
    }
    println!("back on the relay after {:?}", wire.now.since(start));
    assert!(wire.now.since(start) < secs(2));
}

#[test]
fn a_killed_peer_is_missed_and_taken_back_when_it_restarts() {
    let mut wire = Wire::new(false);
    wire.launch(1, 1, 7, &[2]);
    wire.launch(2, 1, 7, &[]);
    wire.launch(3, 1, 7, &[2]);
    wire.run_until(secs(5), Wire::all_direct).unwrap();
    let b = wire.id(2);
    wire.run(secs(10));
    wire.nodes.remove(&2);
    let missed = wire.run_until(secs(20), |w| {
        [1, 3].iter().all(|node| {
            let report = w.nodes[node].report(w.now);
            report
                .peers
                .iter()
                .all(|peer| peer.id != b || !peer.reachable)
        })
    });
    println!("missed after {missed:?}");
    assert!(missed.is_some_and(|missed| missed < secs(5)));
    wire.run(secs(30));
    wire.launch(2, 2, 7, &[]);
    let back = wire.run_until(secs(10), |w| w.all_direct() && w.same_view());
    println!("back after {back:?}");
    assert!(back.is_some_and(|back| back < secs(5)));
}

#[test]
fn a_quick_restart_replaces_the_old_session_at_once() {
    let mut wire = Wire::new(false);
    wire.launch(1, 1, 7, &[2]);
    wire.launch(2, 1, 7, &[1]);
    wire.run_until(secs(5), Wire::all_direct).unwrap();
    wire.run(secs(30));
    wire.launch(2, 2, 7, &[1]);
    let back = wire.run_until(secs(10), |w| {
        let (a, b) = (w.nodes[&1].forwarding(), w.nodes[&2].forwarding());
        let index = a.peers.values().next().and_then(|peer| peer.session);
        let session = a.sessions.iter().find(|s| Some(s.local_index) == index);
        w.all_direct()
            && session.is_some_and(|s| b.sessions.iter().any(|o| o.local_index == s.remote_index))
    });
    println!("replaced after {back:?}");
    assert!(back.is_some_and(|back| back < secs(1)));
}

#[test]
fn a_stranger_with_another_secret_gets_no_answer_and_both_sides_say_so() {
    let mut wire = Wire::new(true);
    wire.launch(1, 1, 7, &[2]);
    wire.launch(2, 1, 8, &[]);
    wire.run(secs(12));
    assert!(wire.nodes[&2].report(wire.now).counters.handshakes_refused > 0);
    assert!(
        wire.captured.iter().all(|(from, ..)| *from == 1),
        "a stranger was answered"
    );
    let state = &wire.nodes[&1].report(wire.now).targets[0].state;
    assert_eq!(
        state,
        "no answer from host2: unreachable, or a different secret"
    );
    let no_answer = Event::NoAnswer {
        target: "host2".into(),
    };
    assert!(wire.events[&1].contains(&no_answer));
    assert!(
        wire.events[&2]
            .iter()
            .any(|e| matches!(e, Event::HandshakeRefused { .. }))
    );
}

#[test]
fn sessions_are_renewed_without_a_gap() {
    let mut wire = Wire::new(false);
    wire.launch(1, 1, 7, &[2]);
    wire.launch(2, 1, 7, &[]);
    wire.run_until(secs(5), Wire::all_direct).unwrap();
    let index = |w: &Wire| {
        w.nodes[&1]
            .forwarding()
            .peers
            .values()
            .next()
            .unwrap()
            .session
    };
    let first = index(&wire);
    let broken = wire.run_until(secs(400), |w| !w.all_direct() || index(w).is_none());
    assert_eq!(broken, None, "the pair was apart");
    assert_ne!(index(&wire), first);
    assert!(wire.nodes[&1].forwarding().sessions.len() <= 3);
    let completed = wire.nodes[&1]
        .report(wire.now)
        .counters
        .handshakes_completed;
    println!("handshakes in 400 s: {completed}");
    assert!((3..=8).contains(&completed));
}

#[test]
fn a_peer_that_says_good_bye_is_gone_at_once() {
    let mut wire = Wire::new(false);
    wire.launch(1, 1, 7, &[2]);
    wire.launch(2, 1, 7, &[]);
    wire.run_until(secs(5), |w| w.all_direct() && w.same_view())
        .unwrap();
    wire.run(secs(1));
    let now = wire.now;
    wire.nodes.get_mut(&2).unwrap().handle_shutdown(now);
    wire.drain(2);
    let b = wire.id(2);
    wire.nodes.remove(&2);
    wire.run(Duration::from_millis(50));
    let down = Event::PeerDown {
        peer: b,
        name: "host2".into(),
    };
    assert!(wire.events[&1].contains(&down), "{:?}", wire.events[&1]);
}

#[test]
fn a_mac_follows_its_container_to_another_host() {
    let mut wire = chain(false);
    wire.run_until(secs(10), relayed).unwrap();
    let mac = Mac([2, 0, 0, 0, 0, 9]);
    let endpoint = || Endpoint {
        mac,
        addresses: vec!["10.32.0.9/24".parse().unwrap()],
        name: "web".into(),
        labels: Vec::new(),
    };
    let owner = |w: &Wire, node: u8| w.nodes[&node].forwarding().macs.get(&mac).copied();
    let now = wire.now;
    wire.nodes
        .get_mut(&1)
        .unwrap()
        .handle_endpoints(vec![endpoint()], now);
    let a = wire.id(1);
    wire.run_until(secs(2), |w| owner(w, 3) == Some(a)).unwrap();
    // The old host is alive and still announces it: the newer announcement wins.
    let now = wire.now;
    wire.nodes
        .get_mut(&3)
        .unwrap()
        .handle_endpoints(vec![endpoint()], now);
    let c = wire.id(3);
    let took = wire.run_until(secs(5), |w| (1..=3).all(|node| owner(w, node) == Some(c)));
    println!("moved after {took:?}");
    assert!(took.is_some_and(|took| took < secs(2)));
    let warnings = wire.nodes[&2].report(wire.now).warnings;
    assert!(
        warnings.iter().any(|w| w.contains("MAC 02:00:00:00:00:09")),
        "{warnings:?}"
    );
}

#[test]
fn fourteen_peers_converge_though_links_are_sparse() {
    let mut wire = Wire::new(false);
    for node in 1..=14 {
        wire.launch(node, 1, 7, &[node % 14 + 1]);
    }
    let took = wire.run_until(secs(30), |w| {
        w.same_view()
            && w.nodes
                .values()
                .all(|mesh| mesh.forwarding().peers.len() == 13)
    });
    println!("14 peers agree after {took:?}");
    assert!(took.is_some_and(|took| took < secs(10)));
    wire.run(secs(10));
    assert!(wire.same_view());
}

#[test]
fn garbage_and_replays_change_counters_only() {
    let mut wire = Wire::new(true);
    wire.launch(1, 1, 7, &[2]);
    wire.launch(2, 1, 7, &[]);
    wire.run_until(secs(5), Wire::all_direct).unwrap();
    wire.run(secs(3));
    let before = format!("{:?}", wire.nodes[&2].forwarding());
    let now = wire.now;
    let captured = wire.captured.clone();
    let node = wire.nodes.get_mut(&2).unwrap();
    let completed = node.report(now).counters.handshakes_completed;
    for (at, (_, to, bytes)) in captured
        .iter()
        .enumerate()
        .filter(|(_, (_, to, _))| *to == 2)
    {
        assert_eq!(*to, 2);
        node.handle_datagram(SocketAddr::from(([10, 0, 9, 9], 1)), bytes, now);
        let mut flipped = bytes.clone();
        let bit = at * 7 % (flipped.len() * 8);
        flipped[bit / 8] ^= 1 << (bit % 8);
        node.handle_datagram(address(1), &flipped, now);
        node.handle_datagram(address(1), &bytes[..bytes.len() * at / captured.len()], now);
    }
    let counters = node.report(now).counters;
    println!("{counters:?}");
    assert!(counters.datagrams_replayed > 0 && counters.datagrams_ignored > 0);
    assert_eq!(counters.handshakes_completed, completed);
    assert_eq!(format!("{:?}", node.forwarding()), before);
}
