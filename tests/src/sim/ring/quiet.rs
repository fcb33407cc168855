//! What must hold once nothing goes wrong any more.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use rmesh_ipam::{Answer, Range, Request, address};

use super::host::Job;
use super::story::Wires;
use super::world::World;

/// All rings must be equal within this time after everybody reaches everybody.
const EQUAL_MAX: Duration = Duration::from_secs(10);
/// Everybody must reach everybody within this time; the mesh dials again only when its back-off
/// has run out.
const CONNECT_MAX: Duration = Duration::from_secs(90);
/// How often the world is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A removal in a quiet mesh, with the time others need to notice that the peer is gone.
const REMOVE_MAX: Duration = Duration::from_secs(40);
/// Freed addresses rest for this long, and a little more.
const REST: Duration = Duration::from_secs(61);
/// A client of the drain waits this long.
const DRAIN_PATIENCE: Duration = Duration::from_secs(4);
/// Attempts at one removal.
const TRIES_MAX: u32 = 4;
/// Passes over all hosts in search of what is left.
const PASSES_MAX: u32 = 6;

impl World {
    /// Everything is well from now on. Returns how long it took until all rings were equal.
    pub(super) fn calm(&mut self) -> Option<Duration> {
        self.is_season = false;
        self.network.set_loss(0.0);
        for host in 0..self.hosts.len() {
            let is_back = self.hosts[host].removals == 0 && self.random.chance(0.5);
            if self.hosts[host].is_removed && is_back {
                self.hosts[host].is_removed = false;
                self.meter.returned += 1;
            }
            if !self.hosts[host].is_removed {
                self.start(host);
            }
        }
        self.await_all("everybody reaches everybody", CONNECT_MAX, World::unconnected)?;
        self.reform_if_lost();
        let equal = self.await_all("all rings are equal", EQUAL_MAX, World::unequal)?;
        for victim in 0..self.hosts.len() {
            if self.hosts[victim].is_removed {
                self.remove_at_last(victim);
            }
        }
        self.await_all("all rings are equal again", EQUAL_MAX, World::unequal)?;
        Some(equal)
    }

    /// Runs until nothing is left to say against it; `None`, and a violation, if that takes longer
    /// than `bound`.
    fn await_all(
        &mut self,
        what: &str,
        bound: Duration,
        against: fn(&World) -> Option<String>,
    ) -> Option<Duration> {
        let start = self.now;
        while let Some(difference) = against(self) {
            if !self.violations.is_empty() {
                return None;
            }
            if self.now.since(start) >= bound {
                let portrait = self.portrait();
                self.violate(
                    format!("not within {bound:?} that {what}: {difference}\n{portrait}"),
                    vec!["peer".to_owned()],
                );
                return None;
            }
            self.run_for(LOOK_EVERY);
        }
        Some(self.now.since(start))
    }

    fn unconnected(&self) -> Option<String> {
        let running = self.running();
        running.iter().find_map(|&index| {
            let members = &self.hosts[index].daemon.as_ref()?.members;
            let away = running.iter().find(|&&other| {
                let id = self.hosts[other].id();
                other != index && !members.iter().any(|m| m.peer == id && m.reachable)
            });
            away.map(|other| format!("peer{index} does not reach peer{other}"))
        })
    }

    fn unequal(&self) -> Option<String> {
        let daemons = self.hosts.iter().filter_map(|h| Some((h.index, h.daemon.as_ref()?)));
        let mut states = daemons.map(|(index, daemon)| {
            let node = &daemon.node;
            (index, node.ring_id(), node.ring().hash(), node.stamp())
        });
        let first = states.next()?;
        let is_other = |s: &(usize, _, _, _)| (s.1, s.2, s.3) != (first.1, first.2, first.3);
        if first.1.is_none() {
            return Some(format!("peer{} is in no ring", first.0));
        }
        let other = states.find(is_other)?;
        Some(format!("{first:x?} and {other:x?}"))
    }

    /// A majority of the witnesses lost its ledgers or its peers, or none can tell whether it is up
    /// to date: the operator, whom `status` tells so, forms the set anew.
    fn reform_if_lost(&mut self) {
        let start = self.now;
        while self.is_majority_lost() && self.now.since(start) < EQUAL_MAX {
            self.run_for(LOOK_EVERY);
        }
        if !self.is_majority_lost() {
            return;
        }
        let Some((on, setup)) = self.any_setup() else {
            return;
        };
        let lost = setup.witnesses.as_slice().iter().filter(|witness| {
            let host = self.host_of(witness.peer);
            let daemon = host.and_then(|host| self.hosts[host].daemon.as_ref());
            daemon.is_none_or(|daemon| daemon.node.owner() != **witness)
        });
        let lost = lost.filter_map(|witness| self.host_of(witness.peer)).next();
        // A peer that runs as another owner by now, or does not doubt itself any more after it.
        let victim = lost.unwrap_or(on);
        let on = if self.hosts[victim].runs() { victim } else { on };
        self.note(None, || format!("the majority is lost: --force for peer{victim} on peer{on}"));
        self.command(on, victim, true);
    }

    /// Whether every peer reports that no majority of the witnesses acts.
    fn is_majority_lost(&self) -> bool {
        let mut running = self.hosts.iter().filter_map(|h| Some((h, h.daemon.as_ref()?)));
        running.all(|(host, daemon)| !daemon.node.report(host.clock(self.now)).has_majority)
    }

    fn any_setup(&self) -> Option<(usize, rmesh_ipam::Setup)> {
        let mut running = self.hosts.iter().filter_map(|h| Some((h, h.daemon.as_ref()?)));
        running.find_map(|(host, daemon)| {
            Some((host.index, daemon.node.report(host.clock(self.now)).setup?))
        })
    }

    fn command(&mut self, on: usize, victim: usize, is_forced: bool) -> bool {
        self.hosts[victim].removals += 1;
        let before = self.meter.removed;
        let request = Request::RemovePeer {
            peer: self.hosts[victim].id(),
            name: self.hosts[victim].name(),
            is_forced,
        };
        let job = Job::Remove { victim, is_forced };
        self.request(on, job, request, REMOVE_MAX);
        let end = self.now + REMOVE_MAX;
        while self.hosts[victim].removals > 0 && self.now < end && self.violations.is_empty() {
            self.run_for(LOOK_EVERY);
        }
        self.meter.removed > before
    }

    /// Nothing stands against the removal of a peer that is gone.
    fn remove_at_last(&mut self, victim: usize) {
        for tries in 0..TRIES_MAX {
            let running = self.running();
            let Some(on) = self.random.pick(&running).copied() else {
                return;
            };
            if self.command(on, victim, tries > 1) || !self.violations.is_empty() {
                return;
            }
            self.run_for(Duration::from_secs(2));
        }
        let portrait = self.portrait();
        let what = format!("peer{victim} cannot be removed, though all is quiet\n{portrait}");
        self.violate(what, vec![format!("peer{victim}")]);
    }

    /// Hands out everything there is: whatever is neither used nor held must be had by somebody.
    pub(super) fn drain(&mut self) {
        self.let_rest();
        for pool in self.pools.clone() {
            for _ in 0..PASSES_MAX {
                if self.drain_pass(pool) == 0 || !self.violations.is_empty() {
                    break;
                }
            }
        }
        let left = self.left_over();
        if !left.is_empty() && self.violations.is_empty() {
            let (portrait, whose) = (self.portrait(), self.whose(&left));
            let words = left.iter().map(|ip| format!("{ip} ")).collect();
            self.violate(format!("nobody can have {left:?}: {whose}\n{portrait}"), words);
        }
    }

    fn let_rest(&mut self) {
        match self.options.wires {
            Wires::Gossip => self.run_for(REST),
            Wires::Direct => {
                for host in 0..self.hosts.len() {
                    self.hosts[host].ahead += REST;
                    self.hosts[host].wake = Some(self.now);
                    self.schedule(Duration::ZERO, super::world::Action::Wake(host));
                }
                self.run_for(Duration::from_secs(1));
            }
        }
    }

    /// Every host takes addresses until it is refused. Returns how many were had.
    fn drain_pass(&mut self, pool: Range) -> u64 {
        let mut had = 0;
        let mut dry = BTreeSet::new();
        while dry.len() < self.running().len() && self.violations.is_empty() {
            let asking: Vec<usize> = self.running().into_iter().filter(|h| !dry.contains(h)).collect();
            for &host in &asking {
                let container = self.hosts[host].next_container();
                self.allocate(host, container, pool, false, DRAIN_PATIENCE);
            }
            had += self.await_answers(&asking, &mut dry);
        }
        had
    }

    fn await_answers(&mut self, asking: &[usize], dry: &mut BTreeSet<usize>) -> u64 {
        let allocated = self.meter.allocated;
        let counts = asking.iter().map(|&h| self.carried_by(h)).collect::<Vec<u64>>();
        let end = self.now + DRAIN_PATIENCE + Duration::from_secs(1);
        while self.waits(asking) && self.now < end && self.violations.is_empty() {
            self.run_for(Duration::from_millis(20));
        }
        if self.waits(asking) {
            self.violate("a request got no answer in time".to_owned(), Vec::new());
        }
        for (&host, before) in asking.iter().zip(counts) {
            if self.carried_by(host) == before {
                dry.insert(host);
            }
        }
        self.meter.allocated - allocated
    }

    /// Addresses that containers of a host carry.
    fn carried_by(&self, host: usize) -> u64 {
        self.hosts[host].containers.values().map(|ips| ips.len() as u64).sum()
    }

    fn waits(&self, asking: &[usize]) -> bool {
        let waits = |job: &Job| matches!(job, Job::Attach { .. });
        asking.iter().any(|&host| {
            let daemon = self.hosts[host].daemon.as_ref();
            daemon.is_some_and(|daemon| daemon.jobs.values().any(waits))
        })
    }

    fn left_over(&self) -> Vec<IpAddr> {
        let used: BTreeSet<&IpAddr> = self.live.addresses().collect();
        let mut held: Vec<Range> = Vec::new();
        for host in &self.hosts {
            if let Some(daemon) = host.daemon.as_ref() {
                let report = daemon.node.report(host.clock(self.now));
                held.extend(report.held.iter().map(|(range, _)| *range));
            }
        }
        let all = self.all_usable().into_iter();
        all.filter(|ip| !used.contains(ip))
            .filter(|ip| !held.iter().any(|range| range.contains(address::number(*ip))))
            .collect()
    }

    /// Who owns some addresses, and what their owners say of them.
    fn whose(&self, ips: &[IpAddr]) -> String {
        let Some(any) = self.hosts.iter().find_map(|host| host.daemon.as_ref()) else {
            return String::new();
        };
        let cells = ips.iter().filter_map(|ip| any.node.ring().get(address::number(*ip)));
        let words = cells.zip(ips).map(|(cell, ip)| {
            let host = self.host_of(cell.owner.peer);
            let daemon = host.and_then(|host| self.hosts[host].daemon.as_ref());
            let owner = daemon.map(|daemon| daemon.node.owner());
            let told = daemon.map(|daemon| {
                let told = daemon.told.iter().filter(|(_, ips)| ips.contains(ip));
                told.map(|(of, _)| *of).collect::<Vec<usize>>()
            });
            let usable = daemon.map(|daemon| daemon.node.usable());
            format!("{ip}: {cell:?} of {host:?}, now {owner:?}, usable {usable:?}, told {told:?}")
        });
        words.collect::<Vec<String>>().join("; ")
    }

    /// A line for each host.
    pub(super) fn portrait(&self) -> String {
        let lines = self.hosts.iter().map(|host| {
            let Some(daemon) = host.daemon.as_ref() else {
                return format!("  peer{} does not run, removed: {}", host.index, host.is_removed);
            };
            let report = daemon.node.report(host.clock(self.now));
            let setup = report.setup.map(|s| (s.stamp, s.witnesses.into_vec()));
            format!(
                "  peer{} {:?} ring {:?} {} runs {:x}, free {}, witness {} of {setup:?}, spare {}, \
                 granted {:?}, pending {:?}, held {:?}, fence {:?}, waiting {:?}, refused {:?}, \
                 halted {:?}\n    {:?}",
                host.index,
                report.owner,
                report.ring,
                report.runs,
                report.hash,
                report.free,
                report.is_witness,
                report.spare_witnesses,
                report.granted,
                report.pending,
                report.held,
                report.fence,
                report.waiting,
                report.refused,
                report.halted,
                report.owners,
            )
        });
        lines.collect::<Vec<String>>().join("\n")
    }
}

/// Whether an answer says that the peer is gone.
pub(super) fn is_removal(answer: &Answer) -> bool {
    matches!(answer, Answer::Removed { .. })
}
