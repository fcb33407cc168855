//! Two rings become equal, in few messages, also when some are lost.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;

use rmesh_ipam::sync::{ANSWERS_MAX, SYNC_LEN_MAX, Sync, answer, describe};
use rmesh_ipam::{Cell, OwnerId, Range, Ring, Run, Term};
use rmesh_wire::PeerId;
use rmesh_wire::codec::decode;

/// A small random source (xorshift64*, Vigna 2016).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn owner(number: u64) -> OwnerId {
    let mixed = Random(number + 1).next();
    let mut peer = [0; 16];
    peer[..8].copy_from_slice(&mixed.to_be_bytes());
    OwnerId {
        peer: PeerId(peer),
        incarnation: mixed.rotate_left(17),
    }
}

/// Number `number` of a ring's runs: 256 addresses of IPv4, or 2^80 of IPv6.
fn run(number: u64, seq: u32) -> Run {
    let range = match number % 4 {
        0 => Range::block((0xfd32 << 112) + (u128::from(number) << 80), 80),
        _ => Range::block(
            Range::V4.first() + (10 << 24) + (u128::from(number) << 8),
            8,
        ),
    };
    let cell = Cell {
        term: Term::FIRST,
        seq,
        owner: owner(number % 1_000 + u64::from(seq) * 7),
    };
    Run { range, cell }
}

/// What it took to make two rings equal.
#[derive(Debug, Default)]
struct Cost {
    rounds: usize,
    messages: usize,
    bytes: usize,
}

/// Rounds, each begun by one peer in turn, until the rings are equal; `loss` in percent.
fn settle(rings: &mut [Ring; 2], loss: u64, random: &mut Random) -> Cost {
    let mut cost = Cost::default();
    while rings[0] != rings[1] {
        let begins = cost.rounds % 2;
        cost.rounds += 1;
        assert!(cost.rounds <= 100, "no end: {cost:?}");
        let mut under_way = VecDeque::from([(1 - begins, describe(&rings[begins], Range::ALL))]);
        while let Some((to, message)) = under_way.pop_front() {
            let bytes = message.encode().unwrap();
            assert!(bytes.len() <= SYNC_LEN_MAX);
            cost.messages += 1;
            cost.bytes += bytes.len();
            assert!(cost.messages < 20_000, "no end: {cost:?}");
            if random.below(100) < loss {
                continue;
            }
            let message: Sync = decode(&bytes).unwrap();
            let before = answer(&rings[to], &message);
            rings[to].merge(message.runs().iter().copied());
            let answers = answer(&rings[to], &message);
            assert!(answers.len() <= ANSWERS_MAX);
            assert_eq!(before, answers, "merging first makes no difference");
            under_way.extend(answers.into_iter().map(|answer| (1 - to, answer)));
        }
    }
    cost
}

#[test]
fn one_changed_run_among_three_thousand_costs_little() {
    let ring: Ring = (0..3_000).map(|n| run(n, 0)).collect();
    let mut most = 0;
    for changed in [0, 1, 1_499, 2_998, 2_999] {
        let mut newer = ring.clone();
        newer.merge([run(changed, 1)]);
        for mut rings in [[ring.clone(), newer.clone()], [newer.clone(), ring.clone()]] {
            let cost = settle(&mut rings, 0, &mut Random(1));
            assert_eq!(rings[0], newer);
            assert_eq!(cost.rounds, 1);
            most = most.max(cost.bytes);
        }
    }
    println!("one changed run among 3,000: at most {most} bytes both ways");
    assert!(most < 3_000, "{most}");
}

#[test]
fn one_that_has_nothing_gets_the_whole_ring_in_one_round() {
    let ring: Ring = (0..3_000).map(|n| run(n, 0)).collect();
    for mut rings in [[ring.clone(), Ring::new()], [Ring::new(), ring.clone()]] {
        let cost = settle(&mut rings, 0, &mut Random(1));
        println!("3,000 runs to one that has none: {cost:?}");
        assert_eq!((cost.rounds, &rings[1]), (1, &ring));
        assert!(cost.bytes < 200_000);
    }
}

#[test]
fn rings_that_grew_apart_become_equal_also_under_loss() {
    for (loss, rounds_max) in [(0, 1), (5, 10), (30, 40)] {
        for seed in 1..=20 {
            let mut random = Random(seed);
            let count = 1 + random.below(3_000);
            let [mut a, mut b] = [Ring::new(), Ring::new()];
            for number in 0..count {
                for ring in [&mut a, &mut b] {
                    if random.below(10) > 0 {
                        let seq = u32::from(random.below(10) == 0);
                        ring.merge([run(number, seq)]);
                    }
                }
            }
            let mut expected = a.clone();
            expected.merge(b.iter());
            let mut rings = [a, b];
            let cost = settle(&mut rings, loss, &mut random);
            assert_eq!(rings[0], expected);
            assert!(cost.rounds <= rounds_max, "{loss} %, seed {seed}: {cost:?}");
            if seed % 10 == 0 {
                println!("{count} runs, a fifth differs, {loss} % lost: {cost:?}");
            }
        }
    }
}

#[test]
fn small_and_odd_rings_become_equal() {
    for seed in 1..=300 {
        let mut random = Random(seed);
        let mut rings = [Ring::new(), Ring::new()];
        for _ in 0..random.below(60) {
            let (a, b) = (random.below(100), random.below(100));
            let base = [0, u128::MAX - 99, Range::V4.last() - 50][random.below(3) as usize];
            let range = Range::new(base + u128::from(a.min(b)), base + u128::from(a.max(b)));
            let cell = Cell {
                seq: random.below(4) as u32,
                ..Cell::founded(owner(random.below(3)))
            };
            let run = Run {
                range: range.unwrap(),
                cell,
            };
            rings[random.below(2) as usize].merge([run]);
        }
        let cost = settle(&mut rings, 0, &mut random);
        assert!(cost.rounds <= 1, "seed {seed}: {cost:?}");
    }
}
