//! Addresses that were freed, the longest freed first.

use alloc::collections::{BTreeMap, BTreeSet};

use core::time::Duration;

use rmesh_wire::Instant;

use crate::address::Range;

/// How long a freed address rests before it is given to another container: longer than neighbours
/// remember whose it was.
pub const REST: Duration = Duration::from_secs(60);
/// Freed addresses whose time is remembered; those of a thousand releases a second for [`REST`].
/// With more the longest freed one counts as never used.
pub const RESTING_MAX: usize = 65_536;

/// When which address was freed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resting {
    since: BTreeMap<u128, Instant>,
    order: BTreeSet<(Instant, u128)>,
}

impl Resting {
    pub(crate) fn len(&self) -> usize {
        self.since.len()
    }

    pub(crate) fn since(&self, at: u128) -> Option<Instant> {
        self.since.get(&at).copied()
    }

    /// All of them, the longest freed first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u128> {
        self.order.iter().map(|(_, at)| *at)
    }

    /// The same with when each was freed.
    pub(crate) fn iter_since(&self) -> impl DoubleEndedIterator<Item = (Instant, u128)> {
        self.order.iter().copied()
    }

    /// Takes a freed address in; returns the one that had to give way.
    pub(crate) fn insert(&mut self, at: u128, now: Instant) -> Option<u128> {
        self.remove(at);
        self.since.insert(at, now);
        self.order.insert((now, at));
        if self.since.len() <= RESTING_MAX {
            return None;
        }
        let (_, oldest) = self.order.pop_first()?;
        self.since.remove(&oldest);
        Some(oldest)
    }

    pub(crate) fn remove(&mut self, at: u128) -> bool {
        let since = self.since.remove(&at);
        since.is_some_and(|since| self.order.remove(&(since, at)))
    }

    /// The addresses in `range`, ascending, and since when each of them rests.
    pub(crate) fn within(&self, range: Range) -> impl Iterator<Item = (u128, Instant)> {
        let resting = self.since.range(range.first()..=range.last());
        resting.map(|(at, since)| (*at, *since))
    }

    /// The addresses in `range` that have rested, the longest freed first.
    pub(crate) fn rested(&self, range: Range, now: Instant) -> impl Iterator<Item = u128> {
        let by_age = self.order.iter();
        let rested = by_age.take_while(move |(since, _)| now.since(*since) >= REST);
        rested
            .map(|(_, at)| *at)
            .filter(move |at| range.contains(*at))
    }

    /// Of the addresses in `range` that have rested and are not `excluded` the one that was freed
    /// first. Looked for by age and by address at once, one step each, so that neither old
    /// addresses elsewhere nor many in `range` make it slow.
    pub(crate) fn longest_rested(
        &self,
        range: Range,
        now: Instant,
        excluded: impl Fn(u128) -> bool,
    ) -> Option<u128> {
        let rested = |(_, since): &(u128, Instant)| now.since(*since) >= REST;
        let by_age = self.order.iter().map(|(since, at)| (*at, *since));
        let mut by_age = by_age.take_while(rested);
        let mut by_address = self.within(range);
        let mut oldest: Option<(Instant, u128)> = None;
        loop {
            let (at, _) = by_age.next()?;
            if range.contains(at) && !excluded(at) {
                return Some(at);
            }
            let Some((at, since)) = by_address.next() else {
                return oldest.map(|(_, at)| at);
            };
            let older = oldest.is_none_or(|oldest| (since, at) < oldest);
            if older && rested(&(at, since)) && !excluded(at) {
                oldest = Some((since, at));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn range(first: u128, last: u128) -> Range {
        Range::new(first, last).unwrap()
    }

    #[test]
    fn the_longest_freed_comes_first_and_none_before_it_has_rested() {
        let mut resting = Resting::default();
        for (seconds, address) in [(0, 100), (1, 7), (2, 3), (3, 5), (4, 200)] {
            resting.insert(address, at(seconds));
        }
        let low = range(0, 9);
        assert_eq!(resting.longest_rested(low, at(60), |_| false), None);
        assert_eq!(resting.longest_rested(low, at(61), |_| false), Some(7));
        assert_eq!(resting.longest_rested(low, at(99), |at| at == 7), Some(3));
        assert_eq!(
            resting.longest_rested(range(200, 300), at(99), |_| false),
            Some(200)
        );
        assert_eq!(
            resting.longest_rested(range(8, 99), at(99), |_| false),
            None
        );
        resting.insert(7, at(50));
        assert_eq!(resting.longest_rested(low, at(99), |_| false), Some(3));
    }

    #[test]
    fn there_is_a_bound_and_the_oldest_gives_way() {
        let mut resting = Resting::default();
        for address in 0..RESTING_MAX as u128 {
            assert_eq!(resting.insert(address, at(address as u64)), None);
        }
        assert_eq!(resting.insert(0, at(70_000)), None);
        assert_eq!(resting.insert(u128::MAX, at(70_001)), Some(1));
        assert_eq!(resting.len(), RESTING_MAX);
    }
}
