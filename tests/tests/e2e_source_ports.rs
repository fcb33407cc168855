//! Workers send from ports of their own where that passes untranslated, and from the one listened at elsewhere.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use rmesh_lab::probe::Capture;
use rmesh_lab::{Container, Host};
use rmesh_tests::pair::{Pair, address};
use rmesh_tests::site::{Access, Internet};
use rmesh_tests::story;
use rmesh_tests::story::Story;
use rmesh_tests::throughput::{Connection, measure_all};

const PORT: u16 = 6_783;
const WORKERS: u8 = 4;
const STREAMS: usize = 12;
/// Traffic flows that long before other ports are in use, and goes on so soon when they are closed.
const USED_WITHIN: Duration = Duration::from_secs(2);
const LEFT_WITHIN: Duration = Duration::from_secs(3);
const CAPTURED: Duration = Duration::from_millis(300);
/// A host that is asked what it does, in between.
const LOOK: Duration = Duration::from_millis(200);

fn connections([from, to]: [&Container; 2], address: IpAddr) -> Vec<Connection> {
    let open = |_| Connection::open(from, to, address).expect("a connection");
    (0..STREAMS).map(open).collect()
}

fn source_ports(story: &Story, [from, to]: [&Host; 2]) -> u64 {
    let count = &story.peer(from, to)["source_ports"];
    count.as_u64().expect("a number of ports")
}

/// Sends until so many ports are in use.
fn send_until(
    (story, hosts): (&Story, [&Host; 2]),
    connections: &mut [Connection],
    limit: Duration,
    ports: u64,
) {
    let begun = Instant::now();
    while source_ports(story, hosts) != ports {
        measure_all(connections, LOOK).expect("connections that live");
        assert!(
            begun.elapsed() < limit * 5,
            "not {ports} ports after {:?}",
            begun.elapsed()
        );
    }
    story.expect_took(limit, &format!("{ports} ports are in use"), begun.elapsed());
}

/// UDP ports of an IP packet in an Ethernet frame.
fn udp_ports(frame: &[u8]) -> Option<[u16; 2]> {
    let (protocol, at) = match frame.get(12..14)? {
        [8, 0] => (frame.get(23)?, 34),
        [0x86, 0xdd] => (frame.get(20)?, 54),
        _ => return None,
    };
    let [a, b, c, d] = *frame.get(at..)?.first_chunk::<4>()?;
    (*protocol == 17).then_some([[a, b], [c, d]].map(u16::from_be_bytes))
}

fn nft(host: &Host, rules: &str) {
    let output = host.command("/usr/sbin/nft".as_ref(), &[rules]);
    let output = output.expect("nft");
    assert!(output.status.success(), "{rules}: {output:?}");
}

#[test]
fn workers_send_from_ports_of_their_own_and_go_back_where_a_firewall_closes_them() {
    let workers = WORKERS.to_string();
    let flags = ["--workers", &workers];
    let pair = Pair::start(story!("ports"), [&flags, &flags]);
    pair.expect_ping();
    let (hosts, story) = (pair.hosts.each_ref(), &pair.story);
    let mut connections = connections(pair.containers.each_ref(), address(2));
    send_until(
        (story, hosts),
        &mut connections,
        USED_WITHIN,
        WORKERS.into(),
    );
    let [a, b] = hosts;
    let capture = Capture::start(b, &pair.link.interface(b)).expect("a capture");
    measure_all(&mut connections, CAPTURED).expect("connections that live");
    let mut from: BTreeMap<u16, usize> = BTreeMap::new();
    let ports = capture
        .stop()
        .into_iter()
        .filter_map(|frame| udp_ports(&frame));
    for [source, _] in ports.filter(|[_, destination]| *destination == PORT) {
        *from.entry(source).or_default() += 1;
    }
    println!("datagrams by source port: {from:?}");
    let busy = from.values().filter(|count| **count > 10).count();
    assert!(
        from.contains_key(&PORT) && busy >= 3,
        "twelve flows over four workers"
    );
    assert!(story.status(a)["frames"]["drops"]["replayed"].is_null());
    let paths = story.succeed(a, &["status", "paths"]);
    assert!(paths.contains("from 4 ports"), "{paths}");

    nft(
        b,
        "add table inet closed; add chain inet closed input { type filter hook input priority 0; }; \
            add rule inet closed input udp dport 6783 udp sport != 6783 drop",
    );
    send_until((story, hosts), &mut connections, LEFT_WITHIN, 1);
    let epoch = story.peer(a, b)["path_age_ms"].as_u64().expect("an age");
    assert!(epoch > 1_000, "the path itself is not changed");
    for (number, connection) in connections.iter_mut().enumerate() {
        let carried = connection.measure(LOOK).expect("a connection that lives");
        assert!(carried > 0.0, "stream {number} goes on");
    }
}

#[test]
fn a_host_behind_a_translator_sends_from_the_port_it_listens_at() {
    let mut story = story!("one-port");
    let internet = Internet::new(&mut story);
    let [seed, inside] = [("seed", Access::Open), ("in", Access::EndpointIndependent)]
        .map(|(name, access)| internet.site(&mut story, name, access));
    let workers = WORKERS.to_string();
    let flags = ["--workers", &workers];
    let routers = [
        story.launch_with(&seed.host, &[], &flags),
        story.launch_with(&inside.host, &[&seed.public.to_string()], &flags),
    ];
    story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
    let out = story.container(&seed.host, "out", "10.32.0.1/24");
    let within = story.container(&inside.host, "within", "10.32.0.2/24");
    story.expect_ping(Duration::from_secs(2), &within, address(1));
    let mut connections = connections([&within, &out], address(1));
    let begun = Instant::now();
    while begun.elapsed() < USED_WITHIN {
        measure_all(&mut connections, LOOK).expect("connections that live");
        let ports = source_ports(&story, [&inside.host, &seed.host]);
        assert_eq!(ports, 1, "each port would be a mapping more");
        thread::sleep(LOOK);
    }
}
