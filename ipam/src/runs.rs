//! A map from addresses to values, kept as runs of equal values.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::address::Range;

/// Some addresses and the value each of them has. Canonical: neighbouring runs differ, so two
/// maps with the same values are equal.
///
/// An operation costs the logarithm of the number of runs, plus the runs it visits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunMap<T> {
    /// By first address: the last one and the value. Disjoint.
    runs: BTreeMap<u128, (u128, T)>,
}

impl<T> Default for RunMap<T> {
    fn default() -> Self {
        RunMap {
            runs: BTreeMap::new(),
        }
    }
}

/// What a map says of a piece of a range: one value, or none.
pub type Piece<'a, T> = (Range, Option<&'a T>);

impl<T> RunMap<T> {
    /// A map without addresses.
    pub const fn new() -> Self {
        RunMap {
            runs: BTreeMap::new(),
        }
    }

    /// How many runs there are.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether no address has a value.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The value of an address.
    pub fn get(&self, at: u128) -> Option<&T> {
        self.run_at(at).map(|(_, value)| value)
    }

    /// The whole run that an address is in.
    pub fn run_at(&self, at: u128) -> Option<(Range, &T)> {
        let (&first, (last, value)) = self.runs.range(..=at).next_back()?;
        let range = Range::new(first, *last)?;
        range.contains(at).then_some((range, value))
    }

    /// All runs, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Range, &T)> {
        let runs = self.runs.iter();
        runs.filter_map(|(&first, (last, value))| Some((Range::new(first, *last)?, value)))
    }

    /// The runs in `range`, ascending, cut to it.
    pub fn within(&self, range: Range) -> impl DoubleEndedIterator<Item = (Range, &T)> {
        let before = self.run_at(range.first()).map(|(run, _)| run.first());
        let from = before.unwrap_or(range.first());
        let runs = self.runs.range(from..=range.last());
        runs.filter_map(move |(&first, (last, value))| {
            Some((Range::new(first, *last)?.intersect(&range)?, value))
        })
    }

    /// All of `range` piece by piece, ascending: runs cut to it, and the gaps between them.
    pub fn pieces(&self, range: Range) -> impl Iterator<Item = Piece<'_, T>> {
        let mut runs = self.within(range).peekable();
        let mut rest = Some(range);
        core::iter::from_fn(move || {
            let todo = rest?;
            let gap = match runs.peek() {
                Some((run, _)) => todo.before(run.first()),
                None => Some(todo),
            };
            let piece = match gap {
                Some(gap) => (gap, None),
                None => runs.next().map(|(run, value)| (run, Some(value)))?,
            };
            rest = todo.after(piece.0.last());
            Some(piece)
        })
    }

    /// The parts of `range` whose addresses have no value, ascending.
    pub fn gaps(&self, range: Range) -> impl Iterator<Item = Range> {
        self.pieces(range)
            .filter_map(|(piece, value)| value.is_none().then_some(piece))
    }

    /// Cuts `range` into at most `parts` ranges of about as many runs each, cut where runs begin.
    /// Together they are `range` again.
    pub fn split(&self, range: Range, parts: usize) -> Vec<Range> {
        let count = self.within(range).count();
        let each = count.div_ceil(parts.max(1)).max(1);
        let firsts = self.within(range).step_by(each).skip(1);
        let mut split = Vec::with_capacity(parts);
        let mut rest = range;
        for (run, _) in firsts {
            let (Some(head), Some(tail)) = (
                rest.before(run.first()),
                Range::new(run.first(), rest.last()),
            ) else {
                continue;
            };
            split.push(head);
            rest = tail;
        }
        split.push(rest);
        split
    }
}

impl<T: Clone + PartialEq> RunMap<T> {
    /// Gives every address of `range` the value.
    pub fn set(&mut self, range: Range, value: T) {
        self.remove(range);
        let (first, value) = match self.neighbour_before(range, &value) {
            Some(first) => (
                first,
                self.runs.remove(&first).map_or(value, |(_, same)| same),
            ),
            None => (range.first(), value),
        };
        let last = match self.neighbour_after(range, &value) {
            Some(next) => self
                .runs
                .remove(&next)
                .map_or(range.last(), |(last, _)| last),
            None => range.last(),
        };
        self.runs.insert(first, (last, value));
    }

    /// `range` and all of the runs that lie in it, reach into it or adjoin it: where
    /// [`RunMap::set`] may change runs.
    pub(crate) fn touched(&self, range: Range) -> Range {
        let before = range.first().checked_sub(1).and_then(|at| self.run_at(at));
        let after = range.last().checked_add(1).and_then(|at| self.run_at(at));
        let first = before.map_or(range.first(), |(run, _)| run.first());
        let last = after.map_or(range.last(), |(run, _)| run.last());
        Range::new(first, last).unwrap_or(range)
    }

    /// The beginning of the run that ends right before `range`, if its value is the same.
    fn neighbour_before(&self, range: Range, value: &T) -> Option<u128> {
        let (run, before) = self.run_at(range.first().checked_sub(1)?)?;
        (before == value).then_some(run.first())
    }

    /// The beginning of the run that starts right after `range`, if its value is the same.
    fn neighbour_after(&self, range: Range, value: &T) -> Option<u128> {
        let (run, after) = self.run_at(range.last().checked_add(1)?)?;
        (after == value).then_some(run.first())
    }

    /// Takes their values from the addresses of `range`.
    pub fn remove(&mut self, range: Range) {
        let touched = self.within(range).map(|(run, _)| run.first());
        let touched: Vec<u128> = touched.collect();
        for first in touched {
            let Some((run, _)) = self.run_at(first) else {
                continue;
            };
            let Some((_, value)) = self.runs.remove(&run.first()) else {
                continue;
            };
            if let Some(tail) = run.after(range.last()) {
                self.runs.insert(tail.first(), (tail.last(), value.clone()));
            }
            if let Some(head) = run.before(range.first()) {
                self.runs.insert(head.first(), (head.last(), value));
            }
        }
    }

    /// Gives each piece of `range` the value that `f` makes of the one it has.
    pub fn update(&mut self, range: Range, mut f: impl FnMut(Range, Option<&T>) -> Option<T>) {
        let changes = self
            .pieces(range)
            .map(|(piece, old)| (piece, f(piece, old), old));
        let changes: Vec<(Range, Option<T>)> = changes
            .filter(|(_, new, old)| new.as_ref() != *old)
            .map(|(piece, new, _)| (piece, new))
            .collect();
        for (piece, new) in changes {
            match new {
                Some(value) => self.set(piece, value),
                None => self.remove(piece),
            }
        }
    }

    /// Combines, address by address, what this map has with each value that `other` has.
    pub fn merge_with(&mut self, other: &RunMap<T>, mut f: impl FnMut(Option<&T>, &T) -> T) {
        for (range, theirs) in other.iter() {
            self.update(range, |_, ours| Some(f(ours, theirs)));
        }
    }
}

impl<T: Clone + PartialEq> FromIterator<(Range, T)> for RunMap<T> {
    /// Of ranges that overlap the later ones count.
    fn from_iter<I: IntoIterator<Item = (Range, T)>>(runs: I) -> Self {
        let mut map = RunMap::new();
        for (range, value) in runs {
            map.set(range, value);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn range(first: u128, last: u128) -> Range {
        Range::new(first, last).unwrap()
    }

    #[test]
    fn equal_neighbours_are_one_run() {
        let mut map = RunMap::new();
        map.set(range(0, 3), 'a');
        map.set(range(6, 9), 'a');
        map.set(range(4, 5), 'a');
        assert_eq!(map.iter().collect::<Vec<_>>(), [(range(0, 9), &'a')]);
        map.set(range(4, 5), 'b');
        map.remove(range(8, 8));
        assert_eq!(map.len(), 4);
        let gaps: Vec<Range> = map.gaps(range(7, 12)).collect();
        assert_eq!(gaps, [range(8, 8), range(10, 12)]);
        let clipped: Vec<_> = map.within(range(5, 6)).collect();
        assert_eq!(clipped, [(range(5, 5), &'b'), (range(6, 6), &'a')]);
    }

    #[test]
    fn the_ends_of_the_space_are_addresses_like_others() {
        let mut map = RunMap::new();
        map.set(Range::ALL, 1);
        map.set(Range::one(0), 2);
        map.set(Range::one(u128::MAX), 2);
        assert_eq!(map.len(), 3);
        map.remove(range(1, u128::MAX - 1));
        let gaps: Vec<Range> = map.gaps(Range::ALL).collect();
        assert_eq!(gaps, [range(1, u128::MAX - 1)]);
        map.set(range(1, u128::MAX - 1), 2);
        assert_eq!(map.iter().collect::<Vec<_>>(), [(Range::ALL, &2)]);
    }

    #[test]
    fn parts_are_cut_where_runs_begin_and_are_the_whole_again() {
        let map: RunMap<u128> = (0..100).map(|n| (range(n * 10, n * 10 + 4), n)).collect();
        let parts = map.split(Range::ALL, 16);
        assert_eq!(parts.len(), 15);
        assert_eq!(parts[0], range(0, 69));
        assert_eq!(parts.last().unwrap().last(), u128::MAX);
        assert!(parts.windows(2).all(|w| w[0].last() + 1 == w[1].first()));
        assert_eq!(map.split(range(5, 9), 16), vec![range(5, 9)]);
        assert_eq!(
            map.split(range(2, 12), 16),
            vec![range(2, 9), range(10, 12)]
        );
    }
}
