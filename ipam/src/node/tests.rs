//! Messages of peers that claim what they cannot own.

use alloc::string::String;
use alloc::vec::Vec;

use super::*;
use crate::api::Found;
use crate::cell::{Cell, Term};
use crate::packed::Runs;
use crate::ring::Run;

const OTHER: PeerId = PeerId([2; 16]);

fn range(first: u128, last: u128) -> Range {
    Range::new(first, last).unwrap()
}

fn founder() -> Node {
    let identity = Identity {
        me: PeerId([1; 16]),
        incarnation: 11,
        seed: [1; 32],
    };
    let recovered = Recovered {
        ledger: Ledger::default(),
        written: 0,
        found: Found::Nothing,
    };
    let founding = Founding::Found {
        pools: Vec::from([range(256, 511)]),
    };
    let mut node = Node::new(identity, recovered, founding, Instant::ZERO);
    confirm(&mut node);
    node
}

fn confirm(node: &mut Node) {
    while let Some((number, _)) = node.poll_write() {
        node.handle_written(number, Instant::ZERO);
    }
    while node.poll_event().is_some() || node.poll_transmit().is_some() {}
}

fn hear(node: &mut Node, body: Body) {
    let message = Message {
        ring: node.ring_short(),
        incarnation: 22,
        life: 1,
        written: 1,
        body,
    };
    let bytes = message.encode().unwrap();
    node.handle_message(OTHER, &bytes, Instant::ZERO);
    confirm(node);
}

fn runs(range: Range, term: Term, seq: u32) -> Runs {
    let owner = OwnerId {
        peer: OTHER,
        incarnation: 22,
    };
    let cell = Cell { term, seq, owner };
    Runs::new(Vec::from([Run { range, cell }])).unwrap()
}

#[test]
fn claims_of_what_a_peer_cannot_own_change_nothing_and_are_counted() {
    let mut node = founder();
    let before = node.ledger.clone();
    let stamp = node.ledger.setup.as_ref().unwrap().stamp;
    let later = Term { n: 9, taker: OTHER };
    let claims = [
        Body::Push(runs(range(0, 5), Term::FIRST, 1)),
        Body::Push(runs(range(300, 310), Term::FIRST, 0)),
        Body::Push(runs(range(300, 310), Term::FIRST, 1)),
        Body::Push(runs(range(300, 310), later, 0)),
        Body::Sync(crate::sync::Sync::News {
            runs: runs(range(300, 310), later, 7),
            rest: None,
        }),
        Body::Accept {
            id: 1,
            stamp,
            runs: runs(range(300, 310), Term::FIRST, 1),
        },
    ];
    for claim in claims {
        hear(&mut node, claim);
        assert_eq!(node.ledger, before);
    }
    node.handle_message(OTHER, b"\x01nonsense", Instant::ZERO);
    let refused = node.report(Instant::ZERO).refused;
    let reasons: Vec<(&str, u64)> = refused.iter().map(|((_, why), n)| (*why, *n)).collect();
    let expected = [
        ("claims addresses outside every pool", 1),
        ("contradicts what is known of an address", 1),
        ("malformed", 1),
        ("proposes what it cannot own", 1),
        ("takes what it was not granted", 3),
    ];
    assert_eq!(reasons, expected);
    assert!(refused.keys().all(|(peer, _)| *peer == OTHER));
}

#[test]
fn whoever_asks_after_the_disk_has_refused_is_answered_at_once() {
    let mut node = founder();
    let request = |container: &str| Request::Allocate {
        container: String::from(container),
        subnet: Some(range(256, 511)),
        wants_v6: false,
    };
    let (deadline, now) = (Instant::from_nanos(1_000_000_000), Instant::ZERO);
    node.handle_request(RequestId(1), request("before"), deadline, now);
    let (number, _) = node.poll_write().unwrap();
    node.handle_write_failed(number, String::from("no space left"), now);
    node.handle_request(RequestId(2), request("after"), deadline, now);
    for expected in [1, 2] {
        let Some(Event::Answer { id, result }) = node.poll_event() else {
            panic!("request {expected} has no answer");
        };
        assert_eq!(id, RequestId(expected));
        let words = alloc::format!("{}", result.unwrap_err());
        assert!(words.contains("no space left"), "{words}");
    }
    assert_eq!(node.poll_event(), None);
    assert_eq!(node.poll_write(), None);
}

#[test]
fn nothing_comes_out_before_its_write_is_confirmed() {
    let mut node = founder();
    let request = Request::Allocate {
        container: String::from("web"),
        subnet: Some(range(256, 511)),
        wants_v6: false,
    };
    let deadline = Instant::from_nanos(1_000_000_000);
    node.handle_request(RequestId(1), request, deadline, Instant::ZERO);
    let (number, _) = node.poll_write().unwrap();
    assert_eq!(node.poll_event(), None);
    node.handle_written(number - 1, Instant::ZERO);
    assert_eq!(node.poll_event(), None);
    node.handle_written(number, Instant::ZERO);
    assert!(matches!(
        node.poll_event(),
        Some(Event::Answer { result: Ok(_), .. })
    ));
}

fn allocate(node: &mut Node, id: u64, now: Instant) {
    let request = Request::Allocate {
        container: alloc::format!("c{id}"),
        subnet: Some(range(256, 511)),
        wants_v6: false,
    };
    let deadline = now + core::time::Duration::from_secs(1);
    node.handle_request(RequestId(id), request, deadline, now);
}

/// What is polled to be written, in order.
fn drain(node: &mut Node, log: &mut Vec<Vec<u8>>) -> u64 {
    while let Some((_, entry)) = node.poll_write() {
        log.push(entry);
    }
    node.written()
}

fn answered(node: &mut Node) -> Option<IpAddr> {
    match node.poll_event() {
        Some(Event::Answer {
            result: Ok(crate::Answer::Address(ip)),
            ..
        }) => Some(ip),
        None => None,
        other => panic!("{other:?}"),
    }
}

/// A founder whose disk has every write, and which has handed out two addresses just now.
fn busy() -> (Node, Vec<Vec<u8>>) {
    let mut node = founder();
    let mut log = node.snapshot();
    for id in 1..=2 {
        allocate(&mut node, id, Instant::ZERO);
        assert_eq!(answered(&mut node), None, "nothing is reserved yet");
        let written = drain(&mut node, &mut log);
        node.handle_written(written, Instant::ZERO);
        assert!(answered(&mut node).is_some());
    }
    (node, log)
}

fn again(log: &[Vec<u8>], now: Instant) -> Node {
    let identity = Identity {
        me: PeerId([1; 16]),
        incarnation: 12,
        seed: [2; 32],
    };
    let down_for = core::time::Duration::ZERO;
    let recovered = Recovered {
        ledger: Ledger::fold(log.iter().map(Vec::as_slice), now).unwrap(),
        written: 100,
        found: Found::Current { down_for },
    };
    let founding = Founding::Found { pools: Vec::new() };
    Node::new(identity, recovered, founding, now)
}

#[test]
fn a_reserved_address_is_handed_out_before_it_is_written_who_has_it() {
    let (mut node, log) = busy();
    let reserved = node.report(Instant::ZERO).reserved;
    assert_eq!(reserved, [range(259, 274)]);
    let mut had = Vec::new();
    for id in 3..=18 {
        allocate(&mut node, id, Instant::ZERO);
        had.push(answered(&mut node).expect("it needs no write"));
    }
    // The disk knows nothing of these: a later life gives none of them to anybody until it is told.
    let mut later = again(&log, Instant::ZERO);
    let running = Vec::from([(String::from("c3"), Vec::from([had[0]]))]);
    allocate(&mut later, 30, Instant::ZERO);
    let mut rest = Vec::new();
    let written = drain(&mut later, &mut rest);
    later.handle_written(written, Instant::ZERO);
    let other = answered(&mut later).unwrap();
    assert!(!had.contains(&other), "{other} may be in use");
    later.handle_running(&running, Instant::ZERO);
    assert_eq!(
        later.report(Instant::ZERO).allocated,
        [(had[0], "c3".into())]
    );
    assert_eq!(later.report(Instant::ZERO).reserved, []);
    for ip in &had[1..] {
        let state = later
            .ledger
            .space
            .state(crate::address::number(*ip), Instant::ZERO);
        assert_eq!(state, crate::Use::Resting(Instant::ZERO));
    }
}

#[test]
fn a_reservation_that_is_not_written_is_not_used() {
    let (mut node, mut log) = busy();
    let mut asked = 2;
    loop {
        asked += 1;
        allocate(&mut node, asked, Instant::ZERO);
        let Some(ip) = answered(&mut node) else {
            break;
        };
        let written = again(&log, Instant::ZERO).report(Instant::ZERO).reserved;
        let at = crate::address::number(ip);
        assert!(written.iter().any(|range| range.contains(at)), "{ip}");
    }
    assert_eq!(asked, 19, "the first sixteen, and no more");
    let written = drain(&mut node, &mut log);
    node.handle_written(written, Instant::ZERO);
    assert!(answered(&mut node).is_some());
    allocate(&mut node, 20, Instant::ZERO);
    assert!(answered(&mut node).is_some(), "the next ones are written");
}

#[test]
fn an_idle_peer_reserves_nothing() {
    let (mut node, mut log) = busy();
    let later = Instant::ZERO + crate::limits::RESERVE_IDLE;
    node.handle_timeout(later);
    assert_eq!(node.report(later).reserved, []);
    drain(&mut node, &mut log);
    assert_eq!(again(&log, later).report(later).reserved, []);
    let (mut node, mut log) = busy();
    node.handle_stop(Instant::ZERO);
    drain(&mut node, &mut log);
    assert_eq!(again(&log, later).report(later).reserved, []);
}

#[test]
fn doubted_addresses_are_given_to_no_other_peer() {
    let (_, log) = busy();
    let mut node = again(&log, Instant::ZERO);
    let owner = OwnerId {
        peer: OTHER,
        incarnation: 22,
    };
    let granted = |node: &Node| cells_of(node);
    node.on_ask(owner, 1, range(256, 511), crate::message::Wish::Exact(260));
    assert_eq!(granted(&node), []);
    node.on_ask(owner, 2, range(256, 275), crate::message::Wish::Block(64));
    assert!(
        granted(&node)
            .iter()
            .all(|given| !given.overlaps(&range(259, 274)))
    );
    node.handle_running(&[], Instant::ZERO);
    node.on_ask(owner, 3, range(256, 511), crate::message::Wish::Exact(260));
    assert!(granted(&node).contains(&range(260, 260)));
}

fn cells_of(node: &Node) -> Vec<Range> {
    let granted = node.ledger.granted.iter();
    granted.map(|(range, _)| range).collect()
}
