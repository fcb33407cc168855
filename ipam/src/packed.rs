//! Runs as they travel and as they are written: ascending, each by its distance from the one
//! before, owners and terms once each.

use alloc::vec::Vec;

use rmesh_wire::codec::Bounded;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::address::Range;
use crate::cell::{Cell, OwnerId, Term};
use crate::ring::Run;

/// Runs in one list. A datagram holds about 40 of IPv4 and 20 of IPv6; the log takes them all.
pub const RUNS_MAX: usize = 64;

/// At most [`RUNS_MAX`] runs, ascending and disjoint, also while they are being decoded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Runs(Vec<Run>);

#[derive(Serialize, Deserialize)]
struct Packed {
    terms: Bounded<Term, RUNS_MAX>,
    owners: Bounded<OwnerId, RUNS_MAX>,
    runs: Bounded<PackedRun, RUNS_MAX>,
}

#[derive(Serialize, Deserialize)]
struct PackedRun {
    /// Addresses between the end of the run before (or 0) and this one.
    skipped: u128,
    /// Addresses after the first.
    more: u128,
    term: u8,
    owner: u8,
    seq: u32,
}

impl Runs {
    /// Takes `runs`; `None` if they are more than [`RUNS_MAX`], not ascending or overlap.
    pub fn new(runs: Vec<Run>) -> Option<Self> {
        let ascending = runs.is_sorted_by(|a, b| a.range.last() < b.range.first());
        (ascending && runs.len() <= RUNS_MAX).then_some(Runs(runs))
    }

    /// The longest beginning of `runs`, which have to be ascending and disjoint, that takes at
    /// most `len_max` bytes. At least one run, so that there is always progress, if there is any.
    pub fn take_from(runs: impl IntoIterator<Item = Run>, len_max: usize) -> Self {
        let mut taken = Packer::default();
        for run in runs {
            if !taken.push(run, len_max) {
                break;
            }
        }
        taken.runs
    }

    /// All of `runs`, which have to be ascending and disjoint, in lists of at most `len_max`
    /// bytes each.
    pub fn lists(runs: impl IntoIterator<Item = Run>, len_max: usize) -> Vec<Runs> {
        let mut lists = Vec::new();
        let mut packer = Packer::default();
        for run in runs {
            if !packer.push(run, len_max) {
                lists.push(core::mem::take(&mut packer).runs);
                packer.push(run, len_max);
            }
        }
        if !packer.runs.0.is_empty() {
            lists.push(packer.runs);
        }
        lists
    }

    /// The runs, ascending.
    pub fn as_slice(&self) -> &[Run] {
        &self.0
    }

    /// The runs, owned.
    pub fn into_vec(self) -> Vec<Run> {
        self.0
    }
}

/// Collects runs and counts the bytes they will take.
#[derive(Default)]
struct Packer {
    runs: Runs,
    len: usize,
}

/// Bytes of the three lengths before the lists; each is at most [`RUNS_MAX`], so one byte.
const LENGTHS_LEN: usize = 3;

impl Packer {
    /// False, and nothing changed, if the run does not fit or does not come after the last.
    fn push(&mut self, run: Run, len_max: usize) -> bool {
        let list = &self.runs.0;
        let from = match list.last() {
            Some(before) if before.range.last() >= run.range.first() => return false,
            Some(before) => before.range.last(),
            None => 0,
        };
        let Cell { term, seq, owner } = run.cell;
        let mut len = varint_len(run.range.first() - from)
            + varint_len(run.range.last() - run.range.first())
            + varint_len(u128::from(seq))
            + 2;
        if list.iter().all(|known| known.cell.term != term) {
            len += varint_len(u128::from(term.n)) + 16;
        }
        if list.iter().all(|known| known.cell.owner != owner) {
            len += varint_len(u128::from(owner.incarnation)) + 16;
        }
        let too_long = LENGTHS_LEN + self.len + len > len_max;
        if list.len() >= RUNS_MAX || (too_long && !list.is_empty()) {
            return false;
        }
        self.len += len;
        self.runs.0.push(run);
        true
    }
}

/// Bytes of a number in the codec (bincode 2's variable-length integers), or one more.
fn varint_len(number: u128) -> usize {
    match number {
        0..251 => 1,
        251..0x1_0000 => 3,
        0x1_0000..0x1_0000_0000 => 5,
        0x1_0000_0000..0x1_0000_0000_0000_0000 => 9,
        _ => 17,
    }
}

/// The place of `item` in `list`, where it is put if it is not there; lists stay below 256.
fn place<T: PartialEq>(list: &mut Vec<T>, item: T) -> u8 {
    let at = list.iter().position(|known| *known == item);
    let at = at.unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    });
    u8::try_from(at).unwrap_or(u8::MAX)
}

impl From<&Runs> for Packed {
    fn from(runs: &Runs) -> Self {
        let (mut terms, mut owners, mut packed) = (Vec::new(), Vec::new(), Vec::new());
        let mut from = 0;
        for Run { range, cell } in &runs.0 {
            packed.push(PackedRun {
                skipped: range.first().saturating_sub(from),
                more: range.last() - range.first(),
                term: place(&mut terms, cell.term),
                owner: place(&mut owners, cell.owner),
                seq: cell.seq,
            });
            from = range.last();
        }
        Packed {
            terms: Bounded::take_from(terms),
            owners: Bounded::take_from(owners),
            runs: Bounded::take_from(packed),
        }
    }
}

impl Packed {
    /// `None` if a run lies beyond the last address, overlaps the one before or names what is not
    /// in the message.
    fn unpack(&self) -> Option<Runs> {
        let mut runs = Vec::with_capacity(self.runs.as_slice().len());
        let mut from = 0u128;
        for packed in self.runs.as_slice() {
            let first = from.checked_add(packed.skipped)?;
            let range = Range::new(first, first.checked_add(packed.more)?)?;
            let cell = Cell {
                term: *self.terms.as_slice().get(usize::from(packed.term))?,
                seq: packed.seq,
                owner: *self.owners.as_slice().get(usize::from(packed.owner))?,
            };
            runs.push(Run { range, cell });
            from = range.last();
        }
        Runs::new(runs)
    }
}

impl Serialize for Runs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Packed::from(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Runs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Packed::deserialize(deserializer)?
            .unpack()
            .ok_or_else(|| serde::de::Error::custom("runs that no list of runs is"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rmesh_wire::PeerId;
    use rmesh_wire::codec::{CodecError, decode, encode};

    fn run(first: u128, last: u128, peer: u8, seq: u32) -> Run {
        let owner = OwnerId {
            peer: PeerId([peer; 16]),
            incarnation: u64::MAX - u64::from(peer),
        };
        Run {
            range: Range::new(first, last).unwrap(),
            cell: Cell {
                seq,
                ..Cell::founded(owner)
            },
        }
    }

    #[test]
    fn owners_and_terms_are_sent_once() {
        let runs = [run(0, 3, 1, 0), run(4, 7, 2, 1), run(9, 9, 1, 0)];
        let runs = Runs::new(runs.to_vec()).unwrap();
        let bytes = encode(&runs).unwrap();
        // Version and three lengths, a term, two owners, three runs of five bytes.
        assert_eq!(bytes.len(), 4 + 17 + 2 * 25 + 3 * 5);
        assert_eq!(decode(&bytes), Ok(runs));
    }

    #[test]
    fn what_no_list_is_is_not_decoded() {
        let owner = run(0, 0, 1, 0).cell.owner;
        let packed = |terms: &[Term], places: &[(u128, u128, u8, u8, u32)]| {
            encode(&(terms, [owner].as_slice(), places)).unwrap()
        };
        let first = [Term::FIRST];
        assert!(decode::<Runs>(&packed(&first, &[(5, 5, 0, 0, 0)])).is_ok());
        let bad = [
            packed(&first, &[(5, 5, 0, 1, 0)]),
            packed(&first, &[(5, 5, 1, 0, 0)]),
            packed(&first, &[(5, u128::MAX, 0, 0, 0)]),
            packed(&first, &[(5, 5, 0, 0, 0), (0, 5, 0, 0, 0)]),
        ];
        for bytes in bad {
            assert_eq!(decode::<Runs>(&bytes), Err(CodecError::Malformed));
        }
        let unused = packed(&[Term::FIRST, Term::FIRST], &[(5, 5, 0, 0, 0)]);
        assert_eq!(decode::<Runs>(&unused), Err(CodecError::NotCanonical));
    }

    proptest! {
        #[test]
        fn decoding_is_total(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<Runs>(&bytes);
        }

        #[test]
        fn lists_fit_and_lose_nothing(
            steps in prop::collection::vec((1..u64::MAX, 0..3u8, any::<u32>()), 0..200),
            len_max in 100..1_200usize,
        ) {
            let mut at = 0u128;
            let runs: Vec<Run> = steps.into_iter().map(|(step, peer, seq)| {
                at += u128::from(step) << (u32::from(peer) * 24);
                run(at, at, peer, seq)
            }).collect();
            let lists = Runs::lists(runs.iter().copied(), len_max);
            let mut back = Vec::new();
            for list in lists {
                let bytes = encode(&list).unwrap();
                prop_assert!(bytes.len() <= 1 + len_max);
                prop_assert_eq!(decode::<Runs>(&bytes), Ok(list.clone()));
                back.extend(list.into_vec());
            }
            prop_assert_eq!(back, runs);
        }
    }
}
