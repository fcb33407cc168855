//! Containers get addresses from the ring: on every host, cut off, after a crash, and not from a full
//! pool or onto a full disk.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rmesh_lab::{Container, Host};
use rmesh_tests::story;
use rmesh_tests::story::{INTERFACE, Router, SECRET, Story};

const FULL_AT: &str = "RMESH_UNDER_TEST_FULL_AT";
const DIES_AT: &str = "RMESH_UNDER_TEST_DIES_AT";
/// More operations on the disk than a start and an attach take together.
const OPERATIONS_MAX: u64 = 100;
const MESH_WITHIN: Duration = Duration::from_secs(5);
const ATTACHED_WITHIN: Duration = Duration::from_secs(2);
const PING_WITHIN: Duration = Duration::from_secs(2);

/// A new container that leaves the choice of its addresses to the ring, and those.
fn automatic(story: &Story, host: &Host, name: &str) -> (Container, Vec<IpAddr>) {
    let container = host.container(name).expect("a container");
    let printed = story.succeed(host, &["attach", container.name()]);
    (container, addresses(&printed))
}

/// Addresses as `attach` prints them, one a line.
fn addresses(printed: &str) -> Vec<IpAddr> {
    let nets = printed.lines().filter_map(|line| line.split('/').next());
    nets.map(|address| address.parse().expect("an address"))
        .collect()
}

fn is_both_families(addresses: &[IpAddr]) -> bool {
    let v6 = addresses.iter().filter(|address| address.is_ipv6()).count();
    (addresses.len(), v6) == (2, 1)
}

/// Three hosts in a row, the one in the middle founds.
fn row(story: &mut Story) -> ([Host; 3], Vec<Router>, rmesh_lab::Link) {
    let hosts = story.hosts(["a", "b", "c"]);
    let ab = story.link(&hosts[0], &hosts[1]);
    let bc = story.link(&hosts[1], &hosts[2]);
    let routers = vec![
        story.launch(&hosts[1], &[]),
        story.launch(&hosts[0], &[ab.address(&hosts[1], false)]),
        story.launch(&hosts[2], &[bc.address(&hosts[1], false)]),
    ];
    story.expect_mesh(MESH_WITHIN, &routers.iter().collect::<Vec<_>>());
    (hosts, routers, bc)
}

#[test]
fn containers_on_three_hosts_get_addresses_of_their_own_and_reach_each_other() {
    let mut story = story!("ringthree");
    let (hosts, _routers, _) = row(&mut story);
    let mut all = BTreeSet::new();
    let mut containers = Vec::new();
    for host in &hosts {
        for name in ["one", "two"] {
            let start = Instant::now();
            let name = format!("{name}{}", host.short_name());
            let (container, given) = automatic(&story, host, &name);
            story.expect_took(
                ATTACHED_WITHIN,
                "attach without an address",
                start.elapsed(),
            );
            assert!(is_both_families(&given), "{given:?}");
            let again = story.succeed(host, &["attach", container.name()]);
            assert_eq!(addresses(&again), given, "asked for twice");
            all.extend(given.iter().copied());
            containers.push((container, given));
        }
    }
    println!("{all:?}");
    assert_eq!(all.len(), 12, "an address was given twice");
    for (from, _) in &containers {
        for (_, given) in &containers {
            for address in given {
                story.expect_ping(PING_WITHIN, from, *address);
            }
        }
    }
    let page = story.succeed(&hosts[0], &["status"]);
    println!("{page}");
    assert!(page.contains("10.32.0.0/12, fd"), "{page}");
    let gone = containers.remove(0);
    story.succeed(&hosts[0], &["detach", gone.0.name()]);
    let metrics = rmesh_tests::scrape::scrape(&hosts[0]);
    let used = metrics.sum("rmesh_ring_addresses", &[("state", "used")]);
    assert_eq!(used, Some(2.0), "those of the other container");
}

#[test]
fn a_host_that_is_cut_off_hands_out_addresses_of_its_own() {
    let mut story = story!("ringcut");
    let (hosts, _routers, bc) = row(&mut story);
    let mut all = Vec::new();
    for host in &hosts {
        all.extend(automatic(&story, host, &format!("before{}", host.short_name())).1);
    }
    bc.cut().expect("a cut");
    for host in &hosts {
        for n in 0..3 {
            let start = Instant::now();
            let name = format!("cut{n}{}", host.short_name());
            let (_, given) = automatic(&story, host, &name);
            story.expect_took(ATTACHED_WITHIN, "attach while cut off", start.elapsed());
            assert!(is_both_families(&given), "{given:?}");
            all.extend(given);
        }
    }
    bc.restore().expect("a wire");
    let distinct: BTreeSet<&IpAddr> = all.iter().collect();
    assert_eq!(distinct.len(), all.len(), "{all:?}");
    assert_eq!(all.len(), 24);
}

#[test]
fn a_killed_router_comes_back_with_the_addresses_of_its_containers() {
    let mut story = story!("ringkill");
    let host = story.host("a");
    let mut router = story.launch(&host, &[]);
    let (near, _) = automatic(&story, &host, "near");
    let mut all = Vec::new();
    for round in 0..5 {
        let (kept, given) = automatic(&story, &host, &format!("kept{round}"));
        all.extend(given.iter().copied());
        router.kill();
        let start = Instant::now();
        router = story.launch(&host, &[]);
        story.expect_took(Duration::from_secs(1), "serves again", start.elapsed());
        let again = story.succeed(&host, &["attach", kept.name()]);
        assert_eq!(addresses(&again), given);
        story.expect_ping(PING_WITHIN, &near, given[0]);
    }
    let distinct: BTreeSet<&IpAddr> = all.iter().collect();
    assert_eq!(distinct.len(), 10, "{all:?}");
}

#[test]
fn a_router_killed_at_any_write_of_an_attach_gives_no_address_twice() {
    let mut story = story!("ringdies");
    let host = story.host("a");
    story.launch(&host, &[]).kill();
    let mut all = Vec::new();
    for at in 0..OPERATIONS_MAX {
        let container = host.container(&format!("c{at}")).expect("a container");
        let doomed = story.doomed(&host, DIES_AT, at);
        let was_attached = story.serves_or_dies(&host, &doomed)
            && story
                .rmesh(&host, &["attach", container.name()])
                .status
                .success();
        if was_attached {
            println!("killed at each of {at} writes of a start and an attach");
            assert!(at > 14, "writes are not counted");
            let distinct: BTreeSet<&IpAddr> = all.iter().collect();
            assert_eq!(distinct.len(), all.len(), "{all:?}");
            return;
        }
        assert!(doomed.wait(Duration::from_secs(5)).is_some(), "it lives");
        let start = Instant::now();
        let router = story.launch(&host, &[]);
        story.expect_took(Duration::from_secs(1), "serves again", start.elapsed());
        let given = addresses(&story.succeed(&host, &["attach", container.name()]));
        assert!(is_both_families(&given), "{given:?}");
        all.extend(given);
        router.kill();
    }
    panic!("no attach came to its end");
}

#[test]
fn a_damaged_ledger_is_moved_aside_and_a_ring_is_founded_anew() {
    let mut story = story!("ringdamaged");
    let host = story.host("a");
    let router = story.launch(&host, &[]);
    let (near, before) = automatic(&story, &host, "near");
    router.kill();
    let ledger = host.state_dir().join("ledger");
    std::fs::write(&ledger, "garbage").expect("own file");
    let router = story.launch(&host, &[]);
    let aside = host.state_dir().join("ledger.corrupt-1");
    assert_eq!(std::fs::read(&aside).ok().as_deref(), Some(&b"garbage"[..]));
    let page = story.succeed(&host, &["status"]);
    println!("{page}");
    let named = aside.display().to_string();
    assert!(page.contains(&named), "{page}");
    assert!(router.logged().contains(&named), "{}", router.logged());
    // What the container carries is claimed before anybody else gets it.
    let (_far, after) = automatic(&story, &host, "far");
    assert!(
        before.iter().all(|address| !after.contains(address)),
        "{before:?} {after:?}"
    );
    story.expect_ping(PING_WITHIN, &near, after[0]);
}

#[test]
fn a_full_pool_says_who_owns_the_rest() {
    let mut story = story!("ringfull");
    let [a, b] = story.hosts(["a", "b"]);
    let ab = story.link(&a, &b);
    let pools = ["--cidr", "10.32.0.0/28", "--cidr6", "fd32::/124"];
    let first = story.launch_with(&a, &[], &pools);
    let to = ab.address(&a, false).to_string();
    let second = story.launch_with(&b, &[&to], &pools);
    story.expect_mesh(MESH_WITHIN, &[&first, &second]);
    let mut given = Vec::new();
    let mut words = Vec::new();
    for host in [&a, &b] {
        let refusal = (0..20).find_map(|n| {
            let container = host.container(&format!("c{n}")).expect("a container");
            let words = [
                "--timeout",
                "2s",
                "attach",
                container.name(),
                "--subnet",
                "10.32.0.0/28",
            ];
            let output = story.rmesh(host, &words);
            if output.status.success() {
                let printed = String::from_utf8_lossy(&output.stdout).into_owned();
                given.extend(addresses(&printed).into_iter().filter(IpAddr::is_ipv4));
                return None;
            }
            Some(String::from_utf8_lossy(&output.stderr).into_owned())
        });
        words.push(refusal.expect("a full pool"));
    }
    println!("{words:?}");
    let distinct: BTreeSet<&IpAddr> = given.iter().collect();
    assert_eq!(distinct.len(), given.len(), "{given:?}");
    // All but the address of the network and the broadcast address.
    assert_eq!(given.len(), 14, "{given:?}");
    assert!(words[1].contains("no free address"), "{}", words[1]);
    let owner = a.short_name();
    assert!(
        words[1].contains(owner),
        "{owner} is not named: {}",
        words[1]
    );
}

#[test]
fn a_host_that_is_reset_hands_its_addresses_over() {
    let mut story = story!("ringreset");
    let [a, b] = story.hosts(["a", "b"]);
    let ab = story.link(&a, &b);
    let pools = ["--cidr", "10.32.0.0/28", "--cidr6", "fd32::/124"];
    let first = story.launch_with(&a, &[], &pools);
    let to = ab.address(&a, false).to_string();
    let second = story.launch_with(&b, &[&to], &pools);
    story.expect_mesh(MESH_WITHIN, &[&first, &second]);
    let (_, given) = automatic(&story, &b, "gone");
    assert!(is_both_families(&given), "{given:?}");
    let done = story.rmesh(&b, &["reset", "--force"]);
    println!("{}", String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success());
    let mut all = BTreeSet::new();
    for n in 0..14 {
        let container = host_container(&a, n);
        let words = ["attach", container.name(), "--subnet", "10.32.0.0/28"];
        all.extend(addresses(&story.succeed(&a, &words)));
    }
    let v4 = all.iter().filter(|address| address.is_ipv4()).count();
    assert_eq!(v4, 14, "all addresses of the pool: {all:?}");
}

fn host_container(host: &Host, n: usize) -> Container {
    host.container(&format!("c{n}")).expect("a container")
}

#[test]
fn a_pool_that_overlaps_a_route_of_the_host_is_refused_with_the_route() {
    let mut story = story!("ringroute");
    let [a, b] = story.hosts(["a", "b"]);
    let ab = story.link(&a, &b);
    let IpAddr::V4(near) = ab.address(&a, false) else {
        panic!("no IPv4 address");
    };
    let [first, second, ..] = near.octets();
    let pool = format!("{first}.{second}.0.0/16");
    let secret = story.file("secret", SECRET, 0o600).display().to_string();
    let words = [
        "launch",
        "--foreground",
        "--secret-file",
        &secret,
        "--cidr",
        &pool,
    ];
    let refusal = story.fail(&a, 1, &words);
    println!("{refusal}");
    for word in [pool.as_str(), "route to", "--cidr"] {
        assert!(refusal.contains(word), "{word} is missing: {refusal}");
    }
    story.launch(&a, &[]);
}

#[test]
fn a_full_disk_hands_out_nothing_and_costs_no_traffic() {
    let mut story = story!("ringdisk");
    let host = story.host("a");
    let secret = story.file("secret", SECRET, 0o600).display().to_string();
    // Enough for a start and some attaches.
    let router = story.launch_bare(&host, &["--secret-file", &secret], &[(FULL_AT, "60")]);
    let mut alive: Vec<(Container, Vec<IpAddr>)> = Vec::new();
    let refusal = loop {
        let n = alive.len();
        assert!(n < 40, "the disk is never full");
        let container = host.container(&format!("c{n}")).expect("a container");
        let output = story.rmesh(&host, &["--timeout", "2s", "attach", container.name()]);
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            let refused = words.contains("the disk refused");
            // The other way round: the ring had written its part, and the list of containers was not.
            if !refused {
                assert!(words.contains("will not survive a restart"), "{words}");
                continue_with(&story, &host, &mut alive, container);
                continue;
            }
            break words;
        }
        let given = addresses(&String::from_utf8_lossy(&output.stdout));
        alive.push((container, given));
    };
    println!("{} containers, then: {refusal}", alive.len());
    assert!(alive.len() >= 2, "{refusal}");
    let (near, far) = (&alive[0].0, &alive[1].1);
    story.expect_ping(PING_WITHIN, near, far[0]);
    let page = story.succeed(&host, &["status"]);
    println!("{page}");
    assert!(page.contains("none are handed out"), "{page}");
    assert!(near.mac(INTERFACE).is_ok());
    assert!(router.process.is_running());
}

/// It is attached, for now.
fn continue_with(
    story: &Story,
    host: &Host,
    alive: &mut Vec<(Container, Vec<IpAddr>)>,
    container: Container,
) {
    let printed = story.rmesh(host, &["attach", container.name()]);
    let given = addresses(&String::from_utf8_lossy(&printed.stdout));
    alive.push((container, given));
}
