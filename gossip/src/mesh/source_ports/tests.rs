//! Ports are used where they pass untranslated, and left where they stop to.

extern crate std;

use alloc::vec;

use super::*;
use crate::api::TrafficSample;
use crate::mesh::tests::{A, B, mesh, sent, start, talk};

/// Two peers that know each other, of which A has two more ports.
struct Pair {
    a: Mesh,
    b: Mesh,
    now: Instant,
}

/// What becomes of a question on its way: whether it arrives, and from where.
type Way = fn(number: usize) -> Option<SocketAddr>;

const PORTS: [u16; 2] = [40_001, 40_002];

fn untouched(number: usize) -> Option<SocketAddr> {
    Some(SocketAddr::new(A.ip(), PORTS[number - 1]))
}

fn translated(number: usize) -> Option<SocketAddr> {
    Some(SocketAddr::new(A.ip(), 1_000 + number as u16))
}

fn lost(_: usize) -> Option<SocketAddr> {
    None
}

impl Pair {
    fn new() -> Pair {
        let (a, b) = (mesh(1, 1, false), mesh(2, 1, false));
        let mut pair = Pair {
            a: a.with_source_ports(PORTS.to_vec(), Vec::new()),
            b,
            now: start(),
        };
        pair.a.handle_local_addresses(vec![A.ip()], pair.now);
        let target = crate::api::Target {
            name: "b".into(),
            addresses: vec![B],
        };
        pair.a.handle_targets(vec![target], pair.now);
        talk(&mut pair.a, &mut pair.b, pair.now);
        pair
    }

    /// Traffic for so long, in steps of 100 ms; gives the questions asked.
    fn flow(&mut self, steps: u32, way: Way) -> usize {
        (0..steps).map(|_| self.step(true, way)).sum()
    }

    fn step(&mut self, has_traffic: bool, way: Way) -> usize {
        self.now = self.now + Duration::from_millis(100);
        let traffic = TrafficSample {
            peer: self.b.id(),
            sent: 100,
            received_direct: 100,
            received_relayed: 0,
        };
        if has_traffic {
            self.a.handle_traffic(&[traffic], self.now);
        }
        self.a.handle_timeout(self.now);
        self.b.handle_timeout(self.now);
        let mut asked = 0;
        while let Some(question) = self.a.poll_port_transmit() {
            assert_eq!(question.destination, B);
            asked += 1;
            if let Some(source) = way(question.number) {
                self.b.handle_datagram(source, &question.bytes, self.now);
            }
        }
        talk(&mut self.a, &mut self.b, self.now);
        asked
    }

    fn used(&self) -> Vec<usize> {
        let forwarding = self.a.forwarding();
        let of_b = forwarding.peers[&self.b.id()].source_ports;
        (0..SOURCE_PORTS_MAX).filter(|n| of_b.has(*n)).collect()
    }
}

#[test]
fn ports_that_pass_are_used_while_there_is_traffic_and_teach_no_address() {
    let mut pair = Pair::new();
    assert_eq!((pair.step(false, untouched), pair.used()), (0, vec![]));
    pair.flow(6, untouched);
    assert_eq!(pair.used(), [1, 2]);
    assert_eq!(pair.a.report(pair.now).peers[0].source_ports, 3);
    let asked = pair.flow(100, untouched);
    assert!((16..=22).contains(&asked), "{asked} in 10 s, of two ports");
    let known = &pair.b.report(pair.now).peers[0].candidates;
    let known: Vec<SocketAddr> = known.iter().map(|known| known.address).collect();
    assert_eq!(known, [A], "nobody sends to where only questions come from");
    let asked: usize = (0..400).map(|_| pair.step(false, untouched)).sum();
    assert!(asked <= 44, "{asked} after the end of the traffic");
    assert_eq!(pair.used(), []);
}

#[test]
fn translated_ports_and_those_that_do_not_pass_are_not_used_and_hardly_asked_for() {
    for way in [translated, lost] {
        let mut pair = Pair::new();
        let asked = pair.flow(600, way);
        std::println!("{asked} questions of two ports in a minute");
        assert!(asked <= 2 * 3 * 2, "{asked} questions in a minute");
        assert_eq!(pair.used(), []);
    }
    let mut pair = Pair::new();
    pair.flow(6, |number| untouched(number).filter(|_| number == 2));
    assert_eq!(pair.used(), [2], "each stands for itself");
}

#[test]
fn a_port_that_stops_to_pass_is_left_within_two_seconds_and_taken_up_again() {
    let mut pair = Pair::new();
    pair.flow(6, untouched);
    let mut left = 0;
    while !pair.used().is_empty() {
        pair.flow(1, lost);
        left += 1;
    }
    std::println!("left after {left}00 ms");
    assert!(left <= 23, "{left}00 ms");
    let b = pair.b.id();
    let path = |pair: &Pair| pair.a.forwarding().peers[&b].path;
    assert_eq!(path(&pair), Some(crate::api::Path::Direct(B)), "it is well");
    pair.flow(310, untouched);
    assert_eq!(pair.used(), [1, 2]);
}

#[test]
fn what_the_kernel_refuses_to_send_from_a_port_ends_that_port_alone() {
    let mut pair = Pair::new();
    pair.flow(6, untouched);
    pair.a.handle_port_failure(B, 1, pair.now);
    assert_eq!(pair.used(), [2]);
    for nonsense in [0, 3, usize::MAX] {
        pair.a.handle_port_failure(B, nonsense, pair.now);
    }
    pair.a.handle_port_failure(A, 2, pair.now);
    assert_eq!(pair.used(), [2]);
}

#[test]
fn answers_that_nobody_asked_for_change_nothing() {
    let mut pair = Pair::new();
    pair.flow(6, lost);
    let b = pair.b.id();
    let before = sent(&mut pair.a).len();
    for token in [0, 1, u64::MAX] {
        let answer = PortProbe {
            is_answer: true,
            token,
            observed: untouched(1),
        };
        pair.a.on_port_answer(b, &answer, pair.now);
    }
    assert_eq!((pair.used(), before), (vec![], 0));
}
