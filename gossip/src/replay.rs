//! The window that keeps a lane's records from being accepted twice.
//!
//! A ring of 64-bit blocks as in RFC 6479: moving the window forward clears whole blocks instead
//! of shifting bits, so both operations take constant time whatever the counters are.

use rmesh_wire::datagram::COUNTER_MAX;

/// Records below the highest one seen that are still accepted, in any order.
pub const WINDOW_RECORDS: u64 = 8_192;

const BLOCK_BITS: u64 = u64::BITS as u64;
/// One block more than the window holds: the one that is being filled.
const BLOCKS: usize = (WINDOW_RECORDS / BLOCK_BITS) as usize + 1;

/// Counters of one lane that have been accepted.
#[derive(Debug, Clone)]
pub struct ReplayWindow {
    /// One above the highest counter recorded.
    next: u64,
    blocks: [u64; BLOCKS],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

impl ReplayWindow {
    /// A window that has seen nothing.
    pub const fn new() -> Self {
        ReplayWindow {
            next: 0,
            blocks: [0; BLOCKS],
        }
    }

    /// Whether a record with this counter would be accepted: it is new, not below the window and
    /// at most 56 bits long. Worth asking before opening a record; changes nothing.
    pub const fn check(&self, counter: u64) -> bool {
        if counter > COUNTER_MAX {
            return false;
        }
        if counter >= self.next {
            return true;
        }
        let (block, bit) = position(counter);
        self.next - counter <= WINDOW_RECORDS && self.blocks[block] & bit == 0
    }

    /// Accepts the counter of a record that *has been authenticated*, and says whether it was
    /// acceptable; if not, the record is to be dropped and nothing has changed.
    pub fn record(&mut self, counter: u64) -> bool {
        if !self.check(counter) {
            return false;
        }
        if counter >= self.next {
            self.advance_to(counter);
        }
        let (block, bit) = position(counter);
        self.blocks[block] |= bit;
        true
    }

    /// Clears the blocks between the old highest counter's and the new one's.
    fn advance_to(&mut self, counter: u64) {
        let newest = self.next.checked_sub(1).map(|highest| highest / BLOCK_BITS);
        let first_fresh = newest.map_or(0, |block| block + 1);
        let last_fresh = counter / BLOCK_BITS;
        for block in (first_fresh..=last_fresh).take(BLOCKS) {
            self.blocks[index(block)] = 0;
        }
        self.next = counter + 1;
    }
}

const fn index(block: u64) -> usize {
    (block % BLOCKS as u64) as usize
}

const fn position(counter: u64) -> (usize, u64) {
    (index(counter / BLOCK_BITS), 1 << (counter % BLOCK_BITS))
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// What the window is to do, without any cleverness.
    #[derive(Default)]
    struct Naive(BTreeSet<u64>);

    impl Naive {
        fn record(&mut self, counter: u64) -> bool {
            let highest = self.0.last().copied();
            let fresh = highest.is_none_or(|highest| counter + WINDOW_RECORDS > highest);
            counter <= COUNTER_MAX && fresh && self.0.insert(counter)
        }
    }

    #[test]
    fn each_record_is_accepted_once() {
        let mut window = ReplayWindow::new();
        assert!(window.record(0) && !window.record(0));
        assert!(window.record(5) && window.record(3));
        assert!(!window.check(5) && !window.check(3) && window.check(4));
    }

    #[test]
    fn the_window_is_exactly_this_long() {
        let mut window = ReplayWindow::new();
        assert!(window.record(WINDOW_RECORDS + 7));
        assert!(!window.check(7), "just below the window");
        assert!(window.record(8), "the oldest one in it");
        assert!(window.record(WINDOW_RECORDS + 8));
        assert!(!window.record(8), "moved out");
        assert!(window.record(9));
    }

    #[test]
    fn the_highest_counters_work_and_longer_ones_do_not() {
        let mut window = ReplayWindow::new();
        assert!(!window.record(u64::MAX) && !window.record(COUNTER_MAX + 1));
        assert!(window.record(COUNTER_MAX) && !window.record(COUNTER_MAX));
        assert!(window.record(COUNTER_MAX - 1) && !window.record(0));
    }

    #[test]
    fn a_far_jump_forgets_everything_before_it() {
        let mut window = ReplayWindow::new();
        for counter in 0..WINDOW_RECORDS {
            assert!(window.record(counter));
        }
        let far = 1 << 40;
        assert!(window.record(far));
        assert!((far - WINDOW_RECORDS + 1..far).all(|counter| window.record(counter)));
        assert!((far - WINDOW_RECORDS..=far).all(|counter| !window.record(counter)));
    }

    /// Counters that wander like those of a reordering network, with jumps of every size.
    fn counters() -> impl Strategy<Value = std::vec::Vec<u64>> {
        let step = prop_oneof![
            6 => -200i64..300,
            2 => -9_000i64..9_000,
            1 => -40_000i64..40_000,
        ];
        let start = prop_oneof![Just(0), 0..20_000u64, Just(COUNTER_MAX - 10_000)];
        (start, prop::collection::vec(step, 1..400)).prop_map(|(start, steps)| {
            let wander = |at: &mut u64, step: i64| {
                *at = at.saturating_add_signed(step);
                Some(*at)
            };
            steps.into_iter().scan(start, wander).collect()
        })
    }

    proptest! {
        #[test]
        fn it_does_what_the_naive_one_does(counters in counters()) {
            let (mut window, mut naive) = (ReplayWindow::new(), Naive::default());
            for counter in counters {
                let expected = naive.record(counter);
                prop_assert_eq!(window.check(counter), expected);
                prop_assert_eq!(window.record(counter), expected);
            }
        }
    }
}
