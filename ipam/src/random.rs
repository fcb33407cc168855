//! The one source of randomness of a node.

/// xoshiro256** (Blackman and Vigna 2018). Nothing it makes is a secret: ids that have to differ,
/// and pauses.
#[derive(Debug, Clone)]
pub(crate) struct Random([u64; 4]);

impl Random {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        let mut state = [0; 4];
        for (word, bytes) in state.iter_mut().zip(seed.as_chunks::<8>().0) {
            *word = u64::from_be_bytes(*bytes);
        }
        // The one state it would never leave.
        if state == [0; 4] {
            state = [1; 4];
        }
        let mut random = Random(state);
        for _ in 0..16 {
            random.number();
        }
        random
    }

    pub(crate) fn number(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A number below `bound`; 0 if that is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.number() % bound).unwrap_or(0)
    }

    /// A duration from half of `around` to one and a half of it.
    pub(crate) fn jittered(&mut self, around: core::time::Duration) -> core::time::Duration {
        let part = u32::try_from(self.number() % 1_024).unwrap_or(0);
        around / 2 + around * part / 1_024
    }
}
