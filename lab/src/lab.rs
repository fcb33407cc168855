//! The lab: one set of virtual hosts and wires, and the end of it.

use std::{fs, fs::File, sync::Arc, thread};

use crate::{
    Card, Family, Host, LabError, Link,
    folder::{self, LabFolder, check_name},
    host::Shared,
    leftovers,
    process::Processes,
    require_privileges,
};

/// Longest lab name; with host and container names it must fit a path of a Unix socket.
const MAX_LAB_NAME: usize = 32;
/// Links are numbered in one byte of their addresses.
const MAX_LINKS: u8 = 254;

/// Virtual hosts and the wires between them. Dropping it ends every program in them and removes
/// everything; if the thread panics, the files are kept and their place is printed.
#[derive(Debug)]
pub struct Lab {
    shared: Arc<Shared>,
    /// Programs die with the thread of their host, so hosts live as long as the lab.
    hosts: Vec<Host>,
    links: u8,
    /// Held, not read: tests take turns on a machine.
    _turn: Option<File>,
}

impl Lab {
    /// Makes a lab for a test. Waits for its turn (one at a time for each user), then removes what
    /// killed labs of any name have left.
    ///
    /// # Errors
    /// If privileges are missing, the lock does not come, or leftovers cannot be removed.
    pub fn new(name: &str) -> Result<Lab, LabError> {
        require_privileges()?;
        check_name("lab", name, MAX_LAB_NAME)?;
        let base = folder::base()?;
        let turn = folder::lock_machine(&base, name)?;
        leftovers::remove_all(&base)?;
        // A demo of this name may be up; it is not ours to end.
        leftovers::remove_named(&base, name)?;
        Lab::start(LabFolder::create(&base, name)?, Some(turn))
    }

    /// Makes a lab for a demonstration: it waits for nobody, removes only what a killed lab of the
    /// same name left, and refuses if that one is alive.
    ///
    /// # Errors
    /// As [`Lab::new`], and [`LabError::Running`].
    pub fn for_demo(name: &str) -> Result<Lab, LabError> {
        require_privileges()?;
        check_name("lab", name, MAX_LAB_NAME)?;
        let base = folder::base()?;
        leftovers::remove_named(&base, name)?;
        Lab::start(LabFolder::create(&base, name)?, None)
    }

    fn start(folder: LabFolder, turn: Option<File>) -> Result<Lab, LabError> {
        let shared = Arc::new(Shared {
            folder,
            processes: Processes::default(),
        });
        Ok(Lab {
            shared,
            hosts: Vec::new(),
            links: 0,
            _turn: turn,
        })
    }

    /// The folder of this lab, for logs and whatever else a test writes.
    pub fn folder(&self) -> &std::path::Path {
        self.shared.folder.path()
    }

    /// Makes a host; its name has at most 11 characters.
    ///
    /// # Errors
    /// If the name does not fit or is taken, or the kernel refuses.
    pub fn host(&mut self, name: &str) -> Result<Host, LabError> {
        let host = Host::create(&self.shared, name)?;
        self.hosts.push(host.clone());
        Ok(host)
    }

    /// Joins two hosts by a wire. Two hosts have at most one.
    ///
    /// # Errors
    /// If they are joined already, there are too many links, or the kernel refuses.
    pub fn link(&mut self, a: &Host, b: &Host, family: Family) -> Result<Link, LabError> {
        let number = self.next_link()?;
        Link::create(number, a, b, family)
    }

    /// Joins two hosts by an emulated wire, slower than a plain one; see [`Link::shape`]. The same
    /// seed throws the same dice.
    ///
    /// # Errors
    /// As [`Lab::link`].
    pub fn emulated_link(
        &mut self,
        a: &Host,
        b: &Host,
        family: Family,
        seed: u64,
    ) -> Result<Link, LabError> {
        let number = self.next_link()?;
        Link::emulate(number, a, b, (family, seed), None)
    }

    /// The same, with network cards at the ends that complete checksums, rightly or not.
    ///
    /// # Errors
    /// As [`Lab::link`].
    pub fn link_with_cards(
        &mut self,
        a: &Host,
        b: &Host,
        family: Family,
        card: Card,
    ) -> Result<Link, LabError> {
        let number = self.next_link()?;
        Link::emulate(number, a, b, (family, 1), Some(card))
    }

    /// Joins a host to one that forwards for it: by an IPv4 wire, the default route of `host`. Several
    /// hosts and their routers with a common one are an internet.
    ///
    /// # Errors
    /// As [`Lab::link`].
    pub fn uplink(&mut self, host: &Host, router: &Host) -> Result<Link, LabError> {
        let link = self.link(host, router, Family::V4)?;
        router.forward_packets()?;
        host.route_by_default(link.address(router, false))?;
        Ok(link)
    }

    fn next_link(&mut self) -> Result<u8, LabError> {
        if self.links == MAX_LINKS {
            return Err(LabError::TooManyLinks(MAX_LINKS));
        }
        self.links += 1;
        Ok(self.links)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.shared.processes.end_all();
        leftovers::remove_namespaces(self.folder());
        if thread::panicking() {
            match self.shared.folder.keep() {
                Ok(path) => eprintln!("the lab's files are kept in {}", path.display()),
                Err(error) => eprintln!("the lab's files in {:?} stay: {error}", self.folder()),
            }
        } else if let Err(error) = fs::remove_dir_all(self.folder()) {
            eprintln!("cannot remove {}: {error}", self.folder().display());
        }
    }
}
