//! Two hosts on a wire, on which somebody else's tunnel is set up.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rmesh_lab::{Container, Host, Link, Process, probe};

use super::scene::{Underlay, Way};
use crate::story::Story;

/// Each step of a set-up takes at most this time.
const STEP_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

const BRIDGE: &str = "bridge";
/// Addresses at the ends of a tunnel, by host.
pub(super) const INNER: [&str; 2] = ["10.88.0.1", "10.88.0.2"];

pub(super) struct Ground {
    story: Story,
    pub(super) hosts: [Host; 2],
    link: Link,
    started: Vec<(Process, PathBuf)>,
    containers: Vec<Container>,
    leftovers: Vec<PathBuf>,
}

impl Drop for Ground {
    fn drop(&mut self) {
        for (process, _) in &self.started {
            // The lab kills those that do not end.
            let _ = process.terminate();
        }
        for (process, _) in &self.started {
            process.wait(Duration::from_secs(1));
        }
        for path in self.leftovers.iter().rev() {
            // Most programs remove what they made, and a folder may be in use by others.
            let _ = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir(path));
        }
    }
}

impl Ground {
    pub(super) fn new(name: &str) -> anyhow::Result<Self> {
        Ground::on(name, Underlay::Wire)
    }

    pub(super) fn on(name: &str, underlay: Underlay) -> anyhow::Result<Self> {
        let mut story = Story::new(&format!("bench-{name}"), "");
        let hosts = story.hosts(["a", "b"]);
        let link = story.link(&hosts[0], &hosts[1]);
        for host in &hosts {
            underlay.apply(host, &link.interface(host))?;
        }
        Ok(Ground {
            story,
            hosts,
            link,
            started: Vec::new(),
            containers: Vec::new(),
            leftovers: Vec::new(),
        })
    }

    /// Where the host is reached by the other.
    pub(super) fn address(&self, of: usize) -> IpAddr {
        self.link.address(&self.hosts[of], false)
    }

    /// A folder for files of this host.
    pub(super) fn folder(&self, of: usize) -> anyhow::Result<PathBuf> {
        let folder = self.story.file_path(self.hosts[of].short_name());
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// A file or folder that is left outside of any folder of this lab.
    pub(super) fn clean_up(&mut self, path: PathBuf) {
        self.leftovers.push(path);
    }

    /// Runs a program to its end.
    pub(super) fn run(&self, of: usize, program: &Path, arguments: &[&str]) -> anyhow::Result<()> {
        let output = self.hosts[of].command_with(program, arguments, &[], STEP_WITHIN)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {said}", program.display());
        Ok(())
    }

    /// Starts a program that stays.
    pub(super) fn start(
        &mut self,
        of: usize,
        program: &Path,
        arguments: &[&str],
        env: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let log = self.folder(of)?.join("log");
        let process = self.hosts[of].spawn(program, arguments, env, &log)?;
        self.started.push((process, log));
        Ok(())
    }

    /// Waits until `holds`, as long as what was started runs.
    pub(super) fn wait(&self, what: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
        let start = Instant::now();
        while !holds() {
            let ended = self
                .started
                .iter()
                .find(|(process, _)| !process.is_running());
            if let Some((_, log)) = ended {
                bail!("it ended: {}", last_words(log));
            }
            if start.elapsed() >= STEP_WITHIN {
                let logs = self.started.iter().map(|(_, log)| last_words(log));
                bail!(
                    "no {what} within {STEP_WITHIN:?}: {}",
                    logs.collect::<Vec<_>>().join("; ")
                );
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    pub(super) fn wait_for_interface(&self, of: usize, name: &str) -> anyhow::Result<()> {
        self.wait(name, || {
            let names = self.hosts[of].interface_names();
            names.is_ok_and(|names| names.iter().any(|known| known == name))
        })
    }

    /// The tunnel ends in the host itself, which gives its interface an address.
    pub(super) fn end_in_host(
        &self,
        of: usize,
        interface: &str,
        mtu_bytes: u32,
    ) -> anyhow::Result<()> {
        let address = format!("{}/24", INNER[of]).parse()?;
        self.hosts[of].set_mtu(interface, mtu_bytes)?;
        Ok(self.hosts[of].bring_up(interface, Some(address))?)
    }

    /// The tunnel ends in a bridge, to which a container is joined.
    pub(super) fn end_in_container(
        &mut self,
        of: usize,
        interface: &str,
        mtu_bytes: u32,
    ) -> anyhow::Result<()> {
        let host = &self.hosts[of];
        let container = host.container("one")?;
        host.switch(BRIDGE, &[])?;
        host.set_mtu(interface, mtu_bytes)?;
        host.plug(interface, BRIDGE)?;
        host.bring_up(interface, None)?;
        let address = format!("{}/24", INNER[of]).parse()?;
        host.plug_machine(&container, BRIDGE, of as u8 + 1, address)?;
        container.set_mtu("eth0", mtu_bytes)?;
        self.containers.push(container);
        Ok(())
    }

    /// From one end of the tunnel to the other, once it works.
    pub(super) fn way(&self) -> anyhow::Result<Way<'_>> {
        let [from, to] = match &self.containers[..] {
            [from, to] => [&**from, &**to],
            _ => self.hosts.each_ref().map(|host| &**host),
        };
        let address = INNER[1].parse()?;
        let way = Way { from, to, address };
        let answered = probe::wait_ping(from, address, STEP_WITHIN);
        let logs = || {
            self.started
                .iter()
                .map(|(_, log)| last_words(log))
                .collect::<Vec<_>>()
        };
        answered.with_context(|| format!("no answer through it: {}", logs().join("; ")))?;
        Ok(way)
    }
}

fn last_words(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.trim().lines().last().unwrap_or_default().to_owned()
}
