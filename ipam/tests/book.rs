//! The laws of the address book.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;
use rmesh_ipam::{AddressBook, CLAIMS_MAX, ClaimError, Conflict, Holder};
use rmesh_wire::PeerId;

const ME: PeerId = PeerId([9; 16]);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn peer(number: u8) -> PeerId {
    PeerId([number; 16])
}

fn container(key: &str) -> Option<Holder> {
    Some(Holder::Container(key.into()))
}

#[test]
fn an_address_goes_to_the_container_that_asks_first() {
    let mut book = AddressBook::new(ME);
    book.claim(&[ip("10.0.0.1"), ip("fd00::1")], "web").unwrap();
    book.claim(&[ip("10.0.0.1")], "web").unwrap();
    let error = book
        .claim(&[ip("10.0.0.2"), ip("10.0.0.1")], "db")
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("10.0.0.1 is held by container web of this peer"),
        "{text}"
    );
    assert_eq!(book.holder(ip("10.0.0.2")), None, "all or nothing");
    assert_eq!(book.release("web"), [ip("10.0.0.1"), ip("fd00::1")]);
    book.claim(&[ip("10.0.0.1")], "db").unwrap();
}

#[test]
fn an_announced_address_is_taken_until_its_announcement_ends() {
    let mut book = AddressBook::new(ME);
    assert_eq!(book.replace_announced(peer(1), [ip("10.0.0.1")]), []);
    let expected = Conflict {
        address: ip("10.0.0.1"),
        holder: Holder::Peer(peer(1)),
    };
    let refused = book.claim(&[ip("10.0.0.1")], "web");
    assert_eq!(refused, Err(ClaimError::Conflict(expected)));
    book.replace_announced(peer(1), []);
    book.claim(&[ip("10.0.0.1")], "web").unwrap();
}

#[test]
fn an_announcement_of_a_claimed_address_is_reported_once_and_changes_nothing() {
    let mut book = AddressBook::new(ME);
    book.claim(&[ip("10.0.0.1")], "web").unwrap();
    let expected = Conflict {
        address: ip("10.0.0.1"),
        holder: Holder::Peer(peer(1)),
    };
    let announced = [ip("10.0.0.1"), ip("10.0.0.2")];
    let reported = book.replace_announced(peer(1), announced);
    assert_eq!(reported, std::slice::from_ref(&expected));
    assert_eq!(book.replace_announced(peer(1), announced), []);
    assert_eq!(book.conflicts().collect::<Vec<_>>(), [expected]);
    assert_eq!(book.holder(ip("10.0.0.1")), container("web"));
    book.claim(&[ip("10.0.0.1")], "web").unwrap();
}

#[test]
fn a_peers_own_announcement_is_not_a_conflict() {
    let mut book = AddressBook::new(ME);
    assert_eq!(book.replace_announced(ME, [ip("10.0.0.1")]), []);
    book.claim(&[ip("10.0.0.1")], "web").unwrap();
    assert_eq!(book.conflicts().count(), 0);
}

#[test]
fn an_address_in_disguise_is_the_same_address() {
    let mut book = AddressBook::new(ME);
    book.claim(&[ip("::ffff:10.0.0.1")], "web").unwrap();
    assert_eq!(book.holder(ip("10.0.0.1")), container("web"));
    assert!(book.claim(&[ip("10.0.0.1")], "db").is_err());
    assert!(!book.release_address(ip("10.0.0.1"), "db"));
    assert!(book.release_address(ip("10.0.0.1"), "web"));
}

#[test]
fn a_full_book_refuses_without_changing() {
    let mut book = AddressBook::new(ME);
    let many: Vec<IpAddr> = (0..CLAIMS_MAX as u32)
        .map(|n| Ipv4Addr::from(n).into())
        .collect();
    book.claim(&many, "web").unwrap();
    book.claim(&many, "web").unwrap();
    assert_eq!(book.claim(&[ip("fd00::1")], "db"), Err(ClaimError::Full));
    assert_eq!(book.holder(ip("fd00::1")), None);
}

#[derive(Debug, Clone)]
enum Step {
    Claim(Vec<IpAddr>, u8),
    Release(u8),
    ReleaseAddress(IpAddr, u8),
    Announce(u8, Vec<IpAddr>),
}

/// Few addresses, so that they collide; the third form is the first in disguise.
fn address() -> impl Strategy<Value = IpAddr> {
    (0..6u8, 0..3u8).prop_map(|(last, form)| match form {
        0 => Ipv4Addr::new(10, 0, 0, last).into(),
        1 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()).into(),
        _ => Ipv4Addr::new(10, 0, 0, last).to_ipv6_mapped().into(),
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (vec(address(), 0..4), 0..4u8).prop_map(|(a, c)| Step::Claim(a, c)),
        1 => (0..4u8).prop_map(Step::Release),
        1 => (address(), 0..4u8).prop_map(|(a, c)| Step::ReleaseAddress(a, c)),
        2 => (0..4u8, vec(address(), 0..5)).prop_map(|(p, a)| Step::Announce(p, a)),
    ]
}

/// The laws, told without the book: plain maps, no cleverness.
#[derive(Default)]
struct Model {
    claims: BTreeMap<IpAddr, String>,
    announced: BTreeMap<PeerId, BTreeSet<IpAddr>>,
}

impl Model {
    fn announcers(&self, address: IpAddr) -> Vec<PeerId> {
        let all = self.announced.iter();
        let with = all.filter(|(_, addresses)| addresses.contains(&address));
        with.map(|(peer, _)| *peer).collect()
    }

    fn holder(&self, address: IpAddr) -> Option<Holder> {
        match self.claims.get(&address) {
            Some(key) => Some(Holder::Container(key.clone())),
            None => self.announcers(address).first().copied().map(Holder::Peer),
        }
    }

    fn conflicts(&self) -> BTreeSet<Conflict> {
        let claims = self.claims.keys();
        let both = claims.flat_map(|&address| {
            let peers = self.announcers(address).into_iter().map(Holder::Peer);
            peers.map(move |holder| Conflict { address, holder })
        });
        both.collect()
    }

    fn is_free_for(&self, address: IpAddr, key: &str) -> bool {
        match self.holder(address) {
            Some(Holder::Container(held)) => held == key,
            Some(Holder::Peer(_)) => false,
            None => true,
        }
    }
}

fn canonical(addresses: &[IpAddr]) -> BTreeSet<IpAddr> {
    addresses.iter().map(IpAddr::to_canonical).collect()
}

fn apply(book: &mut AddressBook, model: &mut Model, step: Step) {
    match step {
        Step::Claim(addresses, number) => {
            let key = number.to_string();
            let before = book.clone();
            let wanted = canonical(&addresses);
            let free = wanted.iter().all(|a| model.is_free_for(*a, &key));
            let claimed = book.claim(&addresses, &key);
            assert_eq!(claimed.is_ok(), free);
            match claimed {
                Ok(()) => model
                    .claims
                    .extend(wanted.into_iter().map(|a| (a, key.clone()))),
                Err(_) => assert_eq!(*book, before, "a refused claim changes nothing"),
            }
        }
        Step::Release(number) => {
            let key = number.to_string();
            let held: BTreeSet<IpAddr> = book.claimed_by(&key).collect();
            assert_eq!(
                book.release(&key).into_iter().collect::<BTreeSet<_>>(),
                held
            );
            model.claims.retain(|_, held_by| *held_by != key);
        }
        Step::ReleaseAddress(address, number) => {
            let key = number.to_string();
            let address = address.to_canonical();
            let held = model.claims.get(&address) == Some(&key);
            assert_eq!(book.release_address(address, &key), held);
            if held {
                model.claims.remove(&address);
            }
        }
        Step::Announce(number, addresses) => {
            let known = model.conflicts();
            model.announced.insert(peer(number), canonical(&addresses));
            let new: BTreeSet<_> = model.conflicts().difference(&known).cloned().collect();
            let reported = book.replace_announced(peer(number), addresses);
            assert_eq!(reported.into_iter().collect::<BTreeSet<_>>(), new);
        }
    }
}

proptest! {
    #[test]
    fn the_book_agrees_with_its_model(steps in vec(step(), 1..60), asked in vec(address(), 8)) {
        let (mut book, mut model) = (AddressBook::new(ME), Model::default());
        for step in steps {
            apply(&mut book, &mut model, step);
            for address in &asked {
                prop_assert_eq!(book.holder(*address), model.holder(address.to_canonical()));
            }
            prop_assert_eq!(book.conflicts().collect::<BTreeSet<_>>(), model.conflicts());
        }
    }

    #[test]
    fn what_is_claimed_and_released_leaves_no_trace(
        steps in vec(step(), 0..20),
        addresses in vec(address(), 0..6),
    ) {
        let (mut book, mut model) = (AddressBook::new(ME), Model::default());
        for step in steps {
            apply(&mut book, &mut model, step);
        }
        let before = book.clone();
        if book.claim(&addresses, "newcomer").is_ok() {
            prop_assert_eq!(book.claimed_by("newcomer").collect::<BTreeSet<_>>(), canonical(&addresses));
            book.release("newcomer");
        }
        prop_assert_eq!(book, before);
    }
}
