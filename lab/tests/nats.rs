//! What translators and firewalls let through, from where.
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use rmesh_lab::{Firewall, Host, Lab, Namespace, Nat, NatBehavior};

const PORT: u16 = 6_783;
const LIFETIME: Duration = Duration::from_secs(2);

/// A host behind a router, and two hosts in the internet.
struct Scene {
    _lab: Lab,
    router: Host,
    outside: String,
    nat: Nat,
    inside: UdpSocket,
    /// Two hosts, the second of them with two sockets.
    others: [UdpSocket; 3],
}

fn socket(at: &Namespace, address: IpAddr, port: u16) -> UdpSocket {
    let socket = at.enter(|| UdpSocket::bind((address, port))).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    socket
}

fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => panic!("{address}"),
    }
}

fn scene(name: &str, behavior: NatBehavior) -> Scene {
    let mut lab = Lab::new(name).unwrap();
    let net = lab.host("net").unwrap();
    net.drop_unrouted().unwrap();
    let [router, host, one, two] = ["router", "host", "one", "two"].map(|n| lab.host(n).unwrap());
    let uplink = lab.uplink(&router, &net).unwrap();
    let inside = lab.uplink(&host, &router).unwrap().address(&host, false);
    let [one_at, two_at] = [&one, &two].map(|h| lab.uplink(h, &net).unwrap().address(h, false));
    let outside = uplink.interface(&router);
    let sockets = [(v4(inside), PORT)];
    let nat = Nat::start(&router, &outside, behavior, LIFETIME, &sockets).unwrap();
    Scene {
        inside: socket(&host, inside, PORT),
        others: [
            socket(&one, one_at, PORT),
            socket(&two, two_at, PORT),
            socket(&two, two_at, 7_000),
        ],
        router,
        outside,
        nat,
        _lab: lab,
    }
}

impl Scene {
    /// Sends from inside to this host; where it says that came from.
    fn seen(&self, other: usize) -> Option<SocketAddr> {
        let other = &self.others[other];
        self.inside
            .send_to(b"out", other.local_addr().unwrap())
            .unwrap();
        let mut buffer = [0; 8];
        other.recv_from(&mut buffer).ok().map(|(_, from)| from)
    }

    /// Whether what this host sends to that address arrives inside.
    fn reaches(&self, other: usize, address: SocketAddr) -> bool {
        self.others[other].send_to(b"in", address).unwrap();
        let mut buffer = [0; 8];
        self.inside.recv_from(&mut buffer).is_ok()
    }
}

#[test]
fn an_endpoint_independent_nat_is_open_for_everybody_while_its_mapping_lives() {
    let scene = scene("nat-ei", NatBehavior::EndpointIndependent);
    let at = scene.seen(0).unwrap();
    assert_ne!(at.port(), PORT, "{at}");
    assert!(scene.reaches(0, at) && scene.reaches(1, at) && scene.reaches(2, at));
    assert_eq!(
        scene.seen(1),
        Some(at),
        "another port for another destination"
    );
    std::thread::sleep(LIFETIME + Duration::from_millis(1_500));
    assert!(!scene.reaches(1, at), "a mapping outlived its time");
    let before = scene.seen(0).unwrap();
    scene.nat.remap().unwrap();
    assert!(!scene.reaches(0, before), "a forgotten mapping is open");
    let after = scene.seen(0).unwrap();
    assert_ne!(before, after);
    assert!(scene.reaches(0, after));
}

#[test]
fn an_address_dependent_nat_is_open_for_those_that_were_called() {
    let scene = scene("nat-ad", NatBehavior::AddressDependent);
    let at = scene.seen(0).unwrap();
    assert!(scene.reaches(0, at));
    assert!(!scene.reaches(1, at), "a stranger got in");
    assert_eq!(
        scene.seen(1),
        Some(at),
        "another port for another destination"
    );
    assert!(scene.reaches(1, at) && scene.reaches(2, at));
}

#[test]
fn a_symmetric_nat_has_a_port_for_every_destination() {
    let scene = scene("nat-sym", NatBehavior::Symmetric);
    let (first, second) = (scene.seen(0).unwrap(), scene.seen(1).unwrap());
    assert_ne!(first, second);
    assert!(scene.reaches(0, first) && scene.reaches(1, second));
    assert!(!scene.reaches(1, first) && !scene.reaches(2, second));
}

#[test]
fn a_nat_opens_for_both_when_both_call_at_once() {
    // What arrives too early must not take the port that the answer will come to.
    let scene = scene("nat-early", NatBehavior::AddressDependent);
    let at = scene.seen(0).unwrap();
    assert!(!scene.reaches(1, at));
    assert_eq!(scene.seen(1), Some(at));
    assert!(scene.reaches(1, at));
}

#[test]
fn a_firewall_drops_what_it_says_and_nothing_after() {
    let scene = scene("firewall", NatBehavior::EndpointIndependent);
    let at = scene.seen(0).unwrap();
    let (router, outside) = (&scene.router, scene.outside.as_str());
    router.firewall(outside, Firewall::Udp).unwrap();
    assert_eq!(scene.seen(0), None);
    router.firewall(outside, Firewall::Inbound).unwrap();
    assert_eq!(scene.seen(0), Some(at));
    assert!(scene.reaches(0, at) && !scene.reaches(1, at));
    router.no_firewall().unwrap();
    assert!(scene.reaches(1, at));
}
