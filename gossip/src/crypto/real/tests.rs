use super::*;
use crate::crypto::testing::{self, hex, hex32};

#[test]
fn handshakes_keep_the_laws() {
    let crypto = RealCrypto::new();
    testing::both_ends_agree(&crypto);
    testing::messages_have_their_lengths(&crypto);
    testing::turns_are_kept(&crypto);
    testing::strangers_are_refused_at_once(&crypto);
    testing::damaged_messages_are_refused_and_do_no_harm(&crypto);
}

#[test]
fn signatures_keep_the_laws() {
    testing::signatures_belong_to_key_and_message(&RealCrypto::new());
}

#[test]
fn aead_keeps_the_laws() {
    testing::sealed_texts_open_only_as_they_were(&RealCrypto::new());
    testing::sealed_texts_open_only_as_they_were(&RealCrypto::with_aes(true));
    assert_eq!(RealCrypto::new().ciphers(), [Cipher::ChaCha20Poly1305]);
}

/// Test case 16 of the specification of GCM that McGrew and Viega submitted to NIST.
#[test]
fn aes_256_gcm_vector() {
    let key = hex32("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
    let aead = RealCrypto::with_aes(true)
        .aead(Cipher::Aes256Gcm, &Key::new(key))
        .unwrap();
    let nonce: [u8; 12] = hex("cafebabefacedbaddecaf888").try_into().unwrap();
    let associated = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let plain = hex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
         1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
    );
    let mut text = plain.clone();
    let tag = aead.seal(&nonce, &associated, &mut text);
    let sealed = hex(
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa
         8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
    );
    assert_eq!(text, sealed);
    assert_eq!(tag[..], hex("76fc6ece0f4e1768cddf8853bb2d551b"));
    aead.open(&nonce, &associated, &mut text, &tag).unwrap();
    assert_eq!(text, plain);
}

/// RFC 8439 section 2.8.2.
#[test]
fn chacha20_poly1305_vector() {
    let key = core::array::from_fn(|index| 0x80 + index as u8);
    let aead = RealCrypto::new()
        .aead(Cipher::ChaCha20Poly1305, &Key::new(key))
        .unwrap();
    let nonce: [u8; 12] = hex("070000004041424344454647").try_into().unwrap();
    let associated = hex("50515253c0c1c2c3c4c5c6c7");
    let plain = b"Ladies and Gentlemen of the class of '99: \
                  If I could offer you only one tip for the future, sunscreen would be it.";
    let mut text = plain.to_vec();
    let tag = aead.seal(&nonce, &associated, &mut text);
    let sealed = hex(
        "d31a8d34648e60db7b86afbc53ef7ec2 a4aded51296e08fea9e2b5a736ee62d6
         3dbea45e8ca9671282fafb69da92728b 1a71de0a9e060b2905d6a5b67ecd3b36
         92ddbd7f2d778b8c9803aee328091b58 fab324e4fad675945585808b4831d7bc
         3ff4def08e4b7a9de576d26586cec64b 6116",
    );
    assert_eq!(text, sealed);
    assert_eq!(tag[..], hex("1ae10b594f09e26a7e902ecbd0600691"));
    aead.open(&nonce, &associated, &mut text, &tag).unwrap();
    assert_eq!(text, plain);
}

/// RFC 8032 section 7.1, tests 1 and 2.
#[test]
fn ed25519_vectors() {
    let crypto = RealCrypto::new();
    let cases: [(&str, &str, &[u8], &str); 2] = [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            b"",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155
             5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            b"\x72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
    ];
    for (seed, public, message, signature) in cases {
        let (seed, public) = (Key::new(hex32(seed)), hex32(public));
        assert_eq!(crypto.identity_public(&seed), public);
        let signed = crypto.sign(&seed, message);
        assert_eq!(signed.0[..], hex(signature));
        assert!(crypto.verify(&public, message, &signed));
    }
}

/// With the identity point as key, lenient verification accepts one signature for every message.
#[test]
fn keys_of_small_order_sign_nothing() {
    let mut identity_point = [0; 32];
    identity_point[0] = 1;
    let mut signature = [0; 64];
    signature[0] = 1;
    let crypto = RealCrypto::new();
    assert!(!crypto.verify(&identity_point, b"anything", &Signature(signature)));
}

/// RFC 7748 section 6.1.
#[test]
fn x25519_public_key_vector() {
    let secret = hex32("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
    let public = hex32("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    assert_eq!(RealCrypto::new().static_public(&Key::new(secret)), public);
}
