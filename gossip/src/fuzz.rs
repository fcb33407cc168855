//! What fuzzers drive: every way in which bytes of others reach this crate.
//!
//! The cheap cryptography is used, so that a fuzzer gets far in a second; it cannot forge.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;

use rmesh_wire::codec;
use rmesh_wire::cookie::{FIRST_PAYLOAD_LEN, FirstMessage, MARK_LEN};
use rmesh_wire::datagram::{HEADER_LEN, Header, Kind};
use rmesh_wire::handshake::PROLOGUE;
use rmesh_wire::relay::{RelayEnds, TTL};
use rmesh_wire::{Boot, Instant, ShortId};

use crate::api::{Config, Target};
use crate::crypto::model::ModelCrypto;
use crate::crypto::{Crypto, Handshake, HandshakeSetup, Key, Role, peer_id, secret};
use crate::mesh::{Mesh, guard};
use crate::topology::control::Control;
use crate::topology::record::{AgedRecord, RECORD_LEN_MAX, Record, SignedRecord};
use crate::topology::{Routes, Store};

/// A target's name and what it does with one input.
pub type Entry = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Entry] = &[
    ("gossip_control", control),
    ("gossip_record", record),
    ("gossip_hello", hello),
    ("gossip_datagram", datagram),
    ("gossip_member", member),
    ("gossip_secret", mesh_secret),
];

fn secret() -> Key {
    Key::new([1; 32])
}
const STRANGER: SocketAddr = at(9);
/// Inputs taken out before a datagram's answer must have ended.
const DRAIN_MAX: usize = 256;

const fn at(host: u8) -> SocketAddr {
    SocketAddr::new(core::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, host)), 6783)
}

fn mesh(number: u8, now: Instant) -> Mesh {
    let config = Config {
        identity: Key::new([number; 32]),
        secret: secret(),
        name: String::from("fuzz"),
        boot: Boot {
            counter: 1,
            random: u64::from(number),
        },
        seed: [number; 32],
        port: 6783,
        mtu_bytes: 1328,
        advertise: Vec::new(),
    };
    Mesh::new(config, Box::new(ModelCrypto), now)
}

fn call(mesh: &mut Mesh, address: SocketAddr, now: Instant) {
    let name = String::from("target");
    mesh.handle_targets(
        vec![Target {
            name,
            addresses: vec![address],
        }],
        now,
    );
}

/// Takes out whatever the mesh wants done; it must come to an end.
fn drain(mesh: &mut Mesh) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    while let Some(transmit) = mesh.poll_transmit() {
        sent.push(transmit.bytes);
        assert!(sent.len() <= DRAIN_MAX, "one input makes many datagrams");
    }
    let mut events = 0;
    while mesh.poll_event().is_some() {
        events += 1;
        assert!(events <= DRAIN_MAX, "one input makes many events");
    }
    sent
}

/// Two meshes with a session.
fn pair(now: Instant) -> (Mesh, Mesh) {
    let (mut a, mut b) = (mesh(1, now), mesh(2, now));
    call(&mut a, at(2), now);
    for _ in 0..4 {
        drain(&mut a)
            .iter()
            .for_each(|bytes| b.handle_datagram(at(1), bytes, now));
        drain(&mut b)
            .iter()
            .for_each(|bytes| a.handle_datagram(at(2), bytes, now));
    }
    (a, b)
}

/// Lets a mesh work off what it has taken in.
fn run_on(mesh: &mut Mesh, now: Instant) {
    drain(mesh);
    let later = now + Duration::from_millis(20);
    mesh.handle_timeout(later);
    drain(mesh);
    let _ = (mesh.forwarding(), mesh.report(later));
}

/// The body of a control record.
fn control(bytes: &[u8]) {
    if let Ok(message) = codec::decode::<Control>(bytes) {
        assert!(message.encode().is_none_or(|encoded| encoded == bytes));
    }
}

/// A signed record: its wrapping, and its content as its owner may have signed it.
fn record(bytes: &[u8]) {
    let (crypto, now, identity) = (ModelCrypto, Instant::from_nanos(1 << 40), Key::new([3; 32]));
    let mut store = Store::default();
    if let Ok(aged) = codec::decode::<AgedRecord>(bytes) {
        let _ = aged.signed.decode();
        store.insert(aged, &crypto, now);
    }
    let public = crypto.identity_public(&identity);
    let mut own = Vec::from(bytes.get(..RECORD_LEN_MAX).unwrap_or(bytes));
    // The owner can only speak for itself.
    if let Some(place) = own.get_mut(1..17) {
        place.copy_from_slice(&peer_id(&public).0);
    }
    if let Ok(record) = codec::decode::<Record>(&own) {
        let Some(signed) = record.sign(&crypto, &identity, public) else {
            return;
        };
        assert_eq!(signed.bytes.as_slice(), own);
        let aged = AgedRecord {
            age_ms: 0,
            apart_ms: 0,
            signed: SignedRecord { ..signed },
        };
        store.insert(aged, &crypto, now);
        let (me, mut routes) = (peer_id(&public), Routes::default());
        routes.follow(&me, &store, &[me].into());
        let _ = routes.graph().flood_tree(&me, me.short_id());
    }
}

/// One end of a handshake, by somebody who knows the secret.
fn insider(role: Role) -> Box<dyn Handshake> {
    ModelCrypto.handshake(HandshakeSetup {
        role,
        static_key: &Key::new([7; 32]),
        psk: &secret(),
        prologue: PROLOGUE,
        randomness: Key::new([8; 32]),
    })
}

/// The sealed payload of a handshake's second or third message.
fn hello(bytes: &[u8]) {
    let (selector, payload) = bytes.split_first().unwrap_or((&0, &[]));
    let now = Instant::from_nanos(1 << 40);
    let mut mesh = mesh(2, now);
    drain(&mut mesh);
    let made = if selector & 1 == 0 {
        third_message(&mut mesh, payload, now)
    } else {
        second_message(&mut mesh, payload, now)
    };
    if let Some(message) = made {
        mesh.handle_datagram(STRANGER, &message, now);
        run_on(&mut mesh, now);
    }
}

fn third_message(mesh: &mut Mesh, payload: &[u8], now: Instant) -> Option<Vec<u8>> {
    let mut end = insider(Role::Initiator);
    let mut first = Vec::from(Header::handshake(Kind::HandshakeInit, 0, 5, 0).encode());
    let mut opening = Vec::from(5u32.to_be_bytes());
    opening.resize(FIRST_PAYLOAD_LEN, 0);
    end.write(&opening, &mut first).ok()?;
    let mark1 = guard::mark1(&guard::mark_key(&secret()), &first);
    first.extend_from_slice(&mark1);
    first.extend_from_slice(&[0; MARK_LEN]);
    mesh.handle_datagram(STRANGER, &first, now);
    let second = drain(mesh).pop()?;
    let header = Header::decode(&second).ok()?;
    end.read(second.get(HEADER_LEN..)?).ok()?;
    let head = Header::handshake(Kind::HandshakeFinish, 0, 5, header.sender());
    let mut third = Vec::from(head.encode());
    end.write(&[&5u32.to_be_bytes()[..], payload].concat(), &mut third)
        .ok()?;
    Some(third)
}

fn second_message(mesh: &mut Mesh, payload: &[u8], now: Instant) -> Option<Vec<u8>> {
    call(mesh, STRANGER, now);
    let first = drain(mesh).pop()?;
    let header = Header::decode(&first).ok()?;
    let mut end = insider(Role::Responder);
    end.read(FirstMessage::split(&first)?.noise).ok()?;
    let head = Header::handshake(Kind::HandshakeResponse, 0, 5, header.sender());
    let mut second = Vec::from(head.encode());
    end.write(&[&5u32.to_be_bytes()[..], payload].concat(), &mut second)
        .ok()?;
    Some(second)
}

/// A datagram of a stranger, to a peer with a session.
fn datagram(bytes: &[u8]) {
    let now = Instant::from_nanos(1 << 40);
    let (_, mut b) = pair(now);
    drain(&mut b);
    let sessions = b.forwarding().sessions.len();
    // All dice fall the same each time, so a fuzzer can learn indices. One answer there may be: to
    // a first message that was recorded.
    b.handle_datagram(STRANGER, bytes, now);
    assert!(drain(&mut b).len() <= 1, "a stranger is answered");
    assert_eq!(
        b.forwarding().sessions.len(),
        sessions,
        "a stranger moved a session"
    );
    run_on(&mut b, now);
}

/// What a member with a session may send: payloads, relayed datagrams, and what a worker hands on.
fn member(bytes: &[u8]) {
    let (selector, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let now = Instant::from_nanos(1 << 40);
    let (mut a, mut b) = pair(now);
    drain(&mut b);
    let sessions = b.forwarding().sessions.len();
    let destination = match selector & 4 {
        0 => b.id().short_id(),
        _ => ShortId([9; 8]),
    };
    let sealed = match selector & 3 {
        0 => {
            b.handle_relayed(a.id(), rest, now);
            return run_on(&mut b, now);
        }
        1 => {
            let ends = RelayEnds {
                source: ShortId([8; 8]),
                destination,
            };
            a.fuzz_session()
                .map(|session| session.wrap(ends, TTL, rest))
        }
        _ => a.fuzz_session().map(|session| session.seal_record(rest)),
    };
    let sealed = sealed.expect("the pair has a session");
    b.handle_datagram(at(1), &sealed, now);
    run_on(&mut b, now);
    assert_eq!(
        b.forwarding().sessions.len(),
        sessions,
        "a payload moved a session"
    );
}

/// The text of a mesh secret, short of stretching it.
fn mesh_secret(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(parsed) = secret::parse(text)
        && !parsed.is_passphrase()
    {
        let key = parsed.into_key();
        let again = secret::parse(&secret::format(&key)).map(secret::SecretText::into_key);
        assert!(again.is_ok_and(|again| again == key));
    }
}
