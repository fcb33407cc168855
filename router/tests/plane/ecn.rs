//! Traffic classes and congestion marks across the tunnel (RFC 6040, RFC 2983).

use std::io::Read as _;
use std::net::UdpSocket;
use std::time::Duration;

use rmesh_gossip::Path;
use rmesh_wire::Mac;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::support::{Peer, mac, next_datagram, wire};

/// Congestion was met.
const CE: u8 = 3;
/// Expedited forwarding (RFC 3246), and able to take marks: ECT(0).
const EXPEDITED: u8 = 0xb8 | 2;

/// An IPv4 packet of no protocol with this traffic class and a right header checksum.
fn packet(class: u8, len: usize) -> Vec<u8> {
    let mut packet = vec![0; 20 + len];
    packet[0] = 0x45;
    packet[1] = class;
    packet[2..4].copy_from_slice(&(20 + len as u16).to_be_bytes());
    packet[8..10].copy_from_slice(&[64, 253]);
    let words = packet[..20]
        .chunks(2)
        .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    packet
}

fn frame_of(to: Mac, from: Mac, packet: &[u8]) -> Vec<u8> {
    [&to.0[..], &from.0, &[8, 0], packet].concat()
}

/// Two peers between whom a test passes on what the first sends.
fn apart() -> (Peer, Peer, UdpSocket) {
    let wire = wire();
    let (mut a, mut b) = (Peer::start(1), Peer::start(2));
    a.know(2, Path::Direct(wire.local_addr().unwrap()));
    b.know(1, Path::Direct(a.address()));
    a.publish();
    b.publish();
    (a, b, wire)
}

/// Passes the next `count` datagrams on, each with its traffic class.
fn pass_on(wire: &UdpSocket, to: &Peer, classes: &[u8]) {
    for class in classes {
        let datagram = next_datagram(wire);
        SockRef::from(wire).set_tos_v4(u32::from(*class)).unwrap();
        wire.send_to(&datagram, to.address()).unwrap();
    }
}

#[test]
fn a_datagram_has_the_traffic_class_of_its_frame() {
    let (a, _b, wire) = apart();
    let mut all = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)).unwrap();
    all.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let port = wire.local_addr().unwrap().port().to_be_bytes();
    for class in [EXPEDITED, 0, CE] {
        // The second one needs fragments.
        for len in [100, 3_000] {
            a.inject(&frame_of(mac(2), mac(1), &packet(class, len)));
            let mut bytes = [0; 2_048];
            // Everybody's datagrams on this host come by here.
            while bytes[22..24] != port {
                let _ = all.read(&mut bytes).unwrap();
            }
            assert_eq!(bytes[1], class, "{len}");
        }
    }
}

#[test]
fn a_mark_on_the_way_reaches_the_frame() {
    let (a, b, wire) = apart();
    let sent = packet(EXPEDITED, 100);
    a.inject(&frame_of(mac(2), mac(1), &sent));
    pass_on(&wire, &b, &[CE]);
    let marked = packet(EXPEDITED | CE, 100);
    let got = b.delivered().unwrap();
    assert_eq!(
        got,
        frame_of(mac(2), mac(1), &marked),
        "and its checksum is right"
    );
    // One mark among its fragments is enough.
    a.inject(&frame_of(mac(2), mac(1), &packet(EXPEDITED, 3_000)));
    pass_on(&wire, &b, &[0, CE, 0]);
    let whole = frame_of(mac(2), mac(1), &packet(EXPEDITED | CE, 3_000));
    assert_eq!(b.delivered(), Some(whole));
}

#[test]
fn a_marked_frame_whose_ends_know_no_marks_is_dropped_and_counted() {
    let (a, b, wire) = apart();
    let sent = frame_of(mac(2), mac(1), &packet(0xb8, 100));
    a.inject(&sent);
    pass_on(&wire, &b, &[CE]);
    b.assert_drops("ecn_not_understood", 1);
    // Whatever else became of the outer class is not the frame's.
    a.inject(&sent);
    pass_on(&wire, &b, &[2]);
    assert_eq!(b.delivered(), Some(sent));
}
