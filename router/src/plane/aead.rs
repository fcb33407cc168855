//! Sealing and opening in bulk, by a library in assembly.

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rmesh_gossip::crypto::Key;
use rmesh_wire::datagram::TAG_LEN;
use rmesh_wire::handshake::Cipher;

/// An AEAD under one key (RFC 5116): 96-bit nonces, 128-bit tags. Its bytes are those of the
/// pure-Rust crates that the control side seals with, which tests compare.
pub(crate) struct Aead(LessSafeKey);

/// A tag did not match; the text it belongs to is worthless.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Forged;

impl Aead {
    /// `None` only if the library does not take a key of 32 bytes.
    pub(crate) fn new(cipher: Cipher, key: &Key) -> Option<Self> {
        let algorithm = match cipher {
            Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            Cipher::Aes256Gcm => &AES_256_GCM,
        };
        let key = UnboundKey::new(algorithm, key.bytes()).ok()?;
        Some(Aead(LessSafeKey::new(key)))
    }

    /// Encrypts `text` in place and writes the tag; `None` only beyond the cipher's length limit.
    pub(crate) fn seal(
        &self,
        nonce: [u8; 12],
        associated: &[u8],
        text: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Option<()> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0
            .seal_in_place_scatter(nonce, Aad::from(associated), text, &[], tag)
            .ok()
    }

    /// Decrypts `text` in place if `tag` matches.
    pub(crate) fn open(
        &self,
        nonce: [u8; 12],
        associated: &[u8],
        text: &mut [u8],
        tag: [u8; TAG_LEN],
    ) -> Result<(), Forged> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0
            .open_in_place_separate_tag(nonce, Aad::from(associated), &tag, text)
            .map(|_| ())
            .map_err(|_| Forged)
    }
}

/// Whether this machine has the instructions that make AES-256-GCM faster than ChaCha20-Poly1305;
/// without them it is slower and leaks its key by the time it takes.
pub fn has_aes_instructions() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq")
        && std::arch::is_x86_feature_detected!("ssse3");
    #[cfg(target_arch = "aarch64")]
    let has = std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has = false;
    has
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rmesh_gossip::crypto::Crypto as _;
    use rmesh_gossip::crypto::real::RealCrypto;

    const BOTH: [Cipher; 2] = [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm];

    proptest! {
        #[test]
        fn the_bytes_are_those_of_the_control_sides_crates(
            key in any::<[u8; 32]>(),
            nonce in any::<[u8; 12]>(),
            associated in prop::collection::vec(any::<u8>(), 0..1_500),
            text in prop::collection::vec(any::<u8>(), 0..3_000),
        ) {
            for cipher in BOTH {
                let bulk = Aead::new(cipher, &Key::new(key)).unwrap();
                let oracle = RealCrypto::with_aes(true).aead(cipher, &Key::new(key)).unwrap();
                let (mut ours, mut theirs) = (text.clone(), text.clone());
                let mut tag = [0; TAG_LEN];
                bulk.seal(nonce, &associated, &mut ours, &mut tag).unwrap();
                prop_assert_eq!(tag, oracle.seal(&nonce, &associated, &mut theirs));
                prop_assert_eq!(&ours, &theirs);
                prop_assert!(oracle.open(&nonce, &associated, &mut ours, &tag).is_ok());
                prop_assert_eq!(bulk.open(nonce, &associated, &mut theirs, tag), Ok(()));
                prop_assert_eq!(&ours, &text);
                prop_assert_eq!(&theirs, &text);
                let mut bent = tag;
                bent[usize::from(nonce[0] % 16)] ^= 1;
                prop_assert_eq!(bulk.open(nonce, &associated, &mut theirs, bent), Err(Forged));
            }
        }
    }
}
