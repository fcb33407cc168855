//! Words to tell end-to-end tests in: hosts, links, launch, attach, cut, expect.
//!
//! A [`Story`] owns a lab of network namespaces and runs the program that was just built in it.
//! Helpers panic with the whole picture (command, output, log) when something the story takes for
//! granted does not happen: they are the assertions of the tests that use them.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use rmesh_lab::{Card, Container, Family, Host, Lab, Link, Namespace, Process};
use serde_json::Value;

/// A mesh secret in the generated form.
pub const SECRET: &str = "rmesh1-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// Another one.
pub const OTHER_SECRET: &str = "rmesh1-baaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// Interface a container gets.
pub const INTERFACE: &str = "rmesh0";
/// A measured time may be this many times its bound before the test fails: a busy machine is not
/// a defect, a different order of magnitude is.
pub const SLACK: u32 = 5;
/// The daemon must serve within this time.
const SERVES_WITHIN: Duration = Duration::from_secs(2);
/// How often conditions are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Begins a story with the program under test.
#[macro_export]
macro_rules! story {
    ($name:expr) => {
        $crate::story::Story::new($name, env!("CARGO_BIN_EXE_rmesh-under-test"))
    };
}

/// One test's world.
pub struct Story {
    name: String,
    program: PathBuf,
    lab: Lab,
    launches: usize,
    scratch: tempfile::TempDir,
}

/// A running daemon. Killed when dropped.
pub struct Router {
    /// Where it runs.
    pub host: Host,
    /// The process.
    pub process: Process,
    /// What it logs.
    pub log: PathBuf,
}

impl Router {
    /// kill -9.
    pub fn kill(&self) {
        self.process.kill().expect("a process of this lab");
        let ended = self.process.wait(Duration::from_secs(5));
        assert!(ended.is_some(), "a killed process goes on");
    }

    /// What the daemon has logged so far.
    pub fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Story {
    /// Makes an empty lab.
    pub fn new(name: &str, program: &str) -> Self {
        println!("story {name}");
        if let Err(error) = rmesh_lab::require_privileges() {
            panic!("{error}");
        }
        Story {
            name: name.to_owned(),
            program: program.into(),
            lab: Lab::new(name).unwrap_or_else(|error| panic!("story {name}: {error}")),
            launches: 0,
            scratch: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    /// A host with nothing on it.
    pub fn host(&mut self, name: &str) -> Host {
        self.lab
            .host(name)
            .unwrap_or_else(|error| panic!("host {name}: {error}"))
    }

    /// Hosts with these names.
    pub fn hosts<const N: usize>(&mut self, names: [&str; N]) -> [Host; N] {
        names.map(|name| self.host(name))
    }

    /// A wire with addresses of both families.
    pub fn link(&mut self, a: &Host, b: &Host) -> Link {
        self.link_of(a, b, Family::Both)
    }

    /// A wire with addresses of one family or both.
    pub fn link_of(&mut self, a: &Host, b: &Host, family: Family) -> Link {
        self.lab
            .link(a, b, family)
            .unwrap_or_else(|error| panic!("link: {error}"))
    }

    /// A wire to a router that forwards for the host; see [`Lab::uplink`].
    pub fn uplink(&mut self, host: &Host, router: &Host) -> Link {
        self.lab
            .uplink(host, router)
            .unwrap_or_else(|error| panic!("uplink: {error}"))
    }

    /// An emulated wire with addresses of both families; the same seed throws the same dice.
    pub fn emulated_link(&mut self, a: &Host, b: &Host, seed: u64) -> Link {
        self.lab
            .emulated_link(a, b, Family::Both, seed)
            .unwrap_or_else(|error| panic!("emulated link: {error}"))
    }

    /// A wire with IPv4 addresses and network cards that complete checksums, rightly or not.
    pub fn link_with_cards(&mut self, a: &Host, b: &Host, card: Card) -> Link {
        self.lab
            .link_with_cards(a, b, Family::V4, card)
            .unwrap_or_else(|error| panic!("link with cards: {error}"))
    }

    /// Where [`Story::file`] puts a file of that name.
    pub fn file_path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// A file only this test reads and writes.
    pub fn file(&self, name: &str, content: &str, mode: u32) -> PathBuf {
        use std::io::Write as _;
        let path = self.file_path(name);
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(mode);
        let mut file = options.open(&path).expect("a writable temporary folder");
        file.write_all(content.as_bytes())
            .expect("room on the disk");
        file.set_permissions(fs::Permissions::from_mode(mode))
            .expect("own file");
        path
    }

    /// Starts a router with the story's secret; returns when it serves.
    pub fn launch(&mut self, host: &Host, peers: &[IpAddr]) -> Router {
        let peers: Vec<String> = peers.iter().map(IpAddr::to_string).collect();
        let peers: Vec<&str> = peers.iter().map(String::as_str).collect();
        self.launch_with(host, &peers, &[])
    }

    /// Starts a router with further flags; returns when it serves.
    pub fn launch_with(&mut self, host: &Host, peers: &[&str], flags: &[&str]) -> Router {
        let secret = self.file("secret", SECRET, 0o600);
        let secret = secret.display().to_string();
        let name = host.short_name().to_owned();
        let mut arguments = vec!["--name", &name, "--secret-file", &secret];
        arguments.extend(flags);
        arguments.extend(peers);
        self.launch_bare(host, &arguments, &[])
    }

    /// Starts `rmesh launch --foreground` with exactly these arguments; returns when it serves.
    pub fn launch_bare(&mut self, host: &Host, arguments: &[&str], env: &[(&str, &str)]) -> Router {
        self.launches += 1;
        let number = self.launches;
        let log_name = format!("{}-{number}.log", host.short_name());
        let log = self.lab.folder().join(log_name);
        let mut all = vec!["launch", "--foreground"];
        all.extend(arguments);
        let all = self.arguments(host, &all);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let process = host
            .spawn(&self.program, &all, env, &log)
            .unwrap_or_else(|error| panic!("launch on {}: {error}", host.name()));
        let router = Router {
            host: host.clone(),
            process,
            log,
        };
        let start = Instant::now();
        while !self.rmesh(host, &["status"]).status.success() {
            let waited = start.elapsed();
            if waited > SERVES_WITHIN * SLACK || !router.process.is_running() {
                panic!(
                    "{} does not serve after {waited:?}:\n{}",
                    host.name(),
                    router.logged()
                );
            }
            std::thread::sleep(LOOK_EVERY);
        }
        router
    }

    /// A daemon in the foreground that may die any time, because of what this variable says.
    pub fn doomed(&self, host: &Host, variable: &str, at: u64) -> Process {
        let secret = self.file("secret", SECRET, 0o600).display().to_string();
        let all = self.arguments(host, &["launch", "--foreground", "--secret-file", &secret]);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let (log, at) = (self.file("doomed.log", "", 0o600), at.to_string());
        host.spawn(&self.program, &all, &[(variable, &at)], &log)
            .unwrap_or_else(|error| panic!("launch on {}: {error}", host.name()))
    }

    /// Waits until a daemon serves or has died; true if it serves.
    pub fn serves_or_dies(&self, host: &Host, process: &Process) -> bool {
        let start = Instant::now();
        while process.is_running() {
            if self.rmesh(host, &["status"]).status.success() {
                return true;
            }
            let waited = start.elapsed();
            assert!(waited < SERVES_WITHIN * SLACK, "neither serves nor dies");
            std::thread::sleep(LOOK_EVERY);
        }
        false
    }

    fn arguments(&self, host: &Host, arguments: &[&str]) -> Vec<String> {
        let run_dir = host.run_dir().display().to_string();
        let state_dir = host.state_dir().display().to_string();
        let mut all = vec!["--run-dir".to_owned(), run_dir];
        all.extend(["--state-dir".to_owned(), state_dir]);
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        all
    }

    /// Runs one command on a host to its end, whatever comes of it.
    pub fn rmesh(&self, host: &Host, arguments: &[&str]) -> Output {
        let all = self.arguments(host, arguments);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        host.command(&self.program, &all)
            .unwrap_or_else(|error| panic!("{}: rmesh {arguments:?}: {error}", host.name()))
    }

    /// Runs a command that must succeed; returns what it printed.
    pub fn succeed(&self, host: &Host, arguments: &[&str]) -> String {
        let output = self.rmesh(host, arguments);
        let (out, err) = texts(&output);
        let name = host.name();
        assert!(
            output.status.success(),
            "{name}: rmesh {arguments:?}: {}\n{out}{err}",
            output.status
        );
        out
    }

    /// Runs a command that must fail with this exit code; returns what it said on stderr.
    pub fn fail(&self, host: &Host, code: i32, arguments: &[&str]) -> String {
        let output = self.rmesh(host, arguments);
        let (out, err) = texts(&output);
        let name = host.name();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{name}: rmesh {arguments:?}\n{out}{err}"
        );
        assert!(
            !err.trim().is_empty(),
            "{name}: rmesh {arguments:?} failed without a word"
        );
        err
    }

    /// Attaches a container with one address; returns when the command does.
    pub fn attach(&self, host: &Host, container: &Container, address: &str) {
        self.succeed(host, &["attach", container.name(), "--ip", address]);
    }

    /// A new container of the host, attached with one address.
    pub fn container(&self, host: &Host, name: &str, address: &str) -> Container {
        let container = host
            .container(name)
            .unwrap_or_else(|error| panic!("container {name}: {error}"));
        self.attach(host, &container, address);
        container
    }

    /// What `rmesh status --json` says.
    pub fn status(&self, host: &Host) -> Value {
        let text = self.succeed(host, &["status", "--json"]);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in status: {text}"))
    }

    /// What `rmesh status peers --json` says.
    pub fn peers(&self, host: &Host) -> Vec<Value> {
        let text = self.succeed(host, &["status", "peers", "--json"]);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in peers: {text}"))
    }

    /// What `rmesh status peers --json` says of the peer on another host; null if nothing.
    pub fn peer(&self, host: &Host, other: &Host) -> Value {
        let peers = self.peers(host).into_iter();
        let mut named = peers.filter(|peer| peer["name"] == other.short_name());
        named.next().unwrap_or_default()
    }

    /// How datagrams for the peer on another host leave this one: "direct", "relay" or "".
    pub fn path_kind(&self, host: &Host, other: &Host) -> String {
        let kind = self.peer(host, other)["path"]["kind"].clone();
        kind.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until every one of these hosts reaches every other.
    pub fn expect_mesh(&self, limit: Duration, routers: &[&Router]) {
        let what = format!("{} hosts form a mesh", routers.len());
        let others = routers.len() as u64 - 1;
        self.expect_within(limit, &what, || {
            routers
                .iter()
                .all(|router| self.status(&router.host)["peers_reachable"] == others)
        });
    }

    /// Waits for a condition, prints how long it took, and fails at five times the bound.
    pub fn expect_within(&self, limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
        let start = Instant::now();
        while !holds() {
            let waited = start.elapsed();
            assert!(
                waited < limit * SLACK,
                "story {}: not within {SLACK} times {limit:?}: {what}",
                self.name
            );
            std::thread::sleep(LOOK_EVERY);
        }
        self.expect_took(limit, what, start.elapsed());
    }

    /// Prints a measured time, and fails at five times the bound.
    pub fn expect_took(&self, limit: Duration, what: &str, took: Duration) {
        let verdict = if took <= limit { "" } else { " LATE" };
        println!(
            "story {}: {what}: {took:.2?} (bound {limit:?}){verdict}",
            self.name
        );
        assert!(
            took < limit * SLACK,
            "story {}: {what} took {took:?}, over {SLACK} times {limit:?}",
            self.name
        );
    }

    /// Waits until a ping gets through.
    pub fn expect_ping(&self, limit: Duration, from: &Namespace, to: IpAddr) {
        let took = rmesh_lab::probe::wait_ping(from, to, limit * SLACK);
        let what = format!("ping {to} from {}", from.name());
        match took {
            Some(took) => self.expect_took(limit, &what, took),
            None => panic!(
                "story {}: {what}: no answer in {SLACK} times {limit:?}",
                self.name
            ),
        }
    }

    /// The program under test.
    pub fn program(&self) -> &Path {
        &self.program
    }
}

/// Standard output and standard error of a command.
pub fn texts(output: &Output) -> (String, String) {
    let [out, err] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    (out, err)
}
