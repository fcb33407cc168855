//! A container moves to another host with its MAC and its address.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use rmesh_lab::probe::wait_ping;
use rmesh_lab::{Host, Link};
use rmesh_tests::story;
use rmesh_tests::story::{INTERFACE, Router, Story};

const FOLLOWS_WITHIN: Duration = Duration::from_secs(2);

fn moving() -> IpAddr {
    "10.32.0.9".parse().expect("an address")
}

/// One that no ring hands out: whoever starts the container again may give it to it. One of the ring
/// stays its owner's until `rmesh rmpeer`.
fn outside() -> IpAddr {
    "10.50.0.9".parse().expect("an address")
}

struct Triangle {
    story: Story,
    hosts: [Host; 3],
    routers: Vec<Router>,
    /// The links of the first host.
    links: [Link; 2],
}

fn triangle(name: &str) -> Triangle {
    let mut story = story!(name);
    let hosts = story.hosts(["a", "b", "c"]);
    let ab = story.link(&hosts[0], &hosts[1]);
    let bc = story.link(&hosts[1], &hosts[2]);
    let ac = story.link(&hosts[0], &hosts[2]);
    let routers = vec![
        story.launch(&hosts[0], &[ab.address(&hosts[1], false)]),
        story.launch(&hosts[1], &[]),
        story.launch(&hosts[2], &[bc.address(&hosts[1], false)]),
    ];
    story.expect_mesh(Duration::from_secs(5), &routers.iter().collect::<Vec<_>>());
    Triangle {
        story,
        hosts,
        routers,
        links: [ab, ac],
    }
}

#[test]
fn traffic_follows_a_container_that_moves_between_living_hosts() {
    let world = triangle("move");
    let (story, [a, b, c]) = (&world.story, &world.hosts);
    let watcher = story.container(c, "watcher", "10.32.0.1/24");
    let before = story.container(a, "moving", "10.32.0.9/24");
    let after = b.container("moved").expect("a container");
    story.expect_ping(FOLLOWS_WITHIN, &watcher, moving());
    let mac = before.mac(INTERFACE).expect("a MAC");

    let refusal = story.fail(b, 1, &["attach", after.name(), "--ip", "10.32.0.9/24"]);
    println!("while it is still there: {refusal}");
    story.succeed(a, &["detach", before.name()]);
    let start = Instant::now();
    story.expect_within(FOLLOWS_WITHIN, "the address is free again", || {
        let output = story.rmesh(b, &["attach", after.name(), "--ip", "10.32.0.9/24"]);
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
fn traffic_follows_a_container_whose_router_died() {
    rescue(&triangle("rescue"), |world| world.routers[0].kill());
}

#[test]
fn traffic_follows_a_container_whose_host_fell_silent() {
    rescue(&triangle("silent"), |world| {
        // No process that ends, no kernel that answers: nobody says that the host is gone.
        world
            .links
            .iter()
            .for_each(|link| link.cut().expect("a cut"));
    });
}

/// The first host dies in some way, and its container is started again on the second.
fn rescue(world: &Triangle, die: impl FnOnce(&Triangle)) {
    let (story, [a, b, c]) = (&world.story, &world.hosts);
    let watcher = story.container(c, "watcher", "10.50.0.1/24");
    let before = story.container(a, "moving", "10.50.0.9/24");
    let after = b.container("moved").expect("a container");
    story.expect_ping(FOLLOWS_WITHIN, &watcher, outside());
    let mac = before.mac(INTERFACE).expect("a MAC");

    die(world);
    let start = Instant::now();
    story.attach(b, &after, "10.50.0.9/24");
    story.expect_took(
        FOLLOWS_WITHIN,
        "attach instead of a dead host",
        start.elapsed(),
    );
    assert_eq!(
        after.mac(INTERFACE).expect("a MAC"),
        mac,
        "the MAC moves with the address"
    );
    let took = wait_ping(&watcher, outside(), Duration::from_secs(10));
    assert!(took.is_some(), "nothing arrives any more");
    story.expect_took(
        FOLLOWS_WITHIN,
        "traffic follows from a dead host",
        start.elapsed(),
    );
}
