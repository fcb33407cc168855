//! What goes wrong, and when.

use std::time::Duration;

use rmesh_ipam::Request;
use rmesh_wire::Instant;

use super::check::report_of;
use super::disk::{Disk, Remains};
use super::host::{Host, Job};
use super::world::{Action, World};

/// Time between two faults of an 8-peer mesh, on average; more peers, more faults.
const FAULT_EVERY: Duration = Duration::from_millis(1_500);
/// The longest a fault lasts, and the shortest.
const LASTS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));
/// Clocks jump by this much, from and to.
const JUMP: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(5 * 3600));
/// All jumps of one clock together: holds end after 24 hours.
const JUMPS_MAX: Duration = Duration::from_secs(20 * 3600);
/// A share of datagrams that gets lost.
const BURST: f64 = 0.3;
/// Removed peers, at most this part of all.
const REMOVED_PART: usize = 4;

/// One thing that happens to the world.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// The daemon starts, if it does not run and the peer was not removed.
    Start(usize),
    /// The daemon is killed and started again at once.
    Restart(usize),
    /// kill -9; the containers live on.
    Kill { host: usize, down: Duration },
    /// The host is rebooted.
    Reboot { host: usize, down: Duration },
    /// The daemon crashes at its next write.
    Doom(usize),
    /// Cut number `id` begins: nothing crosses between the groups.
    Cut { id: u64, pairs: Vec<(usize, usize)> },
    /// And ends.
    Mend { id: u64, pairs: Vec<(usize, usize)> },
    /// The share of datagrams that get lost.
    Loss(f64),
    /// The ledger is lost, or a bit of it: with the host, or only the file.
    LoseDisk {
        host: usize,
        with_host: bool,
        only_a_bit: bool,
    },
    /// The ledger is restored from a backup, with or without a reboot.
    RollBack { host: usize, with_host: bool },
    /// A clock jumps ahead.
    Jump { host: usize, by: Duration },
    /// A peer is switched off or killed for good, and the operator removes it.
    Remove { host: usize, with_host: bool },
    /// A removed peer comes back with its disk.
    Return(usize),
    /// The operator lets an address go that is held, and that no container has.
    EndHold(usize),
    /// A host is wiped after it handed over what it owns.
    Leave(usize),
}

impl World {
    /// Draws the faults of a season that ends at `until`. Whatever is broken is mended by then.
    pub(super) fn plan(&mut self, from: Instant, until: Instant) {
        let size = self.hosts.len();
        let every = FAULT_EVERY.mul_f64(8.0 / size.max(8) as f64);
        let mut at = from;
        loop {
            at = at + every.mul_f64(-(1.0 - self.random.unit()).ln());
            if at >= until {
                break;
            }
            let lasts = self.random.log_between(LASTS.0, LASTS.1);
            let end = (at + lasts).min(until);
            for (when, step) in self.draw(at, end) {
                self.calendar.schedule(when, Action::Step(step));
            }
        }
    }

    fn draw(&mut self, at: Instant, end: Instant) -> Vec<(Instant, Step)> {
        let (host, _) = self.random.pair(self.hosts.len());
        let down = end.since(at);
        let with_host = self.random.chance(0.5);
        let step = match self.random.below(24) {
            0..=2 => Step::Kill { host, down },
            3 | 4 => Step::Reboot { host, down },
            5..=7 => Step::Doom(host),
            8..=11 => return self.draw_cut(at, end),
            12 => {
                return vec![
                    (at, Step::Loss(BURST)),
                    (end, Step::Loss(self.options.loss())),
                ];
            }
            13 => Step::LoseDisk {
                host,
                with_host,
                only_a_bit: self.random.chance(0.3),
            },
            14 | 15 => Step::RollBack { host, with_host },
            16 | 17 => {
                let by = self.random.log_between(JUMP.0, JUMP.1);
                Step::Jump { host, by }
            }
            18 | 19 => Step::Remove {
                host,
                with_host: self.random.chance(0.6),
            },
            20 | 21 => Step::Return(host),
            22 => Step::EndHold(host),
            _ => Step::Leave(host),
        };
        vec![(at, step)]
    }

    /// Two halves, one host alone, or one direction of one wire.
    fn draw_cut(&mut self, at: Instant, end: Instant) -> Vec<(Instant, Step)> {
        let size = self.hosts.len();
        let (a, b) = self.random.pair(size);
        let sides: Vec<bool> = match self.random.below(5) {
            0..=2 => (0..size).map(|_| self.random.chance(0.5)).collect(),
            3 => (0..size).map(|host| host == a).collect(),
            _ => Vec::new(),
        };
        let all = (0..size).flat_map(|from| (0..size).map(move |to| (from, to)));
        let pairs: Vec<(usize, usize)> = match sides.is_empty() {
            true => vec![(a, b)],
            false => all.filter(|&(from, to)| sides[from] != sides[to]).collect(),
        };
        let id = self.random.next();
        let mend = Step::Mend {
            id,
            pairs: pairs.clone(),
        };
        vec![(at, Step::Cut { id, pairs }), (end, mend)]
    }

    /// Makes it happen now.
    pub(super) fn strike(&mut self, step: Step) {
        let is_fault = !matches!(step, Step::Start(_) | Step::Mend { .. });
        if is_fault && (self.now < self.truce || !self.is_season) {
            return;
        }
        self.note(None, || format!("{step:?}"));
        match step {
            Step::Start(host) if !self.hosts[host].is_removed => self.start(host),
            Step::Start(_) => {}
            Step::Restart(host) => {
                self.kill(host, Remains::Whole);
                self.schedule(Duration::ZERO, Action::Step(Step::Start(host)));
            }
            Step::Kill { host, down } => self.down(host, down, false),
            Step::Reboot { host, down } => self.down(host, down, true),
            Step::Doom(host) => self.hosts[host].is_doomed = true,
            Step::Cut { id, pairs } => self.cut(id, &pairs),
            Step::Mend { id, pairs } => self.mend(id, &pairs),
            Step::Loss(share) => self.network.set_loss(share),
            Step::LoseDisk {
                host,
                with_host,
                only_a_bit,
            } => self.lose_disk(host, with_host, only_a_bit),
            Step::RollBack { host, with_host } => self.roll_back(host, with_host),
            Step::Jump { host, by } => self.jump(host, by),
            Step::Remove { host, with_host } => self.condemn(host, with_host),
            Step::Return(host) => self.come_back(host),
            Step::EndHold(host) => self.end_a_hold(host),
            Step::Leave(host) => self.leave(host),
        }
    }

    /// A daemon or a host is down for a while.
    fn down(&mut self, host: usize, down: Duration, with_host: bool) {
        let remains = self.remains();
        match with_host {
            true => self.power_off(host, remains),
            false => self.kill(host, remains),
        }
        self.schedule(down, Action::Step(Step::Start(host)));
    }

    fn cut(&mut self, id: u64, pairs: &[(usize, usize)]) {
        self.cuts.insert(id);
        for &(from, to) in pairs {
            self.network.cut(from, to);
        }
        self.wires_changed();
    }

    fn mend(&mut self, id: u64, pairs: &[(usize, usize)]) {
        if !self.cuts.remove(&id) {
            return;
        }
        for &(from, to) in pairs {
            self.network.mend(from, to);
        }
        self.wires_changed();
    }

    fn lose_disk(&mut self, host: usize, with_host: bool, only_a_bit: bool) {
        if self.hosts[host].is_removed || !self.spares_ledger(host) {
            return;
        }
        let down = self.random.log_between(LASTS.0, LASTS.1);
        self.down(host, down, with_host);
        self.end_leases(host);
        self.meter.disks_lost += 1;
        let host = &mut self.hosts[host];
        match only_a_bit {
            true => host.disk.damage(&mut host.random),
            false => host.disk.lose(),
        }
    }

    /// Whether this peer may lose its ledger: those who did must never be so many that they take
    /// themselves for all there are, and who was named at launch must not meet a peer of that time
    /// that has no ring yet.
    fn spares_ledger(&self, host: usize) -> bool {
        let in_ring = |host: &&Host| host.daemon.as_ref().is_some_and(|d| d.seen_in.is_some());
        let count = self.hosts.iter().filter(in_ring).count();
        let all_joined = self.hosts.iter().all(|host| host.was_in_ring);
        count > self.hosts.len() / 2 + 1 && (all_joined || !self.core.contains(&host))
    }

    fn roll_back(&mut self, host: usize, with_host: bool) {
        let (id, is_removed) = (self.hosts[host].id(), self.hosts[host].is_removed);
        let random = &mut self.hosts[host].random.clone();
        let Some(file) = self.hosts[host].disk.backup(random) else {
            return;
        };
        let report = Disk::entries_of(&file).and_then(|(all, n)| report_of(&all, n, id));
        // Before the first grant nobody else can know of anything.
        if is_removed || report.is_none_or(|report| report.owners.len() < 2) {
            return;
        }
        let down = self.random.log_between(LASTS.0, LASTS.1);
        self.down(host, down, with_host);
        self.end_leases(host);
        self.meter.rollbacks += 1;
        self.hosts[host].disk.restore(file);
    }

    fn jump(&mut self, host: usize, by: Duration) {
        let jumped = &mut self.hosts[host];
        if jumped.ahead + by <= JUMPS_MAX {
            jumped.ahead += by;
            jumped.wake = Some(self.now);
            self.schedule(Duration::ZERO, Action::Wake(host));
        }
    }

    /// Whether enough peers stay without this one, and nobody needs it to find a first ring.
    pub(super) fn spares_a_peer(&self, victim: usize) -> bool {
        if self.core.contains(&victim) && !self.hosts.iter().all(|host| host.was_in_ring) {
            return false;
        }
        let removed = self.hosts.iter().filter(|host| host.is_removed).count();
        removed < (self.hosts.len() / REMOVED_PART).max(1) && self.running().len() > 3
    }

    /// A removed peer comes back.
    fn come_back(&mut self, host: usize) {
        if self.hosts[host].may_return(self.now) {
            self.hosts[host].is_removed = false;
            self.meter.returned += 1;
            self.start(host);
        }
    }

    fn end_a_hold(&mut self, host: usize) {
        let Some(daemon) = self.hosts[host].daemon.as_ref() else {
            return;
        };
        let clock = self.hosts[host].clock(self.now);
        let held = daemon.node.report(clock).held;
        let first = held
            .iter()
            .map(|(range, _)| rmesh_ipam::address::address(range.first()));
        let mut dead = first.filter(|ip| self.live.carriers(*ip).is_empty());
        if let Some(address) = dead.next() {
            let patience = self.patience();
            let request = Request::ReleaseHeld { address };
            self.request(host, Job::EndHold, request, patience);
        }
    }

    /// `rmesh reset`: the containers are stopped first.
    fn leave(&mut self, host: usize) {
        if !self.hosts[host].runs() || !self.spares_ledger(host) {
            return;
        }
        for _ in 0..self.hosts[host].containers.len() {
            self.end_container(host);
        }
        if !self.hosts[host].containers.is_empty() {
            return;
        }
        self.request(host, Job::Leave, Request::Leave, Duration::from_secs(5));
    }

    /// The host has handed over what it could, and begins anew.
    pub(super) fn left(&mut self, host: usize) {
        self.power_off(host, Remains::Whole);
        self.hosts[host].disk.lose();
        self.meter.left += 1;
        let down = self.random.log_between(LASTS.0, LASTS.1);
        self.schedule(down, Action::Step(Step::Start(host)));
    }
}
