//! Random faults by seed: whatever happens, no two containers have one address, and when it is
//! over everything works again.
//!
//! `RING_SEEDS=from..to` chooses other seeds, `RING_TRACE=1` tells what happens.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rmesh_ipam::{Answer, Found, Founding, Request, RequestId, usable};

use rmesh_wire::Instant;

use crate::dice::Dice;
use crate::world::{CURRENT, World, allocate, ms, pool, secs};

const POOL: &str = "10.32.0.0/25";
const HOSTS: usize = 5;

struct Chaos {
    world: World,
    dice: Dice,
    /// How a host that is down will be found.
    found: Vec<Found>,
    /// Hosts whose removal is under way, and by which request.
    removing: Vec<(usize, RequestId)>,
    removed: BTreeSet<usize>,
    next_container: u64,
    is_rough: bool,
    next_loss: Instant,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let mut world = World::new(HOSTS, &[POOL], seed);
        world.loss = 5;
        world.doubling = 5;
        world.hands_over = seed.is_multiple_of(2);
        Chaos {
            world: world.started(),
            dice: Dice(seed ^ 0x5eed),
            found: vec![CURRENT; HOSTS],
            removing: Vec::new(),
            removed: BTreeSet::new(),
            next_container: 0,
            is_rough: seed % 4 == 3,
            next_loss: Instant::ZERO,
        }
    }

    fn up(&mut self) -> Option<usize> {
        let up: Vec<usize> = (0..HOSTS).filter(|at| self.world.is_up(*at)).collect();
        (!up.is_empty()).then(|| up[self.dice.below(up.len())])
    }

    fn client(&mut self) {
        let Some(at) = self.up() else {
            return;
        };
        match self.dice.roll(10) {
            0..6 => {
                self.next_container += 1;
                let request = allocate(&format!("c{}", self.next_container));
                self.world.request(at, request, secs(3));
            }
            6 => {
                self.next_container += 1;
                let hosts = usable(pool(POOL));
                let number = hosts.first() + u128::from(self.dice.roll(hosts.count() as u64));
                let address = rmesh_ipam::address::address(number);
                let container = format!("c{}", self.next_container);
                self.world
                    .request(at, Request::Claim { container, address }, secs(3));
            }
            _ => {
                let keys: Vec<String> = self.world.hosts[at].containers.keys().cloned().collect();
                if !keys.is_empty() {
                    let container = keys[self.dice.below(keys.len())].clone();
                    self.world
                        .request(at, Request::Release { container }, secs(3));
                }
            }
        }
    }

    fn fault(&mut self) {
        self.forget_done();
        let at = self.dice.below(HOSTS);
        // Ledgers are lost one at a time, but for one seed of four.
        let is_whole = (0..HOSTS).all(|at| self.world.is_up(at));
        let may_lose = self.is_rough || (is_whole && self.world.now >= self.next_loss);
        match self.dice.roll(14) {
            0..2 => {
                self.world.groups = (0..HOSTS).map(|_| self.dice.roll(2) as u8).collect();
                let groups = self.world.groups.clone();
                self.world.trace(|| format!("cut {groups:?}"));
                self.world.mesh();
            }
            2..4 => self.heal(),
            4..6 => self.stop(at, CURRENT),
            roll @ 6..9 if may_lose => {
                self.next_loss = self.world.now + secs(15);
                let losses = [Found::Unproven, Found::RolledBack, Found::Nothing];
                self.stop(at, losses[roll as usize - 6]);
            }
            9 => self.remove(at),
            _ => self.start(at),
        }
    }

    fn forget_done(&mut self) {
        let answers = &self.world.answers;
        self.removing.retain(|(_, id)| !answers.contains_key(id));
    }

    fn heal(&mut self) {
        self.world.trace(|| "all wires are whole".into());
        self.world.groups = vec![0; HOSTS];
        self.world.mesh();
    }

    fn stop(&mut self, at: usize, found: Found) {
        if !self.world.is_up(at) {
            return;
        }
        if matches!(found, Found::Nothing | Found::RolledBack | Found::Unproven) {
            self.forget_held(at);
        }
        self.world.kill(at);
        self.removing
            .retain(|(_, id)| !self.world.answers.contains_key(id));
        self.found[at] = found;
        let host = &mut self.world.hosts[at];
        match found {
            Found::Current { .. } => {}
            // No container survives a reboot.
            Found::Unproven => host.containers.clear(),
            Found::RolledBack => {}
            Found::Nothing => host.disk.clear(),
        }
        if found != CURRENT {
            // It remembers the others, whatever its ledger says: it does not found once more.
            let pools = vec![pool(POOL)];
            let (targets, init_peers) = (HOSTS - 1, None);
            host.founding = Founding::Join {
                pools,
                targets,
                init_peers,
            };
        }
        // A reboot may find an older disk too, say that of a snapshot.
        if found == Found::RolledBack || (found == Found::Unproven && self.dice.percent(30)) {
            let kept = self.dice.below(self.world.hosts[at].disk.len() + 1);
            self.world.hosts[at].disk.truncate(kept);
        }
    }

    fn start(&mut self, at: usize) {
        let is_removing = self.removing.iter().any(|(gone, _)| *gone == at);
        let is_cut = self
            .world
            .groups
            .iter()
            .any(|group| *group != self.world.groups[0]);
        // The operator said that it is gone: it may come back where the others can tell it.
        if self.world.is_up(at) || is_removing || (self.removed.contains(&at) && is_cut) {
            return;
        }
        self.world.start(at, self.found[at]);
        self.found[at] = CURRENT;
    }

    /// What is held for removed hosts is known by who took over alone: with its ledger that goes.
    fn forget_held(&mut self, at: usize) {
        let peers: Vec<_> = self.world.hosts.iter().map(|host| host.me).collect();
        let report = self.world.hosts[at].node().report(self.world.now);
        for (range, peer) in report.held {
            let Some(gone) = peers.iter().position(|known| *known == peer) else {
                continue;
            };
            if self.world.is_up(gone) {
                continue;
            }
            for addresses in self.world.hosts[gone].containers.values_mut() {
                addresses.retain(|ip| !range.contains(rmesh_ipam::address::number(*ip)));
            }
        }
    }

    /// Removes a host that is down.
    fn remove(&mut self, gone: usize) {
        let Some(at) = self.up() else {
            return;
        };
        if self.world.is_up(gone) || at == gone {
            return;
        }
        self.removed.insert(gone);
        // What nobody was told of cannot be held: such a container is gone with its host.
        let known = |world: &World, address: &IpAddr| {
            world.hosts.iter().enumerate().any(|(other, _)| {
                other != gone
                    && (other == at || world.reaches(at, other))
                    && world
                        .told_before(gone, other)
                        .is_some_and(|told| told.contains(address))
            })
        };
        let unknown: Vec<IpAddr> = self.world.hosts[gone]
            .addresses()
            .into_iter()
            .filter(|address| !known(&self.world, address))
            .collect();
        for addresses in self.world.hosts[gone].containers.values_mut() {
            addresses.retain(|address| !unknown.contains(address));
        }
        let request = Request::RemovePeer {
            peer: self.world.hosts[gone].me,
            name: self.world.hosts[gone].name.clone(),
            is_forced: false,
        };
        let id = self.world.request(at, request, secs(25));
        self.removing.push((gone, id));
    }

    fn run(&mut self) {
        self.world.run(secs(3));
        let end = self.world.now + secs(60);
        let mut next_fault = self.world.now;
        while self.world.now < end {
            self.client();
            if self.world.now >= next_fault {
                self.fault();
                next_fault = self.world.now + ms(200 + self.dice.roll(3_000));
            }
            self.world.run(ms(self.dice.roll(300)));
        }
    }

    /// No more faults: everything has to work again.
    fn calm(&mut self) {
        self.world.loss = 0;
        self.world.doubling = 0;
        self.heal();
        self.world.run(secs(12));
        self.removing.clear();
        for at in 0..HOSTS {
            self.start(at);
        }
        self.world.run(secs(20));
        // Without a majority of witnesses an operator has to decide what is lost.
        if !self.has_majority() {
            return;
        }
        let is_equal = self.world.wait(secs(30), World::rings_are_equal);
        assert!(is_equal, "the rings are equal: {}", self.views());
    }

    fn has_majority(&self) -> bool {
        let mut hosts = self.world.hosts.iter();
        hosts.all(|host| host.node().report(self.world.now).has_majority)
    }

    fn views(&self) -> String {
        let hosts = self.world.hosts.iter();
        let views = hosts.map(|host| {
            let report = host.node().report(self.world.now);
            format!(
                "\n{}: ring {:?} hash {:x} setup {:?} owners {:?} free {} and {} granted {:?} fence {:?} waiting {:?} pending {:?} refused {:?}",
                host.name, report.ring, report.hash,
                report.setup.map(|s| (s.stamp, s.witnesses)), report.owners, report.v4.free(), report.v6.free(),
                report.granted, report.fence, report.waiting, report.pending, report.refused
            )
        });
        views.collect()
    }

    /// What becomes of each address that no container has.
    fn unused(&self) -> String {
        let used: BTreeSet<IpAddr> = self
            .world
            .hosts
            .iter()
            .flat_map(|host| host.addresses())
            .collect();
        let hosts = usable(pool(POOL));
        let all = (hosts.first()..=hosts.last()).map(rmesh_ipam::address::address);
        let words = all.filter(|at| !used.contains(at)).map(|at| {
            let reports = self
                .world
                .hosts
                .iter()
                .map(|host| host.node().report(self.world.now));
            let holders = reports.filter_map(|report| {
                let mut allocated = report.allocated.into_iter();
                allocated
                    .find(|(known, _)| *known == at)
                    .map(|(_, key)| (report.owner, key))
            });
            let holders: Vec<_> = holders.collect();
            let owner = self.world.hosts[0].node().owner_of(at);
            format!("\n{at} is {owner:?}'s, and the ledgers say {holders:?}")
        });
        words.collect()
    }

    /// Every free address that is not held can be had.
    fn use_everything(&mut self) {
        self.world.run(secs(75));
        let reports = self
            .world
            .hosts
            .iter()
            .map(|host| host.node().report(self.world.now));
        let reports: Vec<_> = reports.collect();
        let majority = reports.iter().all(|report| report.has_majority);
        if !majority {
            return;
        }
        let used: usize = self
            .world
            .hosts
            .iter()
            .map(|host| host.addresses().len())
            .sum();
        let held: u128 = reports
            .iter()
            .flat_map(|r| &r.held)
            .map(|(range, _)| range.count())
            .sum();
        let total = usable(pool(POOL)).count();
        let free = total.saturating_sub(used as u128 + held);
        for n in 0..free {
            let at = self.dice.below(HOSTS);
            let given = self.world.ask(at, allocate(&format!("last{n}")), secs(30));
            let is_given = matches!(given, Ok(Answer::Address(_)));
            assert!(
                is_given,
                "{n} of {free} on host{at} ({used} used, {held} held): {given:?} {} {}",
                self.unused(),
                self.views()
            );
        }
    }
}

fn survive(seed: u64) -> bool {
    let mut chaos = Chaos::new(seed);
    chaos.run();
    chaos.calm();
    chaos.use_everything();
    chaos
        .world
        .hosts
        .iter()
        .all(|host| host.node().report(chaos.world.now).has_majority)
}

#[test]
fn no_two_containers_have_one_address_whatever_happens() {
    let seeds = std::env::var("RING_SEEDS").ok();
    let range = seeds.as_deref().and_then(|text| {
        let (from, to) = text.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    });
    let (mut whole, mut all, mut failed) = (0, 0, Vec::new());
    for seed in range.unwrap_or(0..60) {
        all += 1;
        match std::panic::catch_unwind(|| survive(seed)) {
            Ok(has_majority) => whole += u32::from(has_majority),
            Err(_) => failed.push(seed),
        }
    }
    println!("{all} seeds, {whole} of them ended with a majority of witnesses");
    assert!(failed.is_empty(), "seeds {failed:?}");
    assert!(whole > 0);
}
