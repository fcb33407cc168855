//! Chain a - b - c: two hosts that reach each other only through a third.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use rmesh_lab::probe::{Capture, Pinger, TcpStreamProbe, tcp_transfer, udp_transfer, wait_ping};
use rmesh_lab::{Container, Host, Link};
use rmesh_tests::story;
use rmesh_tests::story::{Router, Story};

const MARKER: &[u8] = b"this sentence must not be readable on any wire";
const TRANSFER_BYTES: u64 = 10_000_000;
const TRANSFER_LIMIT: Duration = Duration::from_secs(60);

/// Hosts a, b and c, all running and knowing each other; a and c are joined by a link that is cut.
struct Chain {
    story: Story,
    hosts: [Host; 3],
    direct: Link,
    ends: [Link; 2],
    containers: [Container; 2],
    _routers: Vec<Router>,
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn chain(name: &str) -> Chain {
    let mut story = story!(name);
    let [a, b, c] = story.hosts(["a", "b", "c"]);
    let (ab, bc) = (story.link(&a, &b), story.link(&b, &c));
    let direct = story.link(&a, &c);
    direct.cut().expect("a cut");
    let routers = vec![
        story.launch(&b, &[]),
        story.launch(&a, &[ab.address(&b, false)]),
        story.launch(&c, &[bc.address(&b, false)]),
    ];
    story.expect_mesh(Duration::from_secs(5), &routers.iter().collect::<Vec<_>>());
    let containers = [
        story.container(&a, "one", "10.32.0.1/24"),
        story.container(&c, "two", "10.32.0.2/24"),
    ];
    story.expect_ping(Duration::from_secs(2), &containers[0], ip("10.32.0.2"));
    Chain {
        story,
        hosts: [a, b, c],
        direct,
        ends: [ab, bc],
        containers,
        _routers: routers,
    }
}

#[test]
fn a_host_that_does_not_relay_carries_nothing_for_others() {
    let mut story = story!("norelay");
    let [a, b, c] = story.hosts(["a", "b", "c"]);
    let (ab, bc) = (story.link(&a, &b), story.link(&b, &c));
    let refuses = story.launch_with(&b, &[], &["--no-relay"]);
    let _ends = [
        story.launch(&a, &[ab.address(&b, false)]),
        story.launch(&c, &[bc.address(&b, false)]),
    ];
    let one = story.container(&a, "one", "10.32.0.1/24");
    let middle = story.container(&b, "middle", "10.32.0.3/24");
    let two = story.container(&c, "two", "10.32.0.2/24");
    for from in [&one, &two] {
        story.expect_ping(Duration::from_secs(2), from, ip("10.32.0.3"));
    }
    story.expect_within(Duration::from_secs(2), "a has heard of c", || {
        story.peer(&a, &c)["name"] == "c"
    });
    let gets_through = |limit| wait_ping(&one, ip("10.32.0.2"), limit).is_some();
    assert!(!gets_through(Duration::from_millis(700)));
    assert_eq!(story.peer(&a, &c)["reachable"], false);
    assert_eq!(story.peer(&a, &b)["no_relay"], true);
    assert_eq!(story.status(&b)["frames"]["relayed"], 0);
    assert_eq!(story.status(&b)["control"]["datagrams_relayed"], 0);
    refuses.kill();
    let _relays = story.launch(&b, &[]);
    story.attach(&b, &middle, "10.32.0.3/24");
    story.expect_ping(Duration::from_secs(3), &one, ip("10.32.0.2"));
    assert_eq!(story.path_kind(&a, &c), "relay");
}

#[test]
fn a_relay_carries_no_more_for_each_peer_than_it_is_told_to() {
    const LIMIT_BITS: f64 = 8_000_000.0;
    let mut story = story!("relaylimit");
    let [a, b, c] = story.hosts(["a", "b", "c"]);
    let (ab, bc) = (story.link(&a, &b), story.link(&b, &c));
    let routers = [
        story.launch_with(&b, &[], &["--relay-limit", "8M"]),
        story.launch(&a, &[ab.address(&b, false)]),
        story.launch(&c, &[bc.address(&b, false)]),
    ];
    story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
    let one = story.container(&a, "one", "10.32.0.1/24");
    let middle = story.container(&b, "middle", "10.32.0.3/24");
    let two = story.container(&c, "two", "10.32.0.2/24");
    story.expect_ping(Duration::from_secs(2), &one, ip("10.32.0.2"));
    let measure = |from, to, address| {
        let bytes = 2_000_000;
        let report = tcp_transfer(from, to, ip(address), bytes, TRANSFER_LIMIT);
        let report = report.expect("a connection");
        assert!(report.intact, "{report:?}");
        report.received as f64 * 8.0 / report.elapsed.as_secs_f64()
    };
    // One after the other, and both at once: each has its own.
    let (alone, both) = std::thread::scope(|scope| {
        let alone = measure(&one, &two, "10.32.0.2");
        let back = scope.spawn(|| measure(&two, &one, "10.32.0.1"));
        let there = measure(&one, &two, "10.32.0.2");
        (alone, [there, back.join().expect("a measurement")])
    });
    let not_relayed = measure(&one, &middle, "10.32.0.3");
    let mbit = |bits: f64| bits / 1e6;
    println!(
        "{:.1} Mbit/s alone, {:.1} and {:.1} both ways at once, {:.0} to the relay itself",
        mbit(alone),
        mbit(both[0]),
        mbit(both[1]),
        mbit(not_relayed)
    );
    for carried in [alone, both[0], both[1]] {
        assert!(carried < LIMIT_BITS * 1.1, "{carried}");
        assert!(carried > LIMIT_BITS * 0.3, "{carried}");
    }
    assert!(not_relayed > LIMIT_BITS * 2.0, "{not_relayed}");
    let status = story.status(&b);
    assert_eq!(status["relay_limit_bits_per_s"], 8_000_000);
    let dropped = status["frames"]["drops"]["relay_limit"].as_u64();
    assert!(dropped > Some(0), "{status}");
    let page = story.succeed(&b, &["status"]);
    assert!(
        page.contains("at most 8 Mbit/s for each other peer"),
        "{page}"
    );
}

#[test]
fn traffic_crosses_a_relay_both_ways() {
    let chain = chain("relay");
    let [one, two] = &chain.containers;
    for (from, to, address) in [(one, two, "10.32.0.2"), (two, one, "10.32.0.1")] {
        chain
            .story
            .expect_ping(Duration::from_secs(1), from, ip(address));
        let tcp = tcp_transfer(from, to, ip(address), TRANSFER_BYTES, TRANSFER_LIMIT)
            .expect("a connection");
        println!(
            "TCP to {address}: {} of {} bytes in {:.2?}",
            tcp.received, tcp.sent, tcp.elapsed
        );
        assert!(tcp.intact, "{tcp:?}");
        let udp = udp_transfer(from, to, ip(address), 500, 1200, Duration::from_secs(10))
            .expect("sockets");
        println!("UDP to {address}: {udp:?}");
        assert_eq!(udp.corrupted, 0);
        assert!(udp.received >= 490, "{udp:?}");
    }
    assert_eq!(
        chain.story.path_kind(&chain.hosts[0], &chain.hosts[2]),
        "relay"
    );
}

#[test]
fn the_relay_can_read_nothing() {
    let chain = chain("blind");
    let [one, two] = &chain.containers;
    let [a, b, c] = &chain.hosts;
    let captures = chain.ends.each_ref().map(|link| {
        Capture::start(b, &link.interface(b)).expect("a capture on the relay's underlay")
    });
    let listener = two
        .enter(|| UdpSocket::bind("10.32.0.2:7777"))
        .expect("a socket");
    listener
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a time limit");
    let sender = one
        .enter(|| UdpSocket::bind("10.32.0.1:0"))
        .expect("a socket");
    for _ in 0..50 {
        sender
            .send_to(MARKER, "10.32.0.2:7777")
            .expect("a datagram sent");
    }
    let mut buffer = [0; 128];
    let (length, _) = listener
        .recv_from(&mut buffer)
        .expect("the marker at the other end");
    assert_eq!(&buffer[..length], MARKER);
    chain
        .story
        .expect_within(Duration::from_secs(1), "the relay's wires carry it", || {
            captures.iter().all(|capture| capture.count() >= 50)
        });
    for capture in captures {
        assert!(
            !capture.contains(MARKER),
            "the marker is readable on the relay's underlay"
        );
        assert!(
            !capture.contains(&[10, 32, 0, 1, 10, 32, 0, 2]),
            "inner addresses are readable"
        );
        println!(
            "{} frames captured on the relay, none readable",
            capture.stop().len()
        );
    }
    // The relay holds its own two sessions and nothing that belongs to a and c.
    let mut sessions: Vec<String> = chain
        .story
        .peers(b)
        .iter()
        .filter(|p| p["session"] == true)
        .map(|p| p["name"].as_str().unwrap_or_default().to_owned())
        .collect();
    sessions.sort();
    assert_eq!(sessions, [a.short_name(), c.short_name()]);
    let ends = chain.story.peer(a, c);
    assert_eq!(
        (&ends["session"], &ends["path"]["kind"]),
        (&true.into(), &"relay".into())
    );
}

#[test]
fn a_better_path_is_taken_and_left_without_losing_a_connection() {
    let chain = chain("paths");
    let [one, two] = &chain.containers;
    let [a, _, c] = &chain.hosts;
    let stream = TcpStreamProbe::start(one, two, ip("10.32.0.2")).expect("a connection");
    chain.direct.restore().expect("the direct link restored");
    chain.story.expect_within(
        Duration::from_secs(5),
        "traffic moves to the direct link",
        || chain.story.path_kind(a, c) == "direct" && chain.story.path_kind(c, a) == "direct",
    );
    std::thread::sleep(Duration::from_millis(500));
    let moved = stream.stop();
    println!("the connection while moving: {moved:?}");
    assert_eq!(moved.error, None);
    chain.story.expect_took(
        Duration::from_secs(1),
        "longest silence while moving",
        moved.longest_gap,
    );

    let stream = TcpStreamProbe::start(one, two, ip("10.32.0.2")).expect("a connection");
    let pinger = Pinger::start(one, ip("10.32.0.2"), Duration::from_millis(20)).expect("pings");
    std::thread::sleep(Duration::from_millis(500));
    chain.direct.cut().expect("the direct link cut");
    chain
        .story
        .expect_within(Duration::from_secs(2), "back on the relay", || {
            chain.story.path_kind(a, c) == "relay" && chain.story.path_kind(c, a) == "relay"
        });
    std::thread::sleep(Duration::from_secs(2));
    let pings = pinger.stop().expect("pings");
    chain.story.expect_took(
        Duration::from_secs(2),
        "outage after a silent cut",
        pings.longest_gap,
    );
    assert!(
        pings.received > 50,
        "{} of {} pings",
        pings.received,
        pings.sent
    );
    let stream = stream.stop();
    assert_eq!(stream.error, None, "the connection must survive the cut");
}
