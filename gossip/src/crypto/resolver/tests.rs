use alloc::vec;
use alloc::vec::Vec;

use snow::{Builder, HandshakeState};

use super::*;
use crate::crypto::testing::{hex, hex32};

fn resolver() -> Resolver {
    Resolver {
        randomness: Key::new([1; 32]),
        static_pair: (Key::new([2; 32]), [3; 32]),
    }
}

fn x25519(secret: [u8; 32]) -> Box<dyn Dh> {
    let mut dh = resolver().resolve_dh(&DHChoice::Curve25519).unwrap();
    dh.set(&secret);
    dh
}

/// RFC 7748 section 6.1.
#[test]
fn x25519_vector() {
    let alice = hex32("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
    let bob = hex32("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    let shared = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    let (alice, bob) = (x25519(alice), x25519(bob));
    let mut out = [0; 56];
    alice.dh(bob.pubkey(), &mut out).unwrap();
    assert_eq!(out[..32], shared);
    bob.dh(alice.pubkey(), &mut out).unwrap();
    assert_eq!(out[..32], shared);
}

#[test]
fn points_of_small_order_are_refused() {
    let order_eight = "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800";
    let mut one = [0; 32];
    one[0] = 1;
    for public in [[0; 32], one, hex32(order_eight)] {
        let mut out = [0; 32];
        assert_eq!(x25519([9; 32]).dh(&public, &mut out), Err(Error::Dh));
        assert_eq!(out, [0; 32]);
    }
}

#[test]
fn ephemeral_keys_come_from_the_given_randomness() {
    let fresh = |randomness: u8| {
        let resolver = Resolver {
            randomness: Key::new([randomness; 32]),
            ..resolver()
        };
        let mut dh = resolver.resolve_dh(&DHChoice::Curve25519).unwrap();
        dh.generate(&mut *resolver.resolve_rng().unwrap()).unwrap();
        dh.pubkey().to_vec()
    };
    assert_eq!(fresh(1), fresh(1));
    assert_ne!(fresh(1), fresh(2));
}

/// RFC 7693 appendix B, and HMAC (RFC 2104) over it as another implementation computes it.
#[test]
fn blake2s_vectors() {
    let mut hash = resolver().resolve_hash(&HashChoice::Blake2s).unwrap();
    let mut out = [0; 32];
    hash.reset();
    hash.input(b"a");
    hash.input(b"bc");
    hash.result(&mut out);
    let abc = "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982";
    assert_eq!(out[..], hex(abc));
    let key: [u8; 32] = core::array::from_fn(|index| index as u8);
    hash.hmac(&key, b"rmesh", &mut out);
    let mac = "19d6bc72dad4697d81f88e7b36fd0bc3d9d3aa32e955bdc83ca5c8c8d1873081";
    assert_eq!(out[..], hex(mac));
}

#[test]
fn other_primitives_are_not_resolved() {
    let resolver = resolver();
    assert!(resolver.resolve_dh(&DHChoice::Curve448).is_none());
    assert!(resolver.resolve_hash(&HashChoice::SHA256).is_none());
    assert!(resolver.resolve_cipher(&CipherChoice::AESGCM).is_none());
}

/// The inputs that all of the Cacophony library's vectors share.
fn ends(pattern: &str, psk_position: Option<u8>) -> (HandshakeState, HandshakeState) {
    let psk = *b"This is my Austrian perspective!";
    let build = |static_key: &str, ephemeral: &str, initiator: bool| {
        let (static_key, ephemeral) = (hex(static_key), hex(ephemeral));
        let params = pattern.parse().unwrap();
        let mut builder = Builder::with_resolver(params, Box::new(resolver()))
            .prologue(b"John Galt")
            .unwrap()
            .fixed_ephemeral_key_for_testing_only(&ephemeral)
            .local_private_key(&static_key)
            .unwrap();
        if let Some(position) = psk_position {
            builder = builder.psk(position, &psk).unwrap();
        }
        match initiator {
            true => builder.build_initiator().unwrap(),
            false => builder.build_responder().unwrap(),
        }
    };
    let initiator = build(
        "e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1",
        "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a",
        true,
    );
    let responder = build(
        "4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893",
        "bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b",
        false,
    );
    (initiator, responder)
}

fn check(pattern: &str, psk_position: Option<u8>, messages: &[&str], handshake_hash: &str) {
    let payloads = ["Ludwig von Mises", "Murray Rothbard", "F. A. Hayek"];
    let (mut sender, mut receiver) = ends(pattern, psk_position);
    for (expected, payload) in messages.iter().zip(payloads) {
        let mut message = vec![0; 200];
        let len = sender
            .write_message(payload.as_bytes(), &mut message)
            .unwrap();
        message.truncate(len);
        assert_eq!(message, hex(expected), "{pattern}");
        let mut opened: Vec<u8> = vec![0; 200];
        let len = receiver.read_message(&message, &mut opened).unwrap();
        assert_eq!(opened[..len], *payload.as_bytes());
        core::mem::swap(&mut sender, &mut receiver);
    }
    assert!(sender.is_handshake_finished() && receiver.is_handshake_finished());
    assert_eq!(sender.get_handshake_hash(), hex(handshake_hash));
    assert_eq!(receiver.get_handshake_hash(), hex(handshake_hash));
}

/// Transcripts of the patterns nearest to XXpsk0 (which Cacophony has none of), published with
/// the Cacophony library.
#[test]
fn cacophony_vectors() {
    check(
        "Noise_XX_25519_ChaChaPoly_BLAKE2s",
        None,
        &[
            "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944
             4c756477696720766f6e204d69736573",
            "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843
             7c365eb362a1c991b0557fe8a7fb187d99346765d93ec63db6c1b01504ebeec5
             5a2298d2dbff80eff034d20595153f63a196a6cead1e11b2bb13e336fa13616d
             d3e8b0a070c882ed3f1a78c7c06c93",
            "46c3307de83b014258717d97781c1f50936d8b7d50c0722a1739654d10392d41
             5b670c114f79b9a4f80541570f77ce88802efa4220cff733e7b5668ba38059ec
             904b4b8eef9448085faf51",
        ],
        "6c4c56cf71612f72d05ceb96c0155e6f4ea54a26b504c93de632a2db4a49d200",
    );
    check(
        "Noise_XXpsk3_25519_ChaChaPoly_BLAKE2s",
        Some(3),
        &[
            "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944
             325ea71699951ece20f284b6ad9604a029eb335bf84564c308b6ade90ae45078",
            "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843
             2645535233ffe1432564d66a85227b677ced6fc2730ae0998ff49aa1dc56b818
             6e31b16e416f5d9c03c71f6c34fd37ec013105020070a8b00c000ce7ed56629c
             119795f96463274bc05519d5c24dc1",
            "adf16c5375ec4172576783fd59f2bfa5c7a320d0a13b759592e1a2ddf5524cce
             59ccbb92ff5d321fced3bdb2840596df562c0e68aad41b090abd285f6d300130
             072e06964a6ba494e58d47",
        ],
        "fc0819f08aebc23de9a783653d8d7d6395b7d243d9deec12f5d6fe2f4c206673",
    );
    check(
        "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s",
        Some(0),
        &[
            "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944
             fda936bec35a8adfdff198386f7d5475880897edaaf7495314c99095a2e4d66a",
            "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843
             4cd2a371993ba41ea11448024fca32766b169183c9e691a7a433279da7e729",
        ],
        "b3e9c846d264120a4211e18307da91157a21e92e69b639c50f027f101db3e1a6",
    );
}
