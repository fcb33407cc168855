//! What the daemon tells a service manager, which here is a socket of the test (`sd_notify(3)`).

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::{Duration, Instant};

use rmesh_lab::{Host, Process};
use rmesh_tests::story;
use rmesh_tests::story::{SECRET, SLACK, Story};

/// A daemon serves within this time.
const SERVES_WITHIN: Duration = Duration::from_secs(2);
/// How long nothing must come, to believe that nothing does.
const QUIET: Duration = Duration::from_millis(1_500);

/// The next message, if one comes in time.
fn message(socket: &UnixDatagram, limit: Duration) -> Option<String> {
    socket.set_read_timeout(Some(limit)).expect("a limit");
    let mut bytes = [0; 4_096];
    match socket.recv(&mut bytes) {
        Ok(len) => Some(String::from_utf8_lossy(&bytes[..len]).into_owned()),
        Err(cause) if cause.kind() == ErrorKind::WouldBlock => None,
        Err(cause) => panic!("{cause}"),
    }
}

fn launch(story: &Story, host: &Host, flags: &[&str], env: &[(&str, &str)], log: &Path) -> Process {
    let secret = story.file("secret", SECRET, 0o600).display().to_string();
    let (run_dir, state_dir) = (host.run_dir(), host.state_dir());
    let [run_dir, state_dir] = [run_dir, state_dir].map(|path| path.display().to_string());
    let mut words = vec![
        "--run-dir",
        &run_dir,
        "--state-dir",
        &state_dir,
        "launch",
        "--foreground",
    ];
    words.extend(["--secret-file", &secret]);
    words.extend(flags);
    host.spawn(story.program(), &words, env, log)
        .expect("the program")
}

/// READY comes, as the first word, and not before `rmesh status` works.
fn becomes_ready(story: &Story, host: &Host, socket: &UnixDatagram) {
    let start = Instant::now();
    let first = message(socket, SERVES_WITHIN * SLACK).expect("READY=1 does not come");
    let answer = story.rmesh(host, &["--timeout", "1s", "status"]);
    assert!(first.starts_with("READY=1\n"), "{first}");
    assert!(
        answer.status.success(),
        "ready, but status fails: {answer:?}"
    );
    story.expect_took(SERVES_WITHIN, "ready", start.elapsed());
}

#[test]
fn the_manager_hears_ready_when_status_works_then_signs_of_life_then_the_end() {
    let mut story = story!("service");
    let a = story.host("a");
    let path = a.run_dir().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let name = path.display().to_string();
    let env = [
        ("NOTIFY_SOCKET", name.as_str()),
        ("WATCHDOG_USEC", "1500000"),
    ];
    let log = a.run_dir().join("log");
    let process = launch(&story, &a, &[], &env, &log);
    becomes_ready(&story, &a, &socket);
    for _ in 0..3 {
        assert_eq!(message(&socket, QUIET).as_deref(), Some("WATCHDOG=1\n"));
    }
    // A daemon that hangs gives no sign of life.
    process.pause().expect("SIGSTOP");
    while message(&socket, Duration::from_millis(100)).is_some() {}
    assert_eq!(message(&socket, QUIET), None);
    process.resume().expect("SIGCONT");
    assert_eq!(message(&socket, QUIET).as_deref(), Some("WATCHDOG=1\n"));
    process.terminate().expect("SIGTERM");
    let ended = process.wait(Duration::from_secs(10)).expect("it ends");
    assert!(ended.success(), "{ended:?}");
    let mut last = String::new();
    while let Some(next) = message(&socket, Duration::from_millis(100)) {
        last = next;
    }
    assert!(last.starts_with("STOPPING=1\n"), "{last}");
}

#[test]
fn an_abstract_socket_will_do_and_no_watchdog_means_no_signs_of_life() {
    let mut story = story!("service-abstract");
    let a = story.host("a");
    let name = format!("rmesh-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    // Abstract names belong to a network namespace.
    let socket = a
        .enter(|| UnixDatagram::bind_addr(&address))
        .expect("a socket");
    let log = a.run_dir().join("log");
    let process = launch(
        &story,
        &a,
        &[],
        &[("NOTIFY_SOCKET", &format!("@{name}"))],
        &log,
    );
    becomes_ready(&story, &a, &socket);
    assert_eq!(message(&socket, QUIET), None);
    story.succeed(&a, &["stop"]);
    assert!(
        process
            .wait(Duration::from_secs(10))
            .is_some_and(|status| status.success())
    );
    let last = message(&socket, QUIET).expect("STOPPING=1 does not come");
    assert!(last.starts_with("STOPPING=1\n"), "{last}");
}

#[test]
fn a_start_that_fails_is_never_ready_and_a_dead_manager_stops_nobody() {
    let mut story = story!("service-failed");
    let a = story.host("a");
    let path = a.run_dir().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let name = path.display().to_string();
    let env = [("NOTIFY_SOCKET", name.as_str())];
    let log = a.run_dir().join("log");
    let process = launch(&story, &a, &["--bind", "192.0.2.99"], &env, &log);
    let ended = process.wait(Duration::from_secs(10)).expect("it ends");
    assert_eq!(ended.code(), Some(1));
    assert_eq!(message(&socket, Duration::from_millis(100)), None);

    drop(socket);
    let process = launch(&story, &a, &[], &env, &log);
    story.expect_within(SERVES_WITHIN, "serving without a manager", || {
        story.rmesh(&a, &["status"]).status.success()
    });
    let logged = std::fs::read_to_string(&log).expect("the log");
    assert!(
        logged.contains("cannot tell the service manager"),
        "{logged}"
    );
    story.succeed(&a, &["stop"]);
    assert!(
        process
            .wait(Duration::from_secs(10))
            .is_some_and(|status| status.success())
    );
}
