//! Sessions are renewed under traffic, and no frame is lost or comes twice.

use std::net::{IpAddr, SocketAddrV4};
use std::time::Duration;

use rmesh_lab::probe::Capture;
use rmesh_lab::{Container, Host};
use rmesh_tests::hostile::{Attacker, Datagram, PORT};
use rmesh_tests::story;
use rmesh_tests::story::{Router, Story};
use rmesh_tests::stream::Stream;
use rmesh_tests::throughput::Connection;

/// As often as sessions can be renewed: a peer that answered is left alone for a second.
const REKEY: [&str; 2] = ["--rekey-after", "1s"];
const PLAIN: [&str; 2] = ["--without", "super-frames"];
/// Renewals that must have happened while traffic ran.
const RENEWALS_MIN: u64 = 10;
const TRAFFIC_TIME: Duration = Duration::from_secs(20);
/// Time between two datagrams of each direction.
const PACE: Duration = Duration::from_micros(250);

fn completed(story: &Story, host: &Host) -> u64 {
    story.status(host)["control"]["handshakes_completed"]
        .as_u64()
        .unwrap_or_default()
}

/// Runs streams both ways between two containers on two hosts while their session is renewed.
fn expect_no_loss(
    story: &Story,
    hosts: [&Host; 2],
    containers: [&Container; 2],
    routers: &[Router],
    meanwhile: impl FnOnce(),
) {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let [one, two] = containers;
    story.expect_ping(Duration::from_secs(2), one, address("10.32.0.2"));
    let before = hosts.map(|host| completed(story, host));
    let streams = [
        Stream::start(one, two, address("10.32.0.2"), PACE, 1_000).expect("sockets"),
        Stream::start(two, one, address("10.32.0.1"), PACE, 1_000).expect("sockets"),
    ];
    meanwhile();
    let reports = streams.map(Stream::stop);
    let after = hosts.map(|host| completed(story, host));
    println!("handshakes completed: {before:?} to {after:?}; streams: {reports:?}");
    for router in routers {
        let drops = &story.status(&router.host)["frames"]["drops"];
        println!("{} dropped {drops}", router.host.name());
    }
    for (before, after) in before.into_iter().zip(after) {
        assert!(
            after - before >= RENEWALS_MIN,
            "only {} renewals",
            after - before
        );
    }
    for report in reports {
        assert!(report.sent > 10_000, "{report:?}");
        assert_eq!((report.lost, report.duplicated), (0, 0), "{report:?}");
    }
    for router in routers {
        expect_nothing_replayed(story, router);
        assert!(!router.logged().contains("is down"), "{}", router.logged());
    }
}

/// Nothing was taken for a replay.
fn expect_nothing_replayed(story: &Story, router: &Router) {
    let status = story.status(&router.host);
    let counts = [
        &status["frames"]["drops"]["replayed"],
        &status["control"]["datagrams_replayed"],
    ];
    let counts = counts.map(|count| count.as_u64().unwrap_or(0));
    assert_eq!(counts, [0, 0], "records of {} lost", router.host.name());
}

#[test]
fn a_session_is_renewed_under_load_without_losing_a_frame() {
    let mut story = story!("rekey");
    let [a, b] = story.hosts(["a", "b"]);
    let ab = story.link(&a, &b);
    let routers = [
        story.launch_with(&a, &[&ab.address(&b, false).to_string()], &REKEY),
        story.launch_with(&b, &[], &REKEY),
    ];
    story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
    let one = story.container(&a, "one", "10.32.0.1/24");
    let two = story.container(&b, "two", "10.32.0.2/24");
    let unknown = || story.status(&a)["frames"]["drops"]["unknown_session"].as_u64();
    expect_no_loss(&story, [&a, &b], [&one, &two], &routers, || {
        // What was recorded under a session is worth nothing once the session has gone.
        let capture = Capture::start(&a, &ab.interface(&a)).expect("a capture");
        std::thread::sleep(Duration::from_secs(1));
        let frames = capture.stop();
        std::thread::sleep(TRAFFIC_TIME);
        let (IpAddr::V4(to), IpAddr::V4(from)) = (ab.address(&a, false), ab.address(&b, false))
        else {
            panic!("the link has IPv4")
        };
        let recorded = frames.iter().filter_map(|frame| Datagram::parse(frame));
        let recorded = recorded.filter(|d| *d.destination.ip() == to && d.is_record());
        let recorded: Vec<_> = recorded.filter(|d| d.lane() != Some(0)).collect();
        let pid = routers[0].process.pid();
        let mut attacker = Attacker::new(&b, &ab, &a, pid).expect("a wire");
        for port in PORT..PORT + 64 {
            let source = SocketAddrV4::new(from, port);
            recorded
                .iter()
                .for_each(|datagram| attacker.send(source, &datagram.payload));
        }
        attacker.wait_below(0);
        println!("{} records of ended sessions replayed", attacker.sent());
        story.expect_within(
            Duration::from_secs(1),
            "each is of an unknown session",
            || unknown() == Some(attacker.sent()),
        );
    });
}

#[test]
fn a_session_through_a_relay_is_renewed_without_losing_a_frame() {
    let mut story = story!("rekeyrel");
    let [a, b, c] = story.hosts(["a", "b", "c"]);
    let (ab, bc) = (story.link(&a, &b), story.link(&b, &c));
    let routers = [
        story.launch_with(&b, &[], &REKEY),
        story.launch_with(&a, &[&ab.address(&b, false).to_string()], &REKEY),
        story.launch_with(&c, &[&bc.address(&b, false).to_string()], &REKEY),
    ];
    story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
    let one = story.container(&a, "one", "10.32.0.1/24");
    let two = story.container(&c, "two", "10.32.0.2/24");
    assert_eq!(story.path_kind(&a, &c), "relay");
    expect_no_loss(&story, [&a, &c], [&one, &two], &routers, || {
        std::thread::sleep(TRAFFIC_TIME)
    });
}

#[test]
fn sessions_between_fast_and_plain_ports_are_renewed_under_full_load() {
    for (name, of_b) in [("rekeyfast", None), ("rekeymix", Some(PLAIN))] {
        let mut story = story!(name);
        let [a, b] = story.hosts(["a", "b"]);
        let ab = story.link(&a, &b);
        let of_b = [&REKEY[..], of_b.as_ref().map_or(&[], |flags| &flags[..])].concat();
        let routers = [
            story.launch_with(&a, &[&ab.address(&b, false).to_string()], &REKEY),
            story.launch_with(&b, &[], &of_b),
        ];
        story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
        let one = story.container(&a, "one", "10.32.0.1/24");
        let two = story.container(&b, "two", "10.32.0.2/24");
        let hosts = [&a, &b];
        let before = hosts.map(|host| completed(&story, host));
        let ways = [(&one, &two, "10.32.0.2"), (&two, &one, "10.32.0.1")];
        let carried = std::thread::scope(|scope| {
            let senders = ways.map(|(from, to, at)| {
                scope.spawn(move || {
                    let at = at.parse().expect("an address");
                    let mut connection = Connection::open(from, to, at).expect("a connection");
                    connection.measure(TRAFFIC_TIME)
                })
            });
            let ended = senders.map(|sender| sender.join());
            ended.map(|sender| {
                let carried = sender.unwrap_or_else(|p| std::panic::resume_unwind(p));
                carried.expect("the connection lives")
            })
        });
        let after = hosts.map(|host| completed(&story, host));
        println!("{name}: {carried:.0?} Mbit/s; handshakes {before:?} to {after:?}");
        assert!(
            after[0] - before[0] >= RENEWALS_MIN / 2,
            "{before:?} {after:?}"
        );
        for router in &routers {
            let drops = &story.status(&router.host)["frames"]["drops"];
            println!("{} dropped {drops}", router.host.name());
            assert_eq!(drops["unknown_session"], serde_json::Value::Null, "{drops}");
            expect_nothing_replayed(&story, router);
            assert!(!router.logged().contains("is down"), "{}", router.logged());
        }
    }
}

#[test]
fn a_session_between_a_fast_and_a_plain_port_is_renewed_without_losing_a_frame() {
    let mut story = story!("rekeyplain");
    let [a, b] = story.hosts(["a", "b"]);
    let ab = story.link(&a, &b);
    let of_b = [&REKEY[..], &PLAIN].concat();
    let routers = [
        story.launch_with(&a, &[&ab.address(&b, false).to_string()], &REKEY),
        story.launch_with(&b, &[], &of_b),
    ];
    story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
    let one = story.container(&a, "one", "10.32.0.1/24");
    let two = story.container(&b, "two", "10.32.0.2/24");
    expect_no_loss(&story, [&a, &b], [&one, &two], &routers, || {
        std::thread::sleep(TRAFFIC_TIME)
    });
}
