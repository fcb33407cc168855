//! A snapshot tells the same as the history it replaces.

use alloc::vec;

use proptest::prelude::*;

use super::*;
use crate::setup::Pool;

fn owner(peer: u8) -> OwnerId {
    OwnerId {
        peer: PeerId([peer; 16]),
        incarnation: 1,
    }
}

fn range() -> impl Strategy<Value = Range> {
    (0..60u128, 0..8u128).prop_map(|(first, more)| Range::new(first, first + more).unwrap())
}

fn term() -> impl Strategy<Value = Term> {
    (0..3u32, 1..4u8).prop_map(|(n, taker)| match n {
        0 => Term::FIRST,
        n => Term {
            n,
            taker: PeerId([taker; 16]),
        },
    })
}

fn runs() -> impl Strategy<Value = Runs> {
    (range(), term(), 0..3u32, 1..4u8).prop_map(|(range, term, seq, peer)| {
        let owner = owner(peer);
        let cell = Cell { term, seq, owner };
        Runs::new(Vec::from([Run { range, cell }])).unwrap()
    })
}

fn setup() -> impl Strategy<Value = Setup> {
    (0..3u32, 1..4u8).prop_map(|(epoch, witness)| Setup {
        stamp: Stamp {
            generation: crate::setup::Generation::default(),
            epoch,
        },
        witnesses: Bounded::take_from([owner(witness)]),
        lives: Bounded::take_from([1]),
        pools: Bounded::take_from([Pool {
            range: Range::new(0, 63).unwrap(),
            founder: owner(1),
        }]),
    })
}

fn target() -> impl Strategy<Value = Stamp> {
    (0..3u32, 1..3u8).prop_map(|(n, peer)| {
        let by = PeerId([peer; 16]);
        Stamp::first_of(crate::setup::Generation { n, by })
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let peer = (1..4u8).prop_map(|peer| PeerId([peer; 16]));
    let ballot = (0..4u32).prop_map(|n| Ballot {
        n,
        leader: PeerId([1; 16]),
        life: 1,
    });
    prop_oneof![
        1 => (1..3u64).prop_map(|incarnation| Entry::Began { peer: PeerId([1; 16]), incarnation }),
        1 => (setup(), any::<bool>()).prop_map(|(setup, installed)| Entry::Joined {
            ring: RingId([7; 16]), setup, installed,
        }),
        2 => (setup(), any::<bool>())
            .prop_map(|(setup, installed)| Entry::SetupChosen { setup, installed }),
        1 => ballot.clone().prop_map(|ballot| Entry::SetupPromised {
            target: Stamp::default().next(), ballot,
        }),
        1 => (ballot.clone(), setup())
            .prop_map(|(ballot, setup)| Entry::SetupAccepted { ballot, setup }),
        1 => (1..4u64).prop_map(Entry::Life),
        1 => any::<bool>().prop_map(|unproven| Entry::Unsure { unproven }),
        1 => Just(Entry::Sure),
        1 => target().prop_map(Entry::Left),
        1 => target().prop_map(Entry::ReformBegan),
        1 => target().prop_map(Entry::ReformEnded),
        2 => (runs(), range(), term()).prop_map(|(accepted, range, term)| Entry::Carried {
            accepted, promised: Bounded::take_from([(range, term)]),
        }),
        6 => runs().prop_map(Entry::Merged),
        3 => (term(), range()).prop_map(|(term, range)| Entry::Promised {
            term, ranges: Bounded::take_from([range]),
        }),
        4 => runs().prop_map(Entry::Accepted),
        3 => runs().prop_map(Entry::Granted),
        1 => any::<u32>().prop_map(Entry::TermUsed),
        4 => (0..64u128, "[abc]").prop_map(|(address, container)| {
            Entry::Allocated { address, container }
        }),
        3 => (0..64u128).prop_map(|address| Entry::Freed { address }),
        3 => range().prop_map(|range| Entry::Reserved(Bounded::take_from([range]))),
        1 => range().prop_map(Entry::Unreserved),
        2 => (peer.clone(), range()).prop_map(|(peer, range)| Entry::Held {
            peer, ranges: Bounded::take_from([range]),
        }),
        1 => range().prop_map(Entry::HeldEnded),
        1 => (1..4u8).prop_map(|peer| Entry::Removed { owner: owner(peer), name: "host".into(), n: 7 }),
        1 => ballot.clone().prop_map(Entry::FoundingPromised),
        1 => (ballot, setup()).prop_map(|(ballot, setup)| Entry::FoundingAccepted {
            ballot, foundation: Foundation { ring: RingId([7; 16]), setup },
        }),
        2 => (peer, prop::collection::vec(0..64u128, 0..4), any::<bool>())
            .prop_map(|(peer, addresses, gone)| Entry::Announced {
                peer, addresses: Bounded::take_from(addresses), gone,
            }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_snapshot_folds_to_the_same_state(history in prop::collection::vec(entry(), 0..40)) {
        let encoded: Vec<Vec<u8>> = history.iter().map(|entry| entry.encode().unwrap()).collect();
        let ledger = Ledger::fold(encoded.iter().map(Vec::as_slice), Instant::ZERO).unwrap();
        let snapshot = ledger.snapshot();
        let again = Ledger::fold(snapshot.iter().map(Vec::as_slice), Instant::ZERO).unwrap();
        prop_assert_eq!(ledger.entries(), again.entries());
        let owned: Vec<Range> = ledger.space.owned().collect();
        prop_assert_eq!(owned, again.space.owned().collect::<Vec<Range>>());
        prop_assert_eq!(ledger.space.free_count(), again.space.free_count());
    }
}

#[test]
fn a_snapshot_tells_the_same_after_the_ledger_became_another_peers() {
    let began = |peer| Entry::Began {
        peer: owner(peer).peer,
        incarnation: 1,
    };
    let by = owner(1).peer;
    let ended = Stamp::first_of(crate::setup::Generation { n: 1, by });
    let mut ledger = Ledger::default();
    for entry in [began(1), Entry::ReformEnded(ended), began(2)] {
        ledger.apply(&entry, Instant::ZERO);
    }
    let snapshot = ledger.snapshot();
    let again = Ledger::fold(snapshot.iter().map(Vec::as_slice), Instant::ZERO);
    assert_eq!(again.as_ref(), Ok(&ledger));
}
