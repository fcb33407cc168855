//! Messages of peers that claim what they cannot own.

use alloc::string::String;
use alloc::vec::Vec;

use super::*;
use crate::api::Found;
use crate::cell::{Cell, Term};
use crate::packed::Runs;
use crate::ring::Run;

pub(super) const OTHER: PeerId = PeerId([2; 16]);

pub(super) fn range(first: u128, last: u128) -> Range {
    Range::new(first, last).unwrap()
}

pub(super) fn founder() -> Node {
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
