//! `rmesh reset`: removes every trace of rmesh from this host.
//!
//! Nothing but the kernel is needed to find what rmesh made: its interfaces carry the state
//! folder's path as their alias. So it works after a crash, with damaged files, and twice.

mod daemon;
mod files;

use std::collections::BTreeMap;
use std::path::Path;

use rmesh_gossip::crypto::real::RealCrypto;
use rmesh_gossip::crypto::{Crypto as _, peer_id};
use rmesh_router::attach;
use rmesh_router::fast::{Fast, unaccept_bridged};
use rmesh_router::kernel::{Bridge, OwnedLinks, owned_links, remove_port};
use serde::Serialize;

use crate::args::{Global, ResetArgs};
use crate::commands::{print_json, print_line};
use crate::failure::{Failure, FailureKind};
use crate::state::{self, Lock, LockError, RUN_LOCK, STATE_LOCK, StateDir};

const WHAT: &str = "cannot reset";
/// Containers named in a refusal.
const NAMED_MAX: usize = 5;

/// A daemon that is no more.
#[derive(Debug, Serialize)]
struct Ended {
    /// Its process id.
    pid: u32,
    /// `stopped`, `had ended`, `terminated` or `killed`.
    how: &'static str,
}

/// What was done, and what was not.
#[derive(Debug, Default, Serialize)]
struct Done {
    /// The daemon that ran.
    daemon: Option<Ended>,
    /// Host's ends of the containers' interfaces that are gone.
    interfaces: Vec<String>,
    /// Bridges that are gone.
    bridges: Vec<String>,
    /// Files and folders that are gone.
    files: Vec<String>,
    /// What is in the folders and not rmesh's; it is as it was.
    left: Vec<String>,
    /// This host's id, if other hosts still take its addresses for its own.
    owns_addresses: Option<String>,
    /// What could not be done.
    problems: Vec<String>,
}

impl Done {
    fn problem(&mut self, words: String) {
        self.problems.push(words);
    }
}

/// Runs the command.
pub(crate) fn run(global: &Global, args: &ResetArgs) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::failed(WHAT, "removing interfaces is for root").todo("use sudo"));
    }
    let owner = state::owner(&global.state_dir);
    if !args.force {
        refuse_if_in_use(global, &owner)?;
    }
    let mut done = Done::default();
    let handed_over = daemon::end(global, &mut done)?;
    // Nobody may start meanwhile.
    let _locks = [
        lock(&global.run_dir, RUN_LOCK)?,
        lock(&global.state_dir, STATE_LOCK)?,
    ];
    if !handed_over {
        done.owns_addresses = known_to_others(&global.state_dir);
    }
    remove_interfaces(global, &owner, &mut done);
    for folder in [&global.state_dir, &global.run_dir] {
        if folder.exists() {
            say(&format!("removing rmesh's files from {}", folder.display()));
        }
        files::remove(folder, &mut done);
    }
    tell(global, done)
}

/// Progress, for whoever waits.
fn say(words: &str) {
    eprintln!("reset: {words}");
}

/// Names what would be lost.
fn refuse_if_in_use(global: &Global, owner: &str) -> Result<(), Failure> {
    let pid = state::holder(&global.run_dir);
    let links = owned_links(owner).map_err(|error| Failure::failed(WHAT, error))?;
    if pid.is_none() && links.ports.is_empty() {
        return Ok(());
    }
    let mut reasons = Vec::new();
    if let Some(pid) = pid {
        reasons.push(format!("rmesh is running (pid {pid})"));
    }
    if !links.ports.is_empty() {
        let named = named(&containers(&global.state_dir), &links.ports);
        reasons.push(format!(
            "attached containers would lose their network: {named}"
        ));
    }
    let why = format!(
        "{}; identity and secret would be lost too",
        reasons.join("; ")
    );
    let todo = if pid.is_some() {
        "rmesh reset --force does it all the same; `rmesh stop` ends the daemon and keeps everything"
    } else {
        "rmesh reset --force does it all the same; `rmesh launch` takes them back as they are"
    };
    Err(Failure::new(FailureKind::Conflict, WHAT, why).todo(todo))
}

/// This host's id, if there are others in its ring.
fn known_to_others(state_dir: &Path) -> Option<String> {
    let state = StateDir::existing(state_dir);
    let ring = state.ring().ok().flatten()?;
    let identity = state.identity().ok().flatten()?;
    let id = peer_id(&RealCrypto::new().identity_public(&identity));
    let others = ring.names.iter().any(|(other, _)| *other != id);
    others.then(|| id.short().to_string())
}

/// What the containers behind host interfaces are called, as far as the state tells.
fn containers(state_dir: &Path) -> BTreeMap<String, String> {
    let attachments = StateDir::existing(state_dir).attachments_if_whole();
    let named = attachments
        .into_iter()
        .map(|a| (a.host_interface, a.target));
    named.collect()
}

fn named(containers: &BTreeMap<String, String>, ports: &[String]) -> String {
    let name = |port: &String| containers.get(port).unwrap_or(port).clone();
    let mut names: Vec<String> = ports.iter().take(NAMED_MAX).map(name).collect();
    if ports.len() > NAMED_MAX {
        names.push(format!("{} more", ports.len() - NAMED_MAX));
    }
    names.join(", ")
}

/// A folder that is not there needs no lock.
fn lock(folder: &Path, name: &str) -> Result<Option<Lock>, Failure> {
    if !folder.exists() {
        return Ok(None);
    }
    Lock::take(folder, name).map(Some).map_err(|error| {
        let todo = match &error {
            LockError::Held { .. } => "name its run folder too: rmesh reset --run-dir DIR",
            LockError::Refused { .. } => "see to the file system; nothing was removed",
        };
        Failure::new(FailureKind::Conflict, WHAT, error).todo(todo)
    })
}

fn remove_interfaces(global: &Global, owner: &str, done: &mut Done) {
    say("removing the containers' interfaces and the bridge");
    let links = match owned_links(owner) {
        Ok(links) => links,
        Err(error) => {
            done.problem(error.to_string());
            OwnedLinks::default()
        }
    };
    for port in links.ports {
        match remove_port(&port) {
            Ok(()) => done.interfaces.push(port),
            Err(error) => done.problem(error.to_string()),
        }
    }
    // One that a crash left without its alias is known from the state alone.
    for attachment in StateDir::existing(&global.state_dir).attachments_if_whole() {
        if let Err(error) = attach::detach(&attachment) {
            done.problem(error.to_string());
        }
    }
    for bridge in links.bridges {
        let kernels_way = Fast::remove(&bridge).and_then(|()| unaccept_bridged(&bridge));
        if let Err(error) = kernels_way {
            done.problem(error.to_string());
        }
        match Bridge::remove(&bridge) {
            Ok(()) => done.bridges.push(bridge),
            Err(error) => done.problem(error.to_string()),
        }
    }
    for bridge in links.lost_bridges {
        let kernels_way = Fast::remove(&bridge).and_then(|()| unaccept_bridged(&bridge));
        if let Err(error) = kernels_way.and_then(|()| Bridge::unguard(&bridge)) {
            done.problem(error.to_string());
        }
    }
    // Those whose bridge somebody has deleted by hand.
    for tunnel in links.tunnels {
        if let Err(error) = remove_port(&tunnel) {
            done.problem(error.to_string());
        }
    }
}

fn tell(global: &Global, done: Done) -> Result<(), Failure> {
    if global.json {
        print_json(&done)?;
    } else {
        print_line(&summary(&done))?;
    }
    match done.problems.as_slice() {
        [] => Ok(()),
        problems => {
            let why = problems.join("; ");
            let todo = "see to it and reset again: what is gone already does no harm";
            Err(Failure::failed("cannot remove everything", why).todo(todo))
        }
    }
}

fn summary(done: &Done) -> String {
    let mut lines = Vec::new();
    if let Some(Ended { pid, how }) = &done.daemon {
        lines.push(format!("daemon (pid {pid}) {how}"));
    }
    if !done.interfaces.is_empty() {
        lines.push(match done.interfaces.len() {
            1 => "1 container's interface removed".into(),
            count => format!("{count} containers' interfaces removed"),
        });
    }
    lines.extend(
        done.bridges
            .iter()
            .map(|bridge| format!("bridge {bridge} removed")),
    );
    lines.extend(done.files.iter().map(|path| format!("{path} removed")));
    lines.extend(
        done.left
            .iter()
            .map(|path| format!("{path} is not rmesh's and stays")),
    );
    if let Some(id) = &done.owns_addresses {
        lines.push(format!(
            "the other hosts were not told: to take over this host's addresses, there: rmesh rmpeer {id}"
        ));
    }
    if lines.is_empty() {
        lines.push("there was nothing of rmesh on this host".into());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use rmesh_gossip::crypto::Key;

    use super::*;
    use crate::state::{File, KnownRing};

    #[test]
    fn containers_are_named_and_many_are_counted() {
        let known = BTreeMap::from([("vr1".to_owned(), "web".to_owned())]);
        let ports = |count: u32| (1..=count).map(|n| format!("vr{n}")).collect::<Vec<_>>();
        assert_eq!(named(&known, &ports(2)), "web, vr2");
        assert!(named(&known, &ports(9)).ends_with("vr5, 4 more"));
    }

    #[test]
    fn who_is_known_to_others_is_named_by_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        assert_eq!(known_to_others(folder.path()), None);
        let identity = Key::new([7; 32]);
        state.save_key(File::Identity, &identity).unwrap();
        let id = peer_id(&RealCrypto::new().identity_public(&identity));
        let mut ring = KnownRing {
            ring: String::new(),
            names: vec![(id, "this host".into())],
        };
        state.save(File::Ring, &ring).unwrap();
        assert_eq!(known_to_others(folder.path()), None, "alone");
        ring.names.push((rmesh_wire::PeerId([1; 16]), "b".into()));
        state.save(File::Ring, &ring).unwrap();
        assert_eq!(known_to_others(folder.path()), Some(id.short().to_string()));
    }

    #[test]
    fn a_summary_of_nothing_says_so() {
        let mut done = Done::default();
        assert!(summary(&done).contains("nothing of rmesh"));
        done.owns_addresses = Some("3f2a9c".into());
        assert!(summary(&done).ends_with("there: rmesh rmpeer 3f2a9c"));
        done.owns_addresses = None;
        done.left.push("/s/notes".into());
        assert_eq!(summary(&done), "/s/notes is not rmesh's and stays");
    }
}
