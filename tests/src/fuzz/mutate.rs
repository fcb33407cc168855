//! Changes inputs, the same way each time for one seed.

use crate::sim::random::Random;

/// Longest input made: more than any datagram with its headers.
const LEN_MAX: usize = 1 << 16;
/// Bytes a decoder may treat apart.
const EDGES: [u8; 10] = [0, 1, 2, 0x7f, 0x80, 0xfa, 0xfb, 0xfc, 0xfd, 0xff];

/// Dice and what is done with them.
#[derive(Debug, Clone)]
pub struct Mutator(Random);

impl Mutator {
    /// Dice that fall as `seed` says.
    pub fn new(seed: u64) -> Self {
        Mutator(Random::new(seed))
    }

    /// A number below `bound`; zero if `bound` is zero.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0.below(bound)
    }

    /// One of `corpus`, changed in one to four places, or now and then noise.
    pub fn next(&mut self, corpus: &[impl AsRef<[u8]>]) -> Vec<u8> {
        let Some(seed) = self.0.pick(corpus) else {
            return self.noise();
        };
        let mut bytes = seed.as_ref().to_vec();
        for _ in 0..=self.below(4) {
            self.change(&mut bytes, corpus);
        }
        bytes.truncate(LEN_MAX);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, corpus: &[impl AsRef<[u8]>]) {
        let at = self.below(bytes.len());
        match self.below(9) {
            0 => self.flip(bytes, usize::MAX),
            // In the first bytes, where versions, kinds and lengths are.
            1 => self.flip(bytes, 16),
            2 => {
                let edge = EDGES[self.below(EDGES.len())];
                bytes
                    .iter_mut()
                    .skip(at)
                    .take(1)
                    .for_each(|byte| *byte = edge);
            }
            3 => bytes.truncate(at),
            4 => {
                let more = self.noise_of(64);
                bytes.splice(at..at, more);
            }
            // A piece again, or gone.
            5 => {
                let end = at + self.below(bytes.len() - at);
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            6 => {
                let end = at + self.below(bytes.len() - at);
                bytes.drain(at..end);
            }
            // The beginning of one and the end of another.
            7 => {
                let other = self.0.pick(corpus).map_or(&[][..], AsRef::as_ref);
                bytes.truncate(at);
                bytes.extend(other.iter().skip(at));
            }
            _ => *bytes = self.noise(),
        }
    }

    fn flip(&mut self, bytes: &mut [u8], among: usize) {
        let at = self.below(among.min(bytes.len()));
        let bit = self.below(8);
        bytes
            .iter_mut()
            .skip(at)
            .take(1)
            .for_each(|byte| *byte ^= 1 << bit);
    }

    fn noise_of(&mut self, len_max: usize) -> Vec<u8> {
        let len = self.below(len_max + 1);
        (0..len).map(|_| self.0.next() as u8).collect()
    }

    /// Noise, mostly behind something like a datagram's header; lengths from nothing to the
    /// largest Ethernet frame.
    pub fn noise(&mut self) -> Vec<u8> {
        let mut bytes = match self.below(4) {
            0 => self.noise_of(64),
            1 => self.noise_of(1_500),
            2 => self.noise_of(216),
            _ => self.noise_of(9_000),
        };
        if self.below(4) != 0 {
            let kind = self.below(6) as u8;
            // A receiver index and lane that may well exist.
            let small = self.below(3) == 0;
            for byte in bytes.iter_mut().skip(1).take(12).filter(|_| small) {
                *byte &= 1;
            }
            bytes
                .iter_mut()
                .take(1)
                .for_each(|first| *first = 0x10 | kind);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs_and_most_differ() {
        let corpus: [Vec<u8>; 2] = [(0..200).collect(), (100..=255).collect()];
        let make = |seed| {
            let mut mutator = Mutator::new(seed);
            (0..1_000)
                .map(|_| mutator.next(&corpus))
                .collect::<Vec<_>>()
        };
        let (first, again, other) = (make(1), make(1), make(2));
        assert_eq!(first, again);
        assert_ne!(first, other);
        let different: std::collections::BTreeSet<_> = first.iter().collect();
        assert!(different.len() > 800, "{}", different.len());
    }
}
