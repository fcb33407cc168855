//! The ring: which cell each address has, as far as this peer knows.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use rmesh_wire::PeerId;

use crate::address::Range;
use crate::cell::{Cell, OwnerId};
use crate::runs::RunMap;

/// A range of addresses that have one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    /// The addresses.
    pub range: Range,
    /// Their cell.
    pub cell: Cell,
}

/// The chosen cells this peer knows. "No cell" is less than every cell; merging takes the greater
/// of two cells of one address, so it does not matter what comes in which order or how often.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ring {
    cells: RunMap<Cell>,
    /// The sum of the hashes of all runs.
    sum: u64,
    /// How many runs each owner has, without zeros.
    owners: BTreeMap<OwnerId, usize>,
}

impl Ring {
    /// A ring that knows no cell.
    pub const fn new() -> Self {
        Ring {
            cells: RunMap::new(),
            sum: 0,
            owners: BTreeMap::new(),
        }
    }

    /// The cell of an address.
    pub fn get(&self, at: u128) -> Option<&Cell> {
        self.cells.get(at)
    }

    /// How many runs there are.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether no cell is known.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// All runs, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Run> {
        self.cells.iter().map(run)
    }

    /// The runs in `range`, ascending, cut to it.
    pub fn within(&self, range: Range) -> impl DoubleEndedIterator<Item = Run> {
        self.cells.within(range).map(run)
    }

    /// All of `range` piece by piece: where there is one cell, and where there is none.
    pub fn pieces(&self, range: Range) -> impl Iterator<Item = (Range, Option<&Cell>)> {
        self.cells.pieces(range)
    }

    /// Cuts `range` into at most `parts` ranges of about as many runs each.
    pub fn split(&self, range: Range, parts: usize) -> Vec<Range> {
        self.cells.split(range, parts)
    }

    /// What of `run` would be news: the pieces whose cell here is less.
    pub fn news(&self, run: &Run) -> impl Iterator<Item = Run> {
        let cell = run.cell;
        self.cells
            .pieces(run.range)
            .filter(move |(_, ours)| ours.is_none_or(|ours| *ours < cell))
            .map(move |(range, _)| Run { range, cell })
    }

    /// Merges `runs`; returns what of them was news, in their order.
    pub fn merge(&mut self, runs: impl IntoIterator<Item = Run>) -> Vec<Run> {
        let mut news = Vec::new();
        for run in runs {
            let from = news.len();
            news.extend(self.news(&run));
            for piece in news.iter().skip(from) {
                self.put(piece);
            }
        }
        news
    }

    /// Sets a piece; sum and owners are kept by what changes in the runs it touches.
    fn put(&mut self, piece: &Run) {
        let touched = self.cells.touched(piece.range);
        let before: Vec<Run> = self.within(touched).collect();
        for run in before {
            self.sum = self.sum.wrapping_sub(hash_run(HASH_START, run));
            self.count(run.cell.owner, false);
        }
        self.cells.set(piece.range, piece.cell);
        let after: Vec<Run> = self.within(touched).collect();
        for run in after {
            self.sum = self.sum.wrapping_add(hash_run(HASH_START, run));
            self.count(run.cell.owner, true);
        }
    }

    fn count(&mut self, owner: OwnerId, is_more: bool) {
        let runs = self.owners.entry(owner).or_default();
        *runs = match is_more {
            true => runs.saturating_add(1),
            false => runs.saturating_sub(1),
        };
        if *runs == 0 {
            self.owners.remove(&owner);
        }
    }

    /// Incarnations of a peer that own something; without a walk.
    pub fn owners_of(&self, peer: PeerId) -> impl Iterator<Item = OwnerId> {
        let all = [0, u64::MAX].map(|incarnation| OwnerId { peer, incarnation });
        let owners = self.owners.range(all[0]..=all[1]);
        owners.map(|(owner, _)| *owner)
    }

    /// The first piece of `runs` that cannot be true together with what is known here: the same
    /// term and sequence number, but another owner. Returns the piece as it is here.
    pub fn contradiction<'a>(&self, runs: impl IntoIterator<Item = &'a Run>) -> Option<Run> {
        runs.into_iter().find_map(|theirs| {
            self.within(theirs.range)
                .find(|ours| ours.cell.contradicts(&theirs.cell))
        })
    }

    /// A hash of all cells: equal rings have equal ones. Not keyed; it finds differences, it does
    /// not prove anything against somebody who looks for collisions. Kept, not computed: every
    /// digest carries it.
    pub fn hash(&self) -> u64 {
        self.sum
    }

    /// A hash of the cells in `range`.
    pub fn hash_of(&self, range: Range) -> u64 {
        let hashes = self.within(range).map(|run| hash_run(HASH_START, run));
        hashes.fold(0, u64::wrapping_add)
    }

    /// What an owner owns, ascending.
    pub fn owned_by(&self, owner: OwnerId) -> impl Iterator<Item = Run> {
        self.iter().filter(move |run| run.cell.owner == owner)
    }

    /// What all incarnations of a peer own, ascending.
    pub fn owned_by_peer(&self, peer: PeerId) -> impl Iterator<Item = Run> {
        self.iter().filter(move |run| run.cell.owner.peer == peer)
    }

    /// How many addresses each owner has in `range`; 2^128 - 1 also stands for one more.
    pub fn sizes(&self, range: Range) -> BTreeMap<OwnerId, u128> {
        let mut sizes: BTreeMap<OwnerId, u128> = BTreeMap::new();
        for run in self.within(range) {
            let size = sizes.entry(run.cell.owner).or_default();
            *size = size.saturating_add(run.range.count());
        }
        sizes
    }
}

impl FromIterator<Run> for Ring {
    fn from_iter<I: IntoIterator<Item = Run>>(runs: I) -> Self {
        let mut ring = Ring::new();
        ring.merge(runs);
        ring
    }
}

fn run((range, cell): (Range, &Cell)) -> Run {
    Run { range, cell: *cell }
}

/// Where hashes start: the fraction of the golden ratio.
const HASH_START: u64 = 0x9e37_79b9_7f4a_7c15;

/// Takes 64 bits into a hash (the finisher of SplitMix64, Steele and others 2014).
fn mix(hash: u64, word: u64) -> u64 {
    let hash = (hash ^ word).wrapping_add(HASH_START);
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

fn mix_wide(hash: u64, wide: u128) -> u64 {
    let [high, low] = [wide >> 64, wide & u128::from(u64::MAX)]
        .map(|half| u64::try_from(half).unwrap_or_default());
    mix(mix(hash, high), low)
}

fn hash_run(hash: u64, run: Run) -> u64 {
    let Cell { term, seq, owner } = run.cell;
    let wide = [
        run.range.first(),
        run.range.last(),
        u128::from_be_bytes(term.taker.0),
        u128::from_be_bytes(owner.peer.0),
    ];
    let hash = wide.into_iter().fold(hash, mix_wide);
    let counts = u64::from(term.n) << 32 | u64::from(seq);
    mix(mix(hash, counts), owner.incarnation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(peer: u8) -> OwnerId {
        OwnerId {
            peer: PeerId([peer; 16]),
            incarnation: u64::from(peer),
        }
    }

    fn run(first: u128, last: u128, cell: Cell) -> Run {
        let range = Range::new(first, last).unwrap();
        Run { range, cell }
    }

    #[test]
    fn merging_says_what_was_news() {
        let founded = Cell::founded(owner(1));
        let granted = founded.granted(owner(2)).unwrap();
        let mut ring: Ring = [run(0, 99, founded)].into_iter().collect();
        assert_eq!(ring.merge([run(10, 19, granted)]), [run(10, 19, granted)]);
        assert_eq!(ring.merge([run(10, 19, granted)]), []);
        assert_eq!(ring.merge([run(0, 109, founded)]), [run(100, 109, founded)]);
        assert_eq!(ring.len(), 3);
        assert_eq!(ring.sizes(Range::ALL)[&owner(1)], 100);
        let mine: Vec<Run> = ring.owned_by_peer(PeerId([2; 16])).collect();
        assert_eq!(mine, [run(10, 19, granted)]);
    }

    #[test]
    fn two_owners_by_one_sequence_number_are_a_contradiction() {
        let founded = Cell::founded(owner(1));
        let [two, three] = [2, 3].map(|peer| founded.granted(owner(peer)).unwrap());
        let ring: Ring = [run(0, 9, founded), run(5, 9, two)].into_iter().collect();
        let found = ring.contradiction(&[run(0, 4, three), run(3, 6, three)]);
        assert_eq!(found, Some(run(5, 6, two)));
        assert_eq!(ring.contradiction(&[run(0, 4, three)]), None);
    }

    #[test]
    fn hashes_are_of_cells_and_not_of_how_they_came() {
        let founded = Cell::founded(owner(1));
        let granted = founded.granted(owner(2)).unwrap();
        let whole: Ring = [run(0, 9, founded)].into_iter().collect();
        let halves: Ring = [run(5, 9, founded), run(0, 4, founded)]
            .into_iter()
            .collect();
        assert_eq!(whole.hash(), halves.hash());
        let mut other = whole.clone();
        other.merge([run(9, 9, granted)]);
        assert_ne!(whole.hash(), other.hash());
        let head = Range::new(0, 8).unwrap();
        assert_eq!(whole.hash_of(head), other.hash_of(head));
        assert_eq!(Ring::new().hash(), Ring::new().hash_of(head));
    }

    #[test]
    fn every_part_of_a_cell_and_of_a_range_is_hashed() {
        let base = Cell::founded(owner(1));
        let mut cells = [base; 5];
        cells[0].term.n = 1;
        cells[1].term.taker = PeerId([1; 16]);
        cells[2].seq = 1;
        cells[3].owner.incarnation = 9;
        cells[4].owner.peer = PeerId([9; 16]);
        let mut runs: Vec<Run> = cells.iter().map(|cell| run(5, 9, *cell)).collect();
        runs.extend([run(5, 9, base), run(4, 9, base), run(5, 8, base)]);
        runs.push(run(5 + (1 << 64), 9 + (1 << 64), base));
        let hash = |run: &Run| Ring::from_iter([*run]).hash();
        let hashes: alloc::collections::BTreeSet<u64> = runs.iter().map(hash).collect();
        assert_eq!(hashes.len(), runs.len());
    }
}
