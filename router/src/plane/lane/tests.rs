use super::*;
use loom::sync::atomic::Ordering::Relaxed;
use loom::sync::{Arc, RwLock};
use proptest::prelude::*;
use std::collections::BTreeSet;

impl Shared64 for loom::sync::atomic::AtomicU64 {
    fn load(&self) -> u64 {
        self.load(Relaxed)
    }

    fn store(&self, value: u64) {
        self.store(value, Relaxed);
    }

    fn replace(&self, old: u64, new: u64) -> Result<(), u64> {
        self.compare_exchange(old, new, Relaxed, Relaxed)
            .map(|_| ())
    }
}

/// What stands in for a shared number while a model runs.
type Modelled = loom::sync::atomic::AtomicU64;
/// A window of one cell, which all numbers share.
type OneCell = Window<Modelled, 1>;

#[test]
fn a_window_is_as_long_as_the_design_asks() {
    let window = <Window>::default();
    assert!(window.accept(8_191));
    assert!((0..8_191).all(|number| window.accept(number)));
    assert!(!(0..=8_191).any(|number| window.accept(number)));
    assert!(window.accept(COUNTER_MAX));
    assert!(!window.accept(COUNTER_MAX));
    assert!(!window.accept(COUNTER_MAX + 1));
}

/// Steps of all sizes, forwards and backwards.
fn numbers() -> impl Strategy<Value = Vec<u64>> {
    let step = prop_oneof![-70i64..70, -1_500i64..1_500, -30_000i64..30_000];
    prop::collection::vec(step, 1..400).prop_map(|steps| {
        let mut at = 50_000i64;
        let walk = steps.into_iter().map(|step| {
            at = (at + step).max(0);
            at as u64
        });
        walk.collect()
    })
}

proptest! {
    #[test]
    fn a_number_is_accepted_once_and_always_within_the_window(numbers in numbers()) {
        let window = <Window>::default();
        let (mut seen, mut highest) = (BTreeSet::new(), 0);
        for number in numbers {
            let within = number > highest || highest - number <= <Window>::LEN_MIN;
            let accepted = window.accept(number);
            let is_new = seen.insert(number);
            prop_assert!(!accepted || is_new, "number {} twice", number);
            prop_assert!(accepted || !is_new || !within, "number {} refused", number);
            highest = highest.max(number);
        }
    }

    #[test]
    fn any_order_within_the_window_is_accepted_once(
        order in Just((0..<Window>::LEN_MIN).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let window = <Window>::default();
        prop_assert!(order.iter().all(|&number| window.accept(number)));
        prop_assert!(!order.iter().any(|&number| window.accept(number)));
    }
}

/// All orders in which two workers can open the same records, the one of a later round taking the
/// cell from the others: each record at most once, and whatever nothing overtook exactly once.
#[test]
fn no_order_of_two_workers_opens_a_record_twice() {
    loom::model(|| {
        let window = Arc::new(OneCell::default());
        let other = Arc::clone(&window);
        let later = OneCell::ROUND_RECORDS + 1;
        let worker = loom::thread::spawn(move || [0, 1, later].map(|n| other.accept(n)));
        let here = [later, 0, 2].map(|n| window.accept(n));
        let there = worker.join().expect("the other worker ends");
        assert!(!(here[1] && there[0]), "record 0 was opened twice");
        assert!(here[0] != there[2], "the later one exactly once");
        assert!(!here[1] && !here[2], "too old behind the later one");
    });
}

/// A snapshot is replaced while its worker seals: the next one shares the lane, so no number is
/// taken twice.
#[test]
fn no_number_is_taken_twice_while_snapshots_are_swapped() {
    loom::model(|| {
        let lane = Arc::new(Numbers::<Modelled>(Modelled::new(0)));
        let snapshot = Arc::new(RwLock::new(Arc::clone(&lane)));
        let publisher = {
            let snapshot = Arc::clone(&snapshot);
            loom::thread::spawn(move || {
                let carried_on = Arc::clone(&snapshot.read().expect("never poisoned"));
                *snapshot.write().expect("never poisoned") = carried_on;
            })
        };
        let take = || {
            let current = Arc::clone(&snapshot.read().expect("never poisoned"));
            current.take()
        };
        let taken = [take(), take(), take()];
        publisher.join().expect("the publisher ends");
        assert_eq!(taken, [Some(0), Some(1), Some(2)]);
    });
}

/// Two workers, each with a lane of its own, and the control side on lane 0 share nothing.
#[test]
fn workers_on_lanes_of_their_own_never_take_the_same_nonce() {
    use crate::plane::session::lane_of;
    loom::model(|| {
        let lanes: Arc<Vec<Numbers<Modelled>>> =
            Arc::new((0..5).map(|_| Numbers(Modelled::new(0))).collect());
        let take = |worker: usize, lanes: &[Numbers<Modelled>]| {
            [0, 0, 1].map(|epoch| {
                let lane = lane_of(worker, 2, epoch);
                (lane, lanes[usize::from(lane)].take())
            })
        };
        let other = Arc::clone(&lanes);
        let there = loom::thread::spawn(move || take(1, &other));
        let here = take(0, &lanes);
        let there = there.join().expect("the other worker ends");
        let all: BTreeSet<_> = here.into_iter().chain(there).collect();
        assert_eq!(all.len(), 6, "a nonce was used twice");
    });
}
