//! One story for each command: what it does, what it refuses, and what it says.

use std::net::IpAddr;
use std::time::Duration;

use rmesh_tests::story;
use rmesh_tests::story::{INTERFACE, OTHER_SECRET, SECRET, Story, texts};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(5);

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in:\n{text}");
    }
}

#[test]
fn launch_refuses_what_cannot_work_and_says_what_to_do() {
    let mut story = story!("refuse");
    let a = story.host("a");
    let error = story.fail(&a, 1, &["launch", "192.0.2.1"]);
    says(&error, &["secret", "rmesh secret"]);
    let open = story.file("open", SECRET, 0o644).display().to_string();
    let error = story.fail(&a, 1, &["launch", "--secret-file", &open, "192.0.2.1"]);
    says(&error, &["0644"]);
    let error = story.fail(&a, 2, &["launch", "--secret", "short", "192.0.2.1"]);
    says(&error, &["16"]);
    let missing = story.fail(&a, 1, &["launch", "--secret-file", "/nosuch", "192.0.2.1"]);
    says(&missing, &["/nosuch"]);
    assert!(
        story
            .fail(&a, 2, &["launch", "--mtu", "12"])
            .contains("mtu")
    );

    let router = story.launch(&a, &[]);
    let error = story.fail(&a, 1, &["launch", "192.0.2.1"]);
    says(&error, &["running", "rmesh connect"]);
    router.kill();
    let other = story
        .file("other", OTHER_SECRET, 0o600)
        .display()
        .to_string();
    let error = story.fail(&a, 1, &["launch", "--secret-file", &other]);
    says(&error, &["another secret"]);
}

#[test]
fn a_mesh_is_founded_in_the_background_and_joined_with_the_printed_secret() {
    let mut story = story!("found");
    let [a, b] = story.hosts(["a", "b"]);
    let ab = story.link(&a, &b);
    let summary = story.succeed(&a, &["launch", "--name", "a"]);
    println!("{summary}");
    says(&summary, &["rmesh launch"]);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let secret = story.succeed(&a, &["secret"]);
        assert!(
            secret.starts_with("rmesh1-") && secret.trim().len() == 59,
            "not a secret"
        );
        assert!(
            !summary.contains(secret.trim()),
            "launch must not print the secret"
        );
        assert_eq!(
            json(&story.succeed(&a, &["secret", "--json"]))["secret"],
            secret.trim()
        );
        let peer = ab.address(&a, false).to_string();
        story.succeed(
            &b,
            &["launch", "--name", "b", "--secret", secret.trim(), &peer],
        );
        story.expect_within(SOON, "two hosts form a mesh", || {
            story.status(&a)["peers_reachable"] == 1 && story.status(&b)["peers_reachable"] == 1
        });
        // The secret is neither in the daemon's arguments nor in its environment.
        let pid = &story.status(&b)["pid"];
        for file in ["cmdline", "environ"] {
            let text = std::fs::read(format!("/proc/{pid}/{file}")).expect("the daemon's files");
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(!text.contains(secret.trim()), "the secret stands in {file}");
        }
    }));
    for host in [&a, &b] {
        println!("{:?}", texts(&story.rmesh(host, &["stop"])));
    }
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
    let error = story.fail(&a, 1, &["status"]);
    says(&error, &["rmesh launch"]);
}

#[test]
fn a_wrong_secret_is_named_on_one_side_and_counted_on_the_other() {
    let mut story = story!("secret");
    let [a, b] = story.hosts(["a", "b"]);
    let ab = story.link(&a, &b);
    let first = story.launch(&a, &[]);
    let other = story
        .file("other", OTHER_SECRET, 0o600)
        .display()
        .to_string();
    let peer = ab.address(&a, false).to_string();
    let second = story.launch_bare(&b, &["--name", "b", "--secret-file", &other, &peer], &[]);
    let expected = format!("no answer from {peer}:6783: unreachable, or a different secret");
    story.expect_within(
        Duration::from_secs(8),
        "status names the silent peer",
        || story.succeed(&b, &["status"]).contains(&expected),
    );
    story.expect_within(Duration::from_secs(8), "the log names it too", || {
        second.logged().contains(&expected)
    });
    let refused = &story.status(&a)["control"]["handshakes_refused"];
    assert!(refused.as_u64() > Some(0), "refused handshakes: {refused}");
    assert_eq!(story.status(&a)["peers_total"], 0);
    println!(
        "{refused} attempts refused; logged: {}",
        first.logged().lines().last().unwrap_or("")
    );
}

#[test]
fn connected_and_forgotten_peers_are_remembered_across_restarts() {
    let mut story = story!("remember");
    let [a, b, c] = story.hosts(["a", "b", "c"]);
    let (ab, ac) = (story.link(&a, &b), story.link(&a, &c));
    let mut first = story.launch(&a, &[]);
    let second = story.launch(&b, &[]);
    let third = story.launch(&c, &[]);
    let [to_b, to_c] = [ab.address(&b, false), ac.address(&c, false)].map(|ip| ip.to_string());
    let targets = |story: &Story| -> Vec<String> {
        let status = story.status(&a);
        let list = status["targets"].as_array().cloned().unwrap_or_default();
        let mut names: Vec<String> = list
            .iter()
            .filter_map(|t| Some(t["name"].as_str()?.to_owned()))
            .collect();
        names.sort();
        names
    };
    story.succeed(&a, &["connect", &to_b, &to_c]);
    story.expect_mesh(SOON, &[&first, &second, &third]);
    first.kill();
    first = story.launch(&a, &[]);
    let mut both = vec![format!("{to_b}:6783"), format!("{to_c}:6783")];
    both.sort();
    assert_eq!(targets(&story), both);
    story.expect_mesh(SOON, &[&first, &second, &third]);
    story.succeed(&a, &["forget", &to_b]);
    assert_eq!(targets(&story), [format!("{to_c}:6783")]);
    first.kill();
    first = story.launch(&a, &[]);
    assert_eq!(targets(&story), [format!("{to_c}:6783")]);
    story.succeed(&a, &["connect", "--replace", &to_b]);
    assert_eq!(targets(&story), [format!("{to_b}:6783")]);
    let error = story.fail(&a, 1, &["forget", "nobody"]);
    says(&error, &["nobody"]);
    first.kill();
}

#[test]
fn attach_detach_and_ps_do_what_they_say_and_undo_what_fails() {
    let mut story = story!("attach");
    let [a, b] = story.hosts(["a", "b"]);
    let ab = story.link(&a, &b);
    let routers = [
        story.launch(&a, &[ab.address(&b, false)]),
        story.launch(&b, &[]),
    ];
    story.expect_mesh(SOON, &routers.each_ref());
    let one = a.container("one").expect("a container");
    let attach = [
        "attach",
        one.name(),
        "--ip",
        "10.32.0.1/24",
        "--ip",
        "fd32::1/64",
    ];
    for _ in 0..2 {
        assert_eq!(story.succeed(&a, &attach), "10.32.0.1/24\nfd32::1/64\n");
    }
    let addresses = one.addresses(INTERFACE).expect("addresses");
    assert!(
        addresses
            .iter()
            .any(|net| net.to_string() == "10.32.0.1/24"),
        "{addresses:?}"
    );
    let listed = json(&story.succeed(&a, &["ps", "--json"]));
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(listed[0]["target"], one.name());
    says(&story.succeed(&a, &["ps"]), &[one.name(), "10.32.0.1/24"]);

    let missing = story.fail(
        &a,
        1,
        &["attach", "nosuch-namespace", "--ip", "10.32.0.7/24"],
    );
    says(&missing, &["nosuch-namespace"]);
    story.fail(&a, 2, &["attach", one.name(), "--ip", "10.32.0.7"]);
    let two = b.container("two").expect("a container");
    let taken = story.fail(&b, 1, &["attach", two.name(), "--ip", "10.32.0.1/24"]);
    says(&taken, &["10.32.0.1", "a"]);
    let interfaces = two.interface_names().expect("interfaces");
    assert_eq!(interfaces, ["lo"], "what failed is undone");

    // A command may run in any network namespace, and a target may be a path or a process.
    let elsewhere = two.command(
        story.program(),
        &["--run-dir", &a.run_dir().display().to_string(), "ps"],
    );
    assert!(elsewhere.expect("a command").status.success());
    let path = two.path().display().to_string();
    story.succeed(
        &b,
        &["attach", &path, "--ip", "10.32.0.2/24", "--ifname", "eth7"],
    );
    assert!(
        two.interface_names()
            .expect("interfaces")
            .contains(&"eth7".to_owned())
    );
    story.expect_ping(Duration::from_secs(1), &one, ip("10.32.0.2"));
    for _ in 0..2 {
        story.rmesh(&b, &["detach", &path]);
    }
    assert_eq!(two.interface_names().expect("interfaces"), ["lo"]);
    assert_eq!(
        json(&story.succeed(&b, &["ps", "--json"])),
        Value::Array(Vec::new())
    );
}

#[test]
fn stop_keeps_interfaces_and_local_traffic() {
    let mut story = story!("stop");
    let a = story.host("a");
    let router = story.launch(&a, &[]);
    let one = story.container(&a, "one", "10.32.0.1/24");
    let _two = story.container(&a, "two", "10.32.0.2/24");
    story.expect_ping(Duration::from_secs(1), &one, ip("10.32.0.2"));
    story.succeed(&a, &["stop"]);
    let ended = router.process.wait(Duration::from_secs(2));
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
    story.expect_ping(Duration::from_secs(1), &one, ip("10.32.0.2"));
    let error = story.fail(&a, 1, &["stop"]);
    println!("stop again: {error}");
    let router = story.launch(&a, &[]);
    story.expect_ping(Duration::from_secs(1), &one, ip("10.32.0.2"));
    assert_eq!(
        json(&story.succeed(&a, &["ps", "--json"]))
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    router.process.terminate().expect("SIGTERM");
    let ended = router.process.wait(Duration::from_secs(2));
    assert!(
        ended.is_some_and(|status| status.success()),
        "SIGTERM must be clean: {ended:?}"
    );
}

#[test]
fn status_and_version_speak_text_and_json() {
    let mut story = story!("status");
    let a = story.host("a");
    let without = story.fail(&a, 1, &["status"]);
    says(&without, &["rmesh launch"]);
    says(
        &story.succeed(&a, &["version"]),
        &["rmesh ", env!("CARGO_PKG_VERSION")],
    );
    assert_eq!(
        json(&story.succeed(&a, &["version", "--json"]))["version"],
        env!("CARGO_PKG_VERSION")
    );
    let _router = story.launch_with(&a, &["192.0.2.7"], &["--init-peers", "1"]);
    let _one = story.container(&a, "one", "10.32.0.1/24");
    for table in ["", "peers", "paths", "routes", "endpoints"] {
        let mut words = vec!["status"];
        words.extend((!table.is_empty()).then_some(table));
        println!("{}", story.succeed(&a, &words));
        words.push("--json");
        json(&story.succeed(&a, &words));
    }
    says(&story.succeed(&a, &["status"]), &["192.0.2.7"]);
    says(&story.succeed(&a, &["status", "endpoints"]), &["10.32.0.1"]);
    story.fail(&a, 2, &["status", "nothing"]);
    story.fail(&a, 2, &["dance"]);
    for verb in [
        "launch", "stop", "connect", "forget", "attach", "detach", "ps", "status", "secret",
    ] {
        says(&story.succeed(&a, &[verb, "--help"]), &["Example"]);
    }
}

#[test]
fn the_demo_runs_once_and_leaves_nothing() {
    // No lab: the demo makes its own, and waits for nobody.
    if let Err(error) = rmesh_lab::require_privileges() {
        panic!("{error}");
    }
    let namespaces = || {
        let entries = std::fs::read_dir("/run/netns")
            .into_iter()
            .flatten()
            .flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| name.contains("demo")).collect();
        names.sort();
        names
    };
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_rmesh-under-test"))
        .args(["demo", "--once"])
        // Meant for the operator's own peer: the demo's do not see it.
        .env("RMESH_SECRET", "a secret of another mesh")
        .env("RMESH_NAME", "somebody")
        .env("RMESH_PORT", "7000")
        .output()
        .expect("the program");
    let (out, err) = texts(&output);
    println!("{out}");
    assert!(output.status.success(), "{out}{err}");
    says(&out, &["unchanged", "relay"]);
    assert_eq!(
        namespaces(),
        Vec::<String>::new(),
        "the demo leaves namespaces"
    );
}
