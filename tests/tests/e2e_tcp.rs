//! Networks where UDP does not pass: the same datagrams by TCP, as long as nothing better works.

use std::time::Duration;

use rmesh_lab::WireProfile;
use rmesh_tests::pair::{Pair, address};
use rmesh_tests::scrape::scrape;
use rmesh_tests::story;
use rmesh_tests::story::Story;
use rmesh_tests::throughput::Connection;

const PORT: u16 = 6_783;
const BY_TCP_WITHIN: Duration = Duration::from_secs(10);
const BY_UDP_WITHIN: Duration = Duration::from_secs(90);
/// Least part of plain TCP's goodput that one connection has through the mesh where that goes by TCP.
const KEPT_MIN: f64 = 0.6;
/// A connection over a bad wire is now faster, now slower.
const KEPT_ALARM: f64 = KEPT_MIN / 2.0;
const MEASURED: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;
const WARM_UP: Duration = Duration::from_secs(1);

/// Two hosts on an emulated wire; over one that does not carry UDP if it is `blocked`.
fn pair(mut story: Story, is_blocked: bool) -> Pair {
    let hosts = story.hosts(["a", "b"]);
    let link = story.emulated_link(&hosts[0], &hosts[1], 8);
    if is_blocked {
        link.block_udp(PORT).expect("a wire of this lab");
    }
    Pair::on_within(BY_TCP_WITHIN, story, hosts, link, [&[], &[]])
}

#[test]
fn udp_blocked_in_mid_transfer_is_replaced_by_tcp_and_used_again_when_it_works() {
    let pair = pair(story!("tcp-fallback"), false);
    let (story, [one, two]) = (&pair.story, &pair.containers);
    story.expect_within(Duration::from_secs(1), "direct", || pair.are("direct"));
    let mut transfer = Connection::open(one, two, address(2)).expect("a connection");
    transfer.measure(MEASURED / 4).expect("it carries");
    std::thread::scope(|scope| {
        // Sends until TCP has to carry, and then all of it.
        let all = scope.spawn(|| transfer.measure(Duration::from_secs(7)));
        pair.link.block_udp(PORT).expect("a wire of this lab");
        story.expect_within(BY_TCP_WITHIN, "on TCP", || pair.are("tcp"));
        let all = all.join().expect("a measurement");
        println!(
            "{:.0} Mbit/s, most of them by TCP",
            all.expect("it survives")
        );
    });
    story.expect_ping(Duration::from_secs(1), one, address(2));
    let paths = story.succeed(&pair.hosts[0], &["status", "paths"]);
    println!("{paths}{}", story.succeed(&pair.hosts[0], &["status"]));
    let reason = story.peer(&pair.hosts[0], &pair.hosts[1])["reason"].clone();
    assert!(reason.to_string().contains("no way by UDP"), "{reason}");
    let scraped = scrape(&pair.hosts[0]);
    assert_eq!(
        scraped.sum("rmesh_tcp_connections", &[("state", "unproven")]),
        Some(0.0)
    );
    assert!(scraped.sum("rmesh_tcp_sent_datagrams_total", &[]) > Some(0.0));
    assert_eq!(
        scraped.sum("rmesh_peer_path", &[("path", "tcp")]),
        Some(1.0)
    );
    pair.link.restore().expect("a wire of this lab");
    story.expect_within(BY_UDP_WITHIN, "back on UDP", || pair.are("direct"));
    transfer.measure(MEASURED / 4).expect("it survives");
    for host in &pair.hosts {
        let connections = || scrape(host).sum("rmesh_tcp_connections", &[]);
        story.expect_within(BY_UDP_WITHIN, "no connection is left", || {
            connections() == Some(0.0)
        });
    }
}

#[test]
fn hosts_that_never_had_udp_meet_by_tcp_and_carry_most_of_what_plain_tcp_does_at_one_percent_loss()
{
    let pair = pair(story!("tcp-only"), true);
    let (story, [one, two]) = (&pair.story, &pair.containers);
    assert!(pair.are("tcp"));
    story.expect_ping(Duration::from_secs(1), one, address(2));
    pair.link.shape(WireProfile {
        latency: Duration::from_millis(5),
        loss: 0.01,
        // Less than the machine, which plays everybody, carries.
        rate_bits: Some(100_000_000),
        ..WireProfile::default()
    });
    let [a, b] = &pair.hosts;
    let open = |from, to, address| Connection::open(from, to, address).expect("a connection");
    let mut plain = open(a, b, pair.link.address(b, false));
    let mut carried = open(one, two, address(2));
    let (mut of_plain, mut of_carried) = (0.0, 0.0);
    for _ in 0..ROUNDS {
        for (connection, sum) in [(&mut plain, &mut of_plain), (&mut carried, &mut of_carried)] {
            connection.measure(WARM_UP).expect("it goes on");
            *sum += connection.measure(MEASURED).expect("it goes on");
        }
    }
    let kept = of_carried / of_plain;
    let rounds = ROUNDS as f64;
    println!(
        "plain TCP {:.1} Mbit/s, through the mesh by TCP {:.1} Mbit/s: {kept:.2} (bound {KEPT_MIN})",
        of_plain / rounds,
        of_carried / rounds
    );
    assert!(pair.are("tcp"));
    assert!(kept > KEPT_ALARM, "{kept}");
}

#[test]
fn one_open_tcp_port_is_enough() {
    let mut story = story!("tcp-443");
    let [a, b] = story.hosts(["a", "b"]);
    let link = story.link(&a, &b);
    link.block_udp(PORT).expect("a wire of this lab");
    let a_router = story.launch_with(&a, &[], &["--tcp-port", "443"]);
    let target = format!("{}:443", link.address(&a, false));
    let b_router = story.launch_with(&b, &[&target], &["--tcp-port", "none"]);
    let targets = || story.status(&b)["targets"].to_string();
    story.expect_within(BY_TCP_WITHIN, "the call by UDP is given up", || {
        targets().contains("no answer")
    });
    assert_eq!(story.status(&b)["tcp_port"], serde_json::Value::Null);
    assert_eq!(story.status(&b)["peers_total"], 0);
    b_router.kill();
    let b_router = story.launch_with(&b, &[&target], &[]);
    story.expect_mesh(BY_TCP_WITHIN, &[&a_router, &b_router]);
    assert_eq!(story.path_kind(&b, &a), "tcp");
    assert_eq!(story.status(&a)["tcp_port"], 443);
}
