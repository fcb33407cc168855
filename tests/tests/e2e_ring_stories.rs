//! What the predecessor's operators suffered, told again.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use rmesh_lab::{Container, Host};
use rmesh_tests::story;
use rmesh_tests::story::{Router, Story};
use serde_json::Value;

const MESH_WITHIN: Duration = Duration::from_secs(5);
/// Two rings look at each other for two seconds before one gives way.
const ONE_RING_WITHIN: Duration = Duration::from_secs(10);

fn ring(story: &Story, host: &Host) -> Value {
    let text = story.succeed(host, &["--json", "ipam", "status"]);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// The one ring that all hosts are in with nothing left to claim, if there is one.
fn one_ring(story: &Story, hosts: &[&Host]) -> Option<String> {
    let views: Vec<Value> = hosts.iter().map(|host| ring(story, host)).collect();
    let settled = |view: &Value| view["pending"].as_array().is_some_and(Vec::is_empty);
    let ids: BTreeSet<Option<&str>> = views.iter().map(|view| view["ring"].as_str()).collect();
    match (ids.len(), views.iter().all(settled)) {
        (1, true) => views[0]["ring"].as_str().map(str::to_owned),
        _ => None,
    }
}

fn attached(story: &Story, host: &Host, name: &str) -> (Container, Vec<IpAddr>) {
    let container = host.container(name).expect("a container");
    let given = given(story, host, &container);
    (container, given)
}

fn given(story: &Story, host: &Host, container: &Container) -> Vec<IpAddr> {
    let printed = story.succeed(host, &["attach", container.name()]);
    let nets = printed.lines().filter_map(|line| line.split('/').next());
    nets.map(|address| address.parse().expect("an address"))
        .collect()
}

fn distinct(all: &[IpAddr]) {
    let set: BTreeSet<&IpAddr> = all.iter().collect();
    assert_eq!(set.len(), all.len(), "an address was given twice: {all:?}");
}

fn wipe(host: &Host) {
    let folder = std::fs::read_dir(host.state_dir()).expect("a state folder");
    for entry in folder {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with("ledger") {
            std::fs::remove_file(&path).expect("own file");
        }
    }
}

#[test]
fn ledgers_are_wiped_and_the_hosts_start_in_reverse_order() {
    let mut story = story!("storywiped");
    let [a, b, c] = story.hosts(["a", "b", "c"]);
    let (ab, bc, ac) = (story.link(&a, &b), story.link(&b, &c), story.link(&a, &c));
    let to = [
        vec![ab.address(&b, false), ac.address(&c, false)],
        vec![ab.address(&a, false), bc.address(&c, false)],
        vec![ac.address(&a, false), bc.address(&b, false)],
    ];
    let hosts = [&a, &b, &c];
    let mut routers: Vec<Router> = Vec::new();
    for (host, peers) in hosts.iter().zip(&to) {
        routers.push(story.launch(host, peers));
    }
    story.expect_within(ONE_RING_WITHIN, "one ring", || {
        one_ring(&story, &hosts).is_some()
    });
    let mut containers = Vec::new();
    for host in hosts {
        containers.push(attached(&story, host, &format!("old{}", host.short_name())));
    }
    for router in routers.drain(..) {
        router.kill();
    }
    hosts.into_iter().for_each(wipe);
    for (host, peers) in hosts.iter().zip(&to).rev() {
        routers.push(story.launch(host, peers));
    }
    story.expect_within(ONE_RING_WITHIN, "one ring again, and all claimed", || {
        one_ring(&story, &hosts).is_some()
    });
    let mut all = Vec::new();
    for ((container, before), host) in containers.iter().zip(hosts) {
        assert_eq!(
            given(&story, host, container),
            *before,
            "a container lost its addresses"
        );
        all.extend(before.iter().copied());
    }
    for host in hosts {
        all.extend(attached(&story, host, &format!("new{}", host.short_name())).1);
    }
    distinct(&all);
    for host in hosts {
        println!("{}", story.succeed(host, &["ipam", "check"]));
    }
}

#[test]
fn two_meshes_without_containers_become_one_by_themselves() {
    let mut story = story!("storyempty");
    let [a, b] = story.hosts(["a", "b"]);
    let ab = story.link(&a, &b);
    let _routers = [story.launch(&a, &[]), story.launch(&b, &[])];
    assert_eq!(one_ring(&story, &[&a, &b]), None, "they were founded apart");
    story.succeed(&a, &["connect", &ab.address(&b, false).to_string()]);
    story.expect_within(ONE_RING_WITHIN, "one ring", || {
        one_ring(&story, &[&a, &b]).is_some()
    });
    let mut all = attached(&story, &a, "near").1;
    all.extend(attached(&story, &b, "far").1);
    distinct(&all);
}

#[test]
fn two_meshes_with_containers_name_the_conflict_until_it_is_resolved() {
    let mut story = story!("storyjoined");
    let [a, b] = story.hosts(["a", "b"]);
    let ab = story.link(&a, &b);
    let _routers = [story.launch(&a, &[]), story.launch(&b, &[])];
    // The same address twice, and more live ones in a's ring, so that b's is the one to give way.
    let same = "10.32.0.77/12";
    let near = story.container(&a, "near", same);
    let (more, _) = attached(&story, &a, "more");
    let far = story.container(&b, "far", same);
    let other = story.container(&b, "other", "10.32.55.5/12");
    let conflicting = ring(&story, &b)["ring"].clone();
    story.succeed(&a, &["connect", &ab.address(&b, false).to_string()]);
    story.expect_within(ONE_RING_WITHIN, "the conflict is named", || {
        let view = ring(&story, &b);
        view["others"][0]["conflicts"]
            .as_array()
            .is_some_and(|all| !all.is_empty())
    });
    let page = story.succeed(&b, &["ipam", "status"]);
    println!("{page}");
    for words in [
        "10.32.0.77",
        "on a",
        far.name(),
        "rmesh ipam adopt",
        "rmesh detach",
    ] {
        assert!(page.contains(words), "{words} is missing in:\n{page}");
    }
    assert_eq!(
        ring(&story, &b)["ring"],
        conflicting,
        "it gave way with a conflict"
    );
    let refusal = story.fail(&b, 1, &["ipam", "adopt", "a"]);
    println!("{refusal}");
    for words in ["10.32.0.77", far.name(), "also used on a"] {
        assert!(refusal.contains(words), "{words} is missing in:\n{refusal}");
    }
    story.succeed(&b, &["detach", far.name()]);
    println!("{}", story.succeed(&b, &["ipam", "adopt", "a"]));
    story.expect_within(ONE_RING_WITHIN, "one ring after the detach", || {
        one_ring(&story, &[&a, &b]).is_some()
    });
    // Who was not in conflict kept its address.
    let kept = given(&story, &b, &other);
    assert_eq!(kept, ["10.32.55.5".parse::<IpAddr>().expect("an address")]);
    let mut all: Vec<IpAddr> = [(&a, &near), (&a, &more), (&b, &other)]
        .iter()
        .flat_map(|(host, container)| given(&story, host, container))
        .collect();
    all.extend(attached(&story, &b, "new").1);
    distinct(&all);
}

#[test]
fn a_renamed_host_is_the_peer_it_was() {
    let mut story = story!("storyrenamed");
    let [a, b] = story.hosts(["a", "b"]);
    let ab = story.link(&a, &b);
    let _first = story.launch(&a, &[]);
    let second = story.launch(&b, &[ab.address(&a, false)]);
    let (web, before) = attached(&story, &b, "web");
    let owners = |story: &Story| -> Vec<(String, String)> {
        let view = ring(story, &a);
        let owners = view["pools"][0]["owners"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let text = |owner: &Value, key: &str| owner[key].as_str().unwrap_or_default().to_owned();
        owners
            .iter()
            .map(|o| (text(o, "name"), text(o, "peer")))
            .collect()
    };
    let id = owners(&story)
        .into_iter()
        .find(|(name, _)| name == "b")
        .expect("an owner")
        .1;
    second.kill();
    let secret = story.file_path("secret").display().to_string();
    let words = ["--name", "renamed", "--secret-file", &secret];
    let _second = story.launch_bare(&b, &words, &[]);
    assert_eq!(given(&story, &b, &web), before);
    story.expect_within(MESH_WITHIN, "the owner has its new name", || {
        owners(&story).contains(&("renamed".into(), id.clone()))
    });
    let refusal = story.fail(&a, 1, &["rmpeer", "renamed"]);
    assert!(refusal.contains("renamed answers"), "{refusal}");
    let mut all = before;
    all.extend(attached(&story, &b, "more").1);
    distinct(&all);
}

#[test]
fn peers_launched_only_with_each_other_found_one_ring_in_every_order() {
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let mut story = story!("storyorder");
        let hosts = story.hosts(["a", "b", "c"]);
        let [a, b, c] = &hosts;
        let (ab, bc, ac) = (story.link(a, b), story.link(b, c), story.link(a, c));
        // Each names all three: itself as well.
        let all: Vec<IpAddr> = vec![
            ab.address(a, false),
            bc.address(b, false),
            ac.address(c, false),
        ];
        let others = [
            vec![ab.address(b, false), ac.address(c, false)],
            vec![ab.address(a, false), bc.address(c, false)],
            vec![ac.address(a, false), bc.address(b, false)],
        ];
        let mut routers = Vec::new();
        for at in order {
            let mut peers = others[at].clone();
            peers.push(all[at]);
            routers.push(story.launch(&hosts[at], &peers));
        }
        let hosts: Vec<&Host> = hosts.iter().collect();
        let what = format!("one ring in the order {order:?}");
        story.expect_within(ONE_RING_WITHIN, &what, || {
            one_ring(&story, &hosts).is_some()
        });
        let mut given = Vec::new();
        for host in hosts {
            given.extend(attached(&story, host, &format!("web{}", host.short_name())).1);
        }
        distinct(&given);
    }
}
