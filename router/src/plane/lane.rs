//! What the workers share of one lane, without a lock: the number of the next record that is sealed,
//! and which records were opened.

use std::sync::atomic::{AtomicU64, Ordering};

use rmesh_wire::datagram::COUNTER_MAX;

/// A 64-bit number that threads share. Behind a trait so that the model checker's own can stand in.
pub(crate) trait Shared64: Default {
    fn load(&self) -> u64;
    fn store(&self, value: u64);
    /// Replaces `old` by `new`, or gives what is there.
    fn replace(&self, old: u64, new: u64) -> Result<(), u64>;
}

/// Relaxed order is enough: each number is looked at by itself.
impl Shared64 for AtomicU64 {
    fn load(&self) -> u64 {
        AtomicU64::load(self, Ordering::Relaxed)
    }

    fn store(&self, value: u64) {
        AtomicU64::store(self, value, Ordering::Relaxed);
    }

    fn replace(&self, old: u64, new: u64) -> Result<(), u64> {
        self.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed)
            .map(|_| ())
    }
}

/// The numbers of the records that are sealed on a lane. One thread takes them; snapshots that
/// replace each other share it, so none is taken twice.
#[derive(Default)]
pub(crate) struct Numbers<A = AtomicU64>(A);

impl<A: Shared64> Numbers<A> {
    /// The next number; `None` when all are used up. Only the lane's own worker may call this.
    pub(crate) fn take(&self) -> Option<u64> {
        let number = self.0.load();
        if number > COUNTER_MAX {
            return None;
        }
        self.0.store(number + 1);
        Some(number)
    }
}

/// Records a cell tells apart: what is left of 64 bits beside the cell's round.
const CELL_RECORDS: u64 = 20;
/// Cells of a window that is used.
const CELLS: usize = 512;

const _: () = {
    let rounds = COUNTER_MAX / <Window>::ROUND_RECORDS;
    assert!(rounds.leading_zeros() as u64 >= CELL_RECORDS);
    assert!(<Window>::LEN_MIN >= 8_192, "DESIGN D4");
};

/// Which records of a lane were opened, by whichever workers, each at most once.
///
/// Record n belongs to cell `n / 20 mod 512` in round `n / 10,240`. A cell holds the highest round
/// that was seen for it, and a bit for each of that round's twenty records. A record of a higher round
/// takes the cell over, one of a lower round is too old. So a bit that was set is only ever lost
/// together with every chance of its record: no order of threads accepts a record twice. Unlike the
/// window of RFC 6479 it needs no lock, for a cell is one number and nothing else has to agree with it.
pub(crate) struct Window<A = AtomicU64, const COUNT: usize = CELLS>(Box<[A]>);

impl<A: Shared64, const COUNT: usize> Default for Window<A, COUNT> {
    fn default() -> Self {
        Window((0..COUNT).map(|_| A::default()).collect())
    }
}

impl<A, const COUNT: usize> Window<A, COUNT> {
    /// Records the whole window tells apart.
    const ROUND_RECORDS: u64 = CELL_RECORDS * COUNT as u64;
    /// How far below the highest record one is still told apart, at least.
    pub(crate) const LEN_MIN: u64 = Self::ROUND_RECORDS - CELL_RECORDS;
}

impl<A: Shared64, const COUNT: usize> Window<A, COUNT> {
    /// Marks `number` as opened; false if it was before or is too old to tell. To be asked only
    /// after the record authenticated, or a forgery would move the window.
    pub(crate) fn accept(&self, number: u64) -> bool {
        if number > COUNTER_MAX {
            return false;
        }
        let round = number / Self::ROUND_RECORDS;
        let cell = &self.0[(number / CELL_RECORDS) as usize % COUNT];
        let bit = 1 << (number % CELL_RECORDS);
        let mut seen = cell.load();
        loop {
            let next = match (seen >> CELL_RECORDS).cmp(&round) {
                std::cmp::Ordering::Greater => return false,
                std::cmp::Ordering::Equal if seen & bit != 0 => return false,
                std::cmp::Ordering::Equal => seen | bit,
                std::cmp::Ordering::Less => round << CELL_RECORDS | bit,
            };
            match cell.replace(seen, next) {
                Ok(()) => return true,
                Err(now) => seen = now,
            }
        }
    }
}

#[cfg(test)]
mod tests;
