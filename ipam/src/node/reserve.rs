//! Handing out without waiting for the disk: addresses are reserved ahead of use.
//!
//! One durable entry says of a batch that it *may be in use*. An address of it is given to a container at
//! once, and who has it is written with the next commit. A later life that finds addresses reserved, and
//! nobody who has them, doubts them: it neither hands them out nor gives them away before it has been told
//! what the containers carry, and then lets the rest of them rest.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use rmesh_wire::Instant;
use rmesh_wire::codec::Bounded;

use super::Node;
use crate::address::Range;
use crate::api::RequestId;
use crate::entry::Entry;
use crate::limits::{
    RESERVE_IDLE, RESERVE_MAX, RESERVE_MIN, RESERVE_PART, RESERVE_SUBNETS_MAX, RESERVE_WITHIN,
};
use crate::space::usable;

/// What is reserved ahead, and how fast it is used.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    rates: BTreeMap<Range, Rate>,
    /// Reserved by these writes, which are not durable yet.
    unwritten: VecDeque<(u64, Vec<Range>)>,
    /// Requests whose answer need not wait for the disk.
    early: BTreeSet<RequestId>,
}

#[derive(Debug, Clone, Copy)]
struct Rate {
    /// When an address of the subnet was last handed out.
    last: Instant,
    /// How many are to be reserved.
    batch: u128,
}

impl Reserve {
    fn is_unwritten(&self, at: u128) -> bool {
        let ranges = self.unwritten.iter().flat_map(|(_, ranges)| ranges);
        ranges.into_iter().any(|range| range.contains(at))
    }

    /// Writes up to `number` are durable.
    pub(super) fn written(&mut self, number: u64) {
        while self.unwritten.front().is_some_and(|(at, _)| *at <= number) {
            self.unwritten.pop_front();
        }
    }

    /// The answer to this request follows from what is on the disk already.
    pub(super) fn is_early(&mut self, id: RequestId) -> bool {
        self.early.remove(&id)
    }

    fn forget_slowest(&mut self) {
        let slowest = self.rates.iter().min_by_key(|(_, rate)| rate.last);
        if let Some(subnet) = slowest.map(|(subnet, _)| *subnet) {
            self.rates.remove(&subnet);
        }
    }
}

impl Node {
    /// A free address of the subnet that may be handed out at once.
    pub(super) fn pick_reserved(&self, subnet: Range) -> Option<u128> {
        let mut ready = self.ledger.space.reserves.ready(usable(subnet));
        ready.find(|at| !self.is_taken(*at) && !self.reserve.is_unwritten(*at))
    }

    /// Whether somebody else may have an address that is free by the ledger.
    pub(super) fn is_taken(&self, at: u128) -> bool {
        self.announcers.of(at).next().is_some()
            || self.disputes.contains(at)
            || self.ledger.space.reserves.is_doubted(at)
    }

    /// The answer to this request need not wait for the disk.
    pub(super) fn answer_early(&mut self, id: RequestId) {
        self.reserve.early.insert(id);
    }

    /// An address of the subnet was handed out, `waits` for the disk or not: if another one was just
    /// before, the next ones are reserved.
    pub(super) fn reserve_ahead(&mut self, subnet: Range, waits: bool) {
        let Some(batch) = self.batch(subnet, waits) else {
            return;
        };
        let (space, now) = (&self.ledger.space, self.now);
        let ready = space.reserves.ready(usable(subnet));
        let ready = u128::try_from(ready.count()).unwrap_or(u128::MAX);
        if ready > batch / 2 {
            return;
        }
        let counts = space.counts(subnet, now);
        let free = counts.fresh.saturating_add(counts.rested);
        let count = batch.min(free / RESERVE_PART).saturating_sub(ready);
        let ranges = space.pick_ahead(subnet, count, now, |at| self.is_taken(at));
        if ranges.is_empty() {
            return;
        }
        self.log(&Entry::Reserved(Bounded::take_from(ranges.iter().copied())));
        let number = self.gate.queued();
        self.reserve.unwritten.push_back((number, ranges));
    }

    /// How many addresses of the subnet are to be reserved: more if they did not last until the disk had
    /// taken the next ones; `None` if nothing is in a hurry.
    fn batch(&mut self, subnet: Range, waits: bool) -> Option<u128> {
        let (now, reserve) = (self.now, &mut self.reserve);
        if let Some(rate) = reserve.rates.get_mut(&subnet) {
            let is_busy = now.since(rate.last) < RESERVE_WITHIN;
            rate.last = now;
            if waits && rate.batch > 0 {
                rate.batch = (rate.batch * 2).min(RESERVE_MAX);
            }
            rate.batch = rate.batch.max(RESERVE_MIN);
            return is_busy.then_some(rate.batch);
        }
        if reserve.rates.len() >= RESERVE_SUBNETS_MAX {
            reserve.forget_slowest();
        }
        let rate = Rate {
            last: now,
            batch: 0,
        };
        reserve.rates.insert(subnet, rate);
        None
    }

    /// What is reserved and has not been used for long is not reserved any more: of it nothing was handed
    /// out, and no later life need doubt it.
    pub(super) fn drive_reserve(&mut self) {
        let idle = self.reserve.rates.iter();
        let idle = idle.filter(|(_, rate)| idle_at(rate) <= self.now);
        for subnet in idle.map(|(subnet, _)| *subnet).collect::<Vec<Range>>() {
            self.reserve.rates.remove(&subnet);
            self.unreserve(subnet);
        }
    }

    fn unreserve(&mut self, range: Range) {
        let reserves = &self.ledger.space.reserves;
        let reserved = reserves.iter().filter_map(|r| r.intersect(&range));
        let clear = reserved.filter(|range| !reserves.doubts(*range));
        for range in clear.collect::<Vec<Range>>() {
            self.log(&Entry::Unreserved(range));
        }
    }

    /// The daemon is about to end as it should: no later life need doubt anything.
    pub(super) fn unreserve_all(&mut self) {
        self.reserve.rates.clear();
        self.unreserve(Range::ALL);
    }

    pub(super) fn reserve_due(&self) -> Option<Instant> {
        self.reserve.rates.values().map(idle_at).min()
    }
}

fn idle_at(rate: &Rate) -> Instant {
    rate.last + RESERVE_IDLE
}
