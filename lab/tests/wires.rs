//! Hosts, wires, cuts, and the probes that tests rely on.
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use rmesh_lab::{
    Family, Host, Lab, Link,
    probe::{
        self, Capture, EtherListener, Listen, PingOptions, Pinger, TcpStreamProbe, UdpListener,
    },
};

fn two_hosts(name: &str, family: Family) -> (Lab, Host, Host, Link) {
    let mut lab = Lab::new(name).unwrap();
    let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
    let link = lab.link(&a, &b, family).unwrap();
    (lab, a, b, link)
}

fn quick(count: u64) -> PingOptions {
    PingOptions {
        count,
        interval: Duration::from_millis(10),
        timeout: Duration::from_millis(300),
    }
}

#[test]
fn two_hosts_ping_each_other_in_both_families() {
    let (_lab, a, b, link) = two_hosts("ping", Family::Both);
    for v6 in [false, true] {
        for (from, to) in [(&a, &b), (&b, &a)] {
            let report = probe::ping(from, link.address(to, v6), quick(5)).unwrap();
            assert_eq!(
                (report.sent, report.received, report.duplicates),
                (5, 5, 0),
                "v6: {v6}"
            );
            assert_eq!(report.round_trips.len(), 5);
        }
    }
    let large = probe::ping_with_payload(&a, link.address(&b, true), quick(2), 1400).unwrap();
    assert_eq!(large.received, 2);
    assert_eq!(a.interface_names().unwrap(), ["lo", "eth-b"]);
    assert_ne!(a.mac("eth-b").unwrap(), b.mac("eth-a").unwrap());
    assert!(
        a.addresses("eth-b")
            .unwrap()
            .iter()
            .any(|net| net.to_string() == "10.77.1.1/24")
    );
}

#[test]
fn a_link_of_one_family_carries_nothing_of_the_other() {
    let (mut lab, a, b, v6) = two_hosts("families", Family::V6);
    let c = lab.host("c").unwrap();
    let v4 = lab.link(&b, &c, Family::V4).unwrap();
    assert_eq!(
        probe::ping(&a, v6.address(&b, true), quick(2))
            .unwrap()
            .received,
        2
    );
    assert_eq!(
        probe::ping(&b, v4.address(&c, false), quick(2))
            .unwrap()
            .received,
        2
    );
    assert!(
        a.addresses("eth-b")
            .unwrap()
            .iter()
            .all(|net| net.addr().is_ipv6())
    );
    assert!(
        c.addresses("eth-b")
            .unwrap()
            .iter()
            .all(|net| net.addr().is_ipv4())
    );
    // Nothing is routed between links: the kernel refuses each request at once.
    let report = probe::ping(&a, v4.address(&c, false), quick(2)).unwrap();
    assert_eq!((report.received, report.refused), (0, 2));
}

/// Sends to a listening socket beyond a cut for three seconds, one datagram every 20 ms.
fn send_into_the_void(a: &Host, from: IpAddr, to: SocketAddr) {
    let socket = a
        .enter(|| UdpSocket::bind(SocketAddr::new(from, 0)))
        .unwrap();
    socket.connect(to).unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        socket
            .send(b"into the void")
            .expect("a cut must not tell the sender");
        thread::sleep(Duration::from_millis(20));
    }
    socket.set_nonblocking(true).unwrap();
    let nothing = socket.recv(&mut [0; 16]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_cut_is_silent_and_a_restore_brings_everything_back() {
    let (_lab, a, b, link) = two_hosts("cut", Family::Both);
    let targets = [false, true].map(|v6| SocketAddr::new(link.address(&b, v6), 9999));
    let listeners = targets.map(|target| b.enter(|| UdpSocket::bind(target)).unwrap());
    let pingers = targets.map(|to| Pinger::start(&a, to.ip(), Duration::from_millis(10)).unwrap());
    let streams = targets.map(|to| TcpStreamProbe::start(&a, &b, to.ip()).unwrap());
    thread::sleep(Duration::from_millis(200));

    link.cut().unwrap();
    link.cut().unwrap();
    thread::scope(|scope| {
        for target in targets {
            let from = link.address(&a, target.is_ipv6());
            let host = &a;
            scope.spawn(move || send_into_the_void(host, from, target));
        }
    });
    for (listener, target) in listeners.iter().zip(targets) {
        listener.set_nonblocking(true).unwrap();
        assert!(
            listener.recv(&mut [0; 16]).is_err(),
            "nothing arrives at {target}"
        );
        assert!(probe::wait_ping(&a, target.ip(), Duration::from_millis(200)).is_none());
    }

    link.restore().unwrap();
    link.restore().unwrap();
    for target in targets {
        let back = probe::wait_ping(&a, target.ip(), Duration::from_secs(2)).unwrap();
        println!("{target} answers {back:?} after the restore");
    }
    // TCP has backed off meanwhile; its next retransmission is due within the length of the cut.
    thread::sleep(Duration::from_secs(4));
    for (pinger, stream) in pingers.into_iter().zip(streams) {
        let (pings, stream) = (pinger.stop().unwrap(), stream.stop());
        assert!(
            pings.longest_gap >= Duration::from_secs(3),
            "{:?}",
            pings.longest_gap
        );
        assert!(
            pings.longest_gap < Duration::from_secs(5),
            "{:?}",
            pings.longest_gap
        );
        assert_eq!((stream.error, pings.refused), (None, 0));
        assert!(stream.longest_gap >= Duration::from_secs(3) && stream.exchanges > 10);
    }
}

#[test]
fn one_direction_can_be_cut_alone() {
    let (_lab, a, b, link) = two_hosts("one-way", Family::V4);
    link.cut_towards(&a).unwrap();
    let there = probe::udp_transfer(
        &a,
        &b,
        link.address(&b, false),
        10,
        100,
        Duration::from_secs(3),
    );
    assert_eq!(there.unwrap().received, 10);
    let back = probe::udp_transfer(
        &b,
        &a,
        link.address(&a, false),
        10,
        100,
        Duration::from_secs(3),
    );
    assert_eq!(back.unwrap().received, 0);
}

#[test]
fn transfers_count_what_arrived_and_check_it() {
    let (_lab, a, b, link) = two_hosts("transfers", Family::Both);
    for v6 in [false, true] {
        let to = link.address(&b, v6);
        let limit = Duration::from_secs(20);
        let tcp = probe::tcp_transfer(&a, &b, to, 10_000_000, limit).unwrap();
        assert_eq!(
            (tcp.sent, tcp.received, tcp.intact),
            (10_000_000, 10_000_000, true)
        );
        let udp = probe::udp_transfer(&a, &b, to, 1000, 1400, limit).unwrap();
        assert_eq!(
            (udp.sent, udp.received, udp.corrupted, udp.duplicates),
            (1000, 1000, 0, 0)
        );
    }
    // Connecting takes at most the limit, also where nobody answers.
    link.cut().unwrap();
    let start = Instant::now();
    let limit = Duration::from_millis(500);
    assert!(probe::tcp_transfer(&a, &b, link.address(&b, false), 1, limit).is_err());
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[test]
fn broadcast_and_multicast_arrive_once() {
    let (_lab, a, b, _link) = two_hosts("groups", Family::Both);
    let v4 = IpAddr::V4(Ipv4Addr::new(239, 1, 2, 3));
    let v6 = IpAddr::V6(Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0, 0x42));
    let broadcast = IpAddr::V4(Ipv4Addr::BROADCAST);
    let cases = [
        (Listen::Broadcast, broadcast),
        (Listen::Group(v4), v4),
        (Listen::Group(v6), v6),
    ];
    for (number, (listen, address)) in (7000..).zip(cases) {
        let listener = UdpListener::start(&b, "eth-a", listen, number).unwrap();
        let payload = format!("to {address}");
        let to = SocketAddr::new(address, number);
        UdpListener::send(&a, "eth-b", to, payload.as_bytes()).unwrap();
        assert!(
            listener.wait_for(payload.as_bytes(), Duration::from_secs(2)),
            "{payload}"
        );
        thread::sleep(Duration::from_millis(50));
        let counts = listener.stop();
        assert_eq!(counts.len(), 1);
        assert_eq!(counts[payload.as_bytes()], 1);
    }
}

#[test]
fn a_frame_of_any_ethertype_arrives_whole_and_a_capture_sees_it_at_both_ends() {
    let (_lab, a, b, _link) = two_hosts("ether", Family::Both);
    let captures = [
        Capture::start(&a, "eth-b").unwrap(),
        Capture::start(&b, "eth-a").unwrap(),
    ];
    let listener = EtherListener::start(&b, "eth-a", 0x88b5).unwrap();
    let other = EtherListener::start(&b, "eth-a", 0x88b6).unwrap();
    let payload = b"a frame that is neither IPv4 nor IPv6, long enough to need no padding";
    let destination = b.mac("eth-a").unwrap();
    EtherListener::send(&a, "eth-b", destination, 0x88b5, payload).unwrap();
    let deadline = Instant::now() + Duration::from_secs(2);
    while listener.count() == 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    let frames = listener.stop();
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0][..6], destination);
    assert_eq!(frames[0][6..12], a.mac("eth-b").unwrap());
    assert_eq!(frames[0][12..14], [0x88, 0xb5]);
    assert_eq!(&frames[0][14..], payload);
    assert!(other.stop().is_empty());
    for capture in captures {
        assert!(capture.contains(b"neither IPv4 nor IPv6"));
        assert!(!capture.contains(b"never sent"));
        let (frames, lost) = capture.stop_counted();
        assert!(!frames.is_empty());
        assert_eq!(lost, 0);
    }
}
