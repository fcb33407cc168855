//! The recipes of docs/hybrid.md that no other test cooks.

use std::time::{Duration, Instant};

use rmesh_lab::probe::TcpStreamProbe;
use rmesh_tests::pair::address;
use rmesh_tests::site::{Access, Internet};
use rmesh_tests::story;
use rmesh_tests::story::Story;

const JOINS_WITHIN: Duration = Duration::from_secs(5);
const FIRST_PACKET: Duration = Duration::from_secs(1);
/// A host that slept is back within this time.
const AWAKE_WITHIN: Duration = Duration::from_secs(3);
/// How long it sleeps: no answer of it is awaited any more, and its translators have forgotten it.
const ASLEEP: Duration = Duration::from_secs(35);
/// How long traffic may stop when the host that relays it is switched off.
const STALL_MAX: Duration = Duration::from_secs(1);

#[test]
fn two_clouds_and_a_laptop_that_sleeps() {
    let mut story = story!("hybrid");
    let internet = Internet::new(&mut story);
    let one = internet.site(&mut story, "cloud1", Access::Open);
    let two = internet.site(&mut story, "cloud2", Access::AddressDependent);
    let laptop = internet.site(&mut story, "laptop", Access::Double);
    let routers = [
        story.launch(&one.host, &[]),
        story.launch(&two.host, &[one.public]),
        story.launch(&laptop.host, &[one.public]),
    ];
    story.expect_mesh(JOINS_WITHIN, &routers.each_ref());
    let far = story.container(&two.host, "db", "10.32.0.2/24");
    let near = story.container(&laptop.host, "app", "10.32.0.3/24");
    story.expect_ping(FIRST_PACKET, &near, address(2));
    let path = || story.path_kind(&laptop.host, &two.host);
    story.expect_within(JOINS_WITHIN, "straight from NAT to NAT", || {
        path() == "direct"
    });
    let start = Instant::now();
    routers[2].process.pause().expect("a process of this lab");
    story.expect_within(JOINS_WITHIN, "the laptop sleeps", || {
        story.peer(&two.host, &laptop.host)["reachable"] == false
    });
    std::thread::sleep(ASLEEP.saturating_sub(start.elapsed()));
    routers[2].process.resume().expect("a process of this lab");
    let start = Instant::now();
    story.expect_ping(AWAKE_WITHIN, &near, address(2));
    story.expect_ping(AWAKE_WITHIN, &far, address(3));
    story.expect_took(AWAKE_WITHIN, "back after sleep", start.elapsed());
}

#[test]
fn a_gateway_is_replaced_by_another_that_nobody_else_was_told_of() {
    let mut story = story!("gateway");
    let [a, b, old, new] = story.hosts(["a", "b", "old", "new"]);
    let (a_old, b_old) = (story.link(&a, &old), story.link(&b, &old));
    let (a_new, _b_new) = (story.link(&a, &new), story.link(&b, &new));
    let peers_of_a = [a_old.address(&old, false)];
    let routers = [
        story.launch(&old, &[]),
        story.launch(&a, &peers_of_a),
        story.launch(&b, &[b_old.address(&old, false)]),
    ];
    story.expect_mesh(JOINS_WITHIN, &routers.each_ref());
    let one = story.container(&a, "one", "10.32.0.1/24");
    let two = story.container(&b, "two", "10.32.0.2/24");
    story.expect_ping(FIRST_PACKET, &one, address(2));
    let through = |story: &Story| story.peer(&a, &b)["path"]["name"].clone();
    assert_eq!(through(&story), "old");
    let stream = TcpStreamProbe::start(&one, &two, address(2)).expect("a connection");
    let [old_router, a_router, b_router] = routers;
    let new_router = story.launch(&new, &[a_new.address(&a, false)]);
    story.expect_mesh(
        JOINS_WITHIN,
        &[&old_router, &a_router, &b_router, &new_router],
    );
    story.succeed(&old, &["stop"]);
    story.expect_within(STALL_MAX, "the new gateway carries", || {
        through(&story) == "new"
    });
    story.expect_ping(FIRST_PACKET, &one, address(2));
    let report = stream.stop();
    println!("{report:?}");
    let what = "longest stall of a connection whose gateway is replaced";
    story.expect_took(STALL_MAX, what, report.longest_gap);
    assert!(report.error.is_none(), "{report:?}");
    // Launched as ever, a finds the new one.
    story.succeed(&a, &["stop"]);
    let again = story.launch(&a, &peers_of_a);
    story.expect_ping(JOINS_WITHIN, &one, address(2));
    drop(again);
}
