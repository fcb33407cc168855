//! How two peers make their rings equal: they compare hashes of ranges, go into those that differ,
//! and send each other what is news there. Everything is idempotent; a lost message costs another
//! round, and what has arrived stays.
//!
//! A peer [`describe`]s a range: by its runs if they are few ([`Sync::Have`]), else by the hashes
//! of up to [`PARTS`] parts with about as many runs each ([`Sync::Digests`]). Of parts that differ
//! the other describes its own view, and so on, until one sends its runs; the other then answers
//! with what it has that is newer ([`Sync::News`]). Each step goes into a sixteenth, so a single
//! difference among thousands of runs takes a few small messages; somebody who has nothing says so
//! in one message and gets the ring in windows of [`ANSWERS_MAX`] messages, each asked for.

use alloc::vec::Vec;

use rmesh_wire::codec::{self, Bounded};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::address::Range;
use crate::packed::{RUNS_MAX, Runs};
use crate::ring::{Ring, Run};
use crate::runs::RunMap;

/// Bytes of an encoded message at most. With 40 bytes of the message it travels in, and what seals
/// and relays it, that fits a datagram that every path takes.
pub const SYNC_LEN_MAX: usize = 1_060;
/// Parts a range is cut into.
pub const PARTS: usize = 16;
/// Messages in answer to one message; with more to say, the last one says where it goes on.
pub const ANSWERS_MAX: usize = 16;

/// Runs a range may have to be described by them.
const HAVE_RUNS_MAX: usize = 16;
/// Bytes for runs in a message: all but the version, the kind, an option and a range.
const RUNS_LEN_MAX: usize = SYNC_LEN_MAX - 37;

/// One message. Runs in it have yet to be looked at critically before they are merged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sync {
    /// Hashes of parts of the sender's ring.
    Digests(Digests),
    /// Everything the sender has in a range: it asks for what is newer.
    Have {
        /// The range.
        range: Range,
        /// All its runs.
        runs: Runs,
    },
    /// What the receiver does not have, as far as the sender knows.
    News {
        /// Newer runs.
        runs: Runs,
        /// Where there is more; the receiver is to describe it.
        rest: Option<Range>,
    },
}

/// The hashes of at most [`PARTS`] ranges, ascending and disjoint, also while being decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests(Vec<(Range, u64)>);

impl Digests {
    fn of(ring: &Ring, range: Range) -> Self {
        let parts = ring.split(range, PARTS).into_iter();
        Digests(parts.map(|part| (part, ring.hash_of(part))).collect())
    }

    /// The ranges and their hashes, ascending.
    pub fn as_slice(&self) -> &[(Range, u64)] {
        &self.0
    }
}

/// Addresses skipped since the end of the range before, addresses after the first, hash.
type PackedDigest = (u128, u128, u64);

impl Serialize for Digests {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut from = 0;
        let packed = self.0.iter().map(|(range, hash)| -> PackedDigest {
            let skipped = range.first().saturating_sub(from);
            from = range.last();
            (skipped, range.last() - range.first(), *hash)
        });
        Bounded::<PackedDigest, PARTS>::take_from(packed).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Digests {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let packed = Bounded::<PackedDigest, PARTS>::deserialize(deserializer)?;
        unpack(packed.as_slice())
            .ok_or_else(|| serde::de::Error::custom("ranges that overlap or lead too far"))
    }
}

fn unpack(packed: &[PackedDigest]) -> Option<Digests> {
    let mut digests: Vec<(Range, u64)> = Vec::with_capacity(packed.len());
    for (skipped, more, hash) in packed {
        let before = digests.last().map(|(range, _)| range.last());
        if before.is_some() && *skipped == 0 {
            return None;
        }
        let first = before.unwrap_or(0).checked_add(*skipped)?;
        digests.push((Range::new(first, first.checked_add(*more)?)?, *hash));
    }
    Some(Digests(digests))
}

impl Sync {
    /// The bytes of the message, at most [`SYNC_LEN_MAX`]; `None` if they would be more, which no
    /// message made here is.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let bytes = codec::encode(self).ok();
        bytes.filter(|bytes| bytes.len() <= SYNC_LEN_MAX)
    }

    /// The runs that came with it.
    pub fn runs(&self) -> &[Run] {
        match self {
            Sync::Digests(_) => &[],
            Sync::Have { runs, .. } | Sync::News { runs, .. } => runs.as_slice(),
        }
    }
}

/// What the ring has in `range`, in one message: the beginning of a comparison.
pub fn describe(ring: &Ring, range: Range) -> Sync {
    match have(ring, range) {
        Some(runs) => Sync::Have { range, runs },
        None => Sync::Digests(Digests::of(ring, range)),
    }
}

/// At most [`ANSWERS_MAX`] answers. It makes no difference whether the runs that came with the
/// message have been merged before.
pub fn answer(ring: &Ring, message: &Sync) -> Vec<Sync> {
    match message {
        Sync::Digests(digests) => {
            let differing = differing(ring, digests.as_slice());
            differing
                .into_iter()
                .map(|range| describe(ring, range))
                .collect()
        }
        Sync::Have { range, runs } => news(ring, *range, runs.as_slice()),
        Sync::News { rest, .. } => {
            let rest = rest.iter().map(|range| describe(ring, *range));
            rest.collect()
        }
    }
}

/// All runs in `range`, if they are few enough for one message.
fn have(ring: &Ring, range: Range) -> Option<Runs> {
    let runs: Vec<Run> = ring.within(range).take(HAVE_RUNS_MAX + 1).collect();
    let count = runs.len();
    let taken = Runs::take_from(runs, RUNS_LEN_MAX);
    (count <= HAVE_RUNS_MAX && taken.as_slice().len() == count).then_some(taken)
}

/// The ranges that differ; neighbours that can be described together are one.
fn differing(ring: &Ring, digests: &[(Range, u64)]) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for (range, hash) in digests {
        if ring.hash_of(*range) == *hash {
            continue;
        }
        match ranges.last_mut() {
            Some(last) if adjoin(last, range).is_some_and(|both| have(ring, both).is_some()) => {
                *last = adjoin(last, range).unwrap_or(*range);
            }
            _ => ranges.push(*range),
        }
    }
    ranges
}

/// Both ranges as one, if the second begins where the first ends.
fn adjoin(first: &Range, second: &Range) -> Option<Range> {
    (first.last().checked_add(1)? == second.first())
        .then(|| Range::new(first.first(), second.last()))?
}

/// What is newer here than `theirs`, which is all the other has in `range`.
fn news(ring: &Ring, range: Range, theirs: &[Run]) -> Vec<Sync> {
    let theirs = theirs.iter().map(|run| (run.range, run.cell));
    let theirs: RunMap<_> = theirs.collect();
    let newer = ring.within(range).flat_map(|ours| {
        let older = theirs.pieces(ours.range);
        let older = older.filter(move |(_, cell)| cell.is_none_or(|cell| *cell < ours.cell));
        older.map(move |(range, _)| Run { range, ..ours })
    });
    // One more than fit in all lists, so that the rest is seen.
    let newer = newer.take(ANSWERS_MAX * RUNS_MAX + 1);
    let mut lists = Runs::lists(newer, RUNS_LEN_MAX);
    let beyond = lists
        .get(ANSWERS_MAX)
        .and_then(|list| list.as_slice().first());
    let rest = beyond.and_then(|run| Range::new(run.range.first(), range.last()));
    lists.truncate(ANSWERS_MAX);
    let last = lists.len().saturating_sub(1);
    let messages = lists.into_iter().enumerate().map(|(at, runs)| Sync::News {
        runs,
        rest: rest.filter(|_| at == last),
    });
    messages.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;
    use rmesh_wire::codec::{decode, encode};

    #[test]
    fn the_longest_messages_fit() {
        use crate::cell::{Cell, OwnerId, Term};
        use rmesh_wire::PeerId;
        let run = |n: u128| {
            let peer = PeerId((n * 0x0101_0101_0101).to_be_bytes());
            let owner = OwnerId {
                peer,
                incarnation: u64::MAX,
            };
            let term = Term {
                n: u32::MAX,
                taker: peer,
            };
            let cell = Cell {
                term,
                seq: u32::MAX,
                owner,
            };
            Run {
                range: Range::block(n << 100, 90),
                cell,
            }
        };
        let ring: Ring = (1..=1_000).map(run).collect();
        let Sync::Digests(digests) = describe(&ring, Range::ALL) else {
            panic!("a thousand runs are not few");
        };
        assert_eq!(digests.as_slice().len(), PARTS);
        // Sixteen such runs do not fit one message; they are gone into as well.
        let few = Range::new(1 << 100, (16 << 100) + 5).unwrap();
        assert!(matches!(describe(&ring, few), Sync::Digests(_)));
        let nothing = Sync::Have {
            range: Range::ALL,
            runs: Runs::default(),
        };
        let news = answer(&ring, &nothing);
        assert_eq!(news.len(), ANSWERS_MAX);
        assert!(matches!(
            news[ANSWERS_MAX - 1],
            Sync::News { rest: Some(_), .. }
        ));
        let mut messages = vec![describe(&ring, Range::ALL), describe(&ring, few)];
        messages.extend(news);
        let lengths = messages
            .iter()
            .map(|message| message.encode().map(|bytes| bytes.len()));
        let longest = lengths.map(|len| len.expect("too long")).max();
        assert!(longest > Some(SYNC_LEN_MAX - 100), "{longest:?}");
    }

    #[test]
    fn ranges_that_overlap_are_not_decoded() {
        let list = |ranges: &[(u128, u128, u64)]| encode(&(0u32, ranges)).unwrap();
        assert!(decode::<Sync>(&list(&[(0, 4, 1), (1, 5, 2)])).is_ok());
        assert!(decode::<Sync>(&list(&[(0, 4, 1), (0, 5, 2)])).is_err());
        assert!(decode::<Sync>(&list(&[(0, u128::MAX, 1), (1, 0, 2)])).is_err());
        let many: Vec<(u128, u128, u64)> = (0..17).map(|_| (1, 0, 0)).collect();
        assert!(decode::<Sync>(&list(&many)).is_err());
    }

    proptest! {
        #[test]
        fn decoding_is_total(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let with_version = [&[1], bytes.as_slice()].concat();
            for bytes in [bytes, with_version] {
                if let Ok(message) = decode::<Sync>(&bytes) {
                    prop_assert!(answer(&Ring::new(), &message).len() <= ANSWERS_MAX);
                }
            }
        }
    }
}
