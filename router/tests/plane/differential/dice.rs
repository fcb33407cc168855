//! Seeded dice.

/// `SplitMix64` (Steele, Lea and Flood 2014).
pub struct Dice(pub u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// At least `least`, and below `end`.
    pub fn range(&mut self, least: usize, end: usize) -> usize {
        least + (self.next() % (end - least) as u64) as usize
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.range(0, times) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.range(0, from.len())]
    }

    pub fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    /// Mostly small, now and then up to the most.
    pub fn length(&mut self, least: usize, most: usize) -> usize {
        let end = match self.range(0, 10) {
            0..5 => 400,
            5..8 => 3_000,
            _ => usize::MAX,
        };
        self.range(least, most.min(end.max(least + 1)).max(least) + 1)
    }
}
