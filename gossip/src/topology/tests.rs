//! The laws of the record store and of its repair.

extern crate std;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::println;

use proptest::prelude::*;
use rmesh_wire::codec::{self, Bounded, Bytes};
use rmesh_wire::{Boot, Instant, Mac, PeerId, ShortId};

use super::Store;
use super::control::{Control, pack_records};
use super::record::{
    AgedRecord, Body, EndpointRecord, Link, Node, Record, RecordKey, SignedRecord, Version,
};
use super::store::{Outcome, finish};
use crate::crypto::model::ModelCrypto;
use crate::crypto::{Crypto, Key, peer_id};
use crate::limits::{
    ADDRESSES_MAX, CONTROL_LEN_MAX, ENDPOINT_ADDRESSES_MAX, ENDPOINT_LABELS_MAX, LABEL_LEN_MAX,
    LINKS_MAX, RECORD_AGE_MAX, RECORD_APART_MAX,
};

fn seed(number: u64) -> Key {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    Key::new(seed)
}

fn peer(number: u64) -> PeerId {
    peer_id(&ModelCrypto.identity_public(&seed(number)))
}

fn sign(number: u64, section: u8, version: Version, body: Body) -> AgedRecord {
    let identity = ModelCrypto.identity_public(&seed(number));
    let record = Record {
        peer: peer_id(&identity),
        section,
        version,
        body,
    };
    let signed = record.sign(&ModelCrypto, &seed(number), identity);
    AgedRecord {
        age_ms: 0,
        apart_ms: 0,
        signed: signed.unwrap(),
    }
}

fn version(boot: u64, sequence: u64) -> Version {
    let boot = Boot {
        counter: boot,
        random: finish(boot),
    };
    Version { boot, sequence }
}

fn node(sections: u8) -> Node {
    let link = |n: u64| Link {
        to: peer(n).short_id(),
        cost_us: 1_000,
    };
    Node {
        name: String::from("host-17.example"),
        addresses: Bounded::take_from(["192.0.2.1:6783".parse().unwrap()]),
        mtu_bytes: 1_328,
        capabilities: 0,
        up_ms: 0,
        twin: None,
        links: Bounded::take_from((0..10).map(link)),
        sections,
        leaving: false,
    }
}

fn endpoint(number: u8) -> EndpointRecord {
    EndpointRecord {
        mac: Mac([2, 0, 0, 0, 0, number]),
        addresses: Bounded::take_from([(IpAddr::from([10, 32, 0, number]), 12)]),
        name: String::from("web"),
        labels: Bounded::default(),
        moves: 0,
    }
}

fn endpoints(number: u8) -> Body {
    Body::Endpoints(Bounded::take_from([endpoint(number)]))
}

fn insert(store: &mut Store, aged: &AgedRecord) -> Outcome {
    store.insert(aged.clone(), &ModelCrypto, Instant::ZERO)
}

fn contents(store: &Store) -> BTreeMap<RecordKey, Version> {
    let records = store.iter().map(|stored| &stored.record);
    records.map(|r| (r.key(), r.version)).collect()
}

/// Everything one honest peer publishes in `lives` lives, in which its number of endpoint
/// sections goes up and down.
fn history(number: u64, lives: &[Vec<u8>]) -> Vec<AgedRecord> {
    let mut records = Vec::new();
    for (boot, sizes) in (1..).zip(lives) {
        let mut sequence = 0;
        let mut current = 0;
        for sections in sizes {
            sequence += 1;
            let body = Body::Node(node(*sections));
            records.push(sign(number, 0, version(boot, sequence), body));
            for section in current + 1..=*sections {
                sequence += 1;
                let body = endpoints(section);
                records.push(sign(number, section, version(boot, sequence), body));
            }
            current = *sections;
        }
    }
    records
}

fn histories() -> impl Strategy<Value = Vec<AgedRecord>> {
    let lives = prop::collection::vec(prop::collection::vec(0u8..4, 1..4), 1..3);
    prop::collection::vec(lives, 1..5).prop_map(|peers| {
        let all = (0..).zip(peers);
        all.flat_map(|(number, lives)| history(number, &lives))
            .collect()
    })
}

/// A dice whose throws depend on the seed alone.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 += 1;
        finish(self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)) % limit
    }
}

/// Two stores that talk over a lossy wire.
struct Pair {
    stores: [Store; 2],
    dice: Dice,
    loss_percent: u64,
    bytes: usize,
    messages: usize,
}

impl Pair {
    fn new(seed: u64, loss_percent: u64) -> Self {
        Pair {
            stores: [Store::default(), Store::default()],
            dice: Dice(seed),
            loss_percent,
            bytes: 0,
            messages: 0,
        }
    }

    fn agree(&self) -> bool {
        self.stores[0].digest() == self.stores[1].digest()
    }

    /// Both ends see that the digests differ, begin a repair, and answer until all is said.
    fn round(&mut self) {
        let mut queue: Vec<(usize, Control)> =
            vec![(1, self.stores[0].buckets()), (0, self.stores[1].buckets())];
        while let Some((to, message)) = queue.pop() {
            let encoded = message.encode().expect("every message fits a datagram");
            self.bytes += encoded.len();
            self.messages += 1;
            if self.dice.below(100) < self.loss_percent {
                continue;
            }
            let answers = self.receive(to, codec::decode(&encoded).unwrap());
            queue.extend(answers.into_iter().map(|answer| (1 - to, answer)));
        }
    }

    fn receive(&mut self, to: usize, message: Control) -> Vec<Control> {
        let store = &mut self.stores[to];
        match message {
            Control::Buckets(digests) => store.on_buckets(digests.as_slice()),
            Control::Have(have) => store.on_have(&have, Instant::ZERO),
            Control::Want(keys) => store.on_want(keys.as_slice(), Instant::ZERO),
            Control::Records(records) => {
                for aged in records.as_slice() {
                    insert(store, aged);
                }
                Vec::new()
            }
            Control::Channel(..) | Control::Announce(_) => Vec::new(),
        }
    }

    fn rounds_to_agree(&mut self, limit: usize) -> Option<usize> {
        (0..=limit).find(|_| {
            let agree = self.agree();
            if !agree {
                self.round();
            }
            agree
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_order_and_repetition_of_records_gives_the_same_store(
        records in histories(),
        order in any::<u64>(),
    ) {
        let mut dice = Dice(order);
        let (mut straight, mut shuffled) = (Store::default(), Store::default());
        for aged in &records {
            insert(&mut straight, aged);
        }
        let mut mixed: Vec<&AgedRecord> = records.iter().chain(&records).collect();
        mixed.sort_by_cached_key(|_| dice.below(u64::MAX));
        for aged in mixed {
            insert(&mut shuffled, aged);
        }
        prop_assert_eq!(contents(&straight), contents(&shuffled));
        prop_assert_eq!(straight.digest(), shuffled.digest());
        let mut rebuilt = Store::default();
        for stored in straight.iter() {
            insert(&mut rebuilt, &stored.aged(Instant::ZERO));
        }
        prop_assert_eq!(straight.digest(), rebuilt.digest());
    }

    #[test]
    fn two_stores_with_different_records_agree_although_a_third_of_the_messages_is_lost(
        records in histories(),
        seed in any::<u64>(),
    ) {
        let mut pair = Pair::new(seed, 30);
        for aged in &records {
            for at in 0..2 {
                if pair.dice.below(2) == 0 {
                    insert(&mut pair.stores[at], aged);
                }
            }
        }
        let rounds = pair.rounds_to_agree(30);
        prop_assert!(rounds.is_some(), "no agreement within 30 rounds");
        prop_assert_eq!(contents(&pair.stores[0]), contents(&pair.stores[1]));
    }

    #[test]
    fn whatever_arrives_is_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(Control::Have(have)) = codec::decode::<Control>(&bytes) {
            let mut store = Store::default();
            insert(&mut store, &sign(1, 0, version(1, 1), Body::Node(node(0))));
            store.on_have(&have, Instant::ZERO);
        }
        Store::default().on_buckets(&bytes);
        let signed = SignedRecord {
            bytes: Bytes::new(bytes).unwrap(),
            identity: [1; 32],
            signature: codec::Signature([0; 64]),
        };
        prop_assert_eq!(signed.decode(), None);
    }
}

#[test]
fn one_missing_record_among_a_thousand_costs_little_to_repair() {
    let mut pair = Pair::new(1, 0);
    for number in 0..1_000 {
        let aged = sign(number, 0, version(1, 1), Body::Node(node(0)));
        insert(&mut pair.stores[0], &aged);
        if number != 500 {
            insert(&mut pair.stores[1], &aged);
        }
    }
    assert_eq!(pair.rounds_to_agree(3), Some(1));
    println!(
        "one of 1000 records repaired with {} bytes in {} messages, both ends asking at once",
        pair.bytes, pair.messages
    );
    assert!(pair.bytes < 5_000, "{} bytes", pair.bytes);
}

#[test]
fn a_newcomer_gets_a_thousand_records_in_few_rounds_although_some_messages_are_lost() {
    for loss_percent in [0, 30] {
        let mut pair = Pair::new(2, loss_percent);
        for number in 0..1_000 {
            let aged = sign(number, 0, version(1, 1), Body::Node(node(0)));
            insert(&mut pair.stores[0], &aged);
        }
        let rounds = pair.rounds_to_agree(20);
        println!(
            "1000 records to a newcomer at {loss_percent} % loss: {rounds:?} rounds, {} bytes",
            pair.bytes
        );
        assert!(rounds.is_some());
    }
}

#[test]
fn the_fullest_records_fit_one_datagram() {
    let version = Version {
        boot: Boot {
            counter: u64::MAX,
            random: u64::MAX,
        },
        sequence: u64::MAX,
    };
    let v6 = IpAddr::V6(Ipv6Addr::from([0xfd; 16]));
    let link = Link {
        to: ShortId([0xff; 8]),
        cost_us: u32::MAX,
    };
    let node = Node {
        up_ms: 0,
        twin: None,
        name: "n".repeat(63),
        addresses: Bounded::take_from(vec![SocketAddr::new(v6, 6783); ADDRESSES_MAX]),
        mtu_bytes: u16::MAX,
        capabilities: u32::MAX,
        links: Bounded::take_from(vec![link; LINKS_MAX]),
        sections: u8::MAX,
        leaving: true,
    };
    let label = ("k".repeat(LABEL_LEN_MAX), "v".repeat(LABEL_LEN_MAX));
    let endpoint = EndpointRecord {
        mac: Mac([2; 6]),
        addresses: Bounded::take_from(vec![(v6, 128); ENDPOINT_ADDRESSES_MAX]),
        name: "e".repeat(63),
        labels: Bounded::take_from(vec![label; ENDPOINT_LABELS_MAX]),
        moves: u32::MAX,
    };
    let endpoints = Body::Endpoints(Bounded::take_from([endpoint]));
    for (section, body) in [(0, Body::Node(node)), (255, endpoints)] {
        let mut aged = sign(1, section, version, body);
        aged.age_ms = u32::MAX;
        let [message] = &pack_records([aged])[..] else {
            panic!("one message");
        };
        let len = message.encode().expect("it fits").len();
        println!("fullest record of section {section}: {len} of {CONTROL_LEN_MAX} bytes");
    }
}

#[test]
fn what_is_forged_or_out_of_bounds_changes_nothing() {
    let mut store = Store::default();
    let good = sign(1, 0, version(1, 1), Body::Node(node(0)));
    let mut forged = good.clone();
    forged.signed.signature.0[0] ^= 1;
    let mut stolen = good.clone();
    stolen.signed.identity = ModelCrypto.identity_public(&seed(2));
    let mut old = good.clone();
    old.age_ms = u32::try_from(RECORD_AGE_MAX.as_millis()).unwrap();
    let named = |name: &str| Node {
        name: String::from(name),
        ..node(0)
    };
    let long = sign(1, 0, version(1, 1), Body::Node(named(&"x".repeat(64))));
    let bell = sign(1, 0, version(1, 1), Body::Node(named("\u{7}")));
    let misplaced = sign(1, 1, version(1, 1), Body::Node(node(0)));
    for bad in [forged, stolen, old, long, bell, misplaced] {
        assert_eq!(insert(&mut store, &bad), Outcome::Refused);
    }
    assert_eq!(store.digest(), Store::default().digest());
    assert_eq!(insert(&mut store, &good), Outcome::Taken((peer(1), 0)));
    assert_eq!(insert(&mut store, &good), Outcome::Known);
}

#[test]
fn labels_that_would_disturb_a_terminal_are_left_out() {
    let label = |key: &str, value: &str| (String::from(key), String::from(value));
    let mut labelled = endpoint(1);
    let labels = [label("app", "web"), label("colour", "\u{1b}[31m")];
    labelled.labels = Bounded::take_from(labels);
    let body = Body::Endpoints(Bounded::take_from([labelled]));
    let aged = sign(1, 1, version(1, 1), body);
    let Some(Body::Endpoints(kept)) = aged.signed.decode().map(|record| record.body) else {
        panic!("the section stays");
    };
    assert_eq!(kept.as_slice()[0].labels.as_slice(), [label("app", "web")]);
}

#[test]
fn addresses_nothing_can_be_sent_to_are_never_dialled() {
    let mut store = Store::default();
    let all = [
        "192.0.2.1:6783",
        "0.0.0.0:1",
        "224.0.0.1:6783",
        "[2001:db8::1]:0",
    ];
    let node = Node {
        addresses: Bounded::take_from(all.map(|a| a.parse().unwrap())),
        ..node(0)
    };
    insert(&mut store, &sign(1, 0, version(1, 1), Body::Node(node)));
    let kept = store.node(&peer(1)).unwrap().addresses.as_slice();
    assert_eq!(kept, ["192.0.2.1:6783".parse().unwrap()]);
}

#[test]
fn a_restarted_peers_endpoints_of_before_are_forgotten() {
    let mut store = Store::default();
    for aged in history(1, &[vec![2]]) {
        insert(&mut store, &aged);
    }
    assert_eq!(store.iter().count(), 3);
    let restarted = sign(1, 0, version(2, 1), Body::Node(node(1)));
    insert(&mut store, &restarted);
    assert_eq!(store.iter().count(), 1);
    let late = sign(1, 1, version(1, 9), endpoints(1));
    assert_eq!(insert(&mut store, &late), Outcome::Known);
    assert_eq!(store.iter().count(), 1);
}

#[test]
fn a_dead_peers_record_dies_everywhere_and_is_not_handed_back() {
    let delay = Duration::from_millis(150);
    let (mut first, mut second) = (Store::default(), Store::default());
    let aged = sign(1, 0, version(1, 1), Body::Node(node(0)));
    insert(&mut first, &aged);
    second.insert(aged, &ModelCrypto, Instant::ZERO + delay);
    let me = peer(9);
    assert_eq!(first.deadline(me), Some(Instant::ZERO + RECORD_APART_MAX));
    // The second holds it a little longer than the first, and each tells the other all it has.
    let mut now = Instant::ZERO + RECORD_APART_MAX;
    for _ in 0..20 {
        for _ in 0..2 {
            first.expire(me, now);
            second.expire(me, now);
            let said: Vec<AgedRecord> = second.iter().map(|stored| stored.aged(now)).collect();
            now = now + delay;
            first.expire(me, now);
            for aged in said {
                assert_eq!(first.insert(aged, &ModelCrypto, now), Outcome::Refused);
            }
            core::mem::swap(&mut first, &mut second);
        }
    }
    assert_eq!(first.iter().count() + second.iter().count(), 0);
    assert_eq!(first.deadline(me), None);
}

#[test]
fn a_record_lives_while_links_lead_to_its_peer_and_dies_once_they_are_gone() {
    let (me, him) = (peer(9), peer(1));
    let mut store = Store::default();
    insert(&mut store, &sign(1, 0, version(1, 1), Body::Node(node(1))));
    insert(&mut store, &sign(1, 1, version(1, 2), endpoints(1)));
    store.set_reached(him, true, Instant::ZERO);
    let later = Instant::ZERO + RECORD_APART_MAX * 3;
    assert_eq!(store.expire(me, later), []);
    let apart: Vec<u32> = store.iter().map(|s| s.aged(later).apart_ms).collect();
    assert_eq!(apart, [0, 0]);
    store.set_reached(him, false, later);
    // Who hears of it now goes on counting where this one is.
    let now = later + RECORD_APART_MAX / 3;
    let mut other = Store::default();
    for stored in store.iter() {
        other.insert(stored.aged(now), &ModelCrypto, now);
    }
    let end = later + RECORD_APART_MAX;
    assert_eq!(
        (store.deadline(me), other.deadline(me)),
        (Some(end), Some(end))
    );
    assert_eq!(store.expire(me, end).len(), 2);
    assert_eq!(store.deadline(me), None);
    // However well it is reached, what was signed too long ago dies.
    other.set_reached(him, true, now);
    assert_eq!(other.deadline(me), Some(Instant::ZERO + RECORD_AGE_MAX));
}

#[test]
fn of_two_records_of_one_version_everybody_keeps_the_same() {
    let one = sign(1, 0, version(1, 1), Body::Node(node(0)));
    let other = sign(1, 0, version(1, 1), Body::Node(node(3)));
    let (mut a, mut b) = (Store::default(), Store::default());
    for aged in [&one, &other, &one] {
        insert(&mut a, aged);
    }
    for aged in [&other, &one, &other] {
        insert(&mut b, aged);
    }
    let kept = |store: &Store| store.node(&peer(1)).unwrap().sections;
    assert_eq!(kept(&a), kept(&b));
}
