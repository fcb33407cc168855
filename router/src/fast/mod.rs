//! The kernel's own way between hosts: VXLAN, for pairs that may talk in plaintext (RFC 7348).
//!
//! Two devices, one a family of underlay addresses, are ports of the bridge beside the TAP. Neither
//! learns, and they are isolated from the TAP and from each other, so that what comes from one host
//! never goes on to another. Who is behind which is told by forwarding entries: a MAC moves from
//! one to the other with one replaced entry. VXLAN carries known unicast only; all else goes by the
//! TAP. The table (`table`) drops VXLAN from and to any address that is not a live plaintext
//! peer's. Peers try the way with heartbeats (`heartbeat`), which take it as any frame does.
//!
//! Devices, entries and table outlive the program, so that frames flow while it is restarted.

mod devices;
mod entries;
mod forward_accept;
mod heartbeat;
mod inlet;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use rmesh_wire::Mac;

use crate::kernel::fdb::{Fdb, FdbEntry};
use crate::kernel::netlink::{Netlink, failure};
use crate::kernel::{Bridge, KernelError};
use crate::sys::ethtool;
use crate::sys::packet::{FrameListener, PacketSocket};
use devices::Devices;
use entries::{Change, Entries, Family, Port};
use heartbeat::Heartbeat;
use inlet::Inlet;
use table::Table;

pub use forward_accept::{accept_bridged, unaccept_bridged};
pub use heartbeat::heartbeat_mac;

/// Heartbeats taken in one call; the descriptor stays readable if there are more.
const HEARTBEATS_MAX: usize = 64;
/// Longest frame of a heartbeat, in bytes: what any MTU of 16 bits lets through.
const FRAME_LEN_MAX: usize = (1 << 16) + 64;

/// What a fast path is made with.
#[derive(Debug, Clone)]
pub struct FastOptions {
    /// The bridge that the containers are at.
    pub bridge: Bridge,
    /// Name of the TAP, a port of it.
    pub tap: String,
    /// UDP port of VXLAN: one above the mesh's.
    pub port: u16,
    /// Network identifier, 24 bits, the same on all hosts of the mesh.
    pub vni: u32,
    /// MTU of the containers.
    pub mtu_bytes: u16,
    /// Addresses of this host that peers reach it at, if not all. Of the only one of a family VXLAN sends from
    /// it; else as the routes say.
    pub bind: Vec<IpAddr>,
}

impl FastOptions {
    fn local(&self, family: Family) -> Option<IpAddr> {
        let mut of = self.bind.iter().filter(|ip| Family::of(**ip) == family);
        match (of.next(), of.next()) {
            (Some(only), None) => Some(*only),
            _ => None,
        }
    }
}

/// What the kernel is to know, whole each time.
#[derive(Default, Clone, PartialEq, Eq, Debug)]
pub struct FastEntries {
    /// Underlay addresses of live plaintext peers: VXLAN from and to any other is dropped.
    pub allowed: BTreeSet<IpAddr>,
    /// Where heartbeats go: a peer's heartbeat MAC and its underlay address.
    pub heartbeats: BTreeMap<Mac, IpAddr>,
    /// Every MAC known to be at another peer: by VXLAN to an address, or by the TAP (sealed).
    ///
    /// One whose address is not allowed, or of a family this host lacks, goes by the TAP.
    pub macs: BTreeMap<Mac, Option<IpAddr>>,
}

/// What the kernel has counted since table and devices were made. Numbers survive a restart of the program,
/// and begin again at 0 when somebody removed those.
#[derive(Default, Clone, PartialEq, Eq, Debug)]
pub struct FastCounters {
    /// Bytes of datagrams to each allowed address, their IP headers included.
    pub sent: BTreeMap<IpAddr, u64>,
    /// Bytes of frames that came out of the tunnels, from all of them together.
    pub received: u64,
    /// Datagrams to VXLAN's port from addresses that are not allowed.
    pub dropped_in: u64,
    /// Datagrams of this host to VXLAN's port at such addresses.
    pub dropped_out: u64,
}

/// The fast path of one bridge. What it makes stays when it is dropped, see [`Fast::remove`].
///
/// All calls belong into the network namespace of the bridge.
pub struct Fast {
    options: FastOptions,
    own: Mac,
    netlink: Netlink,
    table: Table,
    inlet: Inlet,
    devices: Devices,
    /// What the kernel has, as far as is known.
    made: Entries,
    /// `None` before the first [`Fast::apply`].
    wanted: Option<FastEntries>,
    adopted: BTreeMap<Mac, IpAddr>,
    /// Devices on which the kernel completes checksums.
    completing: BTreeSet<Family>,
    sender: PacketSocket,
    listener: FrameListener,
    frame: Vec<u8>,
}

impl Fast {
    /// Makes or adopts devices (one a family), ports and the table. Until the first
    /// [`Fast::apply`] those that are adopted keep their entries, and addresses that were let
    /// through are. `own` is this host's heartbeat MAC.
    ///
    /// # Errors
    /// If the kernel lacks VXLAN or nftables, if somebody else has the port, the identifier or a
    /// device's name, or without the privilege.
    pub fn ensure(options: FastOptions, own: Mac) -> Result<Fast, KernelError> {
        let mut netlink = Netlink::open()?;
        // Before the devices: nothing gets through meanwhile.
        let table = Table::ensure(&options)?;
        let devices = devices::ensure(&mut netlink, &options, &mut Vec::new())?;
        let index = options.bridge.index();
        let open = |cause| failure("open a socket for heartbeats", cause, String::new());
        let mut fast = Fast {
            own,
            netlink,
            table,
            inlet: Inlet::ensure(&options, own)?,
            devices,
            made: Entries::default(),
            wanted: None,
            adopted: BTreeMap::new(),
            completing: BTreeSet::new(),
            sender: PacketSocket::open_virtio().map_err(open)?,
            listener: FrameListener::open(index, own, heartbeat::ETHERTYPE).map_err(open)?,
            frame: vec![0; FRAME_LEN_MAX],
            options,
        };
        fast.read_entries(&mut Vec::new())?;
        fast.adopted = fast.made.by_tunnel();
        fast.completing = devices::completing(&fast.options, &fast.devices);
        Ok(fast)
    }

    /// Removes devices and table of a bridge; success too if there are none.
    ///
    /// # Errors
    /// If the kernel refuses, or a device of that name is not rmesh's.
    pub fn remove(bridge: &str) -> Result<(), KernelError> {
        let mut netlink = Netlink::open()?;
        let removed =
            devices::remove(&mut netlink, bridge).and_then(|()| remove_local(&mut netlink, bridge));
        // Without devices the table is of no use; with them it is what keeps plaintext in.
        removed
            .and_then(|()| table::remove(bridge))
            .and_then(|()| inlet::remove(bridge))
    }

    /// Tells the kernel what differs from what it was told before.
    ///
    /// # Errors
    /// The first of those that came up; all the rest is done, and what failed is tried again at
    /// the next call and by [`Fast::verify`].
    pub fn apply(&mut self, wanted: FastEntries) -> Result<(), KernelError> {
        let mut errors = Vec::new();
        self.change(&wanted, &mut errors);
        self.wanted = Some(wanted);
        all_of(errors)
    }

    /// Compares with what the kernel has, puts right what differs, and says in words what that was.
    ///
    /// # Errors
    /// As [`Fast::apply`]; also if the bridge is gone.
    pub fn verify(&mut self) -> Result<Vec<String>, KernelError> {
        let mut words = Vec::new();
        let mut errors = Vec::new();
        match devices::ensure(&mut self.netlink, &self.options, &mut words) {
            Ok(devices) => self.devices = devices,
            Err(error) => errors.push(error),
        }
        for family in self.completing.clone() {
            errors.extend(self.complete(family).err());
        }
        errors.extend(self.table.verify(&mut words).err());
        errors.extend(self.inlet.verify(&mut words).err());
        errors.extend(self.read_entries(&mut words).err());
        if let Some(wanted) = self.wanted.take() {
            let changed = self.change(&wanted, &mut errors);
            if changed > 0 {
                let name = self.options.bridge.name();
                words.push(format!(
                    "{changed} forwarding entries of {name} were not as they should be"
                ));
            }
            self.wanted = Some(wanted);
        }
        let result = all_of(errors);
        if result.is_err() {
            // The caller is given the error only.
            for word in &words {
                tracing::warn!("{word}; put right");
            }
        }
        result.map(|()| words)
    }

    /// MACs that went by VXLAN when this was made, and to which addresses.
    pub fn adopted(&self) -> BTreeMap<Mac, IpAddr> {
        self.adopted.clone()
    }

    /// Sends a payload to a heartbeat MAC through the VXLAN device of the address's family. That
    /// it went out is not known; the answer tells.
    ///
    /// `leaves_checksum` leaves the checksum around it to network cards, as containers do.
    ///
    /// # Errors
    /// If the payload with 28 bytes of headers is longer than the MTU, or the last [`FastEntries`] do not say that heartbeats
    /// to the MAC go to this address.
    pub fn send(
        &self,
        to: Mac,
        address: IpAddr,
        (payload, leaves_checksum): (&[u8], bool),
    ) -> io::Result<()> {
        let family = Family::of(address);
        let is_there = self.made.tunnels.get(&(family, to)) == Some(&address);
        let device = self.devices.tunnel(family).filter(|_| is_there);
        let device = device.ok_or_else(|| {
            let reason = format!("VXLAN has no entry for {to} at {address}");
            io::Error::new(io::ErrorKind::NotConnected, reason)
        })?;
        let heartbeat = Heartbeat {
            to,
            from: self.own,
            payload,
            leaves_checksum,
        };
        let frame = heartbeat.encode(self.options.mtu_bytes)?;
        self.sender.send(device, &frame)
    }

    /// Hands over heartbeats that have come for this host, at most 64, and of each whether its checksum was
    /// right; it does not wait.
    pub fn receive(&mut self, take: &mut dyn FnMut(&[u8], bool)) {
        for _ in 0..HEARTBEATS_MAX {
            let Ok((len, is_left)) = self.listener.receive(&mut self.frame) else {
                return;
            };
            let heartbeat = self.frame.get(..len).and_then(heartbeat::decode);
            if let Some((payload, is_right)) = heartbeat {
                take(payload, is_right || is_left);
            }
        }
    }

    /// Has the kernel complete checksums of what goes by VXLAN to this address, and to others of its family:
    /// the network card gets them wrong. Whether that is news.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn complete_checksums(&mut self, address: IpAddr) -> Result<bool, KernelError> {
        let family = Family::of(address);
        if self.completing.contains(&family) {
            return Ok(false);
        }
        self.complete(family)?;
        Ok(self.completing.insert(family))
    }

    /// VXLAN devices on which the kernel completes checksums, in this life of the program or since an
    /// earlier one.
    pub fn completing(&self) -> Vec<String> {
        let families = self.completing.iter();
        families
            .map(|family| devices::name(self.options.bridge.name(), *family))
            .collect()
    }

    fn complete(&self, family: Family) -> Result<(), KernelError> {
        if self.devices.tunnel(family).is_none() {
            return Ok(());
        }
        let name = devices::name(self.options.bridge.name(), family);
        let done = ethtool::complete_checksums(&name);
        let doing = format!("have checksums completed on {name}");
        done.map_err(|cause| failure(&doing, cause, String::new()))
    }

    /// What the kernel has counted.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn counters(&mut self) -> Result<FastCounters, KernelError> {
        let received = devices::received(&mut self.netlink, &self.options)?;
        Ok(FastCounters {
            received,
            ..self.table.counters()?
        })
    }

    /// Bytes sent to each allowed address, as in [`FastCounters`]: what shows that a tunnel is in use.
    ///
    /// # Errors
    /// As [`Fast::counters`].
    pub fn sent(&mut self) -> Result<BTreeMap<IpAddr, u64>, KernelError> {
        self.table.sent()
    }

    /// Makes the kernel's entries those of `wanted`; gives how many forwarding entries differed.
    fn change(&mut self, wanted: &FastEntries, errors: &mut Vec<KernelError>) -> usize {
        let allowed = self.table.allow(&wanted.allowed);
        // Nobody is sent where it would be dropped.
        let targets = match &allowed {
            Ok(()) => Entries::of(wanted, |family| self.devices.tunnel(family).is_some()),
            Err(_) => {
                let mut less = wanted.clone();
                less.allowed = self.table.allowed() & &wanted.allowed;
                Entries::of(&less, |family| self.devices.tunnel(family).is_some())
            }
        };
        errors.extend(allowed.err());
        let changes = self.made.changes_to(&targets);
        for change in &changes {
            if !self.made.lets(*change) {
                continue;
            }
            match self.make(*change) {
                Ok(()) => self.made.note(*change),
                Err(error) => errors.push(error),
            }
        }
        errors.extend(self.table.forbid_others(&wanted.allowed).err());
        changes.len()
    }

    fn make(&mut self, change: Change) -> Result<(), KernelError> {
        let entry = |link: Option<u32>, mac, says| FdbEntry {
            // A device that this host lacks has no entries.
            link: link.unwrap_or_default(),
            mac,
            says,
        };
        let fixed = Fdb::Port { is_fixed: true };
        match change {
            Change::PutTunnel(family, mac, address) => {
                let entry = entry(self.devices.tunnel(family), mac, Fdb::Tunnel(address));
                self.netlink
                    .put_fdb(&format!("send {mac} by VXLAN to {address}"), entry)
            }
            Change::PutPort(mac, port) => {
                let entry = entry(self.devices.port(port), mac, fixed);
                let way = match port {
                    Port::Tap => "the TAP",
                    Port::Tunnel(_) => "VXLAN",
                };
                self.netlink
                    .put_fdb(&format!("let the bridge send {mac} by {way}"), entry)
            }
            Change::DropPort(mac, port) => {
                let entry = entry(self.devices.port(port), mac, fixed);
                self.netlink
                    .delete_fdb(&format!("let the bridge forget {mac}"), entry)
            }
            Change::DropTunnel(family, mac) => {
                let any = Fdb::Tunnel(std::net::Ipv4Addr::UNSPECIFIED.into());
                let entry = entry(self.devices.tunnel(family), mac, any);
                self.netlink
                    .delete_fdb(&format!("let VXLAN forget {mac}"), entry)
            }
        }
    }

    /// Reads what entries the kernel has. Those that a frame may move are none of ours: they will
    /// be put again. Sees to the entry of `own` as well, by which heartbeats end at this host.
    fn read_entries(&mut self, words: &mut Vec<String>) -> Result<(), KernelError> {
        let mut made = Entries::default();
        let mut is_local = false;
        let bridge = self.options.bridge.index();
        for entry in self.netlink.fdb()? {
            match (entry.says, self.devices.which(entry.link)) {
                (Fdb::Local, _) => is_local |= entry.link == bridge && entry.mac == self.own,
                (Fdb::Port { is_fixed: true }, Some(port)) => {
                    made.ports.insert(entry.mac, port);
                }
                (Fdb::Tunnel(address), Some(Port::Tunnel(family))) => {
                    made.tunnels.insert((family, entry.mac), address);
                }
                _ => {}
            }
        }
        self.made = made;
        if !is_local {
            words.push("heartbeats did not end at this host".into());
            let entry = FdbEntry {
                link: bridge,
                mac: self.own,
                says: Fdb::Local,
            };
            self.netlink
                .put_fdb("let heartbeats end at this host", entry)?;
        }
        Ok(())
    }
}

/// Readable when a heartbeat has come.
impl AsFd for Fast {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Removes the entries that make heartbeats end at this host: they are the bridge's, and not for its
/// own MAC or a port's.
fn remove_local(netlink: &mut Netlink, bridge: &str) -> Result<(), KernelError> {
    let Some(link) = netlink.link(bridge)? else {
        return Ok(());
    };
    for entry in netlink.fdb()? {
        let of_bridge = entry.link == link.index && entry.says == Fdb::Local;
        if of_bridge && Some(entry.mac) != link.mac {
            netlink.delete_fdb("remove the entry of heartbeats", entry)?;
        }
    }
    Ok(())
}

/// As [`AsFd`].
impl AsRawFd for Fast {
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_fd().as_raw_fd()
    }
}

fn all_of(errors: Vec<KernelError>) -> Result<(), KernelError> {
    let others = errors.len().saturating_sub(1);
    match errors.into_iter().next() {
        None => Ok(()),
        Some(first) if others == 0 => Err(first),
        Some(first) => Err(KernelError::Several {
            first: Box::new(first),
            others,
        }),
    }
}
