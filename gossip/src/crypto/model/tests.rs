extern crate std;

use std::time::Instant;

use super::*;
use crate::crypto::testing::{self, hex};

#[test]
fn handshakes_keep_the_laws() {
    let crypto = ModelCrypto::new();
    testing::both_ends_agree(&crypto);
    testing::messages_have_their_lengths(&crypto);
    testing::turns_are_kept(&crypto);
    testing::strangers_are_refused_at_once(&crypto);
    testing::damaged_messages_are_refused_and_do_no_harm(&crypto);
}

#[test]
fn signatures_keep_the_laws() {
    testing::signatures_belong_to_key_and_message(&ModelCrypto::new());
}

#[test]
fn aead_keeps_the_laws() {
    testing::sealed_texts_open_only_as_they_were(&ModelCrypto::new());
}

/// Seeds of simulations are worth something only as long as these bytes stay.
#[test]
fn model_is_stable() {
    let public = ModelCrypto.identity_public(&Key::new([7; 32]));
    let tag = sealed(&mut [0x11; 100]);
    assert_eq!(public[..8], hex("9677f45903cbc9f7"));
    assert_eq!(tag[..8], hex("d49619c909a4e109"));
}

fn sealed(text: &mut [u8]) -> [u8; TAG_LEN] {
    let aead = ModelCrypto.aead(Cipher::ChaCha20Poly1305, &Key::new([9; 32]));
    aead.unwrap().seal(&[1; 12], b"header", text)
}

/// Simulations seal millions of records. The bound has room for a busy machine.
#[test]
fn sealing_a_hundred_bytes_is_cheap() {
    let aead = ModelCrypto
        .aead(Cipher::ChaCha20Poly1305, &Key::new([9; 32]))
        .unwrap();
    let mut text = [0; 100];
    let batch = || {
        let start = Instant::now();
        for _ in 0..1_000 {
            aead.seal(&[1; 12], &[0; 16], &mut text);
        }
        start.elapsed()
    };
    let best = core::iter::repeat_with(batch).take(20).min().unwrap();
    std::println!("sealing 100 bytes takes {} ns", best.as_nanos() / 1_000);
    assert!(best.as_micros() < 1_000 * 5);
}
