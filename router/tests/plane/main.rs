//! Data planes that exchange frames over loopback, under snapshots made by hand.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)]

mod differential;
mod ecn;
mod hostile;
mod ports;
mod queues;
mod support;
mod tap;

use std::time::{Duration, Instant};

use rmesh_gossip::{Path, ProbeMarks, SendFailure, Transmit};
use rmesh_router::{FrameCounters, Inbound};
use rmesh_wire::Mac;
use rmesh_wire::datagram::Header;
use rmesh_wire::ethernet::second_way_probe;
use support::{
    Peer, frame, id, mac, mesh, next_datagram, pair, publish_all, tree, wait_until, wire,
};

#[test]
fn unicast_frames_cross_both_ways_and_are_counted() {
    let (a, b) = pair();
    let there = frame(mac(2), mac(1), b"there and");
    let back = frame(mac(1), mac(2), b"back again");
    a.inject(&there);
    assert_eq!(b.delivered(), Some(there.clone()));
    b.inject(&back);
    assert_eq!(a.delivered(), Some(back.clone()));
    let counters = a.plane.peer_counters()[&id(2)];
    let [direct, relay] = counters.0;
    assert_eq!((direct.frames_sent, direct.frames_received), (1, 1));
    assert_eq!(direct.bytes_sent, there.len() as u64);
    assert_eq!(relay, FrameCounters::default());
    assert_eq!(direct.bytes_received, back.len() as u64);
    let sample = a.plane.samples()[0];
    let moved = (sample.sent, sample.received_direct, sample.received_relayed);
    assert_eq!((sample.peer, moved), (id(2), (1, 1, 0)));
    assert!(a.plane.samples().is_empty(), "told once");
}

#[test]
fn the_first_frame_floods_and_its_source_is_learned() {
    let (a, b) = pair();
    let (here, there) = (Mac([6; 6]), Mac([10; 6]));
    a.inject(&frame(there, here, b"who are you"));
    assert_eq!(b.delivered(), Some(frame(there, here, b"who are you")));
    b.inject(&frame(here, there, b"me"));
    assert_eq!(a.delivered(), Some(frame(here, there, b"me")));
    assert_eq!(b.plane.counters().floods_originated, 0, "sent by unicast");
    let learned = b.plane.learned();
    let place = |mac| learned.iter().find(|l| l.mac == mac).map(|l| l.peer);
    assert_eq!((place(here), place(there)), (Some(Some(id(1))), Some(None)));
    assert!(
        learned.iter().all(|l| l.mac != mac(1)),
        "announced ones are not"
    );
}

/// Trees of a ring of five: each source sends both ways round, two hops far.
fn ring_trees(peers: &mut [Peer]) {
    let around = |n: u8, step: u8| (n - 1 + step) % 5 + 1;
    for peer in peers {
        let me = peer.number;
        for source in 1..=5 {
            let tree = match (me + 5 - source) % 5 {
                0 => tree(None, &[around(me, 1), around(me, 4)]),
                1 => tree(Some(source), &[around(me, 1)]),
                2 => tree(Some(around(me, 4)), &[]),
                3 => tree(Some(around(me, 1)), &[]),
                _ => tree(Some(source), &[around(me, 4)]),
            };
            let source = id(source).short_id();
            peer.forwarding.floods.insert(source, tree);
        }
    }
}

#[test]
fn a_broadcast_is_received_exactly_once_around_a_ring_of_five() {
    let mut peers = mesh(5, |a, b| (a + 5 - b) % 5 == 1 || (b + 5 - a) % 5 == 1);
    ring_trees(&mut peers);
    publish_all(&peers);
    for source in 0..5u8 {
        let sent = frame(Mac::BROADCAST, mac(source + 1), &[source; 50]);
        peers[usize::from(source)].inject(&sent);
        for peer in peers.iter().filter(|p| p.number != source + 1) {
            assert_eq!(peer.delivered(), Some(sent.clone()), "{}", peer.number);
        }
    }
    for peer in &peers {
        peer.assert_silent(Duration::from_millis(50));
        let counters = peer.plane.counters();
        assert_eq!(counters.floods_originated, 1);
        assert_eq!(counters.floods_delivered, 4);
        assert_eq!(counters.floods_forwarded, 2);
    }
}

/// 1 - 2 - 3, where the ends have a session of which the middle has no key.
fn chain() -> Vec<Peer> {
    let mut peers = mesh(3, |a, b| a.abs_diff(b) == 1);
    peers[0].know(3, Path::Relay(id(2)));
    peers[2].know(1, Path::Relay(id(2)));
    publish_all(&peers);
    peers
}

#[test]
fn a_relay_passes_on_what_it_cannot_read() {
    let peers = chain();
    let indices = |p: &Peer| {
        p.forwarding
            .sessions
            .iter()
            .map(|s| s.peer)
            .collect::<Vec<_>>()
    };
    assert_eq!(indices(&peers[1]), [id(1), id(3)]);
    for n in 0..10 {
        let sent = frame(mac(3), mac(1), &[n; 900]);
        peers[0].inject(&sent);
        assert_eq!(peers[2].delivered(), Some(sent));
    }
    let back = frame(mac(1), mac(3), b"back");
    peers[2].inject(&back);
    assert_eq!(peers[0].delivered(), Some(back));
    assert_eq!(peers[1].plane.counters().relayed, 11);
    let [direct, relay] = peers[2].plane.peer_counters()[&id(1)].0;
    assert_eq!(direct, FrameCounters::default());
    assert_eq!((relay.frames_sent, relay.frames_received), (1, 10));
    assert_eq!(relay.bytes_received, 10 * 914);
    peers[1].assert_silent(Duration::from_millis(20));
    let samples = peers[2].plane.samples();
    let of = |n| samples.iter().find(|s| s.peer == id(n)).unwrap();
    assert_eq!((of(1).received_direct, of(1).received_relayed), (0, 10));
    assert_eq!((of(2).received_direct, of(2).received_relayed), (10, 0));
}

#[test]
fn a_jumbo_frame_crosses_a_small_path_in_sealed_fragments() {
    let body: Vec<u8> = (0..9_000u32).map(|n| n as u8).collect();
    let (a, b) = pair();
    let sent = frame(mac(2), mac(1), &body);
    a.inject(&sent);
    assert_eq!(b.delivered(), Some(sent));
    assert_eq!(a.plane.counters().fragments_sent, 8);
    assert_eq!(b.plane.counters().reassembled, 1);
    let flooded = frame(Mac::BROADCAST, mac(1), &body);
    a.inject(&flooded);
    assert_eq!(b.delivered(), Some(flooded));
    let peers = chain();
    let sent = frame(mac(3), mac(1), &body);
    peers[0].inject(&sent);
    assert_eq!(peers[2].delivered(), Some(sent));
    assert_eq!(peers[1].plane.counters().relayed, 8);
}

#[test]
fn no_datagram_is_longer_than_its_path_and_none_shows_plaintext() {
    let wire = wire();
    let mut a = Peer::start(1);
    a.know(2, Path::Direct(wire.local_addr().unwrap()));
    a.publish();
    let full = usize::from(support::SMALL_PATH);
    for len in (1_150..1_250).chain([5_000]) {
        a.inject(&frame(mac(2), mac(1), &vec![0x55; len]));
        let record_overhead = 16 + 4 + 14 + 16;
        let mut fits_one = len + record_overhead <= full;
        // Of several pieces only the last is shorter than the path.
        loop {
            let datagram = next_datagram(&wire);
            assert!(datagram.len() <= full, "{}", datagram.len());
            assert!(!datagram.windows(8).any(|w| w == [0x55; 8]));
            fits_one |= datagram.len() < full;
            if fits_one {
                break;
            }
        }
    }
}

#[test]
fn the_first_frames_wait_for_a_session() {
    let mut b = Peer::start(2);
    let mut a = Peer::start(1);
    a.forwarding.macs.insert(mac(2), id(2));
    a.publish();
    let sent: Vec<_> = (0..20).map(|n| frame(mac(2), mac(1), &[n])).collect();
    sent.iter().for_each(|frame| a.inject(frame));
    assert_eq!(a.told(), Some(Inbound::Want(id(2))));
    a.know(2, Path::Direct(b.address()));
    b.know(1, Path::Direct(a.address()));
    b.publish();
    wait_until(|| a.plane.counters().frames_from_bridge == 20);
    a.publish();
    for frame in sent {
        assert_eq!(b.delivered(), Some(frame));
    }
    assert_eq!(a.plane.counters().pending_sent, 20);
}

#[test]
fn who_awaits_traffic_is_told_of_the_next_frame_once_at_both_ends() {
    let (mut a, mut b) = pair();
    let sent = frame(mac(2), mac(1), b"x");
    a.inject(&sent);
    assert_eq!(b.delivered(), Some(sent.clone()));
    assert_eq!(a.already_told(), None, "nobody asked");
    for peer in [&a, &b] {
        peer.plane.await_traffic();
    }
    for _ in 0..2 {
        a.inject(&sent);
        assert_eq!(b.delivered(), Some(sent.clone()));
    }
    for peer in [&mut a, &mut b] {
        assert_eq!(peer.told(), Some(Inbound::Traffic));
        assert_eq!(peer.already_told(), None);
    }
}

#[test]
fn frames_for_a_peer_that_never_answers_are_dropped_after_a_second() {
    let mut a = Peer::start(1);
    a.forwarding.macs.insert(mac(2), id(2));
    a.publish();
    for n in 0..70 {
        a.inject(&frame(mac(2), mac(1), &[n]));
    }
    a.assert_drops("pending_full", 6);
    a.assert_drops("pending_expired", 64);
}

#[test]
fn a_change_of_path_moves_to_a_fresh_lane_and_back_without_reusing_a_number() {
    let wire = wire();
    let mut a = Peer::start(1);
    a.know(2, Path::Direct(wire.local_addr().unwrap()));
    let mut seen = Vec::new();
    for epoch in [0, 1, 255] {
        a.forwarding.peers.get_mut(&id(2)).unwrap().path_epoch = epoch;
        a.publish();
        a.inject(&frame(mac(2), mac(1), b"x"));
        let header = Header::decode(&next_datagram(&wire)).unwrap();
        seen.push((header.lane(), header.counter()));
    }
    assert_eq!(seen, [(1, 0), (2, 0), (1, 1)]);
}

#[test]
fn control_datagrams_use_the_same_socket_and_failures_are_told() {
    let (mut a, mut b) = pair();
    let datagram = Header::record(1, 0, 7).encode().to_vec();
    let transmit = Transmit {
        destination: b.address(),
        bytes: datagram.clone(),
    };
    assert_eq!(a.plane.send(&transmit), Ok(()));
    let source = a.address();
    let bytes = datagram;
    assert_eq!(b.told(), Some(Inbound::Datagram { source, bytes }));
    let destination = "[::1]:9".parse().unwrap();
    let bytes = Vec::new();
    let transmit = Transmit { destination, bytes };
    assert_eq!(a.plane.send(&transmit), Err(SendFailure::Unreachable));
    a.know(3, Path::Direct(destination));
    a.know(4, Path::Direct(b.address()));
    let wide = a.forwarding.peers.get_mut(&id(4)).unwrap();
    wide.datagram_len_max = u16::MAX;
    a.publish();
    for (to, failure, destination) in [
        (3, SendFailure::Unreachable, destination),
        (4, SendFailure::TooBig { len: 65_530 }, b.address()),
    ] {
        let len = if to == 4 { 65_480 } else { 100 };
        for _ in 0..3 {
            a.inject(&frame(mac(to), mac(1), &vec![0; len]));
        }
        let expected = Inbound::SendFailed {
            destination,
            failure,
        };
        assert_eq!(a.told(), Some(expected));
    }
    a.inject(&frame(mac(2), mac(1), b"still alive"));
    assert!(b.delivered().is_some());
}

#[test]
fn a_storm_is_cut_at_its_origin_and_others_go_on() {
    let (a, b) = pair();
    let start = Instant::now();
    let reader = std::thread::spawn(move || {
        let mut count = 0u64;
        while let Some(frame) = b.delivered() {
            if frame[14..] == *b"unicast" {
                break;
            }
            count += 1;
        }
        (b, count)
    });
    for n in 0..4_000u32 {
        a.inject(&frame(Mac::BROADCAST, mac(1), &n.to_be_bytes()));
    }
    wait_until(|| a.plane.counters().frames_from_bridge == 4_000);
    let allowed = 1_000 + start.elapsed().as_millis() as u64 + 1;
    let counters = a.plane.counters();
    assert!(counters.floods_originated <= allowed, "{counters:?}");
    assert!(counters.floods_originated >= 1_000);
    assert_eq!(a.dropped("storm_limit") + counters.floods_originated, 4_000);
    a.inject(&frame(mac(2), mac(1), b"unicast"));
    let (b, count) = reader.join().unwrap();
    assert_eq!(b.plane.counters().floods_delivered, count);
    assert!(count <= allowed);
}

#[test]
fn a_second_way_round_stops_the_larger_id_and_no_probe_is_carried() {
    let (mut a, mut b) = pair();
    let mark = |peer| ProbeMarks::default().of(&id(peer));
    let probe = |peer| second_way_probe(mac(9), mark(peer), &id(peer));
    // A container of b makes one up from what it has read.
    b.inject(&second_way_probe(mac(9), mark(2), &id(1)));
    b.assert_drops("second_way_probe", 1);
    assert_eq!(b.already_told(), None);
    b.inject(&probe(1));
    let (peer, suppressed) = (id(1), true);
    assert_eq!(b.told(), Some(Inbound::SecondWay { peer, suppressed }));
    a.inject(&probe(2));
    let (peer, suppressed) = (id(2), false);
    assert_eq!(a.told(), Some(Inbound::SecondWay { peer, suppressed }));
    b.inject(&frame(Mac::BROADCAST, mac(2), b"round and round"));
    b.assert_drops("flooding_suppressed", 1);
    a.inject(&frame(Mac::BROADCAST, mac(1), b"round and round"));
    b.assert_drops("flooding_suppressed", 2);
    a.inject(&frame(mac(2), mac(1), b"unicast goes on"));
    let expected = frame(mac(2), mac(1), b"unicast goes on");
    assert_eq!(b.delivered(), Some(expected));
    a.assert_silent(Duration::from_millis(20));
}

/// Small frames that wait together share a record; what one carries comes out in order, between frames
/// that travel alone.
#[test]
fn small_frames_that_wait_together_share_a_record() {
    let (a, b) = pair();
    let mut number = 0u32;
    let mut rounds = 0;
    while a.plane.counters().bundles_sent < 20 {
        rounds += 1;
        assert!(rounds < 2_000, "frames never waited together");
        let burst: Vec<Vec<u8>> = (0..40)
            .map(|at| {
                number += 1;
                let len = [46, 46, 46, 200, 46, 46, 900][at % 7];
                let mut body = vec![at as u8; len];
                body[..4].copy_from_slice(&number.to_be_bytes());
                frame(mac(2), mac(1), &body)
            })
            .collect();
        for one in &burst {
            a.inject(one);
        }
        for one in &burst {
            assert_eq!(b.delivered().as_ref(), Some(one), "frame {number}");
        }
    }
    let [direct, _] = a.plane.peer_counters()[&id(2)].0;
    assert_eq!(direct.frames_sent, u64::from(number));
    let [direct, _] = b.plane.peer_counters()[&id(1)].0;
    assert_eq!(direct.frames_received, u64::from(number));
    let sent = a.plane.counters();
    println!(
        "{number} frames in {} datagrams, {} bundles",
        sent.datagrams_sent, sent.bundles_sent
    );
    assert!(sent.datagrams_sent < u64::from(number));
    assert_eq!(
        b.plane.counters().drops.len(),
        0,
        "{:?}",
        b.plane.counters()
    );
}
