//! What clients of the daemons want: addresses for containers, and their release.

use std::time::Duration;

use rmesh_ipam::{Answer, Range, Refusal, Request, address, usable};

use super::host::Job;
use super::world::{Action, World};

/// A host of eight is asked for something about this often; of many, less often.
const WORK_EVERY: Duration = Duration::from_millis(1_500);
/// How long a client waits, from and to.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(8));
/// Containers of one host, at most.
const CONTAINERS_MAX: usize = 24;
/// Share of starts that are of several containers at once, and of how many.
const BURSTS: f64 = 0.2;
const BURST: usize = 4;
/// Share of clients that want an address for what is no container of the host.
const LEASES: f64 = 0.25;
/// An address in a subnet of the pool is wanted: so many bits of it.
const SUBNET_BITS: u32 = 4;

impl World {
    pub(super) fn work(&mut self, index: usize) {
        if !self.is_season {
            return;
        }
        let many = (self.hosts.len() as f64 / 8.0).max(1.0);
        let pause = WORK_EVERY
            .mul_f64(many.sqrt())
            .mul_f64(-(1.0 - self.random.unit()).ln());
        self.schedule(pause, Action::Work(index));
        if !self.hosts[index].runs() {
            if self.random.chance(0.1) {
                self.end_container(index);
            }
            return;
        }
        let is_full = self.hosts[index].containers.len() >= CONTAINERS_MAX;
        match self.random.below(20) {
            0..=8 if !is_full => self.want_some(index),
            9 | 10 if !is_full => self.want_subnet(index),
            11 | 12 if !is_full => self.want_exact(index),
            13 => self.want_more(index),
            _ => self.end_container(index),
        }
    }

    /// How long the next client waits.
    pub(super) fn patience(&mut self) -> Duration {
        self.random.log_between(PATIENCE.0, PATIENCE.1)
    }

    pub(super) fn any_pool(&mut self) -> Option<Range> {
        self.random.pick(&self.pools).copied()
    }

    /// One container is started, or several at once.
    fn want_some(&mut self, index: usize) {
        let count = if self.random.chance(BURSTS) { BURST } else { 1 };
        for _ in 0..count {
            if self.hosts[index].runs() {
                self.want_any(index);
            }
        }
    }

    fn want_any(&mut self, index: usize) {
        let container = match self.random.chance(LEASES) {
            true => self.hosts[index].next_lease(),
            false => self.hosts[index].next_container(),
        };
        if let Some(pool) = self.any_pool() {
            let patience = self.patience();
            self.allocate(index, container, pool, false, patience);
        }
    }

    fn want_subnet(&mut self, index: usize) {
        let container = self.hosts[index].next_container();
        let Some(pool) = self.any_pool() else {
            return;
        };
        let at = pool.first() + self.random.below(pool.count() as usize) as u128;
        let patience = self.patience();
        self.allocate(
            index,
            container,
            Range::block(at, SUBNET_BITS),
            true,
            patience,
        );
    }

    /// A container that has an address wants one of another pool, or the same again.
    fn want_more(&mut self, index: usize) {
        let keys: Vec<String> = self.hosts[index].containers.keys().cloned().collect();
        if let (Some(container), Some(pool)) = (self.random.pick(&keys).cloned(), self.any_pool()) {
            let patience = self.patience();
            self.allocate(index, container, pool, true, patience);
        }
    }

    /// Asks for any address of a range.
    pub(super) fn allocate(
        &mut self,
        index: usize,
        container: String,
        within: Range,
        is_subnet: bool,
        patience: Duration,
    ) {
        let is_first = self.pools.iter().find(|p| p.is_v4() == within.is_v4()) == Some(&within);
        let job = Job::Attach {
            container: container.clone(),
            within,
            exact: None,
        };
        let request = Request::Allocate {
            container,
            subnet: (is_subnet || !is_first).then_some(within),
            wants_v6: !within.is_v4(),
        };
        self.request(index, job, request, patience);
    }

    /// Asks for one address, that somebody may have.
    fn want_exact(&mut self, index: usize) {
        let container = self.hosts[index].next_container();
        let Some(pool) = self.any_pool() else {
            return;
        };
        let usable = usable(pool);
        let at = usable.first() + self.random.below(usable.count() as usize) as u128;
        let address = address::address(at);
        let job = Job::Attach {
            container: container.clone(),
            within: pool,
            exact: Some(address),
        };
        let patience = self.patience();
        self.request(index, job, Request::Claim { container, address }, patience);
    }

    /// A container ends; the daemon hears of it, if there is one.
    pub(super) fn end_container(&mut self, index: usize) {
        // One that is being attached is not stopped meanwhile.
        let keys = self.hosts[index].containers.keys();
        let settled = keys.filter(|key| !self.hosts[index].is_attaching(key));
        let keys: Vec<String> = settled.cloned().collect();
        let Some(container) = self.random.pick(&keys).cloned() else {
            return;
        };
        let ips = self.bury(index, &container);
        self.note(Some(index), || {
            format!("peer{index}: {container} ends, which had {ips:?} ")
        });
        self.announce(index);
        if !self.hosts[index].runs() {
            return;
        }
        let patience = self.patience();
        let request = match ips.as_slice() {
            [address] if self.random.chance(0.3) => Request::ReleaseAddress {
                container,
                address: *address,
            },
            _ => Request::Release { container },
        };
        self.request(index, Job::Detach, request, patience);
    }

    /// A container did not get its address.
    pub(super) fn not_attached(
        &mut self,
        index: usize,
        container: &str,
        refused: &Result<Answer, Refusal>,
    ) {
        if let Ok(other) = refused {
            let what = format!("peer{index} answered {other:?} for {container}");
            self.violate(what, vec![format!("peer{index}")]);
        }
    }
}
