//! Programs in hosts, and what remains of a lab: nothing.
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rmesh_lab::{Host, Lab, LabError, Process};

const KILLED_LAB: &str = "RMESH_LAB_TEST_TO_BE_KILLED";

fn sleeper(host: &Host, log: &Path) -> Process {
    host.spawn(Path::new("/bin/sleep"), &["300"], &[], log)
        .unwrap()
}

fn within(limit: Duration, condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if condition() {
            return true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    condition()
}

/// The state letter of a process (proc(5)); `None` when it is gone.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

fn namespace_of(pid: u32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/net")).unwrap()
}

#[test]
fn a_program_runs_inside_its_host_and_is_paused_resumed_and_ended() {
    let mut lab = Lab::new("programs").unwrap();
    let host = lab.host("a").unwrap();
    let log = lab.folder().join("a.log");
    let inside = host.enter(|| fs::read_link("/proc/thread-self/ns/net").unwrap());
    assert_ne!(inside, fs::read_link("/proc/self/ns/net").unwrap());

    let process = sleeper(&host, &log);
    assert!(process.is_running());
    assert_eq!(namespace_of(process.pid()), inside);
    process.pause().unwrap();
    assert!(within(Duration::from_secs(1), || state(process.pid()) == Some('T')));
    assert!(process.is_running());
    process.resume().unwrap();
    assert!(within(Duration::from_secs(1), || state(process.pid()) == Some('S')));
    assert!(process.wait(Duration::from_millis(50)).is_none());
    process.terminate().unwrap();
    let status = process.wait(Duration::from_secs(2)).unwrap();
    assert_eq!(status.signal(), Some(15));

    // A paused program can be killed, a dead one killed again and a new one started.
    let process = sleeper(&host, &log);
    process.pause().unwrap();
    process.kill().unwrap();
    process.kill().unwrap();
    assert!(!process.is_running());
    assert!(sleeper(&host, &log).is_running());

    // A program does not need the handle of its host.
    let forgotten = sleeper(&lab.host("b").unwrap(), &log);
    thread::sleep(Duration::from_millis(100));
    assert!(forgotten.is_running());
}

#[test]
fn output_goes_to_the_log_and_commands_are_bounded() {
    let mut lab = Lab::new("commands").unwrap();
    let host = lab.host("a").unwrap();
    let log = lab.folder().join("a.log");
    let shell = Path::new("/bin/sh");
    let script = "echo out $WORD; echo err >&2";
    let process = host
        .spawn(shell, &["-c", script], &[("WORD", "x")], &log)
        .unwrap();
    assert!(process.wait(Duration::from_secs(2)).unwrap().success());
    assert_eq!(fs::read_to_string(&log).unwrap(), "out x\nerr\n");

    let container = host.container("c1").unwrap();
    assert_eq!(container.name(), "rmesh-commands-a-c1");
    let output = container
        .command(shell, &["-c", "echo said; exit 3"])
        .unwrap();
    assert_eq!(
        (output.status.code(), output.stdout.as_slice()),
        (Some(3), &b"said\n"[..])
    );
    assert_eq!(container.interface_names().unwrap(), ["lo"]);

    let start = Instant::now();
    let limit = Duration::from_millis(200);
    let slow = host.command_with(shell, &["-c", "echo early; exec sleep 60"], &[], limit);
    let message = slow.unwrap_err().to_string();
    assert!(
        message.contains("200ms") && message.contains("early"),
        "{message}"
    );
    // A daemon left behind neither delays the command nor outlives the lab.
    let output = host.command(shell, &["-c", "sleep 300 & echo $!"]).unwrap();
    assert!(start.elapsed() < Duration::from_secs(3));
    let daemon: u32 = String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(state(daemon).is_some());
    drop(lab);
    assert!(within(Duration::from_secs(1), || matches!(
        state(daemon),
        None | Some('Z')
    )));
}

#[test]
fn a_dropped_lab_leaves_nothing() {
    let mut lab = Lab::new("nothing").unwrap();
    let host = lab.host("a").unwrap();
    let container = host.container("c").unwrap();
    let process = sleeper(&host, &lab.folder().join("a.log"));
    let (folder, pid) = (lab.folder().to_owned(), process.pid());
    let paths = [host.path().to_owned(), container.path().to_owned()];
    assert!(host.run_dir().is_dir() && host.state_dir().is_dir());
    assert!(paths.iter().all(|path| path.exists()));
    drop(lab);
    assert!(!process.is_running() && state(pid).is_none());
    assert!(!folder.exists());
    assert!(!paths.iter().any(|path| path.exists()));
}

#[test]
fn a_panicking_test_keeps_its_files() {
    let failed = thread::spawn(|| {
        let mut lab = Lab::new("panics").unwrap();
        let host = lab.host("a").unwrap();
        fs::write(host.run_dir().join("evidence"), "seen").unwrap();
        let base = lab.folder().parent().unwrap().to_owned();
        std::panic::panic_any(base);
    });
    let base = *failed.join().unwrap_err().downcast::<PathBuf>().unwrap();
    let kept = base.join("labs.failed/panics");
    assert_eq!(
        fs::read_to_string(kept.join("a/run/evidence")).unwrap(),
        "seen"
    );
    assert!(!base.join("panics").exists());
    assert!(!Path::new("/run/netns/rmesh-panics-a").exists());
    fs::remove_dir_all(kept).unwrap();
}

#[test]
fn names_that_do_not_fit_are_refused() {
    assert!(matches!(Lab::new("Two words"), Err(LabError::Name { .. })));
    let mut lab = Lab::new("names").unwrap();
    for name in ["", "../x", "twelve-chars", "-x"] {
        assert!(
            matches!(lab.host(name), Err(LabError::Name { kind: "host", .. })),
            "{name}"
        );
    }
    let host = lab.host("eleven-char").unwrap();
    assert!(host.container("a/b").is_err());
    assert!(matches!(
        lab.host("eleven-char"),
        Err(LabError::Taken { .. })
    ));
    assert!(host.interface_names().is_ok(), "and still works");
}

#[test]
fn a_second_demo_of_one_name_is_refused_while_the_first_lives() {
    let first = Lab::for_demo("demo-test").unwrap();
    let refused = Lab::for_demo("demo-test").unwrap_err();
    assert!(matches!(refused, LabError::Running { .. }));
    assert!(
        refused
            .to_string()
            .contains(&std::process::id().to_string()),
        "{refused}"
    );
    // Tests leave a running demo alone.
    let other = Lab::new("beside-demo").unwrap();
    assert!(first.folder().exists());
    drop((first, other));
    drop(Lab::for_demo("demo-test").unwrap());
}

/// Not a test by itself: what the next one starts as a process of its own, and kills.
#[test]
fn lab_to_be_killed() {
    let Some(report) = std::env::var_os(KILLED_LAB) else {
        return;
    };
    let mut lab = Lab::for_demo("killed").unwrap();
    let host = lab.host("a").unwrap();
    let _container = host.container("c").unwrap();
    let child = sleeper(&host, &lab.folder().join("a.log"));
    let shell = Path::new("/bin/sh");
    let daemon = host.command(shell, &["-c", "sleep 300 & echo $!"]).unwrap();
    let daemon = String::from_utf8(daemon.stdout).unwrap();
    let draft = PathBuf::from(&report).with_extension("draft");
    fs::write(&draft, format!("{}\n{daemon}", child.pid())).unwrap();
    fs::rename(draft, report).unwrap();
    thread::sleep(Duration::from_secs(60));
}

#[test]
fn leftovers_of_a_killed_lab_are_removed_at_the_next_start() {
    // As long as this lab lives no other test starts one, which would remove the leftovers.
    let before = Lab::new("before-kill").unwrap();
    let report = std::env::temp_dir().join(format!("rmesh-killed-{}", std::process::id()));
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lab_to_be_killed", "--nocapture"])
        .env(KILLED_LAB, &report)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    assert!(
        within(Duration::from_secs(20), || report.exists()),
        "the other lab came up"
    );
    let pids: Vec<u32> = fs::read_to_string(&report)
        .unwrap()
        .lines()
        .map(|line| line.parse().unwrap())
        .collect();
    fs::remove_file(&report).unwrap();
    let (child, daemon) = (pids[0], pids[1]);
    let names = ["/run/netns/rmesh-killed-a", "/run/netns/rmesh-killed-a-c"];
    assert!(names.iter().all(|name| Path::new(name).exists()));

    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(
        within(Duration::from_secs(2), || matches!(
            state(child),
            None | Some('Z')
        )),
        "a program of a killed lab dies with it"
    );
    assert!(
        state(daemon).is_some_and(|state| state != 'Z'),
        "a daemon outlives it …"
    );

    drop(before);
    let lab = Lab::new("after-kill").unwrap();
    assert!(
        within(Duration::from_secs(1), || matches!(
            state(daemon),
            None | Some('Z')
        )),
        "… until the next lab"
    );
    assert!(!names.iter().any(|name| Path::new(name).exists()));
    assert!(!lab.folder().parent().unwrap().join("killed").exists());
}
