//! The kernel's own way between hosts, told as stories. Each test has hosts, containers and a wire
//! of its own, all network namespaces that vanish with it.

#![allow(clippy::unwrap_used)]

mod disturbed;
mod firewall;
mod frames;
#[path = "../attach/namespace.rs"]
mod namespace;
mod support;

use std::net::SocketAddr;
use std::time::Duration;

use namespace::{deliver_to, delivers};
use support::{
    BRIDGE, Container, Host, MTU_BYTES, SILENT, Wire, acquaint, heartbeat, is_silent, nft, options,
    run,
};

/// Two hosts that trust each other, with a container each.
fn pair(wire: &Wire) -> ([Host; 2], [Container; 2]) {
    let (mut a, mut b) = (Host::new(wire, 1), Host::new(wire, 2));
    let containers = [a.attach("10.32.0.1/16"), b.attach("10.32.0.2/16")];
    acquaint(&containers[0], &containers[1]);
    a.trust(&b);
    b.trust(&a);
    ([a, b], containers)
}

/// Says at both hosts that containers are reached at these addresses of the other.
fn place(hosts: &mut [Host; 2], containers: &[Container; 2], v6: bool) {
    let at = |host: &Host| Some(if v6 { host.v6() } else { host.v4() });
    let [a, b] = hosts;
    a.place(&containers[1], at(b));
    b.place(&containers[0], at(a));
}

#[test]
fn unicast_goes_by_vxlan_over_both_families() {
    let wire = Wire::new();
    let (mut hosts, containers) = pair(&wire);
    let [one, other] = [&containers[0], &containers[1]].map(Container::udp);
    for v6 in [false, true] {
        place(&mut hosts, &containers, v6);
        let [a, b] = &mut hosts;
        let before = (a.counted(b), b.counted(a));
        assert!(delivers(&one, &other) && delivers(&other, &one), "{v6}");
        let after = (a.counted(b), b.counted(a));
        // Headers and five bytes, and what VXLAN adds on its way.
        let frame = 14 + 20 + 8 + 5;
        let len = (if v6 { 40 } else { 20 }) + 8 + 8 + frame;
        // The device counts without the header of Ethernet.
        let more = |(sent, received): (u64, u64)| (sent + len, received + frame - 14);
        assert_eq!(after, (more(before.0), more(before.1)), "{v6}");
        assert!(a.verify().is_empty() && b.verify().is_empty());
    }
}

#[test]
fn what_is_for_nobody_in_particular_never_goes_by_vxlan() {
    let wire = Wire::new();
    let (mut hosts, containers) = pair(&wire);
    place(&mut hosts, &containers, false);
    let [a, b] = &mut hosts;
    let from = containers[0].udp();
    from.set_broadcast(true).unwrap();
    let to = containers[1].namespace.udp(namespace::ANY);
    to.set_read_timeout(Some(SILENT)).unwrap();
    let port = to.local_addr().unwrap().port();
    a.greetings_at_tap(0);
    for address in ["255.255.255.255", "10.32.255.255", "224.0.0.1"] {
        let address = SocketAddr::new(address.parse().unwrap(), port);
        assert!(!deliver_to(&from, &to, address), "{address}");
    }
    // A MAC that nobody has.
    let words = "neigh replace 10.32.0.99 lladdr 02:00:00:00:00:99 dev ethwe";
    let words: Vec<&str> = words.split_whitespace().collect();
    run(&containers[0].namespace, "/usr/sbin/ip", &words);
    from.send_to(b"hello", "10.32.0.99:9").unwrap();
    assert_eq!(a.greetings_at_tap(4), 4);
    assert_eq!((a.counted(b), b.counted(a)), ((0, 0), (0, 0)));
}

#[test]
fn a_mac_moves_between_vxlan_and_the_tap() {
    let wire = Wire::new();
    let (mut hosts, containers) = pair(&wire);
    place(&mut hosts, &containers, false);
    let [from, to] = [&containers[0], &containers[1]].map(Container::udp);
    for _ in 0..3 {
        assert!(delivers(&from, &to));
        hosts[0].place(&containers[1], None);
        let [a, b] = &mut hosts;
        let before = a.counted(b);
        assert!(is_silent(&from, &to));
        assert_eq!((a.greetings_at_tap(3), a.counted(b)), (3, before));
        let at = b.v6();
        a.place(&containers[1], Some(at));
    }
    // One of a host that is not allowed goes by the TAP, whatever else is said.
    hosts[0].wanted.allowed.clear();
    hosts[0].apply();
    assert!(is_silent(&from, &to));
    assert_eq!(hosts[0].fast.counters().unwrap().dropped_out, 0);
}

#[test]
fn a_frame_of_a_container_moves_no_entry() {
    let wire = Wire::new();
    let (mut hosts, containers) = pair(&wire);
    place(&mut hosts, &containers, false);
    let thief = hosts[0].attach("10.32.0.7/16");
    let mac = containers[1].mac.to_string();
    let words = ["link", "set", "ethwe", "address", &mac];
    run(&thief.namespace, "/usr/sbin/ip", &words);
    thief.know(&containers[0]);
    let _ = thief.udp().send_to(b"mine", "10.32.0.1:9");
    assert!(delivers(&containers[0].udp(), &containers[1].udp()));
    assert!(hosts[0].verify().is_empty());
}

#[test]
fn heartbeats_of_the_full_mtu_cross_and_end_at_the_host() {
    let wire = Wire::new();
    let (mut hosts, containers) = pair(&wire);
    let ear = frames::listen(&containers[1].namespace);
    // IP and UDP take 28 bytes.
    let payload: Vec<u8> = (0..MTU_BYTES - 28).map(|n| n as u8).collect();
    for v6 in [false, true] {
        let [a, b] = &mut hosts;
        let to = if v6 { b.v6() } else { b.v4() };
        a.beat(b, to);
        a.fast.send(heartbeat(2), to, (&payload, true)).unwrap();
        a.fast.send(heartbeat(2), to, (b"short", false)).unwrap();
        let arrived = b.heartbeats(2);
        assert_eq!(arrived, [payload.clone(), b"short".to_vec()]);
        // Encapsulated: what it is, what VXLAN adds, and the headers of UDP and IP.
        let headers = 14 + 8 + 8 + if v6 { 40 } else { 20 };
        let frames = u64::from(MTU_BYTES) + 28 + 5;
        assert!(a.counted(b).0 >= frames + 2 * headers);
        assert!(b.counted(a).1 >= frames);
        let long = vec![0; payload.len() + 1];
        assert!(a.fast.send(heartbeat(2), to, (&long, true)).is_err());
        assert!(a.fast.send(heartbeat(9), to, (b"", true)).is_err());
    }
    let heard = frames::heard(&ear, SILENT);
    let own = heartbeat(2).0;
    assert!(
        heard.iter().all(|frame| !frame.starts_with(&own)),
        "{heard:?}"
    );
}

#[test]
fn no_datagram_of_ours_is_cut_and_containers_learn_what_fits() {
    let wire = Wire::new();
    let (mut hosts, containers) = pair(&wire);
    let narrow = ["link", "set", "eth0", "mtu", "1350"];
    run(&hosts[0].namespace, "/usr/sbin/ip", &narrow);
    let ear = frames::listen_at(&hosts[0].namespace, "eth0");
    let [from, to] = [&containers[0], &containers[1]].map(Container::udp);
    let target = to.local_addr().unwrap();
    to.set_read_timeout(Some(SILENT)).unwrap();
    let (full, fits) = (vec![1; usize::from(MTU_BYTES) - 28], vec![2; 1200]);
    for v6 in [false, true] {
        place(&mut hosts, &containers, v6);
        // The kernel answers packets that may not be cut; of one that was cut already it says nothing.
        run(
            &containers[0].namespace,
            "/usr/sbin/ip",
            &["route", "flush", "cache"],
        );
        let [a, b] = &mut hosts;
        let at = if v6 { b.v6() } else { b.v4() };
        a.beat(b, at);
        a.fast.send(heartbeat(2), at, (&full, true)).unwrap();
        a.fast.send(heartbeat(2), at, (&fits, true)).unwrap();
        assert_eq!(b.heartbeats(1), [&fits[..]]);
        // The container cuts its own packet once it was told, or sends less.
        let mut buffer = [0; 2048];
        let arrived = (0..10).any(|_| {
            from.send_to(&[7; 1300], target).unwrap();
            to.recv(&mut buffer).is_ok_and(|len| len == 1300)
        });
        assert!(arrived, "{v6}");
        let sent = frames::heard(&ear, SILENT);
        assert!(sent.iter().any(|frame| frame.len() > 1200), "{v6}");
        assert!(!sent.iter().any(|frame| frames::is_fragment(frame)), "{v6}");
    }
}

#[test]
fn a_container_cannot_pass_for_a_heartbeat() {
    let wire = Wire::new();
    let (mut hosts, containers) = pair(&wire);
    let [a, b] = &mut hosts;
    let frame = frames::heartbeat(heartbeat(2), containers[1].mac, b"false");
    frames::send(&containers[1].namespace, "ethwe", &frame);
    let to = b.v4();
    a.beat(b, to);
    a.fast.send(heartbeat(2), to, (b"true", true)).unwrap();
    assert_eq!(b.heartbeats(1), [b"true"]);
    // By VXLAN it would have been one.
    frames::send(&a.namespace, "rmesh-vx4", &frame);
    assert_eq!(b.heartbeats(1), [b"false"]);
}

#[test]
fn a_third_hosts_vxlan_is_dropped_and_counted() {
    let wire = Wire::new();
    let (mut hosts, containers) = pair(&wire);
    let mut third = Host::new(&wire, 3);
    let stranger = third.attach("10.32.0.3/16");
    stranger.know(&containers[1]);
    third.trust(&hosts[1]);
    for at in [hosts[1].v4(), hosts[1].v6()] {
        third.place(&containers[1], Some(at));
        let before = hosts[1].fast.counters().unwrap();
        assert!(is_silent(&stranger.udp(), &containers[1].udp()));
        let awaited = before.dropped_in + 3;
        assert_eq!(hosts[1].dropped_in(awaited), awaited);
        let after = hosts[1].fast.counters().unwrap();
        assert_eq!((after.sent, after.received), (before.sent, before.received));
    }
    // Nor does it leave for one that is not a peer, whoever sends it.
    let outside = third.namespace.udp(third.v4());
    let refused = outside.send_to(b"vxlan", "192.0.2.1:6784").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
    assert_eq!(third.fast.counters().unwrap().dropped_out, 1);
    // Other datagrams are none of the table's business.
    outside.send_to(b"other", "192.0.2.1:6785").unwrap();
    place(&mut hosts, &containers, false);
    assert!(delivers(&containers[0].udp(), &containers[1].udp()));
}

#[test]
fn a_restart_leaves_what_flows_alone() {
    let wire = Wire::new();
    let (mut hosts, containers) = pair(&wire);
    place(&mut hosts, &containers, true);
    let [from, to] = [&containers[0], &containers[1]].map(Container::udp);
    assert!(delivers(&from, &to));
    let target = to.local_addr().unwrap();
    let before = hosts[0].fast.counters().unwrap();
    let lost = std::thread::scope(|scope| {
        let (from, to) = (&from, &to);
        let stream = scope.spawn(move || {
            let mut buffer = [0; 4];
            (0..300_u32)
                .filter(|n| {
                    from.send_to(&n.to_be_bytes(), target).unwrap();
                    std::thread::sleep(Duration::from_millis(1));
                    to.recv_from(&mut buffer).is_err()
                })
                .count()
        });
        for _ in 0..5 {
            hosts.iter_mut().for_each(Host::restart);
            std::thread::sleep(Duration::from_millis(30));
        }
        stream.join().unwrap()
    });
    assert_eq!(lost, 0);
    let [a, b] = &mut hosts;
    assert_eq!(a.fast.adopted(), [(containers[1].mac, b.v6())].into());
    assert_eq!(b.fast.adopted(), [(containers[0].mac, a.v6())].into());
    let after = a.fast.counters().unwrap();
    assert!(after.sent[&b.v6()] > before.sent[&b.v6()]);
    // Before the first word of what is wanted, nothing is taken away.
    assert_eq!(a.verify(), Vec::<String>::new());
    assert!(delivers(&from, &to));
    a.wanted.macs.clear();
    a.apply();
    assert!(is_silent(&from, &to));
}

#[test]
fn removing_leaves_nothing() {
    let wire = Wire::new();
    let (mut hosts, containers) = pair(&wire);
    place(&mut hosts, &containers, true);
    let [a, b] = hosts;
    let to = b.v4();
    let mut a = a;
    a.beat(&b, to);
    for _ in 0..2 {
        support::remove(&a.namespace).unwrap();
    }
    let links = run(&a.namespace, "/usr/sbin/ip", &["-br", "link"]);
    assert!(!links.contains("-vx"), "{links}");
    let tables = nft(&a.namespace, "list tables");
    let left: Vec<&str> = tables.lines().collect();
    assert_eq!(left, ["table netdev rmesh_rmesh"]);
    let entries = run(
        &a.namespace,
        "/usr/sbin/bridge",
        &["fdb", "show", "br", BRIDGE],
    );
    assert!(!entries.contains(&heartbeat(1).to_string()), "{entries}");
    // A TAP that stays is still told what it was told.
    let again = a
        .namespace
        .enter(|| rmesh_router::fast::Fast::ensure(options(&a.bridge), heartbeat(1)).unwrap());
    assert!(again.adopted().is_empty());
}
