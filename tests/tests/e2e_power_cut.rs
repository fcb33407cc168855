//! The daemon dies at each of its writes, the disk is full, files are damaged: it starts again as the
//! peer it was, or says what is wrong. (A power cut, which loses more than the process, is simulated
//! in `cli/src/power_cut.rs`.)

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use rmesh_lab::{Container, Host, Process};
use rmesh_tests::story;
use rmesh_tests::story::{INTERFACE, SECRET, Story, texts};

const DIES_AT: &str = "RMESH_UNDER_TEST_DIES_AT";
const FULL_AT: &str = "RMESH_UNDER_TEST_FULL_AT";
/// More operations than a start, an attach and a connect take together.
const OPERATIONS_MAX: u64 = 100;
/// A restart serves within this time.
const SERVES_WITHIN: Duration = Duration::from_secs(1);

/// A daemon in the foreground that may die any time.
fn doomed(story: &Story, host: &Host, variable: &str, at: u64) -> Process {
    let secret = story.file("secret", SECRET, 0o600).display().to_string();
    let words = [
        "launch",
        "--foreground",
        "--secret-file",
        &secret,
        // The other never answers: this one founds the ring of addresses alone.
        "--init-peers",
        "1",
        "192.0.2.1",
    ];
    let folders = [host.run_dir(), host.state_dir()].map(|path| path.display().to_string());
    let mut all = vec!["--run-dir", &folders[0], "--state-dir", &folders[1]];
    all.extend(words);
    let log = story.file("doomed.log", "", 0o600);
    let at = at.to_string();
    host.spawn(story.program(), &all, &[(variable, &at)], &log)
        .expect("the program")
}

/// Waits until it serves or has died; true if it serves.
fn serves(story: &Story, host: &Host, process: &Process) -> bool {
    let start = Instant::now();
    while process.is_running() {
        if story.rmesh(host, &["status"]).status.success() {
            return true;
        }
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "neither serves nor dies"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

/// State files and nothing else (the lock is one), for the owner only.
fn check_folder(folder: &Path) {
    for entry in fs::read_dir(folder).expect("a state folder").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let known = [
            "identity",
            "secret",
            "boot",
            "peers",
            "hints",
            "attachments",
            "ring",
            "ledger",
            "lock",
        ];
        assert!(
            known.contains(&name.as_str()),
            "{name} is left in the state folder"
        );
        let mode = entry.metadata().expect("a file").mode() & 0o7777;
        assert_eq!(mode, 0o600, "mode of {name}");
    }
}

/// Id and boot counter of the daemon on a host.
fn life(story: &Story, host: &Host) -> (String, u64) {
    let status = story.status(host);
    let id = status["id"].as_str().unwrap_or_default().to_owned();
    (id, status["boot"].as_u64().unwrap_or_default())
}

/// An attach that does not wait long for the peer that never answers.
fn attach(container: &Container) -> [&str; 6] {
    let name = container.name();
    ["--timeout", "1s", "attach", name, "--ip", "10.32.0.1/24"]
}

/// Asks for everything that writes; true if all of it was done and the daemon lives.
fn use_it(story: &Story, host: &Host, container: &Container, process: &Process) -> bool {
    let attach = attach(container);
    let commands: [&[&str]; 3] = [&attach, &["connect", "192.0.2.2"], &["forget", "192.0.2.2"]];
    let done = commands
        .iter()
        .all(|words| story.rmesh(host, words).status.success());
    if !done {
        let ended = process.wait(Duration::from_secs(5));
        assert!(ended.is_some(), "a command failed, but the daemon lives");
    }
    done && process.is_running()
}

#[test]
fn a_first_launch_killed_at_any_write_can_be_repeated() {
    let mut story = story!("cutfirst");
    let host = story.host("a");
    for at in 0..OPERATIONS_MAX {
        fs::remove_dir_all(host.state_dir()).expect("own folder");
        let process = doomed(&story, &host, DIES_AT, at);
        if serves(&story, &host, &process) {
            process.kill().expect("own process");
            println!("a first launch has {at} writes; killed at each, it was repeated");
            assert!(at > 12, "writes are not counted");
            return;
        }
        let router = story.launch(&host, &["192.0.2.1".parse().expect("an address")]);
        check_folder(&host.state_dir());
        assert_eq!(story.succeed(&host, &["secret"]).trim(), SECRET);
        assert_eq!(
            story.status(&host)["targets"].as_array().map(Vec::len),
            Some(1)
        );
        router.kill();
    }
    panic!("no launch came to its end");
}

#[test]
fn a_router_killed_at_any_write_comes_back_as_the_peer_it_was() {
    let mut story = story!("cutlater");
    let host = story.host("a");
    let router = story.launch_with(&host, &["192.0.2.1"], &["--init-peers", "1"]);
    let near = story.container(&host, "near", "10.32.0.2/24");
    let (id, mut last) = life(&story, &host);
    router.kill();
    let (mut died_at_start, mut died_later) = (0, 0);
    for at in 0..OPERATIONS_MAX {
        let container = host.container(&format!("c{at}")).expect("a container");
        let process = doomed(&story, &host, DIES_AT, at);
        match serves(&story, &host, &process) {
            false => died_at_start += 1,
            true => {
                let (same, boot) = life(&story, &host);
                assert!(same == id && boot > last, "boot {boot} after {last}");
                last = boot;
                if use_it(&story, &host, &container, &process) {
                    println!(
                        "killed at {died_at_start} writes of a start and {died_later} of commands"
                    );
                    assert!(died_at_start > 3 && died_later > 12);
                    return;
                }
                died_later += 1;
            }
        }
        let start = Instant::now();
        let router = story.launch(&host, &[]);
        story.expect_took(SERVES_WITHIN, "serves again", start.elapsed());
        let (same, boot) = life(&story, &host);
        assert!(same == id && boot > last, "boot {boot} after {last}");
        last = boot;
        check_folder(&host.state_dir());
        story.succeed(&host, &attach(&container));
        let address = "10.32.0.1".parse().expect("an address");
        story.expect_ping(Duration::from_secs(1), &near, address);
        story.succeed(&host, &["detach", container.name()]);
        router.kill();
    }
    panic!("no life came to its end");
}

#[test]
fn a_full_disk_is_named_and_costs_no_traffic() {
    let mut story = story!("full");
    let host = story.host("a");
    story
        .launch(&host, &["192.0.2.1".parse().expect("an address")])
        .kill();
    let process = doomed(&story, &host, FULL_AT, 0);
    let ended = process.wait(Duration::from_secs(5)).expect("it refuses");
    assert_eq!(ended.code(), Some(1));
    let said = fs::read_to_string(story.file_path("doomed.log")).expect("own file");
    println!("{said}");
    let boot = host.state_dir().join("boot").display().to_string();
    for words in [boot.as_str(), "see to the disk"] {
        assert!(said.contains(words), "{words} is missing in: {said}");
    }
    check_folder(&host.state_dir());
    let router = story.launch_with(&host, &["192.0.2.1"], &["--init-peers", "1"]);
    let near = story.container(&host, "near", "10.32.0.2/24");
    let _far = story.container(&host, "far", "10.32.0.3/24");
    router.kill();
    // The peers are there already: a start writes the boot counter, in five operations.
    let process = doomed(&story, &host, FULL_AT, 5);
    assert!(serves(&story, &host, &process), "a start does not serve");
    let container = host.container("box").expect("a container");
    let words = story.fail(&host, 1, &attach(&container));
    println!("{words}");
    assert!(words.contains("the disk refused"), "{words}");
    assert!(container.mac(INTERFACE).is_err(), "an interface is left");
    let page = story.succeed(&host, &["status"]);
    assert!(page.contains("none are handed out"), "{page}");
    let address = "10.32.0.3".parse().expect("an address");
    story.expect_ping(Duration::from_secs(1), &near, address);
    check_folder(&host.state_dir());
}

#[test]
fn damaged_files_are_refused_or_moved_aside_and_named() {
    let mut story = story!("damaged");
    let host = story.host("a");
    story
        .launch(&host, &["192.0.2.1".parse().expect("an address")])
        .kill();
    let file = |name: &str| host.state_dir().join(name);
    for name in ["peers", "boot"] {
        fs::write(file(name), "garbage").expect("own file");
        let router = story.launch(&host, &[]);
        let aside = file(&format!("{name}.corrupt-1"));
        assert_eq!(fs::read(&aside).ok().as_deref(), Some(&b"garbage"[..]));
        let named = aside.display().to_string();
        let page = story.succeed(&host, &["status"]);
        assert!(page.contains(&named), "{page}");
        assert!(router.logged().contains(&named), "{}", router.logged());
        router.kill();
        // It is said until the operator has seen to it.
        let router = story.launch(&host, &[]);
        assert!(router.logged().contains(&named), "{}", router.logged());
        router.kill();
        fs::remove_file(aside).expect("own file");
    }
    let router = story.launch(&host, &[]);
    assert!(!story.succeed(&host, &["status"]).contains("corrupt"));
    router.kill();
    for name in ["identity", "secret"] {
        let kept = fs::read(file(name)).expect("own file");
        fs::write(file(name), &kept[..kept.len() / 2]).expect("own file");
        let words = story.fail(&host, 1, &["launch", "--foreground"]);
        let path = file(name).display().to_string();
        assert!(words.contains(&path) && words.contains("backup"), "{words}");
        fs::write(file(name), kept).expect("own file");
    }
    story.launch(&host, &[]);
}

#[test]
fn a_second_daemon_is_refused_with_the_pid_of_the_first() {
    let mut story = story!("second");
    let host = story.host("a");
    let router = story.launch(&host, &[]);
    let elsewhere = host.state_dir().with_file_name("elsewhere");
    let link = host.state_dir().with_file_name("link");
    symlink(host.state_dir().parent().expect("a folder above"), &link).expect("a link");
    let [run, state] = [host.run_dir(), host.state_dir()];
    let pairs = [
        (run.clone(), state.clone()),
        (run.clone(), elsewhere.clone()),
        (elsewhere.clone(), state.clone()),
        (link.join("run"), elsewhere.clone()),
        (elsewhere.clone(), link.join("state")),
    ];
    for (run, state) in &pairs {
        let [run, state] = [run, state].map(|path| path.display().to_string());
        let words = ["--run-dir", &run, "--state-dir", &state, "launch"];
        for foreground in [false, true] {
            let mut words = words.to_vec();
            words.extend(foreground.then_some("--foreground"));
            let output = host.command(story.program(), &words).expect("the program");
            let (_, said) = texts(&output);
            assert_eq!(output.status.code(), Some(1), "{said}");
            let pid = format!("pid {}", router.process.pid());
            assert!(said.contains(&pid), "{pid} is missing in: {said}");
        }
    }
    let taken: Vec<_> = fs::read_dir(&elsewhere)
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    println!("{} pairs of folders refused with the pid", pairs.len());
    assert!(
        taken
            .iter()
            .all(|entry| entry.file_name() == "rmesh.pid" || entry.file_name() == "lock")
    );
    assert!(router.process.is_running());
}
