use alloc::vec;
use alloc::vec::Vec;

use crate::crypto::real::RealCrypto;
use crate::crypto::resolver::unchecked;
use crate::crypto::testing::{hex, transcript};
use crate::crypto::{Crypto, HandshakeSetup, Key, Role};

/// Golden bytes of a handshake with fixed inputs: psk 01…, statics 03… and 04…, randomness 05…
/// and 06…. Computed by an independent implementation of the Noise specification.
#[test]
fn transcript_is_stable() {
    let (messages, keys) = transcript(&RealCrypto::new());
    let expected = [
        "e2f7ef50c811d6e64b901eed154ec2436e5a2a1eb9a2f82a40ccd1ea11ea1144
         be1f3123fd9bf861b9d151e25e5b408a",
        "5e88ede51321bb0a7ee32d145d07aba1718f6f903abfc3df593594a4959ece1a
         458d0d4497807b7ec0e5c0f284abed030cc953aa1a3b8cd84b8f5af54acb16f6
         08b2916f0068a8f2548e62e765a242423db8384f111fed08a96b893c4b7d2ccf
         776e218c3255c67d0f",
        "9cdc5c66982703eea00368e85bc5d06cfdb53275837c609e521d04a991758eaf
         49a30d49efc51d8f6a696cac2e68f59aef4e26aea2d1b1e418f07663ef7d0ced
         db5127a5c9c246b95a",
    ];
    for (message, expected) in messages.iter().zip(expected) {
        assert_eq!(*message, hex(expected));
    }
    let first = "d5eef1c7b1c43109ba7db1bc5dc76dfd7e56377edaba4dd6bdee16be703ce1b8";
    let second = "07281740e87722c2e5dad2f05ea44cba2a63f193876046aeb9c114f9686fddab";
    assert_eq!(keys.0.bytes()[..], hex(first));
    assert_eq!(keys.1.bytes()[..], hex(second));
}

/// The check of the first message keeps strangers cheap; what keeps them out is the secret in
/// every key after it.
#[test]
fn without_the_check_of_the_first_message_a_stranger_still_gets_nowhere() {
    let crypto = RealCrypto::new();
    let end = |role, own: u8, psk: u8| {
        crypto.handshake(HandshakeSetup {
            role,
            static_key: &Key::new([own; 32]),
            psk: &Key::new([psk; 32]),
            prologue: b"test",
            randomness: Key::new([own + 10; 32]),
        })
    };
    let (mut stranger, mut member) = (end(Role::Initiator, 3, 9), end(Role::Responder, 4, 1));
    let [mut first, mut second] = [Vec::new(), Vec::new()];
    stranger.write(b"hello", &mut first).unwrap();
    assert!(member.read(&first).is_err(), "the check is there");
    unchecked::let_one_pass();
    member.read(&first).expect("the check is disabled");
    assert!(unchecked::is_used());
    member.write(b"who I am", &mut second).unwrap();
    assert!(
        stranger.read(&second).is_err(),
        "the answer is not for strangers"
    );
    assert!(stranger.split().is_none() && member.split().is_none());
    // Nor can it end the handshake: by guessing, by its own words, or by the member's.
    for third in [vec![7; 64], vec![0; 200], first, second] {
        assert!(member.read(&third).is_err());
    }
    assert!(member.split().is_none() && member.remote_static().is_none());
}
