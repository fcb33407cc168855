//! A small set of addresses.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::slice;

use crate::address::Range;

/// Addresses one peer announces, ascending, each once. A thousand of these are kept, most with one or two
/// addresses and the same in memory as in the ledger: so a clone shares the memory, which is as long as
/// what it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Addresses(Arc<[u128]>);

impl Addresses {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> slice::Iter<'_, u128> {
        self.0.iter()
    }

    pub(crate) fn as_slice(&self) -> &[u128] {
        &self.0
    }

    pub(crate) fn contains(&self, at: u128) -> bool {
        self.0.binary_search(&at).is_ok()
    }

    /// Those in a range.
    pub(crate) fn within(&self, range: Range) -> &[u128] {
        let from = self.0.partition_point(|at| *at < range.first());
        let to = self.0.partition_point(|at| *at <= range.last());
        self.0.get(from..to).unwrap_or_default()
    }

    /// Those that the other set does not have.
    pub(crate) fn minus(&self, other: &Addresses) -> Vec<u128> {
        let own = self.iter().filter(|at| !other.contains(**at));
        own.copied().collect()
    }

    /// Adds some, until there are `max`.
    pub(crate) fn add(&mut self, new: &[u128], max: usize) {
        let room = max.saturating_sub(self.len());
        let mut new: Vec<u128> = new
            .iter()
            .copied()
            .filter(|at| !self.contains(*at))
            .collect();
        new.sort_unstable();
        new.dedup();
        new.truncate(room);
        if !new.is_empty() {
            *self = self.iter().copied().chain(new).collect();
        }
    }

    /// Takes some away.
    pub(crate) fn remove(&mut self, gone: &[u128]) {
        if gone.iter().any(|at| self.contains(*at)) {
            let left = self.iter().filter(|at| !gone.contains(at));
            *self = left.copied().collect();
        }
    }
}

impl FromIterator<u128> for Addresses {
    fn from_iter<I: IntoIterator<Item = u128>>(addresses: I) -> Self {
        let mut all: Vec<u128> = addresses.into_iter().collect();
        all.sort_unstable();
        all.dedup();
        Addresses(all.into())
    }
}

impl<'a> IntoIterator for &'a Addresses {
    type Item = &'a u128;
    type IntoIter = slice::Iter<'a, u128>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((any::<bool>(), prop::collection::vec(0u128..40, 0..6)), 0..20)) {
            let mut set = BTreeSet::new();
            let mut own = Addresses::default();
            for (adds, some) in steps {
                let before = own.clone();
                if adds {
                    own.add(&some, 40);
                    set.extend(some);
                } else {
                    own.remove(&some);
                    set.retain(|at| !some.contains(at));
                }
                prop_assert!(own.iter().eq(&set));
                prop_assert!(own.minus(&before).iter().all(|at| !before.contains(*at) && set.contains(at)));
                let range = Range::new(7, 21).expect("ascending");
                prop_assert!(own.within(range).iter().eq(set.range(7..=21)));
            }
        }
    }

    #[test]
    fn it_is_bounded() {
        let mut own: Addresses = [3, 1, 3].into_iter().collect();
        own.add(&[1, 9, 2, 8], 3);
        assert_eq!(own.as_slice(), [1, 2, 3]);
        assert_eq!((own.len(), own.is_empty()), (3, false));
    }
}
