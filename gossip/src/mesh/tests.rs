//! Handshakes under attack: what strangers, recordings and floods do to a peer.

extern crate std;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use rmesh_wire::cookie::{COOKIE_DATAGRAM_LEN, FIRST_LEN, FirstMessage};
use rmesh_wire::datagram::{Header, Kind};
use rmesh_wire::{Boot, Instant};

use super::Mesh;
use crate::api::{Config, Counters, Target, TrafficSample};
use crate::crypto::Key;
use crate::crypto::model::ModelCrypto;
use crate::crypto::real::RealCrypto;
use crate::limits::HALF_OPEN_MAX;

mod sleep;
mod spread;
mod step;

pub(super) const A: SocketAddr = at(1);
pub(super) const B: SocketAddr = at(2);

const fn at(host: u8) -> SocketAddr {
    SocketAddr::new(core::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, host)), 6783)
}

pub(super) fn start() -> Instant {
    Instant::from_nanos(1 << 40)
}

pub(super) fn mesh(number: u8, secret: u8, real: bool) -> Mesh {
    let config = Config {
        identity: Key::new([number; 32]),
        secret: Key::new([secret; 32]),
        // The longest name makes the longest answer.
        name: String::from_utf8(vec![b'a' + number; 63]).unwrap(),
        boot: Boot {
            counter: u64::MAX,
            random: u64::MAX - u64::from(number),
        },
        seed: [number; 32],
        port: 6783,
        mtu_bytes: 1328,
        advertise: Vec::new(),
    };
    let crypto: Box<dyn crate::crypto::Crypto> = if real {
        Box::new(RealCrypto::new())
    } else {
        Box::new(ModelCrypto)
    };
    Mesh::new(config, crypto, start())
}

/// What the mesh sends, with where to.
pub(super) fn sent(mesh: &mut Mesh) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut sent = Vec::new();
    while let Some(transmit) = mesh.poll_transmit() {
        sent.push((transmit.destination, transmit.bytes));
    }
    sent
}

fn first_message(mesh: &mut Mesh, to: SocketAddr) -> Vec<u8> {
    let target = Target {
        name: String::from("target"),
        addresses: vec![to],
    };
    mesh.handle_targets(vec![target], start());
    let (destination, message) = sent(mesh).pop().unwrap();
    assert_eq!((destination, message.len()), (to, FIRST_LEN));
    message
}

/// Carries datagrams between A and B until nobody says anything.
pub(super) fn talk(a: &mut Mesh, b: &mut Mesh, now: Instant) {
    for _ in 0..8 {
        for (_, bytes) in sent(a) {
            b.handle_datagram(A, &bytes, now);
        }
        for (_, bytes) in sent(b) {
            a.handle_datagram(B, &bytes, now);
        }
    }
}

/// Lets two seconds pass, with everything that falls due in them.
fn two_seconds(a: &mut Mesh, b: &mut Mesh, from: Instant) -> Instant {
    let mut now = from;
    for _ in 0..20 {
        now = now + Duration::from_millis(100);
        a.handle_timeout(now);
        b.handle_timeout(now);
        talk(a, b, now);
    }
    now
}

fn counters(mesh: &Mesh) -> Counters {
    mesh.report(start()).counters
}

fn kind(datagram: &[u8]) -> Kind {
    Header::decode(datagram).unwrap().kind
}

/// A new first message of A, each time of a new life of it.
fn fresh_first(number: u32) -> Vec<u8> {
    let mut a = mesh(1, 1, false);
    a.random = crate::random::Random::new([number.to_be_bytes(); 8].concat().try_into().unwrap());
    first_message(&mut a, B)
}

#[test]
fn no_answer_is_longer_than_the_first_message() {
    for real in [false, true] {
        let (mut a, mut b) = (mesh(1, 1, real), mesh(2, 1, real));
        b.handle_datagram(
            SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 65_535),
            &first_message(&mut a, B),
            start(),
        );
        let (_, answer) = sent(&mut b).pop().unwrap();
        assert_eq!(kind(&answer), Kind::HandshakeResponse);
        std::println!(
            "first message {FIRST_LEN} bytes, answer at most {}",
            answer.len()
        );
        assert!(answer.len() <= FIRST_LEN, "{} bytes", answer.len());
    }
}

#[test]
fn a_changed_index_in_a_header_changes_nothing() {
    let (mut a, mut b) = (mesh(1, 1, true), mesh(2, 1, true));
    let now = start();
    b.handle_datagram(A, &first_message(&mut a, B), now);
    let (_, mut second) = sent(&mut b).pop().unwrap();
    second[9] ^= 1;
    a.handle_datagram(B, &second, now);
    for (_, mut bytes) in sent(&mut a) {
        if kind(&bytes) == Kind::HandshakeFinish {
            bytes[9] ^= 1;
        }
        b.handle_datagram(A, &bytes, now);
    }
    talk(&mut a, &mut b, now);
    for mesh in [&a, &b] {
        assert_eq!(counters(mesh).handshakes_completed, 1);
    }
    let now = two_seconds(&mut a, &mut b, now);
    for mesh in [&a, &b] {
        assert!(mesh.report(now).peers[0].reachable);
    }
}

#[test]
fn a_wrong_secret_costs_a_hash_and_gets_no_word() {
    let mut b = mesh(2, 1, true);
    let first = first_message(&mut mesh(1, 9, true), B);
    let begun = std::time::Instant::now();
    for _ in 0..1_000 {
        b.handle_datagram(A, &first, start());
    }
    let each = begun.elapsed() / 1_000;
    std::println!("a stranger's first message: {each:?}");
    assert!(sent(&mut b).is_empty());
    assert_eq!(counters(&b).handshakes_refused, 1_000);
    assert_eq!(counters(&b).handshakes_refused_by.secret, 1_000);
    assert!(each < Duration::from_micros(100), "{each:?}");
}

#[test]
fn a_recorded_first_message_is_read_once() {
    let (mut a, mut b) = (mesh(1, 1, true), mesh(2, 1, true));
    let (mut now, first) = (start(), first_message(&mut a, B));
    b.handle_datagram(A, &first, now);
    talk(&mut a, &mut b, now);
    assert_eq!(counters(&b).handshakes_completed, 1);
    for minute in 0..3 {
        now = now + Duration::from_secs(60 * minute);
        for port in 1..=64 {
            b.handle_datagram(SocketAddr::new(A.ip(), port), &first, now);
        }
        assert!(
            sent(&mut b)
                .iter()
                .all(|(_, bytes)| kind(bytes) != Kind::HandshakeResponse)
        );
    }
    assert_eq!(counters(&b).handshakes_replayed, 3 * 64);
}

#[test]
fn an_unfinished_handshake_repeats_itself_only_so_often() {
    let (mut a, mut b) = (mesh(1, 1, false), mesh(2, 1, false));
    let first = first_message(&mut a, B);
    for port in 1..=1_000 {
        b.handle_datagram(SocketAddr::new(A.ip(), port), &first, start());
    }
    assert_eq!(sent(&mut b).len(), 65);
    assert_eq!(counters(&b).handshakes_limited, 1_000 - 65);
}

/// How many first messages were worked on.
fn responses(mesh: &mut Mesh) -> usize {
    let sent = sent(mesh).into_iter();
    sent.filter(|(_, bytes)| kind(bytes) == Kind::HandshakeResponse)
        .count()
}

#[test]
fn one_source_has_an_allowance_that_comes_back() {
    let mut b = mesh(2, 1, false);
    for number in 0..500 {
        b.handle_datagram(A, &fresh_first(number), start());
    }
    assert_eq!(responses(&mut b), 128);
    let later = start() + Duration::from_secs(1);
    for number in 500..1_000 {
        b.handle_datagram(A, &fresh_first(number), later);
    }
    assert_eq!(responses(&mut b), 64);
}

#[test]
fn an_ipv6_network_is_one_source() {
    let mut b = mesh(2, 1, false);
    for number in 0..500u16 {
        let host = Ipv6Addr::new(0x2001, 0xdb8, 0, 7, 0, 0, 0, number);
        b.handle_datagram(
            SocketAddr::new(host.into(), 1),
            &fresh_first(number.into()),
            start(),
        );
    }
    assert_eq!(responses(&mut b), 128);
}

/// First messages of members, from as many addresses.
fn flood(b: &mut Mesh, count: u32, now: Instant) {
    for number in 0..count {
        let [_, x, y, z] = number.to_be_bytes();
        let source = SocketAddr::new(Ipv4Addr::new(198, x, y, z).into(), 1);
        b.handle_datagram(source, &fresh_first(number + 1_000_000), now);
    }
}

#[test]
fn a_flood_from_everywhere_is_bounded_and_who_shows_a_cookie_gets_in() {
    let (mut a, mut b) = (mesh(1, 1, false), mesh(2, 1, false));
    let now = start();
    flood(&mut b, 600, now);
    let answers = sent(&mut b);
    let cookies = answers
        .iter()
        .filter(|(_, bytes)| bytes.len() == COOKIE_DATAGRAM_LEN);
    assert_eq!((answers.len(), cookies.count()), (600, 600 - 256));
    assert!(b.half_opens.len() <= HALF_OPEN_MAX / 2);
    let first = first_message(&mut a, B);
    b.handle_datagram(A, &first, now);
    let (to, cookie) = sent(&mut b).pop().unwrap();
    assert_eq!((to, kind(&cookie)), (A, Kind::Cookie));
    // Somebody else's cookie, or a bent one, is worth nothing.
    let mut bent = cookie.clone();
    bent[30] ^= 1;
    a.handle_datagram(B, &bent, now);
    assert!(sent(&mut a).is_empty());
    a.handle_datagram(B, &cookie, now);
    let (_, again) = sent(&mut a).pop().unwrap();
    let marks = [&first, &again].map(|bytes| FirstMessage::split(bytes).unwrap());
    assert_eq!(marks[0].marked, marks[1].marked);
    assert_ne!(marks[0].mark2, marks[1].mark2);
    b.handle_datagram(at(3), &again, now);
    assert!(
        sent(&mut b)
            .iter()
            .all(|(_, bytes)| kind(bytes) == Kind::Cookie)
    );
    b.handle_datagram(A, &again, now);
    talk(&mut a, &mut b, now);
    assert_eq!(counters(&b).handshakes_completed, 1);
    let now = two_seconds(&mut a, &mut b, now);
    assert!(a.report(now).peers[0].reachable);
}

#[test]
fn a_flood_takes_no_session_and_a_renewal_gets_through_it() {
    let (mut a, mut b) = (mesh(1, 1, false), mesh(2, 1, false));
    let mut now = start();
    first_message(&mut a, B);
    now = two_seconds(&mut a, &mut b, now);
    let completed = counters(&a).handshakes_completed;
    // Two minutes later one of them is renewed, while everything else is used up.
    while now < start() + Duration::from_secs(140) {
        now = now + Duration::from_millis(100);
        for mesh in [&mut a, &mut b] {
            flood(mesh, 30, now);
            let own = sent(mesh);
            let to_peer = own.into_iter().filter(|(to, _)| *to == A || *to == B);
            let kept: Vec<_> = to_peer.collect();
            for (destination, bytes) in kept {
                mesh.transmit(destination, bytes);
            }
            mesh.handle_timeout(now);
        }
        talk(&mut a, &mut b, now);
        assert!(a.report(now).peers[0].reachable, "at {now:?}");
    }
    assert!(counters(&a).handshakes_completed > completed);
}

/// A newcomer calls B, and has to show a cookie first.
fn expect_in_by_cookie(a: &mut Mesh, b: &mut Mesh, now: Instant) {
    let first = first_message(a, B);
    b.handle_datagram(A, &first, now);
    let (to, cookie) = sent(b).pop().expect("an answer");
    assert_eq!((to, kind(&cookie)), (A, Kind::Cookie));
    a.handle_datagram(B, &cookie, now);
    talk(a, b, now);
    assert_eq!(counters(b).handshakes_completed, 1);
}

#[test]
fn recordings_sent_in_the_name_of_a_newcomer_do_not_keep_it_out() {
    let (mut a, mut b) = (mesh(1, 1, false), mesh(2, 1, false));
    for number in 0..300 {
        b.handle_datagram(SocketAddr::new(A.ip(), 9), &fresh_first(number), start());
    }
    sent(&mut b);
    expect_in_by_cookie(&mut a, &mut b, start());
}

#[test]
fn recordings_do_not_take_the_places_of_those_that_show_a_cookie() {
    let (mut a, mut b) = (mesh(1, 1, false), mesh(2, 1, false));
    let mut now = start();
    // As many as are worked on without a cookie, for as long as one keeps its place.
    for tick in 0..45u32 {
        now = now + Duration::from_millis(100);
        for number in 0..30 {
            let number = tick * 30 + number;
            let [_, x, y, z] = number.to_be_bytes();
            let source = SocketAddr::new(Ipv4Addr::new(198, x, y, z).into(), 1);
            b.handle_datagram(source, &fresh_first(number), now);
        }
    }
    sent(&mut b);
    std::println!("{} half-open handshakes of strangers", b.half_opens.len());
    assert!(b.half_opens.len() <= HALF_OPEN_MAX / 4);
    expect_in_by_cookie(&mut a, &mut b, now);
}

#[test]
fn a_recorded_cookie_makes_nobody_send_to_a_third() {
    let (mut a, mut b) = (mesh(1, 1, false), mesh(2, 1, false));
    flood(&mut b, 600, start());
    sent(&mut b);
    b.handle_datagram(A, &first_message(&mut a, B), start());
    let (_, cookie) = sent(&mut b).pop().unwrap();
    let to = |a: &mut Mesh| sent(a).into_iter().map(|(to, _)| to).collect::<Vec<_>>();
    // B has several addresses and answers from one that A did not call.
    a.handle_datagram(at(7), &cookie, start());
    assert_eq!(to(&mut a), [B]);
    for victim in 8..100 {
        a.handle_datagram(at(victim), &cookie, start());
        a.handle_datagram(B, &cookie, start());
    }
    assert_eq!(to(&mut a), []);
}

#[test]
fn what_others_see_is_not_published_anew_with_every_answer() {
    let (mut a, mut b) = (mesh(1, 1, false), mesh(2, 1, false));
    first_message(&mut a, B);
    let mut now = two_seconds(&mut a, &mut b, start());
    let version = |mesh: &Mesh| mesh.own_version(&(mesh.me, 0)).unwrap().sequence;
    let before = version(&a);
    // A NAT that gives each of many peers another port, or a peer that lies: one answer each 50 ms.
    for number in 0..200u16 {
        now = now + Duration::from_millis(50);
        let seen = SocketAddr::new(at(99).ip(), 1_000 + number % 20);
        a.note_observed(Some(seen), now);
        a.handle_timeout(now);
        b.handle_timeout(now);
        talk(&mut a, &mut b, now);
    }
    let published = version(&a) - before;
    std::println!("{published} records in 10 s of answers that each name another address");
    assert!(published <= 8, "{published}");
}

#[test]
fn addresses_that_a_member_publishes_are_tried_sparingly() {
    let (mut a, mut b) = (mesh(1, 1, false), mesh(2, 1, false));
    first_message(&mut a, B);
    let mut now = two_seconds(&mut a, &mut b, start());
    let mut at_victims = 0;
    for round in 0..500u32 {
        now = now + Duration::from_millis(20);
        let [_, x, y, z] = round.to_be_bytes();
        let victims = (0..8).map(|n| Ipv4Addr::new(198, x, y, z.wrapping_mul(8) + n).into());
        a.handle_local_addresses(victims.collect(), now);
        a.handle_timeout(now);
        b.handle_timeout(now);
        for _ in 0..4 {
            for (to, bytes) in sent(&mut a) {
                if to == B {
                    b.handle_datagram(A, &bytes, now);
                }
            }
            for (to, bytes) in sent(&mut b) {
                if to == A {
                    a.handle_datagram(B, &bytes, now);
                } else {
                    at_victims += 1;
                }
            }
        }
    }
    std::println!("{at_victims} datagrams at the victims in 10 s");
    assert!(at_victims <= 200, "{at_victims}");
}

#[test]
fn the_sessions_of_one_peer_are_bounded() {
    let (mut a, mut b) = (mesh(1, 1, false), mesh(2, 1, false));
    first_message(&mut a, B);
    let mut now = start();
    for _ in 0..100 {
        // A member that opens as many as it can.
        now = now + Duration::from_millis(20);
        let index = a
            .open_handshake(super::dial::Goal::Peer(b.me), now)
            .unwrap();
        let message = a.half_opens.message(index, now).unwrap();
        a.send_first(super::Origin::Direct(B), message, now);
        a.handle_timeout(now);
        b.handle_timeout(now);
        talk(&mut a, &mut b, now);
    }
    let (open, completed) = (b.sessions.len(), counters(&b).handshakes_completed);
    std::println!("{completed} handshakes, {open} sessions open");
    assert!(completed > 50);
    assert!(open <= crate::limits::SESSIONS_PER_PEER_MAX);
    assert!(b.report(now).peers[0].reachable);
}

#[test]
fn another_version_is_refused_by_name() {
    let b = mesh(2, 1, true);
    let a = mesh(1, 1, true);
    let state = b.crypto.handshake(crate::crypto::HandshakeSetup {
        role: crate::crypto::Role::Responder,
        static_key: &b.static_key,
        psk: &b.secret,
        prologue: b"x",
        randomness: Key::new([0; 32]),
    });
    let hello = a.hello(7, None, start());
    let mut of_later_codec = hello[4..].to_vec();
    of_later_codec[0] += 1;
    let reason = b.prove(&of_later_codec, state.as_ref()).err().unwrap();
    let mut refusals = crate::api::Refusals::default();
    *reason(&mut refusals) += 1;
    let mut said: rmesh_wire::handshake::Hello = rmesh_wire::codec::decode(&hello[4..]).unwrap();
    said.versions = (2, 9);
    let said = rmesh_wire::codec::encode(&said).unwrap();
    *b.prove(&said, state.as_ref()).err().unwrap()(&mut refusals) += 1;
    assert_eq!(refusals.version, 2);
}

/// Milliseconds until both know that they hear each other no more, after `cut` to B, to A or both ways; and
/// how many datagrams both sent in the minute before. There is traffic ten seconds before, or none.
fn idle_then_cut((to_b, to_a): (bool, bool), is_quiet: bool) -> (u64, usize) {
    let (mut a, mut b) = (mesh(1, 1, false), mesh(2, 1, false));
    let first = first_message(&mut a, B);
    b.handle_datagram(A, &first, start());
    talk(&mut a, &mut b, start());
    let (mut now, mut count, mut cut_at) = (start(), 0, None);
    let is_up = |mesh: &Mesh| mesh.peers.values().any(|peer| peer.chosen.is_some());
    for millisecond in 0..100_000 {
        now = now + Duration::from_millis(1);
        for mesh in [&mut a, &mut b] {
            if mesh.poll_timeout().is_some_and(|(due, _)| due <= now) {
                mesh.handle_timeout(now);
            }
        }
        if millisecond == 80_000 && !is_quiet {
            let ids = [a.id(), b.id()];
            a.on_want(ids[1], now);
            b.on_want(ids[0], now);
        }
        let is_cut = millisecond >= 90_000;
        for _ in 0..2 {
            let (from_a, from_b) = (sent(&mut a), sent(&mut b));
            count += match millisecond {
                30_000..90_000 => from_a.len() + from_b.len(),
                _ => 0,
            };
            for (_, bytes) in from_a.iter().filter(|_| !(is_cut && to_b)) {
                b.handle_datagram(A, bytes, now);
            }
            for (_, bytes) in from_b.iter().filter(|_| !(is_cut && to_a)) {
                a.handle_datagram(B, bytes, now);
            }
        }
        if is_cut && !is_up(&a) && !is_up(&b) {
            cut_at.get_or_insert(millisecond - 90_000);
        }
        assert!(is_cut || millisecond < 1_000 || is_up(&a) && is_up(&b));
    }
    (cut_at.expect("both notice"), count)
}

#[test]
fn an_idle_pair_says_little_and_notices_a_cut_within_three_seconds_of_traffic_lately_or_six() {
    for ends in [(true, true), (true, false), (false, true)] {
        let (after, count) = idle_then_cut(ends, true);
        // A question and an answer each 4 s, and some more now and then.
        assert!(count <= 50, "{count} datagrams in a minute");
        assert!(after <= 6_000, "{after} ms, cut {ends:?}");
        let (after, count) = idle_then_cut(ends, false);
        assert!(count <= 50, "{count} datagrams in a minute");
        assert!(after <= 3_000, "{after} ms, cut {ends:?}");
    }
}

/// Runs a pair for `milliseconds` from `now`, and counts what both send.
fn run_pair(a: &mut Mesh, b: &mut Mesh, milliseconds: u64, now: &mut Instant) -> usize {
    let mut count = 0;
    for _ in 0..milliseconds {
        *now = *now + Duration::from_millis(1);
        for mesh in [&mut *a, &mut *b] {
            if mesh.poll_timeout().is_some_and(|(due, _)| due <= *now) {
                mesh.handle_timeout(*now);
            }
        }
        let (from_a, from_b) = (sent(a), sent(b));
        count += from_a.len() + from_b.len();
        from_a
            .iter()
            .for_each(|(_, bytes)| b.handle_datagram(A, bytes, *now));
        from_b
            .iter()
            .for_each(|(_, bytes)| a.handle_datagram(B, bytes, *now));
    }
    count
}

#[test]
fn a_frame_now_and_then_is_no_traffic_and_traffic_is_watched_closely_from_its_start() {
    let (mut a, mut b) = (mesh(1, 1, false), mesh(2, 1, false));
    let first = first_message(&mut a, B);
    b.handle_datagram(A, &first, start());
    talk(&mut a, &mut b, start());
    let (mut now, peer) = (start(), b.id());
    run_pair(&mut a, &mut b, 30_000, &mut now);
    let sample = |sent| TrafficSample {
        peer,
        sent,
        received_direct: 0,
        received_relayed: 0,
    };
    let mut count = 0;
    for _ in 0..6 {
        // What a container says when it begins, and what is answered.
        a.handle_traffic(&[sample(1)], now);
        count += run_pair(&mut a, &mut b, 300, &mut now);
        a.handle_traffic(&[sample(1)], now);
        count += run_pair(&mut a, &mut b, 4_700, &mut now);
    }
    // As without those frames.
    assert!(count <= 50, "{count} in 30 s");
    let mut asked = 0;
    for _ in 0..10 {
        a.handle_traffic(&[sample(1)], now);
        asked += run_pair(&mut a, &mut b, 100, &mut now);
    }
    assert!(
        asked >= 8,
        "unanswered traffic of a second is looked into: {asked}"
    );
}
