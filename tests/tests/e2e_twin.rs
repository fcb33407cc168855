//! A running host's state folder is copied to another host, and two peers have one name.

use std::net::IpAddr;
use std::time::Duration;

use rmesh_lab::Host;
use rmesh_lab::probe::Pinger;
use rmesh_tests::story;
use rmesh_tests::story::{Router, SECRET, Story};

fn warnings(story: &Story, host: &Host) -> String {
    story.status(host)["warnings"].to_string()
}

/// Copies the state folder of a running peer, as an operator would who clones a machine.
fn copy_state(from: &Host, to: &Host) {
    std::fs::create_dir_all(to.state_dir()).expect("room");
    for entry in std::fs::read_dir(from.state_dir())
        .expect("a state folder")
        .flatten()
    {
        if entry.path().is_file() {
            let target = to.state_dir().join(entry.file_name());
            std::fs::copy(entry.path(), target).expect("a readable state folder");
        }
    }
}

/// Three hosts that reach each other, and one beside the second.
struct Mesh {
    story: Story,
    hosts: [Host; 4],
    routers: [Router; 3],
    target: String,
}

impl Mesh {
    fn start(name: &str) -> Mesh {
        let mut story = story!(name);
        let hosts = story.hosts(["a", "b", "c", "copy"]);
        let [a, b, c, copy] = &hosts;
        let (ab, bc, ac) = (story.link(a, b), story.link(b, c), story.link(a, c));
        let _to_a = story.link(copy, a);
        let target = story.link(copy, b).address(b, false).to_string();
        let routers = [
            story.launch(a, &[]),
            story.launch(b, &[ab.address(a, false)]),
            story.launch(c, &[bc.address(b, false), ac.address(a, false)]),
        ];
        story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
        Mesh {
            story,
            hosts,
            routers,
            target,
        }
    }

    fn expect_everywhere(&self, what: &str, named: impl Fn(&str) -> bool) {
        self.story.expect_within(Duration::from_secs(5), what, || {
            let warnings = self.hosts.iter().map(|host| warnings(&self.story, host));
            warnings.into_iter().all(|warnings| named(&warnings))
        });
        for host in &self.hosts {
            println!("{}: {}", host.short_name(), warnings(&self.story, host));
        }
    }
}

#[test]
fn a_clone_is_named_everywhere_and_disturbs_nobody() {
    let mut mesh = Mesh::start("clone");
    let (story, [a, b, c, copy]) = (&mut mesh.story, &mesh.hosts);
    let [_one, two, three] = [(a, "one", 1), (b, "two", 2), (c, "three", 3)]
        .map(|(host, name, number)| story.container(host, name, &format!("10.32.0.{number}/24")));
    let [near, far] =
        ["10.32.0.1", "10.32.0.3"].map(|ip| ip.parse::<IpAddr>().expect("an address"));
    for (from, to) in [(&two, far), (&three, near)] {
        story.expect_ping(Duration::from_secs(2), from, to);
    }
    // Lives that began within 5 s of each other count as equally old.
    std::thread::sleep(Duration::from_secs(6));
    let pings = [(&two, far), (&three, near)]
        .map(|(from, to)| Pinger::start(from, to, Duration::from_millis(10)).expect("pings"));
    copy_state(a, copy);
    let _clone = story.launch_bare(copy, &["--name", "copy", &mesh.target], &[]);
    assert_eq!(story.status(a)["id"], story.status(copy)["id"]);
    mesh.expect_everywhere("everybody names both", |warnings| {
        ["state folder", "copy"]
            .iter()
            .all(|words| warnings.contains(words))
    });
    // Long enough for it to call its twin again, and for sessions to have been mixed up.
    std::thread::sleep(Duration::from_secs(12));
    assert!(warnings(&mesh.story, copy).contains("takes no part"));
    assert_eq!(mesh.story.status(copy)["peers_reachable"], 0);
    let [others, original] = pings.map(|pinger| pinger.stop().expect("pings"));
    println!(
        "pings between others {} of {}, longest gap {:?}; to the original {} of {}, longest gap {:?}; boot {}",
        others.received,
        others.sent,
        others.longest_gap,
        original.received,
        original.sent,
        original.longest_gap,
        mesh.story.status(a)["boot"]
    );
    assert_eq!(others.received, others.sent, "the others are disturbed");
    assert!(others.longest_gap < Duration::from_millis(500));
    assert!(
        original.received * 10 >= original.sent * 8,
        "the original suffers"
    );
    for router in &mesh.routers {
        assert!(!router.logged().contains("is down"), "{}", router.logged());
    }
}

#[test]
fn two_peers_of_one_name_are_named_everywhere_and_disturb_nobody() {
    let mut mesh = Mesh::start("name");
    let secret = mesh
        .story
        .file("secret", SECRET, 0o600)
        .display()
        .to_string();
    let copy = mesh.hosts[3].clone();
    let arguments = ["--name", "c", "--secret-file", &secret, &mesh.target];
    let _other = mesh.story.launch_bare(&copy, &arguments, &[]);
    let ids = [&mesh.hosts[2], &copy].map(|host| {
        let id = mesh.story.status(host)["id"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        id[..12].to_owned()
    });
    mesh.expect_everywhere("everybody names both", |warnings| {
        warnings.contains("one name") && ids.iter().all(|id| warnings.contains(id.as_str()))
    });
    for router in &mesh.routers {
        assert!(!router.logged().contains("is down"), "{}", router.logged());
        assert_eq!(mesh.story.status(&router.host)["peers_reachable"], 3);
    }
}
