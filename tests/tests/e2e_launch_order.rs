//! Three hosts launched in every order, with peers that are down or have no address yet.

use std::time::{Duration, Instant};

use rmesh_tests::story;

const FORMED_WITHIN: Duration = Duration::from_secs(5);

#[test]
fn the_order_of_launches_does_not_matter() {
    let orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    for order in orders {
        println!("order {order:?}");
        let mut story = story!("order");
        let hosts = story.hosts(["a", "b", "c"]);
        let ab = story.link(&hosts[0], &hosts[1]);
        let bc = story.link(&hosts[1], &hosts[2]);
        let _ac = story.link(&hosts[0], &hosts[2]);
        // Each is launched with one peer, which may be down, and a name that never resolves.
        let peers = [
            ab.address(&hosts[1], false),
            bc.address(&hosts[2], false),
            bc.address(&hosts[1], false),
        ];
        let mut routers = Vec::new();
        for at in order {
            if !routers.is_empty() {
                // Long enough for the back-off to grow while nobody is there.
                std::thread::sleep(Duration::from_secs(2));
            }
            let peer = peers[at].to_string();
            routers.push(story.launch_with(&hosts[at], &["nosuch.invalid", &peer], &[]));
        }
        story.expect_mesh(FORMED_WITHIN, &routers.iter().collect::<Vec<_>>());
        let status = story.status(&hosts[0]);
        let unresolved = status["targets"]
            .as_array()
            .expect("targets")
            .iter()
            .any(|t| t["name"] == "nosuch.invalid:6783" && t["state"] == "does not resolve");
        assert!(unresolved, "{:#}", status["targets"]);
    }
}

#[test]
fn a_peer_that_is_down_for_long_is_found_soon_after_its_start() {
    let mut story = story!("late");
    let [a, b] = story.hosts(["a", "b"]);
    let ab = story.link(&a, &b);
    let first = story.launch(&a, &[ab.address(&b, true), ab.address(&b, false)]);
    std::thread::sleep(Duration::from_secs(12));
    let text = story.succeed(&a, &["status"]);
    assert!(text.contains("no answer from"), "{text}");
    assert!(
        text.contains("unreachable, or a different secret"),
        "{text}"
    );
    let second = story.launch(&b, &[]);
    story.expect_mesh(FORMED_WITHIN, &[&first, &second]);
}

#[test]
fn a_name_that_resolves_later_is_tried_again() {
    let mut story = story!("name");
    let [a, b] = story.hosts(["a", "b"]);
    let ab = story.link(&a, &b);
    let hosts_file = story.file("hosts", "127.0.0.1 localhost\n", 0o644);
    let secret = story.file("secret", rmesh_tests::story::SECRET, 0o600);
    let second = story.launch(&b, &[]);
    let first = story.launch_bare(
        &a,
        &[
            "--name",
            "a",
            "--secret-file",
            &secret.display().to_string(),
            "later.test",
        ],
        &[("RMESH_UNDER_TEST_HOSTS", &hosts_file.display().to_string())],
    );
    std::thread::sleep(Duration::from_secs(3));
    let status = story.status(&a);
    assert_eq!(
        status["targets"][0]["state"], "does not resolve",
        "{:#}",
        status["targets"]
    );
    let line = format!(
        "127.0.0.1 localhost\n{} later.test\n",
        ab.address(&b, false)
    );
    story.file("hosts", &line, 0o644);
    let start = Instant::now();
    story.expect_mesh(FORMED_WITHIN, &[&first, &second]);
    println!("{:.2?} after the name began to resolve", start.elapsed());
}
