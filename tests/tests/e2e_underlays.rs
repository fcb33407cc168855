//! IPv6-only, IPv4-only and mixed underlays carry the same mesh.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use rmesh_lab::probe::tcp_transfer;
use rmesh_lab::{Family, Host};
use rmesh_tests::story;
use rmesh_tests::story::SECRET;

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
        let container = Host::container(host, name).expect("a container");
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

#[test]
fn a_host_with_two_interfaces_uses_the_one_it_was_told_to() {
    const PORT: u16 = 6_783;
    let mut story = story!("interface");
    let [a, b, c] = story.hosts(["a", "b", "c"]);
    let (ab, ac, bc) = (story.link(&a, &b), story.link(&a, &c), story.link(&b, &c));
    let secret = story.file("secret", SECRET, 0o600).display().to_string();
    let elsewhere = ["launch", "--foreground", "--bind-interface", "nowhere0"];
    let with_secret = [&elsewhere[..], &["--secret-file", &secret]].concat();
    let said = story.fail(&a, 1, &with_secret);
    assert!(said.contains("there is no interface nowhere0"), "{said}");
    let name = ab.interface(&a);
    let mut routers = vec![
        story.launch_with(&a, &[], &["--bind-interface", &name]),
        story.launch(&b, &[ab.address(&a, false)]),
    ];
    // Nobody hears it at the other.
    let by_both = [ac.address(&a, false), bc.address(&b, false)];
    routers.push(story.launch(&c, &by_both));
    story.expect_mesh(Duration::from_secs(5), &routers.iter().collect::<Vec<_>>());
    let addresses = story.status(&a)["addresses"].to_string();
    let is_told = |ip: IpAddr| addresses.contains(&format!("\"{ip}\""));
    assert!(is_told(ab.address(&a, false)) && !is_told(ac.address(&a, false)));
    assert_eq!(story.path_kind(&a, &c), "relay");
    let one = story.container(&a, "one", "10.32.0.1/24");
    let two = story.container(&b, "two", "10.32.0.2/24");
    let three = story.container(&c, "three", "10.32.0.3/24");
    for address in ["10.32.0.2", "10.32.0.3"] {
        story.expect_ping(Duration::from_secs(2), &one, ip(address));
    }
    // Its addresses may change.
    let change = |host: &Host, arguments: &[&str]| {
        let changed = host.command(Path::new("/sbin/ip"), arguments);
        assert!(changed.expect("a command").status.success());
    };
    let add = |host: &Host, address| {
        let interface = ab.interface(host);
        change(host, &["address", "add", address, "dev", &interface]);
    };
    add(&b, "10.9.9.2/24");
    change(&a, &["address", "flush", "dev", &name, "scope", "global"]);
    add(&a, "10.9.9.1/24");
    story.expect_within(Duration::from_secs(5), "reached at the new address", || {
        let path = &story.peer(&b, &a)["path"];
        path["address"] == format!("10.9.9.1:{PORT}")
    });
    story.expect_ping(Duration::from_secs(2), &two, ip("10.32.0.1"));
    // TCP goes the same way.
    ab.block_udp(PORT).expect("a wire of this lab");
    story.expect_within(Duration::from_secs(10), "on TCP", || {
        story.path_kind(&a, &b) == "tcp"
    });
    story.expect_ping(Duration::from_secs(2), &one, ip("10.32.0.2"));
    drop(three);
}
