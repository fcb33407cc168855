//! The operator, who removes peers that will not come back, and follows the rules.

use std::time::Duration;

use rmesh_ipam::{Answer, Refusal, Request};

use super::host::Job;
use super::story::Operator;
use super::world::{Action, World};

/// The operator waits this long for others to notice, from and to.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));
/// `rmesh rmpeer` waits this long by default.
const PATIENCE: Duration = Duration::from_secs(30);
/// A refused command is given again after this time.
const AGAIN: Duration = Duration::from_secs(3);
/// Nothing goes wrong while the operator forces something.
const TRUCE: Duration = Duration::from_secs(6);
/// One of so many refused commands is not given again.
const GIVES_UP: usize = 4;

/// A command that the operator is about to give.
#[derive(Debug, Clone)]
pub(super) struct Order {
    victim: usize,
    /// On which host; any that runs if this one does not.
    on: usize,
    is_forced: bool,
}

impl World {
    /// A peer is switched off, or its daemon killed, and is to be removed.
    pub(super) fn condemn(&mut self, victim: usize, with_host: bool) {
        if self.hosts[victim].is_removed || !self.spares_a_peer(victim) {
            return;
        }
        if self.options.operator == Operator::Careless {
            return self.condemn_alive(victim);
        }
        let remains = self.remains();
        match with_host {
            true => self.power_off(victim, remains),
            false => self.kill(victim, remains),
        }
        self.hosts[victim].is_removed = true;
        let takers = 1 + usize::from(self.random.chance(0.4));
        for _ in 0..takers {
            let wait = self.random.log_between(WAIT.0, WAIT.1);
            let on = self.random.below(self.hosts.len());
            self.order(wait, victim, on, false);
        }
    }

    /// Against the rules: a peer that is cut off, but lives, is removed.
    fn condemn_alive(&mut self, victim: usize) {
        let on = self.random.below(self.hosts.len());
        self.order(Duration::ZERO, victim, on, true);
    }

    fn order(&mut self, wait: Duration, victim: usize, on: usize, is_forced: bool) {
        self.hosts[victim].removals += 1;
        let order = Order {
            victim,
            on,
            is_forced,
        };
        self.schedule(wait, Action::Order(order));
    }

    /// Gives the command, on a host that runs.
    pub(super) fn give(&mut self, order: Order) {
        let Order {
            victim, is_forced, ..
        } = order;
        self.hosts[victim].removals -= 1;
        let running: Vec<usize> = self
            .running()
            .into_iter()
            .filter(|h| *h != victim)
            .collect();
        let on = match running.contains(&order.on) {
            true => order.on,
            false => match self.random.pick(&running) {
                Some(on) => *on,
                None => return,
            },
        };
        let is_forced = is_forced && (self.may_force(on) || self.is_careless());
        if is_forced && !self.is_careless() {
            self.truce = self.now + TRUCE;
        }
        self.mind_containers(on, victim);
        self.hosts[victim].removals += 1;
        self.meter.removals += 1;
        let request = Request::RemovePeer {
            peer: self.hosts[victim].id(),
            name: self.hosts[victim].name(),
            is_forced,
        };
        self.request(on, Job::Remove { victim, is_forced }, request, PATIENCE);
    }

    fn is_careless(&self) -> bool {
        self.options.operator == Operator::Careless
    }

    /// Containers that live on without their daemon: either the taker knows what they carry, or
    /// they are stopped first, as whatever has a lease is, which nobody is told of.
    pub(super) fn mind_containers(&mut self, on: usize, victim: usize) {
        if self.hosts[victim].runs() {
            return;
        }
        self.end_leases(victim);
        let carried = self.hosts[victim].announced();
        let told = self.hosts[on]
            .daemon
            .as_ref()
            .and_then(|daemon| daemon.told.get(&victim));
        let is_known = carried
            .iter()
            .all(|ip| told.is_some_and(|told| told.contains(ip)));
        if !is_known {
            let remains = self.remains();
            self.power_off(victim, remains);
        }
    }

    /// Nothing but the ledger of a host, which is not to be relied on, knows of these.
    pub(super) fn end_leases(&mut self, host: usize) {
        for lease in self.hosts[host].leases() {
            self.note(Some(host), || format!("peer{host}: {lease} ends"));
            self.bury(host, &lease);
        }
    }

    /// Every peer that was not removed runs, is reached by the taker, and nothing is cut.
    fn may_force(&self, on: usize) -> bool {
        let taker = self.hosts[on].daemon.as_ref();
        let reaches = |index: usize| {
            taker.is_some_and(|taker| {
                let mut members = taker.members.iter();
                members.any(|m| m.peer == self.hosts[index].id() && m.reachable)
            })
        };
        let all = |host: &super::host::Host| {
            host.is_removed || (host.runs() && (host.index == on || reaches(host.index)))
        };
        self.cuts.is_empty() && self.hosts.iter().all(all)
    }

    /// The answer to a removal.
    pub(super) fn removed(
        &mut self,
        on: usize,
        victim: usize,
        is_forced: bool,
        result: &Result<Answer, Refusal>,
    ) {
        self.hosts[victim].removals -= 1;
        let is_done = matches!(result, Ok(Answer::Removed { .. }));
        if is_done || !self.is_season || self.is_careless() || !self.hosts[victim].is_removed {
            return;
        }
        let forces = is_forced || matches!(result, Err(Refusal::NoMajority { .. }));
        if self.random.below(GIVES_UP) > 0 {
            self.order(AGAIN, victim, on, forces);
        }
    }
}
