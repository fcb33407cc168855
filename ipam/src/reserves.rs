//! Free addresses that may be handed out before it is written down who has them.

use alloc::vec::Vec;

use crate::address::Range;
use crate::runs::RunMap;

/// What is reserved, and what of it an earlier life may have handed out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reserves {
    all: RunMap<()>,
    doubted: RunMap<()>,
}

impl Reserves {
    pub(crate) fn insert(&mut self, range: Range) {
        self.all.set(range, ());
    }

    pub(crate) fn remove(&mut self, range: Range) {
        if !self.all.is_empty() {
            self.all.remove(range);
            self.doubted.remove(range);
        }
    }

    pub(crate) fn contains(&self, at: u128) -> bool {
        self.all.get(at).is_some()
    }

    /// Everything, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range> {
        self.all.iter().map(|(range, ())| range)
    }

    /// What of `range` is not reserved.
    pub(crate) fn gaps(&self, range: Range) -> Vec<Range> {
        self.all.gaps(range).collect()
    }

    /// A new life begins: of what is reserved it is not known who has it.
    pub(crate) fn doubt(&mut self) {
        self.doubted = self.all.clone();
    }

    pub(crate) fn is_doubted(&self, at: u128) -> bool {
        self.doubted.get(at).is_some()
    }

    /// Whether any address of `range` is doubted.
    pub(crate) fn doubts(&self, range: Range) -> bool {
        self.doubted.within(range).next().is_some()
    }

    /// Doubted addresses, ascending.
    pub(crate) fn doubted(&self) -> impl Iterator<Item = u128> {
        let ranges = self.doubted.iter();
        ranges.flat_map(|(range, ())| range.first()..=range.last())
    }

    /// Those of `range` that this life may hand out, ascending.
    pub(crate) fn ready(&self, range: Range) -> impl Iterator<Item = u128> {
        let reserved = self.all.within(range);
        let reserved = reserved.flat_map(|(run, ())| run.first()..=run.last());
        reserved.filter(|at| !self.is_doubted(*at))
    }
}
