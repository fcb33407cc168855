//! What containers carry is claimed at a start though the state folder says nothing of them.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use rmesh_lab::Host;
use rmesh_tests::ring::{MESH_WITHIN, addresses, attached, mesh_of, says};
use rmesh_tests::story;
use rmesh_tests::story::Story;

const KNOWN_WITHIN: Duration = Duration::from_secs(5);

fn empty(folder: &Path) {
    for entry in fs::read_dir(folder).expect("a state folder") {
        let path = entry.expect("an entry").path();
        if !path.ends_with("lock") {
            fs::remove_file(path).expect("own file");
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, to.join(path.file_name().unwrap_or_default())).expect("room on the disk");
    }
}

/// So many containers are known again, and announced with these addresses.
fn expect_attached(story: &Story, host: &Host, count: usize, addresses: &BTreeSet<IpAddr>) {
    let what = "the containers are known again";
    story.expect_within(KNOWN_WITHIN, what, || {
        story.status(host)["attached"] == count
    });
    let listed = story.succeed(host, &["status", "endpoints"]);
    for address in addresses {
        says(&listed, &[&format!(" {address}/")]);
    }
}

#[test]
fn a_host_whose_state_folder_was_emptied_gives_nothing_twice() {
    let mut story = story!("forgotwipe");
    let ([a, b], links, mut routers) = mesh_of(&mut story, ["a", "b"]);
    let (web, before) = attached(&story, &b, "web");
    routers.remove(1).kill();
    empty(&b.state_dir());
    routers.push(story.launch(&b, &[links[0].address(&a, false)]));
    assert!(routers[1].logged().contains("was not remembered"));
    story.expect_mesh(MESH_WITHIN, &routers.iter().collect::<Vec<_>>());
    let mut all: BTreeSet<_> = before.iter().copied().collect();
    expect_attached(&story, &b, 1, &all);
    for n in 0..3 {
        for host in [&a, &b] {
            for ip in attached(&story, host, &format!("new{n}")).1 {
                assert!(all.insert(ip), "{ip} was given twice");
            }
        }
    }
    let again = addresses(&story.succeed(&b, &["attach", web.name()]));
    assert_eq!(again, before, "it keeps what it carries");
}

#[test]
fn a_host_with_an_older_state_folder_gives_nothing_twice() {
    let mut story = story!("forgotback");
    let [a] = story.hosts(["a"]);
    let router = story.launch(&a, &[]);
    let (_first, given) = attached(&story, &a, "first");
    let mut all: BTreeSet<_> = given.into_iter().collect();
    let backup = story.file_path("backup");
    copy(&a.state_dir(), &backup);
    let (_second, given) = attached(&story, &a, "second");
    all.extend(&given);
    router.kill();
    empty(&a.state_dir());
    copy(&backup, &a.state_dir());
    let router = story.launch(&a, &[]);
    assert!(router.logged().contains("was not remembered"));
    expect_attached(&story, &a, 2, &all);
    // Nobody else could say what has become of what its former life owned.
    println!("{}", story.succeed(&a, &["rmpeer", "a", "--force"]));
    for n in 0..3 {
        for ip in attached(&story, &a, &format!("new{n}")).1 {
            assert!(all.insert(ip), "{ip} was given twice");
        }
    }
    says(&story.succeed(&a, &["ipam", "check"]), &["all agree"]);
}
