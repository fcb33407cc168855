//! Handing out without waiting for the disk: addresses are reserved ahead of use.
//!
//! One durable entry says of a batch that it *may be in use*. An address of it is answered as soon as the
//! entry that says who has it outlives this process; the disk gets that with the next commit. What a later
//! life finds reserved it does not use for as long as a freed address rests: whoever has it may be known to
//! nobody.

use alloc::collections::{BTreeMap, VecDeque};
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
    /// The request being served, if its answer need not wait for the disk.
    early: Option<RequestId>,
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
        let mut ranges = self.unwritten.iter().flat_map(|(_, ranges)| ranges);
        ranges.any(|range| range.contains(at))
    }

    /// Writes up to `number` are durable.
    pub(super) fn written(&mut self, number: u64) {
        while self.unwritten.front().is_some_and(|(at, _)| *at <= number) {
            self.unwritten.pop_front();
        }
    }

    /// Whether the answer to this request follows from what is on the disk already.
    pub(super) fn is_early(&mut self, id: RequestId) -> bool {
        self.early.take() == Some(id)
    }
}

impl Node {
    /// The daemon is about to end: what is to be written for that comes out of [`Node::poll_write`].
    pub fn handle_stop(&mut self, now: Instant) {
        self.now = now;
        self.unreserve(Range::ALL);
    }

    /// A new life: who has what the one before had reserved may not be known.
    pub(super) fn rest_reserved(&mut self) {
        let reserved: Vec<Range> = self.ledger.space.reserved(Range::ALL).collect();
        for at in reserved.into_iter().flat_map(|r| r.first()..=r.last()) {
            self.log(&Entry::Freed { address: at });
        }
    }

    /// A free address of the subnet for this request, whose answer need not wait for the disk.
    pub(super) fn take_reserved(&mut self, id: RequestId, subnet: Range) -> Option<u128> {
        let reserved = self.ledger.space.reserved(usable(subnet));
        let mut reserved = reserved.flat_map(|run| run.first()..=run.last());
        let at = reserved.find(|at| !self.is_taken(*at) && !self.reserve.is_unwritten(*at))?;
        self.reserve.early = Some(id);
        Some(at)
    }

    /// Whether somebody else may have an address that is free by the ledger.
    pub(super) fn is_taken(&self, at: u128) -> bool {
        self.announcers.of(at).next().is_some() || self.disputes.contains(at)
    }

    /// An address of the subnet was handed out, `waits` for the disk or not: if another one was just
    /// before, the next ones are reserved.
    pub(super) fn reserve_ahead(&mut self, subnet: Range, waits: bool) {
        let Some(batch) = self.batch(subnet, waits) else {
            return;
        };
        let (space, now) = (&self.ledger.space, self.now);
        let ready = space.reserved(usable(subnet));
        let ready = ready.fold(0u128, |sum, run| sum.saturating_add(run.count()));
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
        let now = self.now;
        if let Some(rate) = self.reserve.rates.get_mut(&subnet) {
            let is_busy = now.since(rate.last) < RESERVE_WITHIN;
            rate.last = now;
            if waits && rate.batch > 0 {
                rate.batch = (rate.batch * 2).min(RESERVE_MAX);
            }
            rate.batch = rate.batch.max(RESERVE_MIN);
            return is_busy.then_some(rate.batch);
        }
        if self.reserve.rates.len() >= RESERVE_SUBNETS_MAX {
            let rates = self.reserve.rates.iter();
            let slowest = rates.min_by_key(|(_, rate)| rate.last);
            self.end_reserve(slowest.map(|(subnet, _)| *subnet));
        }
        let rate = Rate {
            last: now,
            batch: 0,
        };
        self.reserve.rates.insert(subnet, rate);
        None
    }

    /// What is reserved and was not used for long is not reserved any more: of it nothing was handed out,
    /// and no later life need let it rest.
    pub(super) fn drive_reserve(&mut self) {
        let idle = self.reserve.rates.iter();
        let idle = idle.filter(|(_, rate)| idle_at(rate) <= self.now);
        let idle: Vec<Range> = idle.map(|(subnet, _)| *subnet).collect();
        self.end_reserve(idle);
    }

    fn end_reserve(&mut self, subnets: impl IntoIterator<Item = Range>) {
        for subnet in subnets {
            self.reserve.rates.remove(&subnet);
            self.unreserve(subnet);
        }
    }

    /// Nothing of the range is reserved any more.
    pub(super) fn unreserve(&mut self, range: Range) {
        if self.ledger.space.reserved(range).next().is_some() {
            self.log(&Entry::Unreserved(range));
        }
    }

    pub(super) fn reserve_due(&self) -> Option<Instant> {
        self.reserve.rates.values().map(idle_at).min()
    }
}

fn idle_at(rate: &Rate) -> Instant {
    rate.last + RESERVE_IDLE
}

#[cfg(test)]
mod tests;
