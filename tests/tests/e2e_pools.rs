//! Another pool for the ring: added by the operator, refused with the reason, compared with routes.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use rmesh_lab::{Container, Host};
use rmesh_tests::ring::{MESH_WITHIN, addresses, json, ring, says, triangle};
use rmesh_tests::story;
use rmesh_tests::story::{Router, Story, texts};

const REFUSED_WITHIN: Duration = Duration::from_secs(1);
const KNOWN_WITHIN: Duration = Duration::from_secs(5);

fn prefixes(story: &Story, host: &Host) -> Vec<String> {
    let view = ring(story, host);
    let pools = view["pools"].as_array().cloned().unwrap_or_default();
    let prefix = |pool: &serde_json::Value| pool["prefix"].as_str().map(str::to_owned);
    pools.iter().filter_map(prefix).collect()
}

fn attached_from(story: &Story, host: &Host, name: &str, subnet: &str) -> (Container, Vec<IpAddr>) {
    let container = host.container(name).expect("a container");
    let words = ["attach", container.name(), "--subnet", subnet];
    let given = addresses(&story.succeed(host, &words));
    (container, given)
}

fn refused(story: &Story, host: &Host, code: i32, pool: &str, expected: &[&str]) {
    let start = Instant::now();
    let refusal = story.fail(host, code, &["ipam", "pool", "add", pool]);
    println!("{pool}: {refusal}");
    says(&refusal, expected);
    story.expect_took(REFUSED_WITHIN, "a refusal", start.elapsed());
}

fn ip(host: &Host, words: &[&str]) {
    let output = host.command(Path::new("ip"), words).expect("ip");
    assert!(output.status.success(), "{:?}", texts(&output));
}

#[test]
fn a_pool_is_added_for_all_hosts_and_refused_where_something_is_in_its_way() {
    let mut story = story!("pooladd");
    let ([a, b, c], _routers) = triangle(&mut story);
    let start = Instant::now();
    let added = story.succeed(&b, &["ipam", "pool", "add", "10.96.0.0/16"]);
    println!("{added}");
    says(&added, &["added: 10.96.0.0/16", "--subnet 10.96.0.0/16"]);
    story.expect_took(KNOWN_WITHIN, "a pool is added", start.elapsed());
    story.expect_within(KNOWN_WITHIN, "every host shows the pool", || {
        let has = |host: &&Host| prefixes(&story, host).contains(&"10.96.0.0/16".to_owned());
        [&a, &b, &c].iter().all(has)
    });
    let again = json(&story, &a, &["ipam", "pool", "add", "10.96.0.0/16"]);
    assert_eq!(again["added"], false, "{again}");
    let near = attached_from(&story, &a, "near", "10.96.0.0/16");
    let far = attached_from(&story, &c, "far", "10.96.0.0/16");
    let inside = |ip: &IpAddr| ip.to_string().starts_with("10.96.");
    assert!(inside(&near.1[0]) && inside(&far.1[0]) && near.1 != far.1);
    story.expect_ping(Duration::from_secs(2), &near.0, far.1[0]);
    says(
        &story.succeed(&a, &["ipam", "status"]),
        &["10.96.0.0/16: 65536 addresses"],
    );

    ip(
        &a,
        &[
            "link", "add", "lan0", "type", "veth", "peer", "name", "lan1",
        ],
    );
    ip(&a, &["address", "add", "172.31.7.1/24", "dev", "lan0"]);
    for end in ["lan0", "lan1"] {
        ip(&a, &["link", "set", end, "up"]);
    }
    for (code, pool, expected) in [
        (1, "172.31.7.0/25", &["172.31.7.", "this host", "to do"][..]),
        (1, "172.31.0.0/16", &["172.31.7", "to do"]),
        (
            1,
            "10.96.128.0/17",
            &["overlaps the pool 10.96.0.0/16", "choose"],
        ),
        (1, "10.0.0.0/8", &["overlaps the pool 10.", "choose"]),
        (2, "10.97.0.1/16", &["10.97.0.0/16"]),
        (2, "10.97.0.0/33", &["10.97.0.0/33"]),
        (2, "nonsense", &["nonsense", "10.32.0.0/12"]),
        (2, "127.0.0.0/8", &["127.0.0.0"]),
    ] {
        refused(&story, &a, code, pool, expected);
    }
    assert_eq!(prefixes(&story, &a).len(), 3, "a refused pool was added");
    only_a_route(&story, &a);
}

/// A route whose own address is elsewhere.
fn only_a_route(story: &Story, a: &Host) {
    ip(a, &["route", "add", "192.168.77.0/24", "dev", "lan0"]);
    refused(
        story,
        a,
        1,
        "192.168.0.0/16",
        &["192.168.77.0/24", "through lan0", "rmesh ipam pool add"],
    );
}

#[test]
fn without_a_majority_the_silent_are_named_in_time() {
    let mut story = story!("poolalone");
    let ([a, _b, _c], mut routers) = triangle(&mut story);
    routers.drain(1..).for_each(|router| router.kill());
    let start = Instant::now();
    let words = ["--timeout", "3s", "ipam", "pool", "add", "10.96.0.0/16"];
    let refusal = story.fail(&a, 1, &words);
    println!("{refusal}");
    says(&refusal, &["do not answer: b, c", "rmesh rmpeer b --force"]);
    story.expect_took(Duration::from_secs(3), "a bounded wait", start.elapsed());
    assert_eq!(prefixes(&story, &a).len(), 2);
}

/// b cannot refuse the mesh's pool; it says what is wrong with it there.
fn joined(story: &mut Story) -> ([Host; 2], Vec<Router>) {
    let [a, b] = story.hosts(["a", "b"]);
    let ab = story.link(&a, &b);
    ip(
        &b,
        &[
            "link", "add", "lan0", "type", "veth", "peer", "name", "lan1",
        ],
    );
    for end in ["lan0", "lan1"] {
        ip(&b, &["link", "set", end, "up"]);
    }
    ip(&b, &["route", "add", "10.99.4.0/24", "dev", "lan0"]);
    let first = story.launch_with(&a, &[], &["--cidr", "10.99.0.0/16"]);
    let second = story.launch(&b, &[ab.address(&a, false)]);
    story.expect_mesh(MESH_WITHIN, &[&first, &second]);
    ([a, b], vec![first, second])
}

#[test]
fn a_pool_learned_by_joining_is_compared_with_the_routes_of_the_host() {
    let mut story = story!("poollearned");
    let ([a, b], routers) = joined(&mut story);
    let named = |story: &Story| {
        let overlaps = ring(story, &b)["overlaps"].clone();
        overlaps.as_array().is_some_and(|all| !all.is_empty())
    };
    story.expect_within(KNOWN_WITHIN, "the overlap is named", || named(&story));
    let page = story.succeed(&b, &["ipam", "status"]);
    println!("{page}");
    let words = ["10.99.0.0/16", "10.99.4.0/24", "through lan0"];
    says(&page, &words);
    says(&page, &["overlap ", "to do", "rmesh ipam pool add"]);
    says(&story.succeed(&b, &["status"]), &words);
    says(&routers[1].logged(), &words);
    assert!(!story.succeed(&a, &["ipam", "status"]).contains("overlap "));
    // It is not said any more when the route is gone.
    ip(&b, &["link", "del", "lan0"]);
    story.expect_within(KNOWN_WITHIN, "the overlap is over", || !named(&story));
}
