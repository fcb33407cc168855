//! What must hold after every step.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use rmesh_ipam::{Found, Founding, Identity, Ledger, Node, Range, Recovered, Report, Ring};
use rmesh_wire::{Instant, PeerId};

use super::disk::Disk;
use super::world::World;

/// Who carries which address at the moment, whatever the state of the daemons.
#[derive(Default)]
pub(super) struct Live {
    carriers: BTreeMap<IpAddr, Vec<(usize, String)>>,
}

impl Live {
    pub(super) fn carriers(&self, ip: IpAddr) -> &[(usize, String)] {
        self.carriers.get(&ip).map_or(&[], Vec::as_slice)
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = &IpAddr> {
        self.carriers.keys()
    }

    fn add(&mut self, ip: IpAddr, host: usize, container: &str) {
        let carriers = self.carriers.entry(ip).or_default();
        carriers.push((host, container.to_owned()));
    }

    fn remove(&mut self, ip: IpAddr, host: usize, container: &str) {
        if let Some(carriers) = self.carriers.get_mut(&ip) {
            carriers.retain(|(h, c)| (*h, c.as_str()) != (host, container));
            if carriers.is_empty() {
                self.carriers.remove(&ip);
            }
        }
    }
}

impl World {
    /// A container carries an address from now on.
    pub(super) fn carry(&mut self, host: usize, container: &str, ip: IpAddr) {
        let containers = &mut self.hosts[host].containers;
        if !containers
            .entry(container.to_owned())
            .or_default()
            .insert(ip)
        {
            return;
        }
        self.live.add(ip, host, container);
        let carriers = self.live.carriers(ip).to_vec();
        if carriers.len() > 1 {
            let hosts = carriers.iter().map(|(host, _)| format!("peer{host}"));
            let mut words: Vec<String> = hosts.chain([format!("{ip} ")]).collect();
            words.dedup();
            self.violate(format!("{ip} is carried by {carriers:?}"), words);
        }
    }

    /// A container is gone. Returns the addresses it had.
    pub(super) fn bury(&mut self, host: usize, container: &str) -> Vec<IpAddr> {
        let gone = self.hosts[host].containers.remove(container);
        let gone: Vec<IpAddr> = gone.into_iter().flatten().collect();
        for ip in &gone {
            self.live.remove(*ip, host, container);
        }
        gone
    }

    /// Looks at what a daemon believes after a step: what it knows only rises, and nobody else may
    /// use what it may use.
    pub(super) fn check_ring(&mut self, index: usize) {
        let Some(daemon) = self.hosts[index].daemon.as_mut() else {
            return;
        };
        // Everything that is known is written: without a write nothing has changed but a fence.
        let written = daemon.node.written();
        if daemon.seen_written == Some(written) && !daemon.own.is_empty() {
            return;
        }
        daemon.seen_written = Some(written);
        let ring = daemon.node.ring();
        let is_changed = *ring != daemon.seen;
        if !is_changed && !daemon.own.is_empty() {
            return;
        }
        let ring_id = daemon.node.ring_id();
        let fallen = match ring_id == daemon.seen_in {
            true if is_changed => first_fallen(&daemon.seen, ring),
            _ => None,
        };
        if is_changed {
            daemon.seen = ring.clone();
            daemon.seen_in = ring_id;
        }
        let usable = daemon.node.usable();
        let gained = core::mem::replace(&mut daemon.own, usable.clone()) != usable;
        if let Some(what) = fallen {
            self.violate(
                format!("peer{index} forgot {what}"),
                vec![format!("peer{index}")],
            );
        }
        if gained {
            self.check_exclusive(index, &usable);
        }
    }

    /// Nobody else that runs, in the same ring, may use any of it.
    fn check_exclusive(&mut self, index: usize, usable: &[Range]) {
        if self.hosts[index].is_removed {
            return;
        }
        let ring = self.hosts[index].daemon.as_ref().and_then(|d| d.seen_in);
        let mut found = None;
        for other in &self.hosts {
            let Some(daemon) = other.daemon.as_ref() else {
                continue;
            };
            if other.index == index || other.is_removed || daemon.seen_in != ring {
                continue;
            }
            if overlap(usable, &daemon.own).is_some()
                && let Some(both) = overlap(usable, &daemon.node.usable())
            {
                found = Some((other.index, both));
            }
        }
        if let Some((other, both)) = found {
            let words = vec![
                format!("peer{index}"),
                format!("peer{other}"),
                format!("{both}"),
            ];
            self.violate(
                format!("peer{index} and peer{other} may both use {both}"),
                words,
            );
        }
    }

    /// A client got an address: its container has it on the disk too; or, unless it was to be just this
    /// one, the disk has it reserved, and who has it outlives the process.
    pub(super) fn check_durable(&mut self, index: usize, container: &str, ip: IpAddr, exact: bool) {
        let host = &self.hosts[index];
        let (disk, me) = (&host.disk, host.id());
        let has = |(at, key): &(IpAddr, String)| *at == ip && key == container;
        let says = |report: Option<Report>| report.is_some_and(|r| r.allocated.iter().any(has));
        if says(durable_report(disk, me)) {
            return;
        }
        let outliving = disk.outliving();
        let outlives = says(outliving.and_then(|(all, number)| report_of(&all, number, me)));
        if !exact && outlives && is_reserved(disk, ip) {
            self.meter.early += 1;
            return;
        }
        let what = format!("peer{index} gave {ip} to {container}, but has not written it");
        self.violate(what, vec![format!("{ip} "), format!("peer{index}")]);
    }
}

/// The first piece of which a ring knows less than before.
fn first_fallen(before: &Ring, after: &Ring) -> Option<String> {
    before.iter().find_map(|run| {
        let mut pieces = after.pieces(run.range);
        let fallen = pieces.find(|(_, cell)| cell.is_none_or(|cell| *cell < run.cell));
        fallen.map(|(range, cell)| format!("{range}: {:?}, now {cell:?}", run.cell))
    })
}

fn overlap(some: &[Range], others: &[Range]) -> Option<Range> {
    some.iter()
        .find_map(|range| others.iter().find_map(|other| range.intersect(other)))
}

/// Whether the disk says that the address may be in use though it does not say by whom.
fn is_reserved(disk: &Disk, ip: IpAddr) -> bool {
    let durable = disk.durable().unwrap_or_default();
    let entries = durable.0.iter().map(Vec::as_slice);
    let reserved = Ledger::fold(entries, Instant::ZERO).map(|ledger| ledger.reserved());
    let at = rmesh_ipam::address::number(ip);
    reserved.is_ok_and(|reserved| reserved.iter().any(|range| range.contains(at)))
}

/// What the ledger on a disk says, whatever is under way.
pub(super) fn durable_report(disk: &Disk, me: PeerId) -> Option<Report> {
    let (entries, written) = disk.durable()?;
    report_of(&entries, written, me)
}

/// What a daemon with this ledger would report.
pub(super) fn report_of(entries: &[Vec<u8>], written: u64, me: PeerId) -> Option<Report> {
    let now = Instant::ZERO;
    let ledger = Ledger::fold(entries.iter().map(Vec::as_slice), now).ok()?;
    let identity = Identity {
        me,
        incarnation: 1,
        seed: [0; 32],
    };
    let founding = Founding::Join {
        pools: Vec::new(),
        targets: 0,
        init_peers: None,
    };
    let recovered = Recovered {
        ledger,
        written,
        found: Found::Current {
            down_for: Duration::ZERO,
        },
    };
    Some(Node::new(identity, recovered, founding, now).report(now))
}
