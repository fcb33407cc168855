//! Who announces which address, by address.

use alloc::collections::BTreeSet;

use rmesh_wire::PeerId;

use crate::address::Range;

/// Pairs of an address and a peer that announces it. One set, since almost every address has one
/// announcer, and a set for each address takes five times the memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Announcers(BTreeSet<(u128, PeerId)>);

const FIRST: PeerId = PeerId([0; 16]);
const LAST: PeerId = PeerId([0xff; 16]);

impl Announcers {
    pub(crate) fn insert(&mut self, at: u128, peer: PeerId) {
        self.0.insert((at, peer));
    }

    pub(crate) fn remove(&mut self, at: u128, peer: PeerId) {
        self.0.remove(&(at, peer));
    }

    /// The peers that announce an address, in the order of their ids.
    pub(crate) fn of(&self, at: u128) -> impl Iterator<Item = PeerId> {
        self.within(Range::one(at)).map(|(_, peer)| peer)
    }

    /// What is announced of a range.
    pub(crate) fn within(&self, range: Range) -> impl Iterator<Item = (u128, PeerId)> {
        let ends = (range.first(), FIRST)..=(range.last(), LAST);
        self.0.range(ends).copied()
    }
}
