//! Words of stories about addresses.

use std::net::IpAddr;
use std::time::Duration;

use rmesh_lab::{Container, Host, Link};
use serde_json::Value;

use crate::story::{Router, Story};

/// A mesh forms within this time.
pub const MESH_WITHIN: Duration = Duration::from_secs(5);
/// The witness set grows within this time after the third peer has come.
pub const WITNESSES_WITHIN: Duration = Duration::from_secs(5);

/// What a command prints with `--json`.
pub fn json(story: &Story, host: &Host, words: &[&str]) -> Value {
    let mut all = vec!["--json"];
    all.extend(words);
    let text = story.succeed(host, &all);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// The ring as a host sees it.
pub fn ring(story: &Story, host: &Host) -> Value {
    json(story, host, &["ipam", "status"])
}

/// Fails if a word is missing.
pub fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in:\n{text}");
    }
}

/// Addresses as they are printed, one a line.
pub fn addresses(printed: &str) -> Vec<IpAddr> {
    let nets = printed.lines().filter_map(|line| line.split('/').next());
    nets.map(|address| address.parse().expect("an address"))
        .collect()
}

/// A new container, and the addresses it gets.
pub fn attached(story: &Story, host: &Host, name: &str) -> (Container, Vec<IpAddr>) {
    let container = host.container(name).expect("a container");
    let given = addresses(&story.succeed(host, &["attach", container.name()]));
    (container, given)
}

/// Three hosts that all reach each other; a founds.
pub fn triangle(story: &mut Story) -> ([Host; 3], Vec<Router>) {
    let (hosts, _links, routers) = mesh_of(story, ["a", "b", "c"]);
    expect_three_witnesses(story, &hosts);
    (hosts, routers)
}

/// Hosts that all reach each other, the first of which founds, and the links between: those of the
/// first host with the others, then those of the second with those after it, and so on.
pub fn mesh_of<const N: usize>(
    story: &mut Story,
    names: [&str; N],
) -> ([Host; N], Vec<Link>, Vec<Router>) {
    let hosts = story.hosts(names);
    let mut links = Vec::new();
    for (at, host) in hosts.iter().enumerate() {
        for other in &hosts[at + 1..] {
            links.push(story.link(host, other));
        }
    }
    let founder = story.launch(&hosts[0], &[]);
    let joined = hosts[1..].iter().zip(&links);
    let joined = joined.map(|(host, link)| story.launch(host, &[link.address(&hosts[0], false)]));
    let routers: Vec<Router> = [founder].into_iter().chain(joined).collect();
    story.expect_mesh(MESH_WITHIN, &routers.iter().collect::<Vec<_>>());
    (hosts, links, routers)
}

/// Waits until three hosts are witnesses and all own addresses.
pub fn expect_three_witnesses(story: &Story, hosts: &[Host]) {
    let what = "three witnesses, one of which may be lost";
    story.expect_within(WITNESSES_WITHIN, what, || {
        hosts.iter().all(|host| {
            let view = ring(story, host);
            view["witnesses"].as_array().map(Vec::len) == Some(3)
                && view["survives_loss_of_one"] == true
                && view["pools"][0]["owners"].as_array().map(Vec::len) == Some(hosts.len())
        })
    });
}
