//! No tunnel inside the tunnel: hosts with an address on the bridge, with routes that lead there, and with pools
//! that cover what is between the hosts.

use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;

use rmesh_lab::probe::Capture;
use rmesh_lab::{Family, Host};
use rmesh_tests::pair::Pair;
use rmesh_tests::story;
use serde_json::Value;

const PLAIN: &[&str] = &["--no-encryption"];
const FOLLOWS: Duration = Duration::from_secs(5);
const REASON: &str = "leads into the mesh itself";
const PORTS: [u16; 2] = [6783, 6784];

fn ip(host: &Host, words: &str) {
    let words: Vec<&str> = words.split(' ').collect();
    let output = host.command("ip".as_ref(), &words).expect("iproute2");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ip {words:?}: {error}");
}

/// Leads what goes to an address to the bridge, or takes that back.
fn lead(host: &Host, verb: &str, to: IpAddr) {
    let len = if to.is_ipv4() { 32 } else { 128 };
    ip(host, &format!("route {verb} {to}/{len} dev rmesh"));
}

fn candidates(peer: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = peer["candidates"].as_array().into_iter().flatten();
    all.map(|one| (text(&one["address"]), text(&one["state"])))
        .collect()
}

/// Whether a frame is one of ours: IPv4 or IPv6 without options, UDP to a port of the mesh.
fn is_ours(frame: &[u8]) -> bool {
    let at = match frame.get(12..14) {
        Some([0x08, 0x00]) if frame.get(23) == Some(&17) => 14 + 20 + 2,
        Some([0x86, 0xdd]) if frame.get(20) == Some(&17) => 14 + 40 + 2,
        _ => return false,
    };
    let port = frame.get(at..at + 2).and_then(|port| port.try_into().ok());
    port.is_some_and(|port| PORTS.contains(&u16::from_be_bytes(port)))
}

#[test]
fn an_address_on_the_bridge_is_no_way_to_a_peer() {
    let pair = Pair::start(story!("onbridge"), [&[], &[]]);
    pair.expect_ping();
    let [a, b] = &pair.hosts;
    ip(a, "address add 10.32.255.1/12 dev rmesh");
    ip(b, "address add 10.32.255.2/12 dev rmesh");
    // They are asked to use it.
    for (host, to) in [(a, "10.32.255.2"), (b, "10.32.255.1")] {
        pair.story.succeed(host, &["connect", to]);
    }
    let caps = pair
        .hosts
        .each_ref()
        .map(|host| Capture::start(host, "rmesh").expect("a capture"));
    pair.link.cut().expect("a cut");
    sleep(FOLLOWS);
    assert!(!pair.are("direct"));
    for cap in caps {
        let ours = cap.stop().iter().filter(|frame| is_ours(frame)).count();
        assert_eq!(ours, 0, "datagrams of the mesh in the mesh");
    }
    pair.link.restore().expect("the wire");
    pair.expect_both(FOLLOWS, "direct");
    pair.expect_ping();
    for (host, other) in [(a, b), (b, a)] {
        let all = candidates(&pair.story.peer(host, other));
        assert!(!all.is_empty());
        let inside = all
            .iter()
            .filter(|(address, _)| address.starts_with("10.32."));
        assert_eq!(inside.count(), 0, "{all:?}");
    }
}

/// How many datagrams of ours go into the bridge in two seconds.
fn inside(host: &Host) -> usize {
    let bridge = Capture::start(host, "rmesh").expect("a capture");
    sleep(Duration::from_secs(2));
    let frames = bridge.stop();
    frames.iter().filter(|frame| is_ours(frame)).count()
}

#[test]
fn a_route_into_the_mesh_is_left_for_another_way() {
    for (name, flags, kind) in [
        ("routed", &[][..], "direct"),
        ("routedplain", PLAIN, "vxlan"),
    ] {
        let pair = Pair::start(story!(name), [flags, flags]);
        pair.expect_both(FOLLOWS, kind);
        pair.expect_ping();
        let [a, b] = &pair.hosts;
        let to = pair.link.address(b, false);
        lead(a, "add", to);
        pair.story
            .expect_within(FOLLOWS, "the other family is used", || {
                let all = candidates(&pair.story.peer(a, b));
                let [v4, v6] = ["10.77.", "[fd77:"].map(|start| {
                    let of = all.iter().find(|(address, _)| address.starts_with(start));
                    of.map(|(_, state)| state.clone()).unwrap_or_default()
                });
                v4.contains(REASON) && v6 == "alive"
            });
        pair.expect_both(FOLLOWS, kind);
        pair.expect_ping();
        assert_eq!(inside(a), 0, "{name}");
        lead(a, "delete", to);
        pair.story.expect_within(FOLLOWS, "it works again", || {
            let all = candidates(&pair.story.peer(a, b));
            all.iter().all(|(_, state)| state == "alive")
        });
    }
}

#[test]
fn with_no_way_but_into_the_mesh_nothing_is_sent_and_that_is_said() {
    for (name, flags, kind) in [("noway", &[][..], "direct"), ("nowayplain", PLAIN, "vxlan")] {
        let mut story = story!(name);
        let hosts = story.hosts(["a", "b"]);
        let link = story.link_of(&hosts[0], &hosts[1], Family::V4);
        let pair = Pair::on(story, hosts, link, [flags, flags]);
        pair.expect_both(FOLLOWS, kind);
        pair.expect_ping();
        let [a, b] = &pair.hosts;
        let to = pair.link.address(b, false);
        lead(a, "add", to);
        let said = || pair.story.succeed(a, &["status", "paths"]);
        pair.story
            .expect_within(FOLLOWS, "it is said", || said().contains(REASON));
        let used = pair.story.path_kind(a, b);
        assert!(!["direct", "vxlan"].contains(&used.as_str()), "{used}");
        assert_eq!(inside(a), 0, "{name}");
        lead(a, "delete", to);
        pair.expect_both(FOLLOWS, kind);
        pair.expect_ping();
    }
}

#[test]
fn a_pool_that_covers_the_underlay_stops_nobody() {
    let mut story = story!("covered");
    let [a, b, c] = story.hosts(["a", "b", "c"]);
    // Where the ring is founded nothing overlaps; who joins cannot choose.
    let near = story.link_of(&a, &b, Family::V6);
    let far = story.link_of(&b, &c, Family::V4);
    let first = story.launch_with(&a, &[], &["--cidr", "10.64.0.0/10"]);
    let second = story.launch(&b, &[near.address(&a, true)]);
    story.expect_mesh(FOLLOWS, &[&first, &second]);
    let third = story.launch(&c, &[far.address(&b, false)]);
    story.expect_mesh(FOLLOWS, &[&first, &second, &third]);
    let (one, two) = (
        story.container(&b, "one", "10.64.0.1/10"),
        story.container(&c, "two", "10.64.0.2/10"),
    );
    story.expect_ping(FOLLOWS, &one, IpAddr::from([10, 64, 0, 2]));
    // Known pools change nothing.
    sleep(Duration::from_secs(3));
    assert_eq!(story.path_kind(&b, &c), "direct");
    story.expect_ping(FOLLOWS, &two, IpAddr::from([10, 64, 0, 1]));
    let said = story.succeed(&c, &["ipam", "status"]);
    assert!(said.contains("10.77."), "{said}");
}
