//! What peers send each other about the ring.

use std::sync::LazyLock;

use rmesh_ipam::sync::{ANSWERS_MAX, Sync, answer};
use rmesh_ipam::{Cell, OwnerId, Range, Ring, Run, Space, Term};
use rmesh_wire::codec::decode;
use rmesh_wire::{Instant, PeerId};

pub(super) const TARGETS: &[rmesh_gossip::fuzz::Entry] = &[("ipam_sync", sync)];

/// A ring with runs in both families, at their ends too, in two terms.
static RING: LazyLock<Ring> = LazyLock::new(|| {
    let bases = [
        0,
        u128::MAX - 0xff,
        Range::V4.first(),
        Range::V4.last() - 0xff,
    ];
    let runs = bases
        .into_iter()
        .flat_map(|base| (0..16).map(move |n| run(base, n)));
    runs.collect()
});

fn run(base: u128, number: u8) -> Run {
    let owner = OwnerId {
        peer: PeerId([number % 5; 16]),
        incarnation: u64::from(number % 5),
    };
    let term = Term {
        n: u32::from(number % 2),
        taker: PeerId([number % 2; 16]),
    };
    let seq = u32::from(number);
    let range = Range::block(base + u128::from(number) * 16, 4);
    let cell = Cell { term, seq, owner };
    Run { range, cell }
}

/// A message is answered within its bounds; its runs are merged, and come to the same again.
fn sync(bytes: &[u8]) {
    let mut ring = RING.clone();
    let Ok(message) = decode::<Sync>(bytes) else {
        return;
    };
    let answers = answer(&ring, &message);
    assert!(answers.len() <= ANSWERS_MAX);
    for answer in &answers {
        let bytes = answer.encode().expect("an answer that fits");
        assert_eq!(decode::<Sync>(&bytes).as_ref(), Ok(answer));
    }
    drop(answers);
    let mut space = Space::new();
    for run in ring.merge(message.runs().iter().copied()) {
        space.own(run.range);
        if let Ok(block) = space.pick_block(run.range, 128, Instant::ZERO, |_| 1) {
            assert!(run.range.covers(&block));
            space.disown(block);
        }
    }
    assert!(ring.merge(message.runs().iter().copied()).is_empty());
    assert!(ring.merge(RING.iter()).is_empty());
}
