//! Laws that the real cryptography and its model must both keep, and helpers to state them.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use super::*;

/// Bytes written in hexadecimal.
pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    let byte = |pair: &[char]| {
        let digit = |c: char| c.to_digit(16).unwrap() as u8;
        digit(pair[0]) << 4 | digit(pair[1])
    };
    digits.chunks(2).map(byte).collect()
}

pub(super) fn hex32(text: &str) -> [u8; 32] {
    hex(text).try_into().unwrap()
}

pub(super) const PROLOGUE: &[u8] = b"rmesh/1";
pub(super) fn psk() -> Key {
    Key::new([1; 32])
}
pub(super) fn wrong_psk() -> Key {
    Key::new([2; 32])
}
pub(super) fn static_i() -> Key {
    Key::new([3; 32])
}
pub(super) fn static_r() -> Key {
    Key::new([4; 32])
}
const PAYLOADS: [&[u8]; 3] = [b"", b"responder", b"initiator"];

type End = Box<dyn Handshake>;

pub(super) fn end(crypto: &dyn Crypto, role: Role, psk: &Key, prologue: &[u8]) -> End {
    let (static_key, random) = match role {
        Role::Initiator => (static_i(), 5),
        Role::Responder => (static_r(), 6),
    };
    crypto.handshake(HandshakeSetup {
        role,
        static_key: &static_key,
        psk,
        prologue,
        randomness: Key::new([random; 32]),
    })
}

fn pair(crypto: &dyn Crypto) -> (End, End) {
    (
        end(crypto, Role::Initiator, &psk(), PROLOGUE),
        end(crypto, Role::Responder, &psk(), PROLOGUE),
    )
}

fn write(end: &mut End, payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    end.write(payload, &mut message).unwrap();
    message
}

/// Brings a handshake to the point where `position` messages have gone through, and returns the
/// next sender and receiver.
fn at(crypto: &dyn Crypto, position: usize) -> (End, End) {
    let (mut sender, mut receiver) = pair(crypto);
    for payload in &PAYLOADS[..position] {
        let message = write(&mut sender, payload);
        assert_eq!(receiver.read(&message).as_deref(), Ok(*payload));
        core::mem::swap(&mut sender, &mut receiver);
    }
    (sender, receiver)
}

/// The three messages and the two keys of a handshake with fixed inputs.
pub(super) fn transcript(crypto: &dyn Crypto) -> (Vec<Vec<u8>>, (Key, Key)) {
    let (mut sender, mut receiver) = pair(crypto);
    let mut messages = Vec::new();
    for payload in PAYLOADS {
        messages.push(write(&mut sender, payload));
        receiver.read(messages.last().unwrap()).unwrap();
        core::mem::swap(&mut sender, &mut receiver);
    }
    (messages, sender.split().unwrap())
}

pub(super) fn both_ends_agree(crypto: &dyn Crypto) {
    let (mut responder, mut initiator) = at(crypto, 3);
    let keys = initiator.split().unwrap();
    assert!(responder.split().unwrap() == keys && keys.0 != keys.1);
    let statics = (initiator.remote_static(), responder.remote_static());
    let expected = (&static_r(), &static_i());
    assert_eq!(statics.0, Some(crypto.static_public(expected.0)));
    assert_eq!(statics.1, Some(crypto.static_public(expected.1)));
    for end in [&mut initiator, &mut responder] {
        assert_eq!(end.write(b"", &mut Vec::new()), Err(Forged));
        assert_eq!(end.read(&[0; 64]), Err(Forged));
    }
}

pub(super) fn messages_have_their_lengths(crypto: &dyn Crypto) {
    let (messages, _) = transcript(crypto);
    for ((message, payload), overhead) in messages.iter().zip(PAYLOADS).zip(OVERHEAD) {
        assert_eq!(message.len(), payload.len() + overhead);
    }
}

pub(super) fn turns_are_kept(crypto: &dyn Crypto) {
    for position in 0..3 {
        let (mut sender, mut receiver) = at(crypto, position);
        let mut out = vec![9];
        assert_eq!(receiver.write(b"", &mut out), Err(Forged));
        assert_eq!(out, [9], "nothing was appended");
        assert_eq!(sender.read(&[0; 96]), Err(Forged));
        assert_eq!(sender.write(&[0; 65_535], &mut out), Err(Forged));
        assert_eq!(out, [9], "nothing was appended");
        assert!(sender.split().is_none() && receiver.split().is_none());
    }
}

pub(super) fn damaged_messages_are_refused_and_do_no_harm(crypto: &dyn Crypto) {
    for (position, expected) in PAYLOADS.iter().enumerate() {
        let (mut sender, mut receiver) = at(crypto, position);
        let message = write(&mut sender, expected);
        let known = receiver.remote_static();
        for index in 0..message.len() {
            let mut bent = message.clone();
            bent[index] ^= 1 << (index % 8);
            assert_eq!(
                receiver.read(&bent),
                Err(Forged),
                "{position}: byte {index}"
            );
            assert_eq!(receiver.read(&message[..index]), Err(Forged));
            assert_eq!(receiver.remote_static(), known);
        }
        let longer = [message.as_slice(), &[0]].concat();
        assert_eq!(receiver.read(&longer), Err(Forged));
        assert_eq!(receiver.read(&vec![0; 70_000]), Err(Forged));
        assert_eq!(receiver.read(&message).as_deref(), Ok(*expected));
        if position == 2 {
            assert!(receiver.split().unwrap() == sender.split().unwrap());
        }
    }
}

pub(super) fn strangers_are_refused_at_once(crypto: &dyn Crypto) {
    let mut responder = end(crypto, Role::Responder, &psk(), PROLOGUE);
    let mut without_secret = end(crypto, Role::Initiator, &wrong_psk(), PROLOGUE);
    let first = write(&mut without_secret, b"");
    assert_eq!(responder.read(&first), Err(Forged));
    let mut other_protocol = end(crypto, Role::Initiator, &psk(), b"rmesh/2");
    let first = write(&mut other_protocol, b"");
    assert_eq!(responder.read(&first), Err(Forged));
    let mut member = end(crypto, Role::Initiator, &psk(), PROLOGUE);
    let first = write(&mut member, b"");
    assert_eq!(responder.read(&first), Ok(vec![]));
}

pub(super) fn signatures_belong_to_key_and_message(crypto: &dyn Crypto) {
    let (seed, other) = (Key::new([7; 32]), Key::new([8; 32]));
    let public = crypto.identity_public(&seed);
    let signature = crypto.sign(&seed, b"message");
    assert!(crypto.verify(&public, b"message", &signature));
    assert!(!crypto.verify(&public, b"messagE", &signature));
    assert!(!crypto.verify(&crypto.identity_public(&other), b"message", &signature));
    assert!(!crypto.verify(&[0; 32], b"message", &Signature([0; 64])));
    assert!(!crypto.verify(&public, b"message", &Signature([0xa5; 64])));
    for index in 0..64 {
        let mut bent = signature;
        bent.0[index] ^= 1;
        assert!(!crypto.verify(&public, b"message", &bent), "byte {index}");
    }
}

pub(super) fn sealed_texts_open_only_as_they_were(crypto: &dyn Crypto) {
    for cipher in [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm] {
        let is_offered = crypto.ciphers().contains(&cipher);
        assert_eq!(
            crypto.aead(cipher, &Key::new([9; 32])).is_some(),
            is_offered
        );
    }
    for cipher in crypto.ciphers() {
        opens_only_as_it_was(crypto, *cipher);
    }
}

fn opens_only_as_it_was(crypto: &dyn Crypto, cipher: Cipher) {
    let key = Key::new([9; 32]);
    let aead = |key: &Key| crypto.aead(cipher, key).unwrap();
    for text in [&b""[..], b"short", &[0x11; 100]] {
        let mut sealed = text.to_vec();
        let tag = aead(&key).seal(&[1; 12], b"header", &mut sealed);
        assert!(text.is_empty() || sealed != text);
        let open = |key: &Key, nonce: u8, associated: &[u8], bytes: &[u8], tag| {
            let mut bytes = bytes.to_vec();
            let opened = aead(key).open(&[nonce; 12], associated, &mut bytes, &tag);
            opened.map(|()| bytes)
        };
        assert_eq!(open(&key, 1, b"header", &sealed, tag).as_deref(), Ok(text));
        assert!(open(&Key::new([10; 32]), 1, b"header", &sealed, tag).is_err());
        assert!(open(&key, 2, b"header", &sealed, tag).is_err());
        assert!(open(&key, 1, b"heades", &sealed, tag).is_err());
        for index in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[index] ^= 0x80;
            assert!(open(&key, 1, b"header", &bent, tag).is_err());
            assert!(open(&key, 1, b"header", &sealed[..index], tag).is_err());
        }
        for index in 0..TAG_LEN {
            let mut bent = tag;
            bent[index] ^= 1;
            assert!(open(&key, 1, b"header", &sealed, bent).is_err());
        }
    }
}

#[test]
fn no_secret_is_shown() {
    let key = Key::new(*b"SECRETSECRETSECRETSECRETSECRET!!");
    assert_eq!(alloc::format!("{key:?}"), "Key(…)");
    let setup = HandshakeSetup {
        role: Role::Initiator,
        static_key: &key,
        psk: &key,
        prologue: PROLOGUE,
        randomness: key.clone(),
    };
    assert_eq!(
        alloc::format!("{setup:?}"),
        "HandshakeSetup { role: Initiator, .. }"
    );
}

#[test]
fn peer_id_is_the_start_of_the_sha_256_hash() {
    // SHA-256 of 32 zero bytes (FIPS 180-4).
    let id = peer_id(&[0; 32]);
    assert_eq!(id.0[..], hex("66687aadf862bd776c8fc18b8e9f8e20"));
}
