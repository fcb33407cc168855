//! IPv6-only, IPv4-only and mixed underlays carry the same mesh.

use std::net::IpAddr;
use std::time::Duration;

use rmesh_lab::Family;
use rmesh_lab::probe::tcp_transfer;
use rmesh_tests::story;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn an_ipv6_only_underlay_carries_everything() {
    let mut story = story!("six");
    let [a, b] = story.hosts(["a", "b"]);
    let ab = story.link_of(&a, &b, Family::V6);
    let first = story.launch(&a, &[]);
    let peer = format!("[{}]:6783", ab.address(&a, true));
    let second = story.launch_with(&b, &[&peer], &[]);
    story.expect_mesh(Duration::from_secs(5), &[&first, &second]);
    let one = story.container(&a, "one", "10.32.0.1/24");
    let two = story.container(&b, "two", "10.32.0.2/24");
    story.expect_ping(Duration::from_secs(2), &one, ip("10.32.0.2"));
    let report = tcp_transfer(
        &one,
        &two,
        ip("10.32.0.2"),
        2_000_000,
        Duration::from_secs(30),
    );
    assert!(report.expect("a connection").intact);
    let path = &story.peer(&a, &b)["path"];
    assert!(
        path["address"]
            .as_str()
            .is_some_and(|text| text.starts_with('[')),
        "{path}"
    );
}

#[test]
fn an_ipv4_and_an_ipv6_host_meet_through_one_that_has_both() {
    let mut story = story!("mixed");
    let [four, both, six] = story.hosts(["four", "both", "six"]);
    let left = story.link_of(&four, &both, Family::V4);
    let right = story.link_of(&both, &six, Family::V6);
    let routers = [
        story.launch(&four, &[left.address(&both, false)]),
        story.launch(&six, &[right.address(&both, true)]),
        story.launch(&both, &[]),
    ];
    story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
    let container = |host, name: &str, last: u8| {
        let container = rmesh_lab::Host::container(host, name).expect("a container");
        let (v4, v6) = (format!("10.32.0.{last}/24"), format!("fd32::{last}/64"));
        story.succeed(
            host,
            &["attach", container.name(), "--ip", &v4, "--ip", &v6],
        );
        container
    };
    let one = container(&four, "one", 1);
    let two = container(&six, "two", 2);
    for (from, to) in [
        (&one, "10.32.0.2"),
        (&one, "fd32::2"),
        (&two, "10.32.0.1"),
        (&two, "fd32::1"),
    ] {
        story.expect_ping(Duration::from_secs(2), from, ip(to));
    }
    assert_eq!(story.path_kind(&four, &six), "relay");
    let reason = story.peer(&four, &six)["reason"].to_string();
    println!("why not directly: {reason}");
    assert!(reason.len() > 2, "a relayed path is explained");
}
