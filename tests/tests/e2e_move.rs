//! A container moves to another host with its MAC and its address.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use rmesh_lab::Host;
use rmesh_lab::probe::wait_ping;
use rmesh_tests::story;
use rmesh_tests::story::{INTERFACE, Router, Story};

const FOLLOWS_WITHIN: Duration = Duration::from_secs(2);

fn moving() -> IpAddr {
    "10.32.0.9".parse().expect("an address")
}

fn triangle(name: &str) -> (Story, [Host; 3], Vec<Router>) {
    let mut story = story!(name);
    let hosts = story.hosts(["a", "b", "c"]);
    let ab = story.link(&hosts[0], &hosts[1]);
    let bc = story.link(&hosts[1], &hosts[2]);
    let _ac = story.link(&hosts[0], &hosts[2]);
    let routers = vec![
        story.launch(&hosts[0], &[ab.address(&hosts[1], false)]),
        story.launch(&hosts[1], &[]),
        story.launch(&hosts[2], &[bc.address(&hosts[1], false)]),
    ];
    story.expect_mesh(Duration::from_secs(5), &routers.iter().collect::<Vec<_>>());
    (story, hosts, routers)
}

#[test]
fn traffic_follows_a_container_that_moves_between_living_hosts() {
    let (story, [a, b, c], _routers) = triangle("move");
    let watcher = story.container(&c, "watcher", "10.32.0.1/24");
    let before = story.container(&a, "moving", "10.32.0.9/24");
    let after = b.container("moved").expect("a container");
    story.expect_ping(FOLLOWS_WITHIN, &watcher, moving());
    let mac = before.mac(INTERFACE).expect("a MAC");

    let refusal = story.fail(&b, 1, &["attach", after.name(), "--ip", "10.32.0.9/24"]);
    println!("while it is still there: {refusal}");
    story.succeed(&a, &["detach", before.name()]);
    let start = Instant::now();
    story.expect_within(FOLLOWS_WITHIN, "the address is free again", || {
        let output = story.rmesh(&b, &["attach", after.name(), "--ip", "10.32.0.9/24"]);
        output.status.success()
    });
    assert_eq!(
        after.mac(INTERFACE).expect("a MAC"),
        mac,
        "the MAC moves with the address"
    );
    let took = wait_ping(&watcher, moving(), Duration::from_secs(10));
    assert!(took.is_some(), "nothing arrives any more");
    story.expect_took(
        FOLLOWS_WITHIN,
        "traffic follows after detach and attach",
        start.elapsed(),
    );
}

#[test]
fn traffic_follows_a_container_whose_host_died() {
    let (story, [a, b, c], routers) = triangle("rescue");
    let watcher = story.container(&c, "watcher", "10.32.0.1/24");
    let before = story.container(&a, "moving", "10.32.0.9/24");
    let after = b.container("moved").expect("a container");
    story.expect_ping(FOLLOWS_WITHIN, &watcher, moving());
    let mac = before.mac(INTERFACE).expect("a MAC");

    routers[0].kill();
    let start = Instant::now();
    story.attach(&b, &after, "10.32.0.9/24");
    assert_eq!(
        after.mac(INTERFACE).expect("a MAC"),
        mac,
        "the MAC moves with the address"
    );
    let took = wait_ping(&watcher, moving(), Duration::from_secs(10));
    assert!(took.is_some(), "nothing arrives any more");
    story.expect_took(
        FOLLOWS_WITHIN,
        "traffic follows from a dead host",
        start.elapsed(),
    );
}
