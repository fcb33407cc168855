//! The laws of the ring: merging is commutative, associative, idempotent and monotone, and on runs
//! it is what it is on single addresses.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use rmesh_ipam::{Cell, OwnerId, Range, Ring, Run, RunMap, Term};
use rmesh_wire::PeerId;

/// Addresses of the small universe that is gone through whole.
const SMALL: usize = 4;
/// Addresses of a window for random histories.
const WINDOW: usize = 16;

fn owner(peer: u8) -> OwnerId {
    OwnerId {
        peer: PeerId([peer; 16]),
        incarnation: u64::from(peer),
    }
}

fn cell(term: u32, seq: u32, peer: u8) -> Cell {
    let taker = PeerId([u8::from(term > 0); 16]);
    Cell {
        term: Term { n: term, taker },
        seq,
        owner: owner(peer),
    }
}

/// Where windows begin: both ends of IPv4 and IPv6, and across the ends of IPv4.
fn bases() -> [u128; 6] {
    let window = WINDOW as u128;
    let (first, last) = (Range::V4.first(), Range::V4.last());
    [
        0,
        u128::MAX - window + 1,
        first,
        last - window + 1,
        first - window / 2,
        last - window / 2,
    ]
}

/// A ring built address by address from an array.
fn ring_of(base: u128, cells: &[Option<Cell>]) -> Ring {
    let runs = cells.iter().enumerate().filter_map(|(at, cell)| {
        let range = Range::one(base + at as u128);
        cell.map(|cell| Run { range, cell })
    });
    runs.collect()
}

fn merged(a: &Ring, b: &Ring) -> Ring {
    let mut merged = a.clone();
    let news = merged.merge(b.iter());
    // What is news is exactly what has changed.
    for run in &news {
        let differs = |(_, cell): (Range, Option<&Cell>)| cell.is_none_or(|c| *c < run.cell);
        assert!(a.pieces(run.range).all(differs));
        assert!(b.within(run.range).all(|theirs| theirs.cell == run.cell));
    }
    assert_eq!(news.is_empty(), merged == *a);
    assert_kept_right(&merged);
    merged
}

/// What is kept is what a walk finds.
fn assert_kept_right(ring: &Ring) {
    assert_eq!(ring.hash(), ring.hash_of(Range::ALL));
    let owners = ring.sizes(Range::ALL).into_keys();
    let peers: BTreeSet<PeerId> = ring.iter().map(|run| run.cell.owner.peer).collect();
    let kept = peers.into_iter().flat_map(|peer| ring.owners_of(peer));
    assert!(owners.eq(kept));
}

fn max_of(a: &[Option<Cell>], b: &[Option<Cell>]) -> Vec<Option<Cell>> {
    a.iter().zip(b).map(|(a, b)| *a.max(b)).collect()
}

/// All arrays of [`SMALL`] addresses with these values.
fn universe(values: &[Option<Cell>]) -> Vec<Vec<Option<Cell>>> {
    (0..values.len().pow(SMALL as u32))
        .map(|mut code| {
            let digit = |_| {
                let value = values[code % values.len()];
                code /= values.len();
                value
            };
            (0..SMALL).map(digit).collect()
        })
        .collect()
}

#[test]
fn on_a_small_universe_merging_runs_is_the_maximum_of_each_address() {
    let values = [
        None,
        Some(cell(0, 0, 9)),
        Some(cell(0, 1, 1)),
        Some(cell(1, 0, 2)),
    ];
    let arrays = universe(&values);
    let mut pairs = 0;
    // At the last addresses there are, where an overflow would show.
    let base = u128::MAX - SMALL as u128 + 1;
    let rings: Vec<Ring> = arrays.iter().map(|cells| ring_of(base, cells)).collect();
    for (a, ring_a) in arrays.iter().zip(&rings) {
        assert_eq!(merged(ring_a, ring_a), *ring_a, "idempotent");
        for (b, ring_b) in arrays.iter().zip(&rings) {
            let both = merged(ring_a, ring_b);
            assert_eq!(both, ring_of(base, &max_of(a, b)), "{a:?} {b:?}");
            assert_eq!(both, merged(ring_b, ring_a), "commutative");
            assert_eq!(merged(&both, ring_b), both, "monotone");
            pairs += 1;
        }
    }
    println!("{} rings of {SMALL} addresses: {pairs} pairs", rings.len());
}

#[test]
fn on_a_small_universe_the_order_of_three_merges_does_not_matter() {
    let arrays = universe(&[None, Some(cell(0, 0, 9)), Some(cell(0, 1, 1))]);
    let rings: Vec<Ring> = arrays.iter().map(|cells| ring_of(0, cells)).collect();
    let merge: Vec<Vec<Ring>> = rings
        .iter()
        .map(|a| rings.iter().map(|b| merged(a, b)).collect())
        .collect();
    let mut triples = 0;
    for (a, ring_a) in rings.iter().enumerate() {
        for (b, _) in rings.iter().enumerate() {
            for (c, ring_c) in rings.iter().enumerate() {
                let mut left = merge[a][b].clone();
                left.merge(ring_c.iter());
                let mut right = ring_a.clone();
                right.merge(merge[b][c].iter());
                assert_eq!(left, right);
                triples += 1;
            }
        }
    }
    println!("{} rings: {triples} triples", rings.len());
}

/// Runs with offsets in a window, of which many overlap, and some contradict each other.
fn history() -> impl Strategy<Value = Vec<(usize, usize, Cell)>> {
    let cell = (0..2u32, 0..3u32, 0..3u8).prop_map(|(term, seq, peer)| cell(term, seq, peer));
    vec((0..WINDOW, 0..WINDOW, cell), 0..12)
}

fn runs_at(base: u128, history: &[(usize, usize, Cell)]) -> Vec<Run> {
    let run = |(a, b, cell): &(usize, usize, Cell)| {
        let (first, last) = (base + *a.min(b) as u128, base + *a.max(b) as u128);
        let range = Range::new(first, last).unwrap();
        Run { range, cell: *cell }
    };
    history.iter().map(run).collect()
}

fn array_of(history: &[(usize, usize, Cell)]) -> Vec<Option<Cell>> {
    let mut cells = vec![None; WINDOW];
    for (a, b, cell) in history {
        for old in &mut cells[*a.min(b)..=*a.max(b)] {
            *old = (*old).max(Some(*cell));
        }
    }
    cells
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn histories_merge_to_the_same_ring_in_any_order(
        a in history(), b in history(), c in history(),
    ) {
        for base in bases() {
            let [ring_a, ring_b, ring_c] =
                [&a, &b, &c].map(|h| runs_at(base, h).into_iter().collect::<Ring>());
            let all: Vec<_> = [a.clone(), b.clone(), c.clone()].concat();
            let expected = ring_of(base, &array_of(&all));
            let left = merged(&merged(&ring_a, &ring_b), &ring_c);
            let right = merged(&ring_c, &merged(&ring_b, &ring_a));
            prop_assert_eq!(&left, &expected);
            prop_assert_eq!(&right, &expected);
            prop_assert_eq!(left.hash(), right.hash());
            let mut backwards = runs_at(base, &all);
            backwards.reverse();
            prop_assert_eq!(&backwards.into_iter().collect::<Ring>(), &expected);
        }
    }

    #[test]
    fn a_map_of_runs_is_a_map_of_addresses(
        steps in vec((0..WINDOW, 0..WINDOW, 0..4u8, any::<bool>()), 0..20),
        parts in 1..20usize,
    ) {
        for base in bases() {
            let mut map = RunMap::new();
            let mut array: Vec<Option<u8>> = vec![None; WINDOW];
            for (a, b, value, raise) in &steps {
                let (low, high) = (*a.min(b), *a.max(b));
                let range = Range::new(base + low as u128, base + high as u128).unwrap();
                let value = value.checked_sub(1);
                for old in &mut array[low..=high] {
                    *old = if *raise { (*old).max(value) } else { value };
                }
                match value {
                    _ if *raise => map.update(range, |_, old| old.copied().max(value)),
                    Some(value) => map.set(range, value),
                    None => map.remove(range),
                }
                check_map(&map, base, &array);
                let halves = map.split(range, parts);
                prop_assert!(halves.len() <= parts);
                prop_assert_eq!(halves[0].first(), range.first());
                prop_assert_eq!(halves.last().unwrap().last(), range.last());
                prop_assert!(halves.is_sorted_by(|a, b| a.after(a.last()).is_none()
                    && a.last() + 1 == b.first()));
            }
        }
    }
}

fn check_map(map: &RunMap<u8>, base: u128, array: &[Option<u8>]) {
    let at = |offset: usize| base + offset as u128;
    for (offset, value) in array.iter().enumerate() {
        assert_eq!(map.get(at(offset)), value.as_ref());
    }
    let runs: Vec<(Range, &u8)> = map.iter().collect();
    let apart = |a: &(Range, &u8), b: &(Range, &u8)| {
        a.0.last() < b.0.first() && (a.0.last() + 1 < b.0.first() || a.1 != b.1)
    };
    assert!(runs.is_sorted_by(apart), "not canonical: {runs:?}");
    let window = Range::new(at(1), at(WINDOW - 2)).unwrap();
    let pieces: Vec<_> = map.pieces(window).collect();
    let ends_meet = |w: &[(Range, Option<&u8>)]| w[0].0.last() + 1 == w[1].0.first();
    assert!(pieces.windows(2).all(ends_meet));
    assert_eq!(pieces[0].0.first(), window.first());
    assert_eq!(pieces.last().unwrap().0.last(), window.last());
    let gaps: Vec<Range> = map.gaps(window).collect();
    let without = pieces.iter().filter(|(_, value)| value.is_none());
    assert_eq!(gaps, without.map(|(gap, _)| *gap).collect::<Vec<_>>());
}
