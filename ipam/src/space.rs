//! What one owner does with the addresses it owns: which are given to containers, which rest, are
//! held for a removed peer or are being granted, and which are free.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use rmesh_wire::{Instant, PeerId};

use crate::address::Range;
use crate::packed::RUNS_MAX;
use crate::resting::{REST, Resting};
use crate::runs::RunMap;

/// Addresses all containers of this peer may have together: 2,040 containers of eight addresses,
/// as many as one peer can announce.
pub const ALLOCATED_MAX: usize = crate::CLAIMS_MAX;
/// Excluded addresses that are stepped over in search of a free one: as many as four peers can
/// announce.
const SKIPPED_MAX: usize = 65_536;
/// Runs of the ring that one grant may take its block from.
pub const GRANT_RUNS_MAX: usize = 8;

/// The key of a container, shared by all its addresses.
pub type Container = Arc<str>;

/// For whom an address is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hold {
    /// The removed peer that last announced it.
    pub peer: PeerId,
    /// When the hold began.
    pub since: Instant,
}

/// What an address is to this owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Use {
    /// A container has it.
    Allocated(Container),
    /// It is held for a removed peer.
    Held(Hold),
    /// It is part of a grant that is not known to be chosen.
    Granting,
    /// It was freed at this instant and has not rested yet.
    Resting(Instant),
    /// Free, and used before.
    Rested,
    /// Free, and never used as far as is known.
    Fresh,
    /// Somebody else's, or nobody's.
    NotOwned,
}

/// Why there is no block to grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoBlock {
    /// All that is left was freed less than [`REST`] ago.
    #[error("all free addresses were freed less than {} s ago", REST.as_secs())]
    Resting,
    /// There is nothing.
    #[error("no address is free")]
    NoFree,
}

/// This peer's containers have [`ALLOCATED_MAX`] addresses. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the containers of this peer have {ALLOCATED_MAX} addresses, the most there can be; detach \
     some of them"
)]
pub struct SpaceFull;

/// How many addresses of a range are what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Owned.
    pub owned: u128,
    /// Never used and free.
    pub fresh: u128,
    /// Used before and free.
    pub rested: u128,
    /// Freed less than [`REST`] ago.
    pub resting: u128,
    /// Given to containers.
    pub allocated: u128,
    /// Held for removed peers.
    pub held: u128,
}

/// The uses of one owner's addresses.
///
/// Uses are kept whether or not the address is owned: a container keeps its address when the
/// ownership goes. Only what is owned and has no use is free. It decides nothing about time or
/// durability: callers record first and then call.
#[derive(Debug, Clone, Default)]
pub struct Space {
    owned: RunMap<()>,
    allocated: BTreeMap<u128, Container>,
    containers: BTreeMap<Container, BTreeSet<u128>>,
    held: RunMap<Hold>,
    granting: RunMap<()>,
    /// Free, and may be handed out before it is on the disk who has it.
    reserved: RunMap<()>,
    /// Owned and without a use, like `fresh`, but used before.
    resting: Resting,
    /// Owned and without a use.
    fresh: RunMap<()>,
    fresh_count: u128,
}

/// What containers can have of a subnet: not the network and broadcast addresses of IPv4 (unless
/// it is a /31 or /32, RFC 3021), not the subnet-router anycast address of IPv6 (RFC 4291 section
/// 2.6.1, unless it is a /127 or /128, RFC 6164).
pub fn usable(subnet: Range) -> Range {
    if subnet.count() <= 2 {
        return subnet;
    }
    let host = subnet.after(subnet.first()).unwrap_or(subnet);
    if subnet.is_v4() {
        return host.before(host.last()).unwrap_or(host);
    }
    host
}

impl Space {
    /// Nothing owned, nothing used.
    pub fn new() -> Self {
        Space::default()
    }

    /// The ring says that `range` is this owner's.
    pub fn own(&mut self, range: Range) {
        self.owned.set(range, ());
        self.settle(range);
    }

    /// The ring says that `range` is not this owner's.
    pub fn disown(&mut self, range: Range) {
        self.owned.remove(range);
        self.reserved.remove(range);
        self.wake(range);
        self.settle(range);
    }

    /// What is owned, ascending.
    pub fn owned(&self) -> impl Iterator<Item = Range> {
        self.owned.iter().map(|(range, ())| range)
    }

    /// Gives an address to a container; also one that is not free or not owned, since what a
    /// container has is a fact. Nothing changes if another container has it.
    ///
    /// # Errors
    /// [`SpaceFull`]: nothing has changed.
    pub fn allocate(&mut self, at: u128, container: &str) -> Result<(), SpaceFull> {
        if self.allocated.contains_key(&at) {
            return Ok(());
        }
        if self.allocated.len() >= ALLOCATED_MAX {
            return Err(SpaceFull);
        }
        let known = self.containers.get_key_value(container);
        let key = known.map_or_else(|| Container::from(container), |(key, _)| key.clone());
        self.containers.entry(key.clone()).or_default().insert(at);
        self.allocated.insert(at, key);
        self.resting.remove(at);
        self.unreserve(Range::one(at));
        self.settle(Range::one(at));
        Ok(())
    }

    /// A container gave the address up; returns its key. The address rests from now on.
    pub fn release(&mut self, at: u128, now: Instant) -> Option<Container> {
        let container = self.allocated.remove(&at)?;
        if let Some(addresses) = self.containers.get_mut(&container) {
            addresses.remove(&at);
            if addresses.is_empty() {
                self.containers.remove(&container);
            }
        }
        if self.owned.get(at).is_some() && !self.is_used(at) {
            let forgotten = self.resting.insert(at, now);
            self.settle(Range::one(forgotten.unwrap_or(at)));
        }
        Some(container)
    }

    /// The log says that no container has the address any more; it rests from now on.
    pub(crate) fn rest(&mut self, at: u128, now: Instant) {
        self.unreserve(Range::one(at));
        let was_known = self.release(at, now).is_some();
        if !was_known && self.owned.get(at).is_some() && !self.is_used(at) {
            let forgotten = self.resting.insert(at, now);
            self.settle(Range::one(at));
            self.settle(Range::one(forgotten.unwrap_or(at)));
        }
    }

    /// Addresses that rest or have rested, the longest freed first.
    pub(crate) fn resting(&self) -> impl Iterator<Item = u128> {
        self.resting.iter()
    }

    /// The same with when each was freed.
    pub(crate) fn resting_since(&self) -> impl DoubleEndedIterator<Item = (Instant, u128)> {
        self.resting.iter_since()
    }

    /// Whether the ring says that an address is this owner's.
    pub fn is_owned(&self, at: u128) -> bool {
        self.owned.get(at).is_some()
    }

    /// Addresses of containers in `range`, ascending.
    pub fn allocated_in(&self, range: Range) -> impl Iterator<Item = u128> {
        let allocated = self.allocated.range(range.first()..=range.last());
        allocated.map(|(at, _)| *at)
    }

    /// Holds addresses for a removed peer.
    pub fn hold(&mut self, range: Range, hold: Hold) {
        self.held.set(range, hold);
        self.unreserve(range);
        self.wake(range);
        self.settle(range);
    }

    /// Ends holds. What is free then counts as never used.
    pub fn end_hold(&mut self, range: Range) {
        self.held.remove(range);
        self.settle(range);
    }

    /// A grant of `range` is on its way: it is nobody's to use.
    pub fn begin_grant(&mut self, range: Range) {
        self.granting.set(range, ());
        self.unreserve(range);
        self.wake(range);
        self.settle(range);
    }

    /// The grant was chosen or superseded; whose `range` is now is told by [`Space::own`] and
    /// [`Space::disown`], which have to be called before.
    pub fn end_grant(&mut self, range: Range) {
        self.granting.remove(range);
        self.settle(range);
    }

    /// What an address is.
    pub fn state(&self, at: u128, now: Instant) -> Use {
        if let Some(container) = self.allocated.get(&at) {
            return Use::Allocated(container.clone());
        }
        if let Some(hold) = self.held.get(at) {
            return Use::Held(*hold);
        }
        if self.granting.get(at).is_some() {
            return Use::Granting;
        }
        match self.resting.since(at) {
            Some(since) if now.since(since) < REST => Use::Resting(since),
            Some(_) => Use::Rested,
            None if self.owned.get(at).is_some() => Use::Fresh,
            None => Use::NotOwned,
        }
    }

    /// The addresses of a container, ascending.
    pub fn of_container(&self, container: &str) -> impl Iterator<Item = u128> {
        let addresses = self.containers.get(container).into_iter();
        addresses.flatten().copied()
    }

    /// All addresses of containers, ascending.
    pub fn allocated(&self) -> impl Iterator<Item = (u128, &Container)> {
        self.allocated.iter().map(|(at, key)| (*at, key))
    }

    /// How many addresses containers have.
    pub fn allocated_count(&self) -> usize {
        self.allocated.len()
    }

    /// The container that has an address.
    pub fn container_of(&self, at: u128) -> Option<&Container> {
        self.allocated.get(&at)
    }

    /// All holds, ascending.
    pub fn held(&self) -> impl Iterator<Item = (Range, &Hold)> {
        self.held.iter()
    }

    /// A free address of `subnet` that a container can have and that is not `excluded`: a never
    /// used one, else the one that has rested longest. Takes the logarithm of the uses, and a step
    /// for each excluded address before the one that is found.
    pub fn pick(
        &self,
        subnet: Range,
        now: Instant,
        excluded: impl Fn(u128) -> bool,
    ) -> Option<u128> {
        let usable = usable(subnet);
        let runs = self.fresh.within(usable);
        let fresh = runs.flat_map(|(run, ())| run.first()..=run.last());
        let found = fresh.take(SKIPPED_MAX).find(|at| !excluded(*at));
        found.or_else(|| self.resting.longest_rested(usable, now, excluded))
    }

    /// A block to grant out of `range`: aligned, a power of two, at most 2^`bits`, at most half of
    /// the largest free block (rounded up), of at most [`GRANT_RUNS_MAX`] runs of the ring, which
    /// `ring_runs` counts. Never used addresses, or if there are none rested ones too. From the
    /// end, while containers get addresses from the beginning: so few runs come of many grants.
    ///
    /// # Errors
    /// There is none.
    pub fn pick_block(
        &self,
        range: Range,
        bits: u32,
        now: Instant,
        ring_runs: impl Fn(Range) -> usize,
    ) -> Result<Range, NoBlock> {
        if let Some(block) = block_of(&self.fresh, range, bits, &ring_runs) {
            return Ok(block);
        }
        let fresh = self.fresh.within(range).map(|(run, _)| (run, ()));
        let mut free: RunMap<()> = fresh.collect();
        let mut tired = false;
        for (at, since) in self.resting.within(range) {
            if now.since(since) < REST {
                tired = true;
            } else {
                free.set(Range::one(at), ());
            }
        }
        let reason = if tired {
            NoBlock::Resting
        } else {
            NoBlock::NoFree
        };
        block_of(&free, range, bits, &ring_runs).ok_or(reason)
    }

    /// Free addresses of `subnet` that are not reserved, at most `count` of them and no more ranges than
    /// an entry takes: what [`Space::pick`] would find next.
    pub(crate) fn pick_ahead(
        &self,
        subnet: Range,
        count: u128,
        now: Instant,
        excluded: impl Fn(u128) -> bool,
    ) -> Vec<Range> {
        let usable = usable(subnet);
        let (mut picked, mut left) = (Vec::new(), count);
        let fresh = self.fresh.within(usable);
        for range in fresh.flat_map(|(run, ())| self.reserved.gaps(run)) {
            if left == 0 || picked.len() >= RUNS_MAX {
                return picked;
            }
            let part = range.take(left);
            left -= part.count();
            picked.push(part);
        }
        if !picked.is_empty() {
            return picked;
        }
        let rested = self.resting.rested(usable, now).take(SKIPPED_MAX);
        let rested = rested.filter(|at| !excluded(*at) && self.reserved.get(*at).is_none());
        let wanted = usize::try_from(count).unwrap_or(RUNS_MAX);
        let found: RunMap<()> = rested.take(wanted).map(|at| (Range::one(at), ())).collect();
        found
            .iter()
            .map(|(range, ())| range)
            .take(RUNS_MAX)
            .collect()
    }

    /// The free addresses of `range` may be handed out before it is on the disk who has them.
    pub(crate) fn reserve(&mut self, range: Range) {
        for (free, ()) in self.fresh.within(range) {
            self.reserved.set(free, ());
        }
        for (at, _) in self.resting.within(range) {
            self.reserved.set(Range::one(at), ());
        }
    }

    /// They may not any more.
    pub(crate) fn unreserve(&mut self, range: Range) {
        if !self.reserved.is_empty() {
            self.reserved.remove(range);
        }
    }

    /// What of `range` is reserved, ascending.
    pub(crate) fn reserved(&self, range: Range) -> impl Iterator<Item = Range> {
        self.reserved.within(range).map(|(run, ())| run)
    }

    /// How many addresses of `range` are what; takes a step for each run and use in it.
    pub fn counts(&self, range: Range, now: Instant) -> Counts {
        let mut counts = Counts {
            owned: count(self.owned.within(range)),
            fresh: count(self.fresh.within(range)),
            held: count(self.held.within(range)),
            ..Counts::default()
        };
        for (_, since) in self.resting.within(range) {
            let rested = now.since(since) >= REST;
            *(if rested {
                &mut counts.rested
            } else {
                &mut counts.resting
            }) += 1;
        }
        let allocated = self.allocated.range(range.first()..=range.last());
        counts.allocated = wide(allocated.count());
        counts
    }

    /// How many addresses are free or will be as soon as they have rested; without a search.
    pub fn free_count(&self) -> u128 {
        self.fresh_count.saturating_add(wide(self.resting.len()))
    }

    fn is_used(&self, at: u128) -> bool {
        self.allocated.contains_key(&at)
            || self.held.get(at).is_some()
            || self.granting.get(at).is_some()
    }

    /// Forgets when the addresses of `range` were freed.
    fn wake(&mut self, range: Range) {
        let resting: Vec<u128> = self.resting.within(range).map(|(at, _)| at).collect();
        for at in resting {
            self.resting.remove(at);
        }
    }

    /// Makes `fresh` right again where something has changed.
    fn settle(&mut self, range: Range) {
        let before = count(self.fresh.within(range));
        self.fresh.remove(range);
        for (owned, ()) in self.owned.within(range) {
            self.fresh.set(owned, ());
        }
        for (at, _) in self.allocated.range(range.first()..=range.last()) {
            self.fresh.remove(Range::one(*at));
        }
        for (at, _) in self.resting.within(range) {
            self.fresh.remove(Range::one(at));
        }
        for (held, _) in self.held.within(range) {
            self.fresh.remove(held);
        }
        for (granting, ()) in self.granting.within(range) {
            self.fresh.remove(granting);
        }
        let after = count(self.fresh.within(range));
        self.fresh_count = self
            .fresh_count
            .saturating_sub(before)
            .saturating_add(after);
    }
}

fn wide(count: usize) -> u128 {
    u128::try_from(count).unwrap_or(u128::MAX)
}

fn count<'a, T: 'a>(runs: impl Iterator<Item = (Range, &'a T)>) -> u128 {
    runs.fold(0, |sum: u128, (run, _)| sum.saturating_add(run.count()))
}

/// The exponent of the largest aligned free block in `range`.
fn largest_bits(free: &RunMap<()>, range: Range) -> Option<u32> {
    let bits = |run: Range| run.largest_block(u128::BITS).block_bits().unwrap_or(0);
    free.within(range).map(|(run, ())| bits(run)).max()
}

fn block_of(
    free: &RunMap<()>,
    range: Range,
    bits: u32,
    ring_runs: impl Fn(Range) -> usize,
) -> Option<Range> {
    let half = largest_bits(free, range)?.saturating_sub(1);
    let fits = |block: &Range| ring_runs(*block) <= GRANT_RUNS_MAX;
    (0..=bits.min(half)).rev().find_map(|bits| {
        // One address alone has to be one that a container can have.
        let range = if bits == 0 { usable(range) } else { range };
        let mut runs = free.within(range).rev();
        runs.find_map(|(run, ())| run.last_block(bits).filter(fits))
    })
}
