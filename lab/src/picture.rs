//! All that a namespace's kernel has been told, as text, to compare before and after.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use ipnet::IpNet;

use crate::{LabError, Namespace, error::Attempt, netlink};

/// Where the settings of the network namespace of the thread that looks are.
const SETTINGS: &str = "/proc/sys/net";
/// Families whose settings belong to a picture.
const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];

impl Namespace {
    /// Every link (name, flags, MTU, address, controller), address, route of every table, and setting
    /// under `/proc/sys/net/ipv4` and `ipv6`, one a line. Counters and ages are left out.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn picture(&self) -> Result<BTreeSet<String>, LabError> {
        let look = || {
            let mut lines = BTreeSet::from_iter(netlink::describe()?);
            for family in FAMILIES {
                settings(&Path::new(SETTINGS).join(family), &mut lines)?;
            }
            Ok::<_, io::Error>(lines)
        };
        self.enter(look)
            .attempt(|| format!("look at the network of {}", self.name()))
    }

    /// Changes a setting, named by its path under `/proc/sys/net`.
    ///
    /// # Errors
    /// If there is none, or the kernel refuses.
    pub fn set(&self, setting: &str, value: &str) -> Result<(), LabError> {
        let path = Path::new(SETTINGS).join(setting);
        self.enter(|| fs::write(&path, value))
            .attempt(|| format!("set {setting} to {value} in {}", self.name()))
    }

    /// Gives an interface an address, usable at once.
    ///
    /// # Errors
    /// If there is no such interface, or it has the address.
    pub fn add_address(&self, interface: &str, address: IpNet) -> Result<(), LabError> {
        self.enter(|| netlink::add_address(interface, address))
            .attempt(|| format!("give {interface} in {} the address {address}", self.name()))
    }
}

fn settings(folder: &Path, lines: &mut BTreeSet<String>) -> io::Result<()> {
    let entries: Vec<PathBuf> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    for path in entries {
        if path.is_dir() {
            settings(&path, lines)?;
            continue;
        }
        // Some can only be written, some have no value yet.
        let value = fs::read_to_string(&path).unwrap_or_default();
        lines.insert(format!("{} = {}", path.display(), value.trim_end()));
    }
    Ok(())
}
