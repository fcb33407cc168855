//! What strangers, replayers and lying neighbours can do: move counters, and nothing else.

use std::net::UdpSocket;
use std::time::Duration;

use rmesh_gossip::Path;
use rmesh_gossip::crypto::real::RealCrypto;
use rmesh_gossip::crypto::{Crypto as _, Key};
use rmesh_router::{Inbound, PlaneOptions};
use rmesh_wire::Mac;
use rmesh_wire::datagram::{Header, Kind};
use rmesh_wire::handshake::Cipher;

use crate::support::{
    Peer, frame, id, introduce, mac, next_datagram, options, tree, wait_until, wire,
};

/// Peer 1 sends to peer 2 through a wire in the test's hands.
fn tapped() -> (Peer, Peer, UdpSocket) {
    let (wire, mut a, mut b) = (wire(), Peer::start(1), Peer::start(2));
    a.know(2, Path::Direct(wire.local_addr().unwrap()));
    b.know(1, Path::Direct(a.address()));
    let source = id(1).short_id();
    a.forwarding.floods.insert(source, tree(None, &[2]));
    b.forwarding.floods.insert(source, tree(Some(1), &[]));
    a.publish();
    b.publish();
    (a, b, wire)
}

#[test]
fn a_datagram_is_delivered_once_in_whatever_order_it_comes() {
    let (a, b, wire) = tapped();
    let frames: Vec<_> = (0..8).map(|n| frame(mac(2), mac(1), &[n])).collect();
    // One by one, or they could travel in one.
    let record = |frame: &Vec<u8>| {
        a.inject(frame);
        next_datagram(&wire)
    };
    let datagrams: Vec<_> = frames.iter().map(record).collect();
    for datagram in datagrams.iter().rev().chain(&datagrams) {
        wire.send_to(datagram, b.address()).unwrap();
    }
    for expected in frames.into_iter().rev() {
        assert_eq!(b.delivered(), Some(expected));
    }
    b.assert_drops("replayed", 8);
    let another_port = UdpSocket::bind("127.0.0.1:0").unwrap();
    another_port.send_to(&datagrams[0], b.address()).unwrap();
    b.assert_drops("replayed", 9);
    b.publish();
    wire.send_to(&datagrams[1], b.address()).unwrap();
    b.assert_drops("replayed", 10);
    b.assert_silent(Duration::from_millis(20));
}

#[test]
fn garbage_moves_counters_and_nothing_else() {
    let (a, mut b, wire) = tapped();
    a.inject(&frame(mac(2), mac(1), b"good"));
    let good = next_datagram(&wire);
    let send = |bytes: &[u8]| wire.send_to(bytes, b.address()).unwrap();
    for at in 0..good.len() {
        let mut forged = good.clone();
        forged[at] ^= 1;
        send(&forged);
        send(&good[..at]);
    }
    send(&[0xff; 3_000]);
    let sent = 2 * good.len() as u64 + 1;
    wait_until(|| b.plane.counters().datagrams_received == sent);
    let counters = b.plane.counters();
    assert_eq!(counters.datagrams_received, sent);
    // Those of lane 0, too, are known as forged before the control side sees them.
    assert_eq!(counters.drops.values().sum::<u64>(), sent);
    assert_eq!(counters.drops["unknown_version"], 1, "refused by name");
    assert_eq!(counters.frames_to_bridge, 0);
    assert_eq!(b.already_told(), None);
    send_to(&wire, &b, &good);
    assert_eq!(b.delivered(), Some(frame(mac(2), mac(1), b"good")));
}

fn send_to(wire: &UdpSocket, peer: &Peer, bytes: &[u8]) {
    wire.send_to(bytes, peer.address()).unwrap();
}

#[test]
fn a_peer_cannot_take_over_a_container_of_this_host() {
    let (a, b, wire) = tapped();
    a.inject(&frame(mac(2), mac(2), b"I am your container"));
    send_to(&wire, &b, &next_datagram(&wire));
    b.assert_drops("second_way", 1);
    b.assert_silent(Duration::from_millis(20));
}

/// A record on lane 0 from peer 1 to peer 2, as the control side of peer 1 seals it.
fn control_record(counter: u64) -> Vec<u8> {
    let header = Header::record(0x0201, 0, counter);
    let (associated, mut text) = (header.encode(), *b"a probe");
    let key = Key::new([0x12; 32]);
    let seal = RealCrypto::new().aead(Cipher::ChaCha20Poly1305, &key);
    let tag = seal.unwrap().seal(&header.nonce(), &associated, &mut text);
    [&associated[..], &text, &tag].concat()
}

#[test]
fn forged_and_replayed_control_datagrams_leave_the_queue_to_genuine_ones() {
    const FLOOD: u64 = 400;
    let (_a, mut b, wire) = tapped();
    let genuine = control_record(0);
    let mut forged = genuine.clone();
    forged[20] ^= 1;
    let relayed = Header::relay(0x0201, 0, 1, 8).encode();
    let relayed = [&relayed[..], &[7; 80]].concat();
    send_to(&wire, &b, &genuine);
    let source = wire.local_addr().unwrap();
    let told = |bytes: Vec<u8>| Some(Inbound::Datagram { source, bytes });
    assert_eq!(b.told(), told(genuine.clone()));
    for _ in 0..FLOOD {
        for datagram in [&forged, &relayed, &genuine] {
            send_to(&wire, &b, datagram);
        }
        // Not faster than the socket's buffer is read.
        std::thread::sleep(Duration::from_micros(50));
    }
    b.assert_drops("forged", 2 * FLOOD);
    b.assert_drops("replayed", FLOOD);
    assert_eq!(b.dropped("inbox_full"), 0);
    send_to(&wire, &b, &control_record(1));
    assert_eq!(b.told(), told(control_record(1)));
    assert_eq!(b.already_told(), None);
}

#[test]
fn control_datagrams_of_unknown_sessions_are_few() {
    let (_a, mut b, wire) = tapped();
    // One of a session that the workers are not told of yet.
    let early = Header::record(9, 0, 0).encode();
    send_to(&wire, &b, &early);
    assert!(b.told().is_some());
    for _ in 0..1_000 {
        send_to(&wire, &b, &early);
        std::thread::sleep(Duration::from_micros(50));
    }
    let refused = || b.dropped("unknown_session") + b.dropped("inbox_full");
    wait_until(|| b.plane.counters().datagrams_received == 1_001);
    println!("{} of 1,001 refused", refused());
    assert!(b.dropped("unknown_session") >= 400);
}

#[test]
fn handshakes_go_to_the_control_side_whole_and_each_once() {
    let (_a, mut b, wire) = tapped();
    let hello = Header::handshake(Kind::HandshakeInit, 0, 5, 0).encode();
    for _ in 0..200 {
        send_to(&wire, &b, &hello);
    }
    let (source, bytes) = (wire.local_addr().unwrap(), hello.to_vec());
    assert_eq!(b.told(), Some(Inbound::Datagram { source, bytes }));
    wait_until(|| b.plane.counters().datagrams_received == 200);
    let mut told = 1;
    wait_until(|| {
        told += std::iter::from_fn(|| b.already_told()).count();
        told >= 200
    });
    assert_eq!((told, b.dropped("inbox_full")), (200, 0));
}

#[test]
fn floods_are_taken_only_from_the_tree_parent() {
    let (a, mut b, wire) = tapped();
    let source = id(1).short_id();
    b.forwarding.floods.insert(source, tree(Some(3), &[]));
    b.publish();
    a.inject(&frame(Mac::BROADCAST, mac(1), b"not from you"));
    send_to(&wire, &b, &next_datagram(&wire));
    b.assert_drops("flood_not_from_parent", 1);
    b.assert_silent(Duration::from_millis(20));
}

#[test]
fn a_relay_datagram_never_goes_back_or_round() {
    let mut peers = crate::support::mesh(3, |a, b| a.abs_diff(b) == 1);
    peers[0].know(3, Path::Relay(id(2)));
    peers[0].know(4, Path::Relay(id(2)));
    let back = id(3).short_id();
    peers[1].forwarding.next_hops.insert(back, id(1));
    crate::support::publish_all(&peers);
    peers[0].inject(&frame(mac(3), mac(1), b"back to me"));
    peers[1].assert_drops("relay_no_route", 1);
    peers[0].inject(&frame(mac(4), mac(1), b"to nobody"));
    peers[1].assert_drops("relay_no_route", 2);
    assert_eq!(peers[1].plane.counters().relayed, 0);
}

#[test]
fn a_forged_relay_datagram_is_not_passed_on() {
    let (wire, mut a, mut b, mut c) = (wire(), Peer::start(1), Peer::start(2), Peer::start(3));
    a.know(2, Path::Direct(wire.local_addr().unwrap()));
    a.know(3, Path::Relay(id(2)));
    b.know(1, Path::Direct(a.address()));
    b.know(3, Path::Direct(c.address()));
    c.know(2, Path::Direct(b.address()));
    c.know(1, Path::Relay(id(2)));
    [&a, &b, &c].into_iter().for_each(Peer::publish);
    a.inject(&frame(mac(3), mac(1), b"over two hops"));
    let datagram = next_datagram(&wire);
    for at in [1, 16, 24, 40, datagram.len() - 1] {
        let mut forged = datagram.clone();
        forged[at] ^= 1;
        send_to(&wire, &b, &forged);
    }
    b.assert_drops("forged", 5);
    send_to(&wire, &b, &datagram);
    send_to(&wire, &b, &datagram);
    assert_eq!(c.delivered(), Some(frame(mac(3), mac(1), b"over two hops")));
    b.assert_drops("replayed", 1);
    assert_eq!(b.plane.counters().relayed, 1);
}

#[test]
fn who_names_another_as_the_source_spends_its_own_allowance() {
    let mut peers: Vec<Peer> = (1..=5).map(Peer::start).collect();
    let limited = PlaneOptions {
        relay_limit: Some(1_000),
        ..options("pair")
    };
    peers[1] = Peer::start_with(2, limited);
    // All but the relay are its neighbours only; the fifth hangs on the fourth.
    introduce(&mut peers, |a, b| match a.max(b) {
        5 => a.min(b) == 4,
        _ => a == 2 || b == 2,
    });
    for at in [0, 3, 4] {
        let by = if at == 4 { id(4) } else { id(2) };
        peers[at].know(3, Path::Relay(by));
    }
    for other in [1, 4, 5] {
        peers[2].know(other, Path::Relay(id(2)));
    }
    peers[1].know(5, Path::Relay(id(4)));
    peers[0].forwarding.me = id(4);
    crate::support::publish_all(&peers);
    let relay = |peers: &[Peer]| peers[1].plane.counters().relayed;
    // 32 KiB may be sent at once.
    for _ in 0..40 {
        peers[0].inject(&frame(mac(3), mac(1), &[1; 900]));
    }
    wait_until(|| relay(&peers) + peers[1].dropped("relay_limit") == 40);
    let (carried, refused) = (relay(&peers), peers[1].dropped("relay_limit"));
    println!("{carried} of 40 carried in another's name, {refused} refused");
    assert!(refused > 0 && carried > 0);
    // What it named has lost nothing, nor has who is behind that.
    for from in [4, 5] {
        for n in 0..20 {
            peers[from - 1].inject(&frame(mac(3), mac(from as u8), &[n; 900]));
        }
    }
    wait_until(|| relay(&peers) == carried + 40);
    assert_eq!(relay(&peers), carried + 40);
    assert_eq!(peers[1].dropped("relay_limit"), refused);
}
