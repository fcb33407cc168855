//! Other tunnels that encrypt, as far as they are installed.

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::ground::Ground;
use super::tcp::Carried;
use super::tunnels::{self, Programs};
use super::{Contender, STREAMS, tcp};

/// Some find out by themselves what their path carries, and take longer for it than the first answer takes.
const SETTLE: Duration = Duration::from_secs(3);
/// Where daemons are that not everybody's PATH has.
const MORE_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Somebody else's tunnel.
struct Tunnel {
    name: &'static str,
    needs: &'static [&'static str],
    start: fn(&mut Ground, &Programs) -> anyhow::Result<()>,
}

/// Those that end in the host itself save a bridge and a container's interface, which is to their advantage.
const TUNNELS: &[Tunnel] = &[
    Tunnel {
        name: "boringtun",
        needs: &["boringtun-cli"],
        start: tunnels::boringtun,
    },
    Tunnel {
        name: "wireguard-go",
        needs: &["wireguard-go"],
        start: tunnels::wireguard_go,
    },
    Tunnel {
        name: "nebula",
        needs: &["nebula", "nebula-cert"],
        start: tunnels::nebula,
    },
    Tunnel {
        name: "tinc",
        needs: &["tincd"],
        start: tunnels::tinc,
    },
    Tunnel {
        name: "vpncloud",
        needs: &["vpncloud", "ip"],
        start: tunnels::vpncloud,
    },
];

/// Measures all that are there, one after the other. One that does not work has no numbers; which are
/// not there is said.
pub(super) fn compete() -> Vec<Contender> {
    let mut missing = BTreeSet::new();
    let mut contenders = Vec::new();
    for tunnel in TUNNELS {
        let found = tunnel.needs.iter().map(|name| find(name).ok_or(*name));
        match found.collect::<Result<Programs, _>>() {
            Err(_) => drop(missing.insert(tunnel.name)),
            Ok(programs) => contenders.push(measure(tunnel, &programs)),
        }
    }
    if !missing.is_empty() {
        let missing: Vec<&str> = missing.into_iter().collect();
        eprintln!("not installed: {}", missing.join(", "));
    }
    contenders
}

fn measure(tunnel: &Tunnel, programs: &Programs) -> Contender {
    let name = tunnel.name;
    let measured = Ground::new(name).and_then(|mut ground| {
        (tunnel.start)(&mut ground, programs)?;
        let way = ground.way()?;
        thread::sleep(SETTLE);
        let one = tcp::try_carry(&way, 1)?;
        Ok((one, tcp::try_carry(&way, STREAMS)?))
    });
    let (one, four) = measured.unwrap_or_else(|error| {
        eprintln!("{name} does not work: {error:#}");
        (Carried::NOTHING, Carried::NOTHING)
    });
    Contender { name, one, four }
}

/// Where a program is.
fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(MORE_FOLDERS.map(PathBuf::from));
    folders
        .map(|folder| folder.join(name))
        .find(|program| is_program(program))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    let found = path.metadata();
    found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
