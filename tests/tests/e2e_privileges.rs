//! What a running daemon may do: four capabilities, on every thread, and no way to more; and that
//! it needs each of the four.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rmesh_lab::{Container, Host, Process};
use rmesh_tests::story;
use rmesh_tests::story::{SECRET, Story};

const SETPRIV: &str = "/usr/bin/setpriv";
/// linux/capability.h.
const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;
const KEPT: u64 = NET_ADMIN | NET_RAW | SYS_PTRACE | SYS_ADMIN;
const SOON: Duration = Duration::from_secs(5);

/// Lines of `/proc/PID/task/TID/status` of every thread.
fn threads(pid: u32) -> Vec<BTreeMap<String, String>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a running process");
    let status = tasks.map(|task| {
        let path = task.expect("a thread").path().join("status");
        let text = fs::read_to_string(path).expect("a thread");
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        pairs
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect()
    });
    status.collect()
}

/// Every thread has `kept` in the sets that count, nothing in the others, and cannot gain any.
fn holds_no_more_than(pid: u32, kept: u64) {
    let threads = threads(pid);
    println!("{} threads", threads.len());
    assert!(threads.len() > 3, "too few to prove anything: {threads:#?}");
    for thread in &threads {
        let set = |name: &str| u64::from_str_radix(&thread[name], 16).expect("a set");
        for (name, expected) in [
            ("CapEff", kept),
            ("CapPrm", kept),
            ("CapBnd", kept),
            ("CapInh", 0),
            ("CapAmb", 0),
        ] {
            let name_of_thread = &thread["Name"];
            assert_eq!(set(name), expected, "{name} of {name_of_thread}");
        }
        assert_eq!(thread["NoNewPrivs"], "1", "{}", thread["Name"]);
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("its limits");
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let core: Vec<&str> = core.expect("a limit").split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "{core:?}");
}

/// A process of another user inside a container; killed when dropped.
struct Stranger(Child);

impl Stranger {
    fn inside(container: &Container) -> Self {
        let mut command = Command::new(SETPRIV);
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.args(["sleep", "300"]).stdin(Stdio::null());
        Stranger(container.enter(|| command.spawn()).expect("setpriv"))
    }

    fn target(&self) -> String {
        format!("pid:{}", self.0.id())
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a daemon that lacks a capability from the beginning.
fn launch_without(
    story: &Story,
    host: &Host,
    capability: &str,
    flags: &[&str],
) -> (Process, std::path::PathBuf) {
    let secret = story.file("secret", SECRET, 0o600).display().to_string();
    let [run, state] = [host.run_dir(), host.state_dir()].map(|dir| dir.display().to_string());
    let lacking = format!("-{capability}");
    let program = story.program().display().to_string();
    let mut words = vec![
        "--bounding-set",
        &lacking,
        "--",
        &program,
        "--run-dir",
        &run,
    ];
    words.extend(["--state-dir", &state, "launch", "--foreground"]);
    words.extend(["--secret-file", &secret]);
    words.extend(flags);
    let log = host.run_dir().join(format!("without-{capability}.log"));
    let process = host.spawn(Path::new(SETPRIV), &words, &[], &log);
    (process.expect("setpriv"), log)
}

fn serves(story: &Story, host: &Host, process: &Process) -> bool {
    let mut serves = false;
    story.expect_within(SOON, "it serves or ends", || {
        serves = story.rmesh(host, &["status"]).status.success();
        serves || !process.is_running()
    });
    serves
}

#[test]
fn every_thread_of_a_daemon_holds_four_capabilities_and_everything_works() {
    let mut story = story!("privileges");
    let [a, b] = story.hosts(["a", "b"]);
    let ab = story.link(&a, &b);
    let on_a = story.launch(&a, &[]);
    let on_b = story.launch_with(&b, &[], &["--workers", "4"]);
    story.succeed(&b, &["connect", &ab.address(&a, false).to_string()]);
    story.expect_mesh(SOON, &[&on_a, &on_b]);
    let one = story.container(&a, "one", "10.32.0.1/24");
    let two = b.container("two").expect("a container");
    let stranger = Stranger::inside(&two);
    story.succeed(&b, &["attach", &stranger.target(), "--ip", "10.32.0.2/24"]);
    story.expect_ping(SOON, &one, "10.32.0.2".parse().expect("an address"));
    // Threads that only work makes are among them now.
    for router in [&on_a, &on_b] {
        holds_no_more_than(router.process.pid(), KEPT);
    }
    story.succeed(&b, &["detach", &stranger.target()]);
    assert_eq!(two.interface_names().expect("a container"), ["lo"]);
    let report = story.succeed(&a, &["report"]);
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["daemon"]["status"]["NoNewPrivs"], "1", "{report}");
    assert!(report["daemon"]["environment"].is_object());
    assert!(
        report["daemon"]["descriptors"].as_u64() > Some(5),
        "{report}"
    );

    // One in the background has another way to its start.
    story.succeed(&a, &["stop"]);
    story.succeed(&a, &["launch"]);
    let pid = story.status(&a)["pid"].as_u64().expect("a pid");
    holds_no_more_than(u32::try_from(pid).expect("a pid"), KEPT);
    story.succeed(&a, &["stop"]);
}

#[test]
fn each_of_the_four_is_needed_and_its_lack_is_named() {
    for (name, by_name, by_pid) in [
        ("net_admin", None, None),
        ("net_raw", Some(false), Some(false)),
        ("sys_admin", Some(false), Some(false)),
        ("sys_ptrace", Some(true), Some(false)),
        // One that is not kept: nothing is missing.
        ("sys_time", Some(true), Some(true)),
    ] {
        let mut story = story!("privileges-lack");
        let a = story.host("a");
        let [one, two] = ["one", "two"].map(|name| a.container(name).expect("a container"));
        let stranger = Stranger::inside(&two);
        let (process, log) = launch_without(&story, &a, name, &[]);
        let served = serves(&story, &a, &process);
        let attach = |target: &str, address: &str| {
            let words = ["attach", target, "--ip", address];
            served.then(|| story.rmesh(&a, &words).status.success())
        };
        let works = (
            attach(one.name(), "10.32.0.1/24"),
            attach(&stranger.target(), "10.32.0.2/24"),
        );
        println!(
            "without {name}: served {served}, attach by name {:?}, by pid {:?}",
            works.0, works.1
        );
        assert_eq!(works, (by_name, by_pid), "without {name}");
        let logged = fs::read_to_string(log).expect("a log");
        let words = format!("CAP_{} is missing", name.to_uppercase());
        assert_eq!(logged.contains(&words), name != "sys_time", "{logged}");
    }
}

#[test]
fn memory_cannot_be_read_even_by_one_with_the_same_capabilities() {
    let mut story = story!("privileges-dump");
    let a = story.host("a");
    let (daemon, _log) = launch_without(&story, &a, "sys_ptrace", &[]);
    assert!(serves(&story, &a, &daemon));
    let log = a.run_dir().join("sleep.log");
    let words = ["--bounding-set", "-sys_ptrace", "--", "sleep", "300"];
    let other = a.spawn(Path::new(SETPRIV), &words, &[], &log);
    let other = other.expect("setpriv");
    let readable = |process: &Process| {
        // Some kernels let those with other capabilities see the rest.
        let program = format!("/proc/{}/exe", process.pid());
        let words = ["--bounding-set", "-sys_ptrace", "--", "readlink", &program];
        let output = a.command(Path::new(SETPRIV), &words).expect("setpriv");
        output.status.success()
    };
    story.expect_within(SOON, "an ordinary process can be read", || readable(&other));
    assert!(!readable(&daemon), "the daemon is dumpable");
}

#[test]
fn a_port_below_1024_keeps_one_capability_more() {
    let mut story = story!("privileges-port");
    let a = story.host("a");
    let router = story.launch_with(&a, &[], &["--port", "777"]);
    holds_no_more_than(router.process.pid(), KEPT | NET_BIND_SERVICE);
    story.succeed(&a, &["stop"]);
    let (process, log) = launch_without(&story, &a, "net_bind_service", &["--port", "777"]);
    assert!(!serves(&story, &a, &process));
    let logged = fs::read_to_string(log).expect("a log");
    assert!(
        logged.contains("CAP_NET_BIND_SERVICE is missing"),
        "{logged}"
    );
    assert!(logged.contains("another --port"), "{logged}");
}
