//! `rmesh reset`: nothing of rmesh is left, whatever state the host is in, and nothing else is
//! touched.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rmesh_lab::{Container, Host};
use rmesh_router::kernel::{Bridge, OwnedLinks, owned_links};
use rmesh_tests::story;
use rmesh_tests::story::{Router, SLACK, Story, texts};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(2);
/// Readings and not settings, and tables of the whole machine.
const VOLATILE: [&str; 3] = ["/nf_conntrack_", "/net/unix", "/neigh/default/gc"];

/// Every setting under `/proc/sys/net` of the host's network namespace.
fn settings(host: &Host) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    host.enter(|| collect(Path::new("/proc/sys/net"), &mut all));
    all.retain(|path, _| {
        let path = path.display().to_string();
        !VOLATILE.iter().any(|part| path.contains(part))
    });
    all
}

fn collect(folder: &Path, all: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect(&path, all),
            // Some can only be written.
            _ => {
                if let Ok(value) = fs::read_to_string(&path) {
                    all.insert(path, value);
                }
            }
        }
    }
}

/// All that reset must put back.
#[derive(Debug, PartialEq)]
struct Before {
    settings: BTreeMap<PathBuf, String>,
    links: Vec<String>,
    namespaces: Vec<String>,
    inside: Vec<String>,
    marked: OwnedLinks,
}

fn look(host: &Host, container: &Container) -> Before {
    let owner = host.state_dir().display().to_string();
    let mut namespaces: Vec<String> = fs::read_dir("/run/netns")
        .expect("namespaces")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    namespaces.sort();
    Before {
        settings: settings(host),
        links: host.interface_names().expect("links"),
        namespaces,
        inside: container.interface_names().expect("links"),
        marked: host.enter(|| owned_links(&owner)).expect("links"),
    }
}

fn is_as(before: &Before, host: &Host, container: &Container) {
    let after = look(host, container);
    for (path, value) in &after.settings {
        assert_eq!(before.settings.get(path), Some(value), "{}", path.display());
    }
    assert_eq!(&after, before);
    assert_eq!(after.marked, OwnedLinks::default());
    println!("{} settings as before", after.settings.len());
    for folder in [host.state_dir(), host.run_dir()] {
        assert!(!folder.exists(), "{} is left", folder.display());
    }
}

fn reset(story: &Story, host: &Host, flags: &[&str]) -> Value {
    let mut words = vec!["reset", "--json"];
    words.extend(flags);
    let text = story.succeed(host, &words);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

fn launched(story: &mut Story) -> (Host, Container, Before, Router) {
    let a = story.host("a");
    let one = a.container("one").expect("a container");
    // Whatever a first look makes the kernel load is loaded now.
    a.enter(|| drop(Bridge::unguard("rmesh")));
    let before = look(&a, &one);
    let router = story.launch(&a, &[]);
    story.attach(&a, &one, "10.32.0.1/24");
    (a, one, before, router)
}

#[test]
fn reset_refuses_while_something_would_be_lost_and_leaves_nothing_when_forced() {
    let mut story = story!("reset");
    let (a, one, before, router) = launched(&mut story);
    let refused = story.fail(&a, 1, &["reset"]);
    println!("{refused}");
    for word in [
        &router.process.pid().to_string(),
        one.name(),
        "--force",
        "secret",
    ] {
        assert!(refused.contains(word), "no {word}: {refused}");
    }
    assert_eq!(story.status(&a)["pid"], router.process.pid());
    // The containers alone are reason enough.
    story.succeed(&a, &["stop"]);
    let refused = story.fail(&a, 1, &["reset"]);
    assert!(
        refused.contains(one.name()) && !refused.contains("is running"),
        "{refused}"
    );
    assert!(
        one.interface_names()
            .expect("links")
            .contains(&"rmesh0".to_owned())
    );
    let router = story.launch(&a, &[]);

    let start = Instant::now();
    let told = reset(&story, &a, &["--force"]);
    story.expect_took(SOON, "reset", start.elapsed());
    assert_eq!(told["daemon"]["how"], "stopped", "{told}");
    assert_eq!(told["bridges"], serde_json::json!(["rmesh"]), "{told}");
    assert_eq!(
        told["interfaces"].as_array().map(Vec::len),
        Some(1),
        "{told}"
    );
    assert!(
        router
            .process
            .wait(SOON * SLACK)
            .is_some_and(|status| status.success())
    );
    is_as(&before, &a, &one);

    // Again, with nothing to do, and with nothing to say against it.
    let again = story.succeed(&a, &["reset"]);
    assert!(again.contains("nothing of rmesh"), "{again}");
    is_as(&before, &a, &one);
    // A new start is a new peer of a new mesh.
    story.succeed(&a, &["launch"]);
    story.succeed(&a, &["stop"]);
    story.succeed(&a, &["reset"]);
    is_as(&before, &a, &one);
}

#[test]
fn reset_after_a_crash_with_damaged_files_and_half_of_it_gone() {
    let mut story = story!("reset-crash");
    let (a, one, before, router) = launched(&mut story);
    router.kill();
    for name in ["attachments", "identity", "secret", "boot"] {
        fs::write(a.state_dir().join(name), "garbage").expect("a state file");
    }
    // The containers' interfaces stay without the bridge, and nftables knows a bridge that is gone.
    let ip = Path::new("/usr/sbin/ip");
    let deleted = a.command(ip, &["link", "delete", "rmesh"]).expect("ip");
    assert!(deleted.status.success(), "{deleted:?}");
    fs::remove_file(a.run_dir().join("rmesh.pid")).expect("the lock");
    let refused = story.fail(&a, 1, &["reset"]);
    assert!(refused.contains("containers would lose"), "{refused}");
    // Nothing runs that could be stopped.
    assert!(
        refused.contains("rmesh launch") && !refused.contains("rmesh stop"),
        "{refused}"
    );
    let told = reset(&story, &a, &["--force"]);
    println!("{told}");
    assert!(told["daemon"].is_null(), "{told}");
    is_as(&before, &a, &one);
}

#[test]
fn reset_kills_a_daemon_that_hangs_within_its_time() {
    let mut story = story!("reset-hang");
    let (a, one, before, router) = launched(&mut story);
    router.process.pause().expect("SIGSTOP");
    let start = Instant::now();
    let told = reset(&story, &a, &["--force", "--timeout", "3s"]);
    story.expect_took(
        Duration::from_secs(5),
        "reset of a hung daemon",
        start.elapsed(),
    );
    assert_eq!(told["daemon"]["how"], "killed", "{told}");
    is_as(&before, &a, &one);
}

#[test]
fn what_is_not_rmeshs_stays_and_is_named() {
    let mut story = story!("reset-others");
    let (a, one, before, _router) = launched(&mut story);
    let notes = a.state_dir().join("notes.txt");
    fs::write(&notes, "mine").expect("a file");
    let ip = Path::new("/usr/sbin/ip");
    for words in [
        // A name like one of ours is not enough.
        &[
            "link",
            "add",
            "vr0123456789a",
            "type",
            "veth",
            "peer",
            "name",
            "other",
        ][..],
        &["link", "add", "rmesh2", "type", "bridge"],
    ] {
        assert!(a.command(ip, words).expect("ip").status.success());
    }
    let output = story.rmesh(&a, &["reset", "--force"]);
    let (out, _) = texts(&output);
    assert!(
        output.status.success() && out.contains("notes.txt is not rmesh's"),
        "{out}"
    );
    assert_eq!(fs::read_to_string(&notes).expect("the notes"), "mine");
    assert_eq!(fs::read_dir(a.state_dir()).expect("the folder").count(), 1);
    let links = a.interface_names().expect("links");
    for name in ["vr0123456789a", "other", "rmesh2"] {
        assert!(
            links.iter().any(|link| link == name),
            "{name} is gone: {links:?}"
        );
    }
    assert_eq!(one.interface_names().expect("links"), before.inside);
}

#[test]
fn two_meshes_on_one_host_are_reset_one_at_a_time() {
    let mut story = story!("reset-two");
    let (a, _one, _before, router) = launched(&mut story);
    let second = a.run_dir().with_file_name("second");
    let [run, state] = ["run", "state"].map(|name| second.join(name).display().to_string());
    let folders = ["--run-dir", run.as_str(), "--state-dir", state.as_str()];
    let on_second = |words: &[&str]| {
        let all = [&folders[..], words].concat();
        let output = a.command(story.program(), &all).expect("the program");
        let (out, err) = texts(&output);
        assert!(output.status.success(), "{out}{err}");
    };
    on_second(&["launch", "--bridge", "two", "--port", "7000"]);
    on_second(&["reset", "--force"]);
    let links = a.interface_names().expect("links");
    assert!(
        links.contains(&"rmesh".to_owned()) && !links.contains(&"two".to_owned()),
        "{links:?}"
    );
    assert_eq!(story.status(&a)["pid"], router.process.pid());
}
