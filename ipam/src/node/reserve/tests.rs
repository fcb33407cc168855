//! What may be answered before the disk has it, and what becomes of it.

use alloc::string::String;
use core::net::IpAddr;

use rmesh_wire::PeerId;

use super::super::tests::{OTHER, founder, range};
use super::*;
use crate::api::{Event, Found, Founding, Identity, Recovered, Refusal, Request};
use crate::cell::OwnerId;
use crate::ledger::Ledger;

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

/// What the disk has reserved.
fn reserved(log: &[Vec<u8>]) -> Vec<Range> {
    let ledger = Ledger::fold(log.iter().map(Vec::as_slice), Instant::ZERO);
    ledger.unwrap().reserved()
}

fn state(node: &Node, ip: IpAddr, now: Instant) -> crate::Use {
    let at = crate::address::number(ip);
    node.ledger.space.state(at, now)
}

#[test]
fn a_reserved_address_is_answered_as_soon_as_who_has_it_outlives_the_process() {
    let (mut node, mut log) = busy();
    assert_eq!(reserved(&log), [range(259, 274)]);
    let mut tail = log.clone();
    for id in 3..=18 {
        allocate(&mut node, id, Instant::ZERO);
        assert_eq!(answered(&mut node), None, "it would die with the process");
        let handed_over = drain(&mut node, &mut tail);
        node.handle_handed_over(handed_over, Instant::ZERO);
        let ip = answered(&mut node).expect("it needs no sync");
        let container = alloc::format!("c{id}");
        let later = again(&tail, Instant::ZERO).report(Instant::ZERO);
        assert!(later.allocated.contains(&(ip, container)), "killed now");
        assert_ne!(
            state(&again(&log, Instant::ZERO), ip, Instant::ZERO),
            crate::Use::Fresh
        );
    }
    // An answer to the same container waits for the disk.
    allocate(&mut node, 3, Instant::ZERO);
    let written = drain(&mut node, &mut tail);
    node.handle_handed_over(written, Instant::ZERO);
    assert_eq!(answered(&mut node), None);
    log.clone_from(&tail);
    node.handle_written(written, Instant::ZERO);
    assert!(answered(&mut node).is_some());
}

#[test]
fn what_a_power_cut_leaves_reserved_rests_as_if_it_had_just_been_freed() {
    let (mut node, log) = busy();
    allocate(&mut node, 3, Instant::ZERO);
    let written = drain(&mut node, &mut Vec::new());
    node.handle_handed_over(written, Instant::ZERO);
    let lost = answered(&mut node).unwrap();
    // The disk knows that it was reserved, and no more.
    let start = Instant::ZERO + core::time::Duration::from_secs(100);
    let mut later = again(&log, start);
    assert_eq!(state(&later, lost, start), crate::Use::Resting(start));
    assert_eq!(later.ledger.reserved(), []);
    let mut rest = log;
    for id in 30..60 {
        allocate(&mut later, id, start);
        let written = drain(&mut later, &mut rest);
        later.handle_written(written, start);
        assert_ne!(answered(&mut later), Some(lost));
    }
    // Whoever has it may say so.
    let running = Vec::from([(String::from("c3"), Vec::from([lost]))]);
    let mut told = again(&rest, start);
    told.handle_running(&running, start);
    assert_eq!(told.report(start).allocated, [(lost, "c3".into())]);
    // A life after that one knows of nothing that is reserved.
    drain(&mut told, &mut rest);
    assert_eq!(reserved(&rest), []);
}

#[test]
fn a_reservation_that_is_not_durable_is_not_used() {
    let (mut node, mut log) = busy();
    let mut asked = 2;
    loop {
        asked += 1;
        allocate(&mut node, asked, Instant::ZERO);
        let number = drain(&mut node, &mut log);
        node.handle_handed_over(number, Instant::ZERO);
        if answered(&mut node).is_none() {
            break;
        }
    }
    assert_eq!(asked, 19, "the first sixteen, and no more");
    let written = drain(&mut node, &mut log);
    node.handle_written(written, Instant::ZERO);
    assert!(answered(&mut node).is_some());
    allocate(&mut node, 20, Instant::ZERO);
    let number = drain(&mut node, &mut log);
    node.handle_handed_over(number, Instant::ZERO);
    assert!(answered(&mut node).is_some(), "the next ones are written");
}

#[test]
fn a_peer_that_is_idle_or_stops_reserves_nothing() {
    let (mut node, mut log) = busy();
    let later = Instant::ZERO + crate::limits::RESERVE_IDLE;
    node.handle_timeout(later);
    drain(&mut node, &mut log);
    assert_eq!(reserved(&log), []);
    let (mut node, mut log) = busy();
    node.handle_stop(Instant::ZERO);
    drain(&mut node, &mut log);
    assert_eq!(reserved(&log), []);
}

#[test]
fn what_is_granted_or_lost_is_reserved_no_more() {
    let (mut node, mut log) = busy();
    let owner = OwnerId {
        peer: OTHER,
        incarnation: 22,
    };
    node.on_ask(owner, 1, range(256, 511), crate::message::Wish::Exact(260));
    drain(&mut node, &mut log);
    assert_eq!(reserved(&log), [range(259, 259), range(261, 274)]);
    node.new_incarnation("of a test");
    drain(&mut node, &mut log);
    assert_eq!(reserved(&log), []);
}

#[test]
fn subnets_asked_for_least_lately_reserve_nothing() {
    let (mut node, mut log) = busy();
    for id in 0..crate::limits::RESERVE_SUBNETS_MAX {
        let now = Instant::ZERO + core::time::Duration::from_millis(1);
        let first = 384 + 4 * id as u128;
        let request = Request::Allocate {
            container: alloc::format!("d{id}"),
            subnet: Some(range(first, first + 3)),
            wants_v6: false,
        };
        let deadline = now + core::time::Duration::from_secs(1);
        node.handle_request(RequestId(100 + id as u64), request, deadline, now);
    }
    drain(&mut node, &mut log);
    assert_eq!(reserved(&log), []);
}

#[test]
fn what_was_not_handed_over_when_the_disk_refuses_is_refused() {
    let (mut node, mut log) = busy();
    allocate(&mut node, 3, Instant::ZERO);
    let handed_over = drain(&mut node, &mut log);
    node.handle_handed_over(handed_over, Instant::ZERO);
    allocate(&mut node, 4, Instant::ZERO);
    node.handle_write_failed(handed_over, String::from("it is full"), Instant::ZERO);
    assert!(answered(&mut node).is_some());
    let refused = node.poll_event();
    assert!(matches!(
        refused,
        Some(Event::Answer {
            result: Err(Refusal::Disk(_)),
            ..
        })
    ));
}
