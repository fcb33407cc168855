//! The demo's three hosts, their peers and their containers.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rmesh_gossip::crypto::secret;
use rmesh_lab::{Container, Family, Host, Lab, LabError};

use super::interrupt::Interrupt;
use super::say;
use crate::api::{PeerView, StatusView};
use crate::args::Global;
use crate::client;
use crate::failure::Failure;

/// The hosts, in a row.
const NAMES: [&str; 3] = ["a", "b", "c"];
/// How long a peer is given until it serves.
const SERVE_LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Lines of each log shown when something fails.
const LOG_LINES: usize = 20;

/// One host with its container.
pub(super) struct Place {
    pub(super) host: Host,
    pub(super) container: Container,
    pub(super) container_name: String,
    /// Addresses of the container; unspecified until it is attached.
    pub(super) v4: IpAddr,
    pub(super) v6: IpAddr,
    pub(super) log: PathBuf,
    /// Address of the neighbour to launch with; the first host has none.
    neighbour: Option<IpAddr>,
}

/// All of them.
pub(super) struct Stage {
    places: [Place; 3],
    program: PathBuf,
    secret_file: PathBuf,
    /// Last: it removes the namespaces of all the others.
    _lab: Lab,
}

impl Stage {
    /// Makes hosts, links and containers; nothing runs yet.
    pub(super) fn build(mut lab: Lab, interrupt: &Interrupt) -> Result<Self, Failure> {
        let cannot = |error: LabError| Failure::failed("cannot make the virtual hosts", error);
        let [a, b, c] = NAMES.map(|name| lab.host(name));
        let (a, b, c) = (a.map_err(cannot)?, b.map_err(cannot)?, c.map_err(cannot)?);
        let near = lab.link(&a, &b, Family::Both).map_err(cannot)?;
        let far = lab.link(&b, &c, Family::Both).map_err(cannot)?;
        let neighbours = [
            None,
            Some(near.address(&a, false)),
            Some(far.address(&b, false)),
        ];
        interrupt.check()?;
        let folder = lab.folder().to_owned();
        let place = |host: Host, number: u8, neighbour| {
            let container_name = format!("c{number}");
            Ok(Place {
                container: host.container(&container_name)?,
                container_name,
                v4: Ipv4Addr::UNSPECIFIED.into(),
                v6: Ipv6Addr::UNSPECIFIED.into(),
                log: folder.join(format!("{}.log", host.short_name())),
                host,
                neighbour,
            })
        };
        let [none, to_a, to_b] = neighbours;
        let places = [
            place(a, 1, none).map_err(cannot)?,
            place(b, 2, to_a).map_err(cannot)?,
            place(c, 3, to_b).map_err(cannot)?,
        ];
        let program = std::env::current_exe();
        Ok(Stage {
            places,
            program: program.map_err(|cause| Failure::failed("cannot find this program", cause))?,
            secret_file: write_secret(&folder)?,
            _lab: lab,
        })
    }

    pub(super) fn first(&self) -> &Place {
        let [first, _, _] = &self.places;
        first
    }

    pub(super) fn last(&self) -> &Place {
        let [_, _, last] = &self.places;
        last
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// Starts a peer on every host, each knowing only its neighbour.
    pub(super) fn launch_all(&self, interrupt: &Interrupt) -> Result<(), Failure> {
        for place in &self.places {
            self.launch(place)?;
        }
        for place in &self.places {
            wait_until_serving(place, interrupt)?;
        }
        Ok(())
    }

    fn launch(&self, place: &Place) -> Result<(), Failure> {
        let name = place.host.short_name();
        let neighbour = place.neighbour.map(|address| address.to_string());
        let (run, state) = (place.host.run_dir(), place.host.state_dir());
        let paths = [&run, &state, &self.secret_file].map(|path| path.display().to_string());
        let [run, state, secret] = &paths;
        let mut words = vec!["launch", "--foreground", "--name", name, "--run-dir", run];
        words.extend(["--state-dir", state, "--secret-file", secret]);
        words.extend(neighbour.as_deref());
        let known = neighbour.as_deref().unwrap_or_default();
        say(&format!(
            "host {name}: rmesh launch --secret-file demo.secret {known}"
        ));
        let started = place.host.spawn(&self.program, &words, &[], &place.log);
        let cannot =
            |error| Failure::failed(format!("cannot start the peer on host {name}"), error);
        // The lab ends it; the handle is not needed.
        started.map(drop).map_err(cannot)
    }

    /// Attaches a container on every host by the command people use; the ring gives it addresses.
    pub(super) fn attach_all(&mut self) -> Result<(), Failure> {
        for index in 0..self.places.len() {
            let Some(place) = self.places.get(index) else {
                continue;
            };
            let (target, host) = (place.container.name(), place.host.short_name());
            let name = place.container_name.as_str();
            let printed = self.rmesh(place, &["attach", target, "--name", name])?;
            let given: Vec<&str> = printed.lines().collect();
            say(&format!(
                "host {host}: rmesh attach {target}\n        {}",
                given.join(" ")
            ));
            let addresses = given.iter().filter_map(|net| net.split('/').next());
            let addresses: Vec<IpAddr> = addresses.filter_map(|a| a.parse().ok()).collect();
            if let Some(place) = self.places.get_mut(index) {
                for address in addresses {
                    match address {
                        IpAddr::V4(_) => place.v4 = address,
                        IpAddr::V6(_) => place.v6 = address,
                    }
                }
            }
        }
        Ok(())
    }

    /// Waits until every host sees the two others.
    pub(super) fn wait_until_met(
        &self,
        interrupt: &Interrupt,
        limit: Duration,
    ) -> Result<(), Failure> {
        let start = Instant::now();
        let met = |place: &Place| {
            let peers = client::get::<Vec<PeerView>>(&global(place), "/v1/peers");
            peers.is_ok_and(|peers| peers.iter().filter(|peer| peer.reachable).count() == 2)
        };
        while !self.places.iter().all(met) {
            interrupt.check()?;
            if start.elapsed() > limit {
                let why = format!("they do not all see each other after {limit:?}");
                return Err(Failure::failed("the peers do not meet", why));
            }
            sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    /// Prints what a host says of itself.
    pub(super) fn print_status(&self, place: &Place) -> Result<(), Failure> {
        for words in [&["status"][..], &["status", "peers"]] {
            say(&self.rmesh(place, words)?);
        }
        Ok(())
    }

    /// Prints the end of every log.
    pub(super) fn print_logs(&self) {
        for place in &self.places {
            let log = std::fs::read_to_string(&place.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines
                .get(lines.len().saturating_sub(LOG_LINES)..)
                .unwrap_or_default();
            eprintln!(
                "--- log of host {}:\n{}",
                place.host.short_name(),
                tail.join("\n")
            );
        }
    }

    /// Runs this program for a host's daemon, and returns what it prints.
    fn rmesh(&self, place: &Place, words: &[&str]) -> Result<String, Failure> {
        let what = || {
            format!(
                "rmesh {} on host {}",
                words.join(" "),
                place.host.short_name()
            )
        };
        let mut command = Command::new(&self.program);
        // What the operator's environment says is meant for the operator's own peer.
        let names = std::env::vars_os().map(|(name, _)| name);
        for name in names.filter(|name| name.to_string_lossy().starts_with("RMESH_")) {
            command.env_remove(name);
        }
        let output = command
            .arg("--run-dir")
            .arg(place.host.run_dir())
            .args(words)
            .output()
            .map_err(|cause| Failure::failed(what(), cause))?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Failure::failed(what(), why));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn wait_until_serving(place: &Place, interrupt: &Interrupt) -> Result<(), Failure> {
    let start = Instant::now();
    loop {
        interrupt.check()?;
        match client::get::<StatusView>(&global(place), "/v1/status") {
            Ok(_) => return Ok(()),
            Err(failure) if start.elapsed() > SERVE_LIMIT => {
                let name = place.host.short_name();
                let what = format!("the peer on host {name} does not serve after {SERVE_LIMIT:?}");
                return Err(Failure::failed(what, failure.why));
            }
            Err(_) => sleep(LOOK_INTERVAL),
        }
    }
}

fn global(place: &Place) -> Global {
    Global {
        json: false,
        timeout: Duration::from_secs(2),
        run_dir: place.host.run_dir(),
        state_dir: place.host.state_dir(),
    }
}

fn write_secret(folder: &Path) -> Result<PathBuf, Failure> {
    let path = folder.join("demo.secret");
    let write = || {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(std::io::Error::other)?;
        let mut options = std::fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        writeln!(file, "{}", *secret::generate(&random))
    };
    write().map_err(|cause| Failure::failed("cannot write the demo's secret", cause))?;
    Ok(path)
}
