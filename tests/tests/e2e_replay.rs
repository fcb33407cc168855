//! A recorded stream, sent again from 64 ports: no record is taken twice.

use std::net::{IpAddr, SocketAddrV4};
use std::time::Duration;

use rmesh_lab::probe::Capture;
use rmesh_lab::{Family, Host};
use rmesh_tests::hostile::{Attacker, Datagram, PORT};
use rmesh_tests::story;
use rmesh_tests::story::Story;
use rmesh_tests::stream::Stream;

/// Source ports every recorded datagram is sent again from, under each address.
const PORTS: u16 = 64;
/// How long the stream is recorded.
const RECORDED: Duration = Duration::from_secs(2);

/// Records refused as seen before: by the workers, and by the control side behind them.
fn replayed(story: &Story, host: &Host) -> [u64; 2] {
    let status = story.status(host);
    let counts = [
        &status["frames"]["drops"]["replayed"],
        &status["control"]["datagrams_replayed"],
    ];
    counts.map(|count| count.as_u64().unwrap_or_default())
}

#[test]
fn a_stream_replayed_from_64_ports_is_refused_to_the_last_record() {
    let mut story = story!("replay");
    let [a, b, stranger] = story.hosts(["a", "b", "s"]);
    // The recording is taken from IPv4, so nothing may go by IPv6.
    let [ab, wire] = [&b, &stranger].map(|far| story.link_of(&a, far, Family::V4));
    // Each record is on the wire by itself, as it is sent again, and not in a datagram to be cut.
    for host in [&a, &b] {
        let interface = ab.interface(host);
        host.without_offloads(&interface).expect("a veth");
    }
    let routers = [
        story.launch(&a, &[ab.address(&b, false)]),
        story.launch(&b, &[]),
    ];
    story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
    let one = story.container(&a, "one", "10.32.0.1/24");
    let two = story.container(&b, "two", "10.32.0.2/24");
    let near: IpAddr = "10.32.0.1".parse().expect("an address");
    story.expect_ping(Duration::from_secs(2), &two, near);

    // The stream goes on while its beginning is sent again, so that windows move meanwhile.
    let stream = Stream::start(&two, &one, near, Duration::from_millis(1), 200).expect("sockets");
    let capture = Capture::start(&a, &ab.interface(&a)).expect("a capture");
    std::thread::sleep(RECORDED);
    let frames = capture.stop();
    let IpAddr::V4(victim) = ab.address(&a, false) else {
        panic!("the link has IPv4")
    };
    let recorded: Vec<Datagram> = frames
        .iter()
        .filter_map(|frame| Datagram::parse(frame))
        .filter(|datagram| *datagram.destination.ip() == victim && datagram.is_record())
        .collect();
    let control = recorded
        .iter()
        .filter(|datagram| datagram.lane() == Some(0));
    let on_lanes = [recorded.len() - control.clone().count(), control.count()];
    println!("recorded {on_lanes:?} records of data lanes and of lane 0");
    assert!(on_lanes[0] > 1_000);
    let path = story.peer(&a, &b)["path"].clone();
    let before = replayed(&story, &a);

    let pid = routers[0].process.pid();
    let mut sent = 0;
    for (from, link) in [(&b, &ab), (&stranger, &wire)] {
        let IpAddr::V4(address) = link.address(from, false) else {
            panic!("the link has IPv4")
        };
        let mut attacker = Attacker::new(from, link, &a, pid).expect("a wire");
        for port in PORT..PORT + PORTS {
            for datagram in &recorded {
                attacker.send(SocketAddrV4::new(address, port), &datagram.payload);
            }
        }
        attacker.wait_below(0);
        sent += attacker.sent();
    }
    // None of lane 0 comes as far as the control side.
    let expected = [sent, 0];
    story.expect_within(Duration::from_secs(2), "every replay is counted", || {
        replayed(&story, &a)[0] >= before[0] + expected[0]
    });
    let after = replayed(&story, &a);
    let report = stream.stop();
    println!("{sent} datagrams replayed; counted {before:?} to {after:?}; {report:?}");
    assert_eq!([after[0] - before[0], after[1] - before[1]], expected);
    assert_eq!((report.lost, report.duplicated), (0, 0));
    assert_eq!(story.peer(&a, &b)["path"], path, "no replay moves a path");
    println!("drops {}", story.status(&a)["frames"]["drops"]);
}
