//! Every message fits, at its longest; decoding is total.

use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::cell::{Cell, OwnerId};
use crate::limits::{PAGE_RUNS_LEN_MAX, POOLS_MAX, RUNS_LEN_MAX, WITNESSES_MAX};
use crate::ring::Run;
use crate::setup::{Generation, Pool};

fn wide(n: usize) -> u128 {
    u128::MAX - ((n as u128 + 1) << 80)
}

fn owner(n: usize) -> OwnerId {
    OwnerId {
        peer: PeerId(wide(n).to_be_bytes()),
        incarnation: u64::MAX - n as u64,
    }
}

fn range(n: usize) -> Range {
    Range::block((n as u128 + 1) << 110, 100)
}

fn term(n: usize) -> Term {
    Term {
        n: u32::MAX,
        taker: owner(n).peer,
    }
}

fn runs(len_max: usize) -> Runs {
    let runs = (0..40).map(|n| Run {
        range: range(n),
        cell: Cell {
            term: term(n),
            seq: u32::MAX,
            owner: owner(n),
        },
    });
    Runs::take_from(runs, len_max)
}

fn setup() -> Setup {
    let pools = (0..POOLS_MAX).map(|n| Pool {
        range: range(n),
        founder: owner(n),
    });
    Setup {
        stamp: stamp(),
        witnesses: Bounded::take_from((0..WITNESSES_MAX).map(owner)),
        lives: Bounded::take_from([u64::MAX; WITNESSES_MAX]),
        pools: Bounded::take_from(pools),
    }
}

fn stamp() -> Stamp {
    Stamp {
        generation: Generation {
            n: u32::MAX,
            by: owner(0).peer,
        },
        epoch: u32::MAX,
    }
}

fn ballot() -> Ballot {
    Ballot {
        n: u32::MAX,
        leader: owner(0).peer,
        life: u64::MAX,
    }
}

fn addresses() -> Bounded<u128, ADDRESSES_MAX> {
    Bounded::take_from((0..ADDRESSES_MAX).map(wide))
}

/// About cells.
fn longest_of_cells() -> Vec<Body> {
    let (id, stamp) = (u64::MAX, stamp());
    let cells = runs(RUNS_LEN_MAX * 2 / 3);
    let ranges = Bounded::take_from((0..RANGES_MAX).map(range));
    let (term, peer) = (term(0), owner(0).peer);
    let (covered_to, next) = (u128::MAX, Some(u128::MAX));
    let announced = Some(addresses());
    let accept = runs(RUNS_LEN_MAX);
    Vec::from([
        Body::Push(runs(RUNS_LEN_MAX)),
        Body::Accept {
            id,
            stamp,
            runs: accept,
        },
        Body::Prepare {
            id,
            stamp,
            term,
            removed: peer,
            ranges,
        },
        Body::Promise {
            id,
            stamp,
            covered_to,
            cells,
            announced,
        },
        Body::Announced {
            peer,
            addresses: addresses(),
            next,
        },
        Body::Read {
            id,
            cells: runs(RUNS_LEN_MAX),
        },
    ])
}

/// About setups.
fn longest_of_setups() -> Vec<Body> {
    let (id, target, ballot, setup) = (u64::MAX, stamp(), ballot(), setup());
    let page = Page {
        covered_to: u128::MAX - 1,
        accepted: runs(PAGE_RUNS_LEN_MAX),
        promised: Bounded::take_from((0..PROMISES_MAX).map(|n| (range(n), term(n)))),
    };
    let ring = RingId([255; 16]);
    let foundation = Foundation {
        ring,
        setup: setup.clone(),
    };
    let known = Some((ballot, foundation.clone()));
    let accepted = Some((ballot, setup.clone()));
    let (hash, part, from) = (u64::MAX, u32::MAX, u128::MAX);
    Vec::from([
        Body::Setup {
            ring,
            setup: setup.clone(),
        },
        Body::Sealed {
            target,
            ballot,
            hash,
            accepted,
        },
        Body::State {
            id,
            from,
            hash,
            page: page.clone(),
        },
        Body::Carry {
            target,
            ballot,
            part,
            page,
        },
        Body::Install {
            target,
            ballot,
            hash,
            setup,
        },
        Body::FoundPromise {
            ballot,
            promised: ballot,
            accepted: known,
        },
        Body::FoundAccept { ballot, foundation },
    ])
}

#[test]
fn the_longest_messages_fit() {
    for body in longest_of_cells().into_iter().chain(longest_of_setups()) {
        let message = Message {
            ring: u64::MAX,
            incarnation: u64::MAX,
            life: u64::MAX,
            written: u64::MAX,
            body,
        };
        let bytes = message
            .encode()
            .unwrap_or_else(|| panic!("too long: {message:?}"));
        assert_eq!(Message::decode(&bytes), Some(message));
    }
}

proptest! {
    #[test]
    fn decoding_is_total(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let with_version = [&[1], bytes.as_slice()].concat();
        let _ = (Message::decode(&bytes), Message::decode(&with_version));
    }
}
