//! kill -9 of a router: its host's traffic comes back with it, the others' never notices.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use rmesh_lab::probe::{Pinger, TcpStreamProbe, wait_ping};
use rmesh_tests::story;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn a_killed_router_takes_its_containers_back_and_the_others_notice_nothing() {
    let mut story = story!("crash");
    let hosts = story.hosts(["a", "b", "c"]);
    let ab = story.link(&hosts[0], &hosts[1]);
    let bc = story.link(&hosts[1], &hosts[2]);
    let ac = story.link(&hosts[0], &hosts[2]);
    let peers = [
        vec![ab.address(&hosts[1], false)],
        vec![bc.address(&hosts[2], false)],
        vec![ac.address(&hosts[0], false)],
    ];
    let mut routers: Vec<_> = (0..3)
        .map(|at| story.launch(&hosts[at], &peers[at]))
        .collect();
    story.expect_mesh(Duration::from_secs(5), &routers.iter().collect::<Vec<_>>());
    let containers: Vec<_> = (0..3)
        .map(|at| story.container(&hosts[at], "box", &format!("10.32.0.{}/24", at + 1)))
        .collect();
    let addresses = [ip("10.32.0.1"), ip("10.32.0.2"), ip("10.32.0.3")];
    let neighbour = story.container(&hosts[0], "near", "10.32.0.11/24");
    for address in &addresses[1..] {
        story.expect_ping(Duration::from_secs(2), &containers[0], *address);
    }

    for victim in 0..3 {
        let others = [(victim + 1) % 3, (victim + 2) % 3];
        let untouched = TcpStreamProbe::start(
            &containers[others[0]],
            &containers[others[1]],
            addresses[others[1]],
        )
        .expect("a connection");
        std::thread::sleep(Duration::from_millis(300));
        routers[victim].kill();
        if victim == 0 {
            let took = wait_ping(&neighbour, addresses[0], Duration::from_secs(2));
            assert!(took.is_some(), "local traffic needs no router");
        }
        std::thread::sleep(Duration::from_secs(1));
        let restart = Instant::now();
        routers[victim] = story.launch(&hosts[victim], &[]);
        let from = &containers[others[0]];
        let back = wait_ping(from, addresses[victim], Duration::from_secs(10));
        assert!(
            back.is_some(),
            "no traffic to {} any more",
            hosts[victim].short_name()
        );
        let what = format!("traffic of {} resumes", hosts[victim].short_name());
        story.expect_took(Duration::from_secs(2), &what, restart.elapsed());
        let attached = story.succeed(&hosts[victim], &["ps", "--json"]);
        assert!(attached.contains(containers[victim].name()), "{attached}");
        let untouched = untouched.stop();
        assert_eq!(untouched.error, None);
        let what = "longest silence between the other two";
        story.expect_took(Duration::from_millis(200), what, untouched.longest_gap);
    }
}

#[test]
fn a_router_that_is_killed_again_and_again_always_comes_back() {
    let mut story = story!("again");
    let [a, b] = story.hosts(["a", "b"]);
    let ab = story.link(&a, &b);
    let mut first = story.launch(&a, &[ab.address(&b, false)]);
    let second = story.launch(&b, &[]);
    story.expect_mesh(Duration::from_secs(5), &[&first, &second]);
    let one = story.container(&a, "one", "10.32.0.1/24");
    let _two = story.container(&b, "two", "10.32.0.2/24");
    let pinger = Pinger::start(&one, ip("10.32.0.2"), Duration::from_millis(50)).expect("pings");
    for _ in 0..5 {
        first.kill();
        let restart = Instant::now();
        first = story.launch(&a, &[]);
        assert!(wait_ping(&one, ip("10.32.0.2"), Duration::from_secs(10)).is_some());
        story.expect_took(
            Duration::from_secs(2),
            "traffic after kill -9",
            restart.elapsed(),
        );
    }
    println!(
        "{:?}",
        pinger.stop().map(|report| (report.sent, report.received))
    );
}
