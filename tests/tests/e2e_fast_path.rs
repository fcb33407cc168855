//! The kernel's VXLAN between hosts that may talk in plaintext: taken, left and taken back.

use std::thread::sleep;
use std::time::Duration;

use rmesh_lab::Host;
use rmesh_lab::probe::{Pinger, TcpStreamProbe, tcp_transfer};
use rmesh_tests::pair::{Pair, address};
use rmesh_tests::story;

const VXLAN_PORT: u16 = 6784;
const TAKEN_WITHIN: Duration = Duration::from_secs(2);
const LEFT_WITHIN: Duration = Duration::from_secs(2);
const BACK_WITHIN: Duration = Duration::from_secs(10);
const FLAPS: u32 = 20;
const PLAIN: [&str; 1] = ["--no-encryption"];

fn start(name: &str, flags: [&[&str]; 2]) -> Pair {
    Pair::start(story!(name), flags)
}

/// Where VXLAN's forwarding entries on a host lead, those of heartbeats too.
fn entries(host: &Host) -> Vec<String> {
    let mut leads = Vec::new();
    for device in ["rmesh-vx4", "rmesh-vx6"] {
        let arguments = ["fdb", "show", "dev", device];
        let output = host.command("bridge".as_ref(), &arguments);
        let text = String::from_utf8_lossy(&output.expect("iproute2").stdout).into_owned();
        let words = text.lines().filter_map(|line| line.split_once(" dst "));
        let to = words.filter_map(|(_, rest)| rest.split(' ').next());
        leads.extend(to.map(str::to_owned));
    }
    leads
}

/// A MAC and a heartbeat on each host, both at one address of the other.
fn has_one_way_each(pair: &Pair) -> bool {
    let [a, b] = &pair.hosts;
    [(a, b), (b, a)].iter().all(|(host, other)| {
        let leads = entries(host);
        let addresses = [false, true].map(|v6| pair.link.address(other, v6).to_string());
        leads.len() == 2 && leads[0] == leads[1] && addresses.contains(&leads[0])
    })
}

#[test]
fn a_plaintext_pair_goes_by_vxlan_and_says_so() {
    let pair = start("vxlan", [&PLAIN, &PLAIN]);
    pair.expect_both(TAKEN_WITHIN, "vxlan");
    pair.expect_ping();
    // Until a container is announced its frames are sealed.
    pair.story
        .expect_within(TAKEN_WITHIN, "a MAC and a heartbeat each", || {
            has_one_way_each(&pair)
        });
    let [a, b] = &pair.hosts;
    let [one, two] = &pair.containers;
    let before = pair.story.peer(a, b)["bytes_sent"].as_u64();
    let tcp = tcp_transfer(one, two, address(2), 50_000_000, Duration::from_secs(30));
    assert!(tcp.expect("a connection").intact);
    let peer = pair.story.peer(a, b);
    let counted = peer["fast"]["bytes_sent"].as_u64().unwrap_or(0);
    assert!(counted > 50_000_000, "{peer}");
    let sealed = peer["bytes_sent"].as_u64().zip(before);
    let sealed = sealed.map_or(0, |(after, before)| after - before);
    println!("{counted} bytes by VXLAN, {sealed} sealed");
    assert!(sealed < 10_000, "{sealed} bytes were sealed");
    let page = pair.story.succeed(a, &["status"]);
    let line = page.lines().find(|line| line.starts_with("encryption"));
    let at = pair.link.address(b, false);
    assert!(
        line.is_some_and(|line| line.contains("not encrypted")),
        "{page}"
    );
    let paths = pair.story.succeed(a, &["status", "paths"]);
    println!("{page}{paths}");
    assert!(
        paths.contains("VXLAN") && paths.contains("unicast"),
        "{paths}"
    );
    assert!(
        page.contains("(10.77.") || page.contains(&at.to_string()),
        "{page}"
    );
    let metrics = pair.story.succeed(a, &["status", "--json"]);
    assert!(
        metrics.contains("\"peers_plaintext\": 1") || metrics.contains("\"peers_plaintext\":1")
    );
}

#[test]
fn a_blocked_port_costs_no_connection_and_is_not_for_ever() {
    let pair = start("blocked", [&PLAIN, &PLAIN]);
    pair.expect_both(TAKEN_WITHIN, "vxlan");
    pair.expect_ping();
    let [one, two] = &pair.containers;
    let [a, b] = &pair.hosts;
    let ways: [(&str, &dyn Fn()); 3] = [
        ("both ways", &|| {
            pair.link.block_udp(VXLAN_PORT).expect("a block")
        }),
        ("towards a", &|| {
            pair.link.block_udp_towards(a, VXLAN_PORT).expect("a block");
        }),
        ("towards b", &|| {
            pair.link.block_udp_towards(b, VXLAN_PORT).expect("a block");
        }),
    ];
    for (what, block) in ways {
        let stream = TcpStreamProbe::start(one, two, address(2)).expect("a connection");
        let pinger = Pinger::start(one, address(2), Duration::from_millis(20)).expect("pings");
        sleep(Duration::from_secs(1));
        block();
        println!("blocked {what}");
        pair.expect_both(LEFT_WITHIN, "direct");
        pair.expect_ping();
        sleep(Duration::from_secs(2));
        let reason = pair.story.peer(a, b)["fast"]["reason"].clone();
        assert!(reason.to_string().contains("firewall"), "{reason}");
        pair.link.restore().expect("no block");
        pair.expect_both(BACK_WITHIN, "vxlan");
        let pings = pinger.stop().expect("pings");
        let gap = pings.longest_gap;
        pair.story.expect_took(LEFT_WITHIN, "longest silence", gap);
        let stream = stream.stop();
        assert_eq!(stream.error, None, "the connection must survive");
    }
}

#[test]
fn flaps_leave_no_stale_entry() {
    let pair = start("flaps", [&PLAIN, &PLAIN]);
    pair.expect_both(TAKEN_WITHIN, "vxlan");
    pair.expect_ping();
    pair.story
        .expect_within(TAKEN_WITHIN, "a MAC and a heartbeat each", || {
            has_one_way_each(&pair)
        });
    let pinger = Pinger::start(&pair.containers[0], address(2), Duration::from_millis(50));
    let pinger = pinger.expect("pings");
    for flap in 0..FLAPS {
        let towards = &pair.hosts[flap as usize % 2];
        match flap % 3 {
            0 => pair.link.block_udp(VXLAN_PORT),
            1 => pair.link.block_udp_towards(towards, VXLAN_PORT),
            _ => pair.link.cut(),
        }
        .expect("a block");
        sleep(Duration::from_millis(300 + u64::from(flap) * 100));
        pair.link.restore().expect("no block");
        sleep(Duration::from_millis(700));
    }
    pair.expect_both(BACK_WITHIN, "vxlan");
    pair.expect_ping();
    let pings = pinger.stop().expect("pings");
    println!(
        "{} of {} pings while it flapped",
        pings.received, pings.sent
    );
    let what = "a MAC and a heartbeat each, and nothing else";
    pair.story
        .expect_within(TAKEN_WITHIN, what, || has_one_way_each(&pair));
}

#[test]
fn a_router_that_restarts_leaves_the_kernels_traffic_alone() {
    let mut pair = start("restart", [&PLAIN, &PLAIN]);
    pair.expect_both(TAKEN_WITHIN, "vxlan");
    pair.expect_ping();
    let pinger = Pinger::start(&pair.containers[0], address(2), Duration::from_millis(10));
    let pinger = pinger.expect("pings");
    sleep(Duration::from_secs(1));
    pair.routers[1].kill();
    sleep(Duration::from_secs(3));
    let host = pair.hosts[1].clone();
    pair.routers[1] = pair.story.launch_with(&host, &[], &PLAIN);
    pair.expect_both(Duration::from_secs(5), "vxlan");
    sleep(Duration::from_secs(1));
    let pings = pinger.stop().expect("pings");
    println!(
        "{} of {} pings over a restart, longest silence {:?}",
        pings.received, pings.sent, pings.longest_gap
    );
    let gap = pings.longest_gap;
    pair.story
        .expect_took(Duration::from_millis(200), "longest silence", gap);
}

#[test]
fn one_that_goes_back_to_encryption_leaves_nothing_behind() {
    let mut pair = start("back", [&PLAIN, &PLAIN]);
    pair.expect_both(TAKEN_WITHIN, "vxlan");
    let host = pair.hosts[1].clone();
    pair.story.succeed(&host, &["stop"]);
    pair.routers[1] = pair.story.launch_with(&host, &[], &[]);
    pair.expect_both(Duration::from_secs(5), "direct");
    pair.expect_ping();
    let output = host.command("ip".as_ref(), &["link", "show", "rmesh-vx4"]);
    assert!(
        !output.expect("iproute2").status.success(),
        "the device is gone"
    );
    let reason = pair.story.peer(&pair.hosts[0], &host)["fast"]["reason"].clone();
    assert!(
        reason.to_string().contains("encrypts everything"),
        "{reason}"
    );
    let left = entries(&pair.hosts[0]);
    assert!(left.is_empty(), "{left:?}");
    assert!(
        pair.story
            .succeed(&host, &["status"])
            .contains("all encrypted")
    );
}

#[test]
fn reset_removes_devices_and_tables() {
    let pair = start("vxreset", [&PLAIN, &PLAIN]);
    pair.expect_both(TAKEN_WITHIN, "vxlan");
    let a = &pair.hosts[0];
    pair.story.succeed(a, &["reset", "--force"]);
    let links = a.command("ip".as_ref(), &["-o", "link"]).expect("iproute2");
    let links = String::from_utf8_lossy(&links.stdout).into_owned();
    assert!(!links.contains(": rmesh"), "{links}");
}
