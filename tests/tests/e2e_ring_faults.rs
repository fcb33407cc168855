//! What an operator meets when hosts die at the worst moment, lose their disk or get an old one.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use rmesh_lab::{Container, Host, Link};
use rmesh_tests::ring::{MESH_WITHIN, attached, expect_three_witnesses, mesh_of, ring, says};
use rmesh_tests::story;
use rmesh_tests::story::{Router, Story, texts};
use serde_json::Value;

const NAMED_WITHIN: Duration = Duration::from_secs(5);
/// Two rings look at each other for two seconds before one gives way.
const ONE_RING_WITHIN: Duration = Duration::from_secs(10);
const OPEN_WITHIN: Duration = Duration::from_secs(10);

fn witnesses(story: &Story, host: &Host) -> Vec<String> {
    let view = ring(story, host);
    let all = view["witnesses"].as_array().cloned().unwrap_or_default();
    let name = |one: &Value| one["name"].as_str().map(str::to_owned);
    all.iter().filter_map(name).collect()
}

#[test]
fn a_reformer_that_died_is_named_with_the_command_that_ends_it() {
    let mut story = story!("faultreform");
    let names = ["a", "b", "c", "d"];
    let (hosts, _links, routers) = mesh_of(&mut story, names);
    expect_three_witnesses(&story, &hosts);
    let bears = witnesses(&story, &hosts[0]);
    let at = |name: &str| names.iter().position(|n| *n == name).expect("a host");
    let other = names
        .iter()
        .find(|name| !bears.contains(&(**name).to_owned()));
    let (left, reformer) = (&hosts[at(other.expect("one is none"))], at(&bears[2]));
    for name in &bears[..2] {
        routers[at(name)].kill();
    }
    story.expect_within(NAMED_WITHIN, "the lost majority is known", || {
        ring(&story, &hosts[reformer])["has_majority"] == false
    });
    // Two of three witnesses are gone; the third one forms the set anew and dies at it.
    let gone = bears[0].as_str();
    std::thread::scope(|scope| {
        let forced = scope.spawn(|| story.rmesh(&hosts[reformer], &["rmpeer", gone, "--force"]));
        let is_left = || {
            let view = ring(&story, left);
            view["reformers"]
                .as_array()
                .is_some_and(|all| !all.is_empty())
        };
        story.expect_within(NAMED_WITHIN, "it has answered the reform", is_left);
        routers[reformer].kill();
        assert!(!forced.join().expect("a command").status.success());
    });
    let name = hosts[reformer].short_name();
    let command = format!("rmesh rmpeer {name} --force");
    story.expect_within(NAMED_WITHIN, "the command is named", || {
        story
            .succeed(left, &["ipam", "status"])
            .contains(&format!("for good: {command}"))
    });
    println!("{}", story.succeed(left, &["ipam", "status"]));
    let refusal = story.fail(left, 1, &["--timeout", "20s", "rmpeer", name]);
    println!("{refusal}");
    says(&refusal, &[&command, "began to form the witness set anew"]);
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    println!("{}", story.succeed(left, &words));
    let view = ring(&story, left);
    assert_eq!(view["has_majority"], true, "{view}");
    assert_eq!(
        view["reformers"].as_array().map(Vec::len),
        Some(0),
        "{view}"
    );
    attached(&story, left, "web");
}

fn remove_files(folder: &Path, is_wanted: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if is_wanted(&name) {
            fs::remove_file(&path).expect("own file");
        }
    }
}

fn given(story: &Story, host: &Host, container: &Container) -> Vec<IpAddr> {
    rmesh_tests::ring::addresses(&story.succeed(host, &["attach", container.name()]))
}

fn distinct(all: &[IpAddr]) {
    let set: BTreeSet<&IpAddr> = all.iter().collect();
    assert_eq!(set.len(), all.len(), "an address was given twice: {all:?}");
}

/// a founds, loses its ledger while it is cut off, and does not remember the others; says so.
fn lost<const N: usize>(story: &mut Story, names: [&str; N]) -> Lost<N> {
    let (hosts, links, mut routers) = mesh_of(story, names);
    if N > 2 {
        expect_three_witnesses(story, &hosts);
    }
    let a = &hosts[0];
    let (web, before) = attached(story, a, "web");
    let mut all = before.clone();
    all.extend((0..3).flat_map(|n| attached(story, &hosts[1], &format!("far{n}")).1));
    let old = ring(story, a)["ring"].as_str().expect("a ring").to_owned();
    story.expect_within(NAMED_WITHIN, "the ring is remembered", || {
        a.state_dir().join("ring").exists()
    });
    routers.remove(0).kill();
    set_links(&links[..N - 1], false);
    remove_files(&a.state_dir(), |name| {
        name.starts_with("ledger") || name == "hints"
    });
    routers.insert(0, story.launch(a, &[]));
    story.expect_within(NAMED_WITHIN, "the second ring is named", || {
        ring(story, a)["lost_ring"] == old.as_str()
    });
    let words = [
        "ledger of addresses was lost",
        "a new ring was founded",
        "rmesh connect",
        &old,
    ];
    let page = story.succeed(a, &["ipam", "status"]);
    println!("{page}");
    says(&page, &words);
    says(&story.succeed(a, &["status"]), &words);
    says(&routers[0].logged(), &words);
    // The addresses its container carries are its own meanwhile.
    assert_eq!(given(story, a, &web), before);
    // The others try a for ever, so they have to forget it if the command is to bring them together.
    for host in &hosts[1..] {
        story.succeed(host, &["connect", "--replace", "192.0.2.1"]);
    }
    set_links(&links[..N - 1], true);
    let to = links[0].address(&hosts[1], false).to_string();
    story.succeed(a, &["connect", &to]);
    Lost {
        hosts,
        routers,
        old,
        web,
        before,
        all,
    }
}

struct Lost<const N: usize> {
    hosts: [Host; N],
    routers: Vec<Router>,
    old: String,
    web: Container,
    before: Vec<IpAddr>,
    all: Vec<IpAddr>,
}

impl<const N: usize> Lost<N> {
    /// All are in the old ring, and what a's container carries is a's.
    fn is_over(&self, story: &Story) -> bool {
        let is_over = |host: &Host| {
            let view = ring(story, host);
            view["ring"] == self.old.as_str()
                && view["pending"].as_array().is_some_and(Vec::is_empty)
                && view["has_majority"] == true
                && view["lost_ring"].is_null()
        };
        self.hosts.iter().all(is_over)
    }

    fn check(self, story: &Story) {
        assert_eq!(self.routers.len(), N);
        let a = &self.hosts[0];
        assert_eq!(
            given(story, a, &self.web),
            self.before,
            "a container lost its addresses"
        );
        says(&story.succeed(a, &["ipam", "check"]), &["all agree"]);
        let mut all = self.all;
        for host in &self.hosts {
            all.extend(attached(story, host, &format!("new{}", host.short_name())).1);
        }
        distinct(&all);
    }
}

#[test]
fn a_founder_that_lost_its_ledger_says_so_and_its_second_ring_gives_way() {
    let mut story = story!("faultlost");
    let lost = lost(&mut story, ["a", "b", "c"]);
    let what = "one ring, the old one, and all claimed";
    story.expect_within(ONE_RING_WITHIN, what, || lost.is_over(&story));
    lost.check(&story);
}

#[test]
fn where_the_founder_was_the_only_witness_the_command_that_ends_it_is_named() {
    let mut story = story!("faultsole");
    let lost = lost(&mut story, ["a", "b"]);
    let command = "on a: rmesh rmpeer a --force";
    story.expect_within(ONE_RING_WITHIN, "the command is named on both", || {
        let mut hosts = lost.hosts.iter();
        hosts.all(|host| story.succeed(host, &["ipam", "status"]).contains(command))
    });
    println!("{}", story.succeed(&lost.hosts[0], &["ipam", "status"]));
    println!(
        "{}",
        story.succeed(&lost.hosts[0], &["rmpeer", "a", "--force"])
    );
    story.expect_within(ONE_RING_WITHIN, "all claimed", || lost.is_over(&story));
    lost.check(&story);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, to.join(path.file_name().unwrap_or_default())).expect("room on the disk");
    }
}

/// Nothing of a host outlives a reboot but its disk, and that is an older one.
fn reboot_with(host: &Host, backup: &Path, containers: Vec<Container>) {
    let ip = |words: &[&str]| drop(host.command(Path::new("ip"), words).expect("ip"));
    for container in containers {
        ip(&["netns", "delete", container.name()]);
    }
    ip(&["link", "delete", "rmesh"]);
    remove_files(&host.run_dir(), |_| true);
    remove_files(&host.state_dir(), |name| name != "lock");
    copy(backup, &host.state_dir());
}

fn set_links(links: &[Link], is_up: bool) {
    for link in links {
        let done = if is_up { link.restore() } else { link.cut() };
        done.expect("a link of this lab");
    }
}

#[test]
fn a_host_that_boots_with_an_older_disk_waits_for_the_others_and_gives_nothing_twice() {
    let mut story = story!("faultboot");
    let ([a, b, c], links, mut routers) = mesh_of(&mut story, ["a", "b", "c"]);
    expect_three_witnesses(&story, &[a.clone(), b.clone(), c.clone()]);
    let (old, _) = attached(&story, &a, "old");
    let backup = story.file_path("backup");
    copy(&a.state_dir(), &backup);

    // Since then a gave away much of what it owned, and used some of the rest.
    let mut all: Vec<IpAddr> = Vec::new();
    for (n, host) in [&b, &c, &b, &c, &b].into_iter().enumerate() {
        // What a would hand out next.
        let address = format!("10.32.0.{}", 2 + n);
        let container = story.container(host, &format!("far{n}"), &format!("{address}/12"));
        all.extend(given(&story, host, &container));
    }
    let (late, _) = attached(&story, &a, "late");
    routers.remove(0).kill();
    set_links(&links[..2], false);
    reboot_with(&a, &backup, vec![old, late]);
    routers.insert(0, story.launch(&a, &[]));

    let view = ring(&story, &a);
    let fence = view["fence"].as_str().unwrap_or_default().to_owned();
    says(&fence, &["may be older", "waiting for b, c"]);
    let page = story.succeed(&a, &["ipam", "status"]);
    println!("{page}");
    says(&page, &["waiting for b, c", "rmesh rmpeer"]);
    says(&story.succeed(&a, &["status"]), &["waiting for b, c"]);
    let start = Instant::now();
    let early = a.container("early").expect("a container");
    let refusal = story.fail(&a, 1, &["--timeout", "2s", "attach", early.name()]);
    println!("{refusal}");
    says(&refusal, &["may be older", "b, c"]);
    story.expect_took(Duration::from_secs(2), "a bounded refusal", start.elapsed());

    set_links(&links[..2], true);
    story.expect_mesh(MESH_WITHIN, &routers.iter().collect::<Vec<_>>());
    story.expect_within(
        OPEN_WITHIN,
        "it opens when the others have confirmed",
        || {
            let view = ring(&story, &a);
            view["fence"].is_null() && view["has_majority"] == true
        },
    );
    println!("{}", story.succeed(&a, &["ipam", "status"]));
    for n in 0..8 {
        all.extend(attached(&story, &a, &format!("new{n}")).1);
        all.extend(attached(&story, &b, &format!("other{n}")).1);
    }
    distinct(&all);
    for host in [&a, &b, &c] {
        let checked = story.rmesh(host, &["ipam", "check"]);
        assert!(checked.status.success(), "{:?}", texts(&checked));
    }
    expect_three_witnesses(&story, &[a, b, c]);
}
