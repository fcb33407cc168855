//! Which floods of a source were seen: the sliding bitmap of RFC 6479. (Records have windows that
//! workers share, [`super::lane`].)

/// Remembers the last `(WORDS - 1) * 64` numbers up to the highest seen. `WORDS` must be a power
/// of two.
pub(crate) struct ReplayWindow<const WORDS: usize> {
    words: [u64; WORDS],
    /// One above the highest number seen; zero while none was.
    next: u64,
}

impl<const WORDS: usize> Default for ReplayWindow<WORDS> {
    fn default() -> Self {
        const { assert!(WORDS.is_power_of_two() && WORDS > 1) };
        ReplayWindow {
            words: [0; WORDS],
            next: 0,
        }
    }
}

impl<const WORDS: usize> ReplayWindow<WORDS> {
    /// Numbers this far below the highest seen are still told apart.
    pub(crate) const LEN: u64 = (WORDS as u64 - 1) * 64;

    /// Marks `number` as seen; false if it was seen before or is too old to tell.
    pub(crate) fn accept(&mut self, number: u64) -> bool {
        let word = number / 64;
        if number >= self.next {
            self.advance(word);
            self.next = number.saturating_add(1);
        } else if self.next - number > Self::LEN {
            return false;
        }
        let bit = 1 << (number % 64);
        let slot = &mut self.words[Self::slot(word)];
        let fresh = *slot & bit == 0;
        *slot |= bit;
        fresh
    }

    /// Clears the words between the highest so far and `word`, at most all of them.
    fn advance(&mut self, word: u64) {
        let Some(highest) = self.next.checked_sub(1).map(|last| last / 64) else {
            return;
        };
        for ahead in 1..=(word - highest).min(WORDS as u64) {
            self.words[Self::slot(highest + ahead)] = 0;
        }
    }

    fn slot(word: u64) -> usize {
        (word % WORDS as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    type Window = ReplayWindow<16>;

    /// Steps of all sizes, forwards and backwards.
    fn numbers() -> impl Strategy<Value = Vec<u64>> {
        let step = prop_oneof![-70i64..70, -1500i64..1500, -5000i64..5000];
        prop::collection::vec(step, 1..400).prop_map(|steps| {
            let mut at = 10_000i64;
            let walk = steps.into_iter().map(|step| {
                at = (at + step).max(0);
                at as u64
            });
            walk.collect()
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_set_that_forgets_nothing_within_the_window(numbers in numbers()) {
            let mut window = Window::default();
            let (mut seen, mut highest) = (BTreeSet::new(), 0);
            for number in numbers {
                let within = number > highest || highest - number < Window::LEN;
                let expected = within && !seen.contains(&number);
                prop_assert_eq!(window.accept(number), expected, "number {}", number);
                if expected {
                    seen.insert(number);
                }
                highest = highest.max(number);
            }
        }

        #[test]
        fn any_order_within_the_window_is_accepted_once(
            order in Just((0..Window::LEN).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let mut window = Window::default();
            prop_assert!(order.iter().all(|&number| window.accept(number)));
            prop_assert!(!order.iter().any(|&number| window.accept(number)));
        }
    }
}
