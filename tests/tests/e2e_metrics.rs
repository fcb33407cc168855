//! `GET /metrics`: what crosses is counted at the right peer and path, and nothing counts back.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rmesh::metrics_reader::Metrics;
use rmesh_lab::probe::udp_transfer;
use rmesh_lab::{Container, Host, Link};
use rmesh_tests::scrape::scrape;
use rmesh_tests::story;
use rmesh_tests::story::{OTHER_SECRET, Router, Story};

/// Sessions are renewed all the time.
const REKEY: [&str; 2] = ["--rekey-after", "1s"];
const SOON: Duration = Duration::from_secs(5);
/// Datagrams of one transfer, the bytes in each, and how many bytes their frames have at least.
const DATAGRAMS: u64 = 500;
const DATAGRAM_LEN: usize = 1_000;
const BYTES: f64 = (DATAGRAMS * (DATAGRAM_LEN as u64 + 42)) as f64;
/// Renewals that must have happened between the first look and the last.
const RENEWALS_MIN: f64 = 4.0;
const NONSENSE: u32 = 20;

/// a - b - c with a container on each: a and b are direct, a and c go by b.
struct Chain {
    story: Story,
    hosts: [Host; 3],
    ab: Link,
    containers: [Container; 3],
    _routers: [Router; 3],
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn chain() -> Chain {
    let mut story = story!("metrics");
    let [a, b, c] = story.hosts(["a", "b", "c"]);
    let (ab, bc) = (story.link(&a, &b), story.link(&b, &c));
    let routers = [
        story.launch_with(&b, &[], &REKEY),
        story.launch_with(&a, &[&ab.address(&b, false).to_string()], &REKEY),
        story.launch_with(&c, &[&bc.address(&b, false).to_string()], &REKEY),
    ];
    story.expect_mesh(SOON, &routers.each_ref());
    let containers = [
        story.container(&a, "one", "10.32.0.1/24"),
        story.container(&b, "mid", "10.32.0.2/24"),
        story.container(&c, "two", "10.32.0.3/24"),
    ];
    for to in ["10.32.0.2", "10.32.0.3"] {
        story.expect_ping(SOON, &containers[0], ip(to));
    }
    Chain {
        story,
        hosts: [a, b, c],
        ab,
        containers,
        _routers: routers,
    }
}

/// How much a number has risen for one peer and path.
fn risen(from: &Metrics, to: &Metrics, name: &str, peer: &Host, path: &str) -> f64 {
    let labels = [("peer", peer.short_name()), ("path", path)];
    let value = |metrics: &Metrics| metrics.sum(name, &labels);
    let [from, to] =
        [from, to].map(|metrics| value(metrics).unwrap_or_else(|| panic!("no {name}{labels:?}")));
    to - from
}

/// Sends a known number of bytes; returns how many datagrams arrived.
fn transfer(from: &Container, to: &Container, address: &str) -> u64 {
    let limit = Duration::from_secs(10);
    let report = udp_transfer(from, to, ip(address), DATAGRAMS, DATAGRAM_LEN, limit);
    report.expect("sockets").received
}

/// Known bytes to each peer are counted there, by the path they took, at both ends.
fn bytes_are_counted_by_path(chain: &Chain) {
    let ([a, b, c], [one, mid, two]) = (&chain.hosts, &chain.containers);
    let look = || chain.hosts.each_ref().map(scrape);
    let before = look();
    for (to, address) in [(mid, "10.32.0.2"), (two, "10.32.0.3")] {
        assert_eq!(transfer(one, to, address), DATAGRAMS, "to {address}");
    }
    // A worker counts after it has sent.
    std::thread::sleep(Duration::from_millis(100));
    let after = look();
    for (host, peer, path, other, direction) in [
        (0, b, "direct", "relay", "sent"),
        (0, c, "relay", "direct", "sent"),
        (1, a, "direct", "relay", "received"),
        (2, a, "relay", "direct", "received"),
    ] {
        let rise = |what: &str, path: &str| {
            let name = format!("rmesh_peer_{direction}_{what}_total");
            risen(&before[host], &after[host], &name, peer, path)
        };
        let (bytes, frames) = (rise("bytes", path), rise("frames", path));
        let name = chain.hosts[host].short_name();
        println!(
            "{name}: {direction} {frames} frames, {bytes} bytes, {path}, of {}",
            peer.name()
        );
        assert!(
            (BYTES..BYTES * 1.1).contains(&bytes),
            "{bytes}, not {BYTES}"
        );
        assert!(frames >= DATAGRAMS as f64, "{frames} frames");
        assert_eq!(rise("bytes", other), 0.0, "{other}");
    }
    let relayed = |metrics: &Metrics| metrics.sum("rmesh_relayed_datagrams_total", &[]);
    let [was, is] = [&before[1], &after[1]].map(|metrics| relayed(metrics).unwrap_or_default());
    assert!(is - was >= DATAGRAMS as f64, "{was} to {is} relayed");
    let path = |path| {
        after[0].sum(
            "rmesh_peer_path",
            &[("peer", c.short_name()), ("path", path)],
        )
    };
    assert_eq!((path("relay"), path("direct")), (Some(1.0), Some(0.0)));
    for peer in [b, c] {
        let name = "rmesh_peer_round_trip_seconds";
        let trip = after[0].sum(name, &[("peer", peer.short_name())]);
        println!("round trip a to {}: {trip:?} s", peer.short_name());
        assert!(trip > Some(0.0) && trip < Some(1.0), "{trip:?}");
    }
}

/// Nothing counts back while sessions are renewed under traffic.
fn counters_only_rise(chain: &Chain) {
    let [one, _, two] = &chain.containers;
    let begin = chain.hosts.each_ref().map(scrape);
    let (mut last, start, mut looks, mut crossed) = (begin.clone(), Instant::now(), 0, 0);
    while start.elapsed() < Duration::from_secs(20) {
        crossed += transfer(one, two, "10.32.0.3");
        let now = chain.hosts.each_ref().map(scrape);
        for (host, (last, now)) in chain.hosts.iter().zip(last.iter().zip(&now)) {
            assert_eq!(last.fell(now), Vec::<String>::new(), "on {}", host.name());
        }
        (last, looks) = (now, looks + 1);
    }
    let rise = |name: &str| {
        let value = |metrics: &Metrics| metrics.sum(name, &[]).unwrap_or_default();
        value(&last[0]) - value(&begin[0])
    };
    let opened = rise("rmesh_sessions_opened_total");
    let ended = rise("rmesh_sessions_ended_total");
    println!("{looks} looks at 3 hosts while {crossed} datagrams crossed: nothing fell");
    println!("{opened} sessions opened, {ended} ended");
    assert!(crossed > DATAGRAMS, "no traffic");
    assert!(opened >= RENEWALS_MIN && ended >= 1.0, "{opened}, {ended}");
    for name in [
        "rmesh_gossip_sent_records_total",
        "rmesh_control_sent_bytes_total",
        "rmesh_control_received_bytes_total",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
    ] {
        let value = last[0].sum(name, &[]);
        assert!(value > Some(0.0), "{name}: {value:?}");
    }
}

/// What a stranger sends is counted by reason.
fn refusals_and_drops_are_counted(chain: &mut Chain) {
    let [a, b, _] = &chain.hosts;
    let look = |name: &str, reasons: &[&str]| {
        let metrics = scrape(a);
        let of = reasons
            .iter()
            .map(|reason| metrics.sum(name, &[("reason", reason)]));
        of.map(|value| value.unwrap_or_else(|| panic!("{name} {reasons:?}")))
            .sum::<f64>()
    };
    let nonsense = ["malformed_datagram", "unknown_version"];
    let dropped = || look("rmesh_drops_total", &nonsense);
    let before = dropped();
    let socket = b.enter(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    let victim = SocketAddr::new(chain.ab.address(a, false), 6783);
    for byte in 0..NONSENSE as u8 {
        socket.send_to(&[0xf0 | byte; 64], victim).expect("room");
    }
    let what = "nonsense is counted as that";
    chain.story.expect_within(Duration::from_secs(1), what, || {
        dropped() - before >= f64::from(NONSENSE)
    });

    let refused = || look("rmesh_handshakes_refused_total", &["secret"]);
    assert_eq!(refused(), 0.0, "nobody was refused so far");
    let other = look("rmesh_handshakes_refused_total", &["forged", "identity"]);
    assert_eq!(other, 0.0);
    let (a, story) = (a.clone(), &mut chain.story);
    let d = story.host("d");
    let ad = story.link(&a, &d);
    let peer = ad.address(&a, false).to_string();
    let _stranger = story.launch_bare(&d, &["--secret", OTHER_SECRET, &peer], &[]);
    story.expect_within(SOON, "a wrong secret is counted", || {
        let metrics = scrape(&a);
        let labels = [("reason", "secret")];
        metrics.sum("rmesh_handshakes_refused_total", &labels) > Some(0.0)
    });
}

#[test]
fn what_happens_is_counted_where_it_happened_and_never_counts_back() {
    let mut chain = chain();
    bytes_are_counted_by_path(&chain);
    counters_only_rise(&chain);
    refusals_and_drops_are_counted(&mut chain);
    let metrics = scrape(&chain.hosts[0]);
    let series: usize = metrics.0.values().map(|family| family.samples.len()).sum();
    println!("{} families, {series} series", metrics.0.len());
    let info = metrics.sum(
        "rmesh_build_info",
        &[("version", env!("CARGO_PKG_VERSION"))],
    );
    assert_eq!(info, Some(1.0));
    assert_eq!(metrics.sum("rmesh_attachments", &[]), Some(1.0));
}
