//! What must hold once nothing goes wrong any more.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use rmesh_ipam::{Answer, OwnerId, Range, Request, address, usable};
use rmesh_wire::{Instant, PeerId};

use super::disk::Remains;
use super::host::{Daemon, Job};
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
/// Everybody has heard of everybody's state, and grants under way are chosen, within this time.
const SETTLE: Duration = Duration::from_secs(8);
/// Freed addresses that did not rest yet are waited for so many times: a crash forgets since when.
const RESTS_MAX: u32 = 3;
/// Hosts that take whatever they can get; then those that own what is left take it.
const ASKERS_MAX: usize = 8;
/// A mesh of more peers is a large one.
const LARGE: usize = 16;
/// Pools up to this size are drained whole.
const DRAINED_WHOLE_MAX: u128 = 256;
/// Subnets of a larger pool that are drained, and their size: so many bits.
const SUBNETS: usize = 2;
const SUBNET_BITS: u32 = 5;
/// Passes over hosts in search of what is left.
const PASSES_MAX: u32 = 6;

impl World {
    /// Everything is well from now on. Returns how long it took until all rings were equal.
    /// `None` too if the majority of the witnesses was lost: then it has to be formed anew first.
    pub(super) fn calm(&mut self) -> Option<Duration> {
        self.is_season = false;
        self.network.set_loss(0.0);
        for host in 0..self.hosts.len() {
            if self.hosts[host].may_return(self.now) && self.random.chance(0.5) {
                self.hosts[host].is_removed = false;
                self.meter.returned += 1;
            }
            self.hosts[host].is_doomed = false;
            if self.is_halted(host) {
                self.kill(host, Remains::Whole);
            }
            if !self.hosts[host].is_removed {
                self.start(host);
            }
        }
        self.await_all(
            "everybody reaches everybody",
            CONNECT_MAX,
            World::unconnected,
        )?;
        let equal = if self.lost_witnesses().is_some() {
            self.run_for(SETTLE);
            self.reform_if_lost();
            None
        } else {
            Some(self.await_all("all rings are equal", EQUAL_MAX, World::unequal)?)
        };
        self.run_for(SETTLE);
        self.reform_if_lost();
        self.await_all("all rings are equal", EQUAL_MAX, World::unequal)?;
        self.remove_all_at_last();
        self.await_all("all rings are equal again", EQUAL_MAX, World::unequal)?;
        equal
    }

    /// Whether its disk refused a write, after which only a new life helps.
    fn is_halted(&self, host: usize) -> bool {
        let clock = self.hosts[host].clock(self.now);
        let daemon = self.hosts[host].daemon.as_ref();
        daemon.is_some_and(|daemon| daemon.node.report(clock).halted.is_some())
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
        let daemons = self
            .hosts
            .iter()
            .filter_map(|h| Some((h.index, h.daemon.as_ref()?)));
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

    /// A majority of the witnesses lost its ledgers or its peers, or cannot tell whether it is up
    /// to date: the operator, whom their `status` tells so, forms the set anew.
    fn reform_if_lost(&mut self) {
        for _ in 0..TRIES_MAX {
            let Some((any, lost)) = self.lost_witnesses() else {
                return;
            };
            self.force(any, &lost);
        }
    }

    /// Witnesses that do not act, if no majority is left or a host says so, and a host that knows the
    /// setup: the one that says so.
    fn lost_witnesses(&self) -> Option<(usize, Vec<OwnerId>)> {
        let (any, setup) = self.any_setup()?;
        let witnesses = setup.witnesses.as_slice();
        let lost = witnesses.iter().filter(|w| !self.acts(**w));
        let lost: Vec<OwnerId> = lost.copied().collect();
        let says_so = self.running().into_iter().find(|host| {
            let host = &self.hosts[*host];
            let daemon = host.daemon.as_ref();
            daemon.is_some_and(|d| d.node.report(host.clock(self.now)).is_stuck)
        });
        if let Some(host) = says_so {
            // Its status says: for one that is gone, or for this host.
            return Some((host, Vec::new()));
        }
        (witnesses.len() - lost.len() < setup.majority()).then_some((any, lost))
    }

    /// Gives the command for a witness that is gone for good, on its own peer if that runs as
    /// another owner by now.
    fn force(&mut self, any: usize, lost: &[OwnerId]) {
        let is_gone = |owner: &&OwnerId| {
            let daemon = self.daemon_of(owner.peer);
            daemon.is_none_or(|daemon| daemon.node.owner() != **owner)
        };
        let gone = lost.iter().find(is_gone).or(lost.first());
        let victim = gone
            .and_then(|owner| self.host_of(owner.peer))
            .unwrap_or(any);
        let on = if self.hosts[victim].runs() {
            victim
        } else {
            any
        };
        self.note(None, || {
            format!("the majority is lost: --force for peer{victim} on peer{on}")
        });
        self.command(on, victim, true);
        self.run_for(SETTLE);
    }

    fn daemon_of(&self, peer: PeerId) -> Option<&Daemon> {
        self.hosts[self.host_of(peer)?].daemon.as_ref()
    }

    /// Whether a witness runs and says that it acts, with others or alone.
    fn acts(&self, witness: OwnerId) -> bool {
        let daemon = self.daemon_of(witness.peer);
        daemon.is_some_and(|daemon| {
            let report = daemon.node.report(Instant::ZERO);
            daemon.node.owner() == witness && report.is_witness && report.has_majority
        })
    }

    fn any_setup(&self) -> Option<(usize, rmesh_ipam::Setup)> {
        let mut running = self
            .hosts
            .iter()
            .filter_map(|h| Some((h, h.daemon.as_ref()?)));
        running.find_map(|(host, daemon)| {
            Some((host.index, daemon.node.report(host.clock(self.now)).setup?))
        })
    }

    /// The operator gives the command again for as long as some peer's status names a removed peer
    /// among the owners: a grant to it may have been completed since.
    fn remove_all_at_last(&mut self) {
        for _ in 0..TRIES_MAX {
            let removed = (0..self.hosts.len()).filter(|&host| self.hosts[host].is_removed);
            for victim in removed.collect::<Vec<usize>>() {
                if self.violations.is_empty() && self.owns_anything(victim) {
                    self.remove_at_last(victim);
                }
            }
            self.run_for(SETTLE);
            if !self
                .hosts
                .iter()
                .any(|h| h.is_removed && self.owns_anything(h.index))
            {
                return;
            }
        }
    }

    fn owns_anything(&self, host: usize) -> bool {
        let id = self.hosts[host].id();
        let daemons = self.hosts.iter().filter_map(|host| host.daemon.as_ref());
        let mut rings = daemons.map(|daemon| daemon.node.ring());
        rings.any(|ring| ring.owned_by_peer(id).next().is_some())
    }

    fn command(&mut self, on: usize, victim: usize, is_forced: bool) -> bool {
        self.mind_containers(on, victim);
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

    /// Hands out everything there is, or all of a few subnets of a large pool: whatever is neither
    /// used nor held must be had by somebody.
    pub(super) fn drain(&mut self) {
        let mut left = Vec::new();
        let drained = self.choose_drained();
        for _ in 0..RESTS_MAX {
            self.let_rest();
            for &subnet in &drained {
                self.drain_subnet(subnet);
            }
            left = self.left_over(&drained);
            if left.is_empty() || !self.violations.is_empty() {
                break;
            }
        }
        if !left.is_empty() && self.violations.is_empty() {
            let (portrait, whose) = (self.portrait(), self.whose(&left));
            let words = left.iter().map(|ip| format!("{ip} ")).collect();
            self.violate(
                format!("nobody can have {left:?}: {whose}\n{portrait}"),
                words,
            );
        }
    }

    /// Whole pools, or subnets of large ones.
    fn choose_drained(&mut self) -> Vec<Range> {
        let mut drained = Vec::new();
        for pool in self.pools.clone() {
            if pool.count() <= DRAINED_WHOLE_MAX {
                drained.push(pool);
                continue;
            }
            for _ in 0..SUBNETS {
                let at = self.random.below(pool.count() as usize);
                drained.push(Range::block(pool.first() + at as u128, SUBNET_BITS));
            }
        }
        drained
    }

    /// Some hosts take addresses until they are refused, and then all who own what is left.
    fn drain_subnet(&mut self, subnet: Range) {
        let mut askers = self.running();
        while askers.len() > ASKERS_MAX {
            let at = self.random.below(askers.len());
            askers.swap_remove(at);
        }
        for _ in 0..PASSES_MAX {
            if self.drain_pass(subnet, &askers) == 0 || !self.violations.is_empty() {
                break;
            }
            askers = self.owners_of_left(subnet);
        }
    }

    fn owners_of_left(&self, subnet: Range) -> Vec<usize> {
        let left = self.left_over(&[subnet]);
        let owns = |host: &usize| {
            let daemon = self.hosts[*host].daemon.as_ref();
            let usable = daemon
                .map(|daemon| daemon.node.usable())
                .unwrap_or_default();
            let mut numbers = left.iter().map(|ip| address::number(*ip));
            numbers.any(|at| usable.iter().any(|range| range.contains(at)))
        };
        self.running().into_iter().filter(owns).collect()
    }

    /// A minute of a large mesh costs too much: what rests there is left alone.
    fn waits_for_rest(&self) -> bool {
        self.options.wires == Wires::Direct || self.hosts.len() <= LARGE
    }

    fn rests(&self, ip: IpAddr) -> bool {
        let daemons = self.hosts.iter().filter_map(|host| host.daemon.as_ref());
        let mut words = daemons.map(|daemon| daemon.node.explain_address(ip));
        words.any(|words| words.starts_with("Resting"))
    }

    fn let_rest(&mut self) {
        match self.options.wires {
            Wires::Gossip if self.waits_for_rest() => self.run_for(REST),
            Wires::Gossip => {}
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

    /// Each of these takes addresses until it is refused. Returns how many were had.
    fn drain_pass(&mut self, subnet: Range, askers: &[usize]) -> u64 {
        let mut had = 0;
        let mut dry = BTreeSet::new();
        while dry.len() < askers.len() && self.violations.is_empty() {
            let asking: Vec<usize> = askers
                .iter()
                .copied()
                .filter(|h| !dry.contains(h))
                .collect();
            // Before they are asked: some answer at once.
            let before: Vec<u64> = asking.iter().map(|&h| self.carried_by(h)).collect();
            let allocated = self.meter.allocated;
            for &host in &asking {
                let container = self.hosts[host].next_container();
                let is_subnet = !self.pools.contains(&subnet);
                self.allocate(host, container, subnet, is_subnet, DRAIN_PATIENCE);
            }
            self.await_answers(&asking);
            for (&host, before) in asking.iter().zip(before) {
                if self.carried_by(host) == before {
                    dry.insert(host);
                }
            }
            had += self.meter.allocated - allocated;
        }
        had
    }

    fn await_answers(&mut self, asking: &[usize]) {
        let end = self.now + DRAIN_PATIENCE + Duration::from_secs(1);
        while self.waits(asking) && self.now < end && self.violations.is_empty() {
            self.run_for(Duration::from_millis(20));
        }
        if self.waits(asking) {
            self.violate("a request got no answer in time".to_owned(), Vec::new());
        }
    }

    /// Addresses that containers of a host carry.
    fn carried_by(&self, host: usize) -> u64 {
        self.hosts[host]
            .containers
            .values()
            .map(|ips| ips.len() as u64)
            .sum()
    }

    fn waits(&self, asking: &[usize]) -> bool {
        let waits = |job: &Job| matches!(job, Job::Attach { .. });
        asking.iter().any(|&host| {
            let daemon = self.hosts[host].daemon.as_ref();
            daemon.is_some_and(|daemon| daemon.jobs.values().any(waits))
        })
    }

    fn left_over(&self, drained: &[Range]) -> Vec<IpAddr> {
        let used: BTreeSet<&IpAddr> = self.live.addresses().collect();
        let mut held: Vec<Range> = Vec::new();
        for host in &self.hosts {
            if let Some(daemon) = host.daemon.as_ref() {
                let report = daemon.node.report(host.clock(self.now));
                held.extend(report.held.iter().map(|(range, _)| *range));
            }
        }
        let all = drained.iter().map(|subnet| usable(*subnet));
        let all = all.flat_map(|range| range.first()..=range.last());
        all.map(address::address)
            .filter(|ip| !used.contains(ip))
            .filter(|ip| self.waits_for_rest() || !self.rests(*ip))
            .filter(|ip| {
                !held
                    .iter()
                    .any(|range| range.contains(address::number(*ip)))
            })
            .collect()
    }

    /// Who owns some addresses, and what their owners say of them.
    fn whose(&self, ips: &[IpAddr]) -> String {
        let Some(any) = self.hosts.iter().find_map(|host| host.daemon.as_ref()) else {
            return String::new();
        };
        let cells = ips
            .iter()
            .filter_map(|ip| any.node.ring().get(address::number(*ip)));
        let words = cells.zip(ips).map(|(cell, ip)| {
            let host = self.host_of(cell.owner.peer);
            let daemon = host.and_then(|host| self.hosts[host].daemon.as_ref());
            let state = daemon.map(|daemon| daemon.node.explain_address(*ip));
            format!("{ip}: {cell:?} of {host:?}, {state:?}")
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
                "  peer{} {:?} ring {:?} {} runs {:x}, free {}, witness {} of {setup:?}, majority {}, \
                 granted {:?}, pending {:?}, held {:?}, fence {:?}, waiting {:?}, refused {:?}, \
                 halted {:?}\n    {:?}",
                host.index,
                report.owner,
                report.ring,
                report.runs,
                report.hash,
                report.free,
                report.is_witness,
                report.has_majority,
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
