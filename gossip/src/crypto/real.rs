//! The provider the daemon uses: Noise, Ed25519, ChaCha20-Poly1305 and, where the machine has
//! instructions for it, AES-256-GCM.

use alloc::boxed::Box;
use core::cell::RefCell;

use aes_gcm::Aes256Gcm;
use chacha20poly1305::aead::consts::{U12, U16};
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce, Tag};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use rmesh_wire::codec::Signature;
use rmesh_wire::datagram::TAG_LEN;
use rmesh_wire::handshake::Cipher;
use x25519_dalek::{PublicKey, StaticSecret};

use super::noise::NoiseHandshake;
use super::{Aead, Crypto, Forged, Handshake, HandshakeSetup, Key};

/// Noise `XXpsk0_25519_ChaChaPoly_BLAKE2s`, Ed25519, ChaCha20-Poly1305 and AES-256-GCM.
#[derive(Default)]
pub struct RealCrypto {
    has_aes: bool,
    // The static key last used and its public half: computing it for every first message would be
    // the public-key work that a stranger must not be able to ask for.
    static_pair: RefCell<Option<(Key, [u8; 32])>>,
}

impl RealCrypto {
    /// The provider without AES-256-GCM; it holds no secret until it is used.
    pub fn new() -> Self {
        Self::default()
    }

    /// The provider, which offers AES-256-GCM if this machine `has_aes` instructions. Only the
    /// caller can tell: nothing in this crate looks at the machine.
    pub fn with_aes(has_aes: bool) -> Self {
        RealCrypto {
            has_aes,
            ..Self::default()
        }
    }

    fn static_pair(&self, secret: &Key) -> (Key, [u8; 32]) {
        let mut known = self.static_pair.borrow_mut();
        match &*known {
            Some(pair) if pair.0 == *secret => pair.clone(),
            _ => known
                .insert((secret.clone(), self.static_public(secret)))
                .clone(),
        }
    }
}

impl Crypto for RealCrypto {
    fn identity_public(&self, seed: &Key) -> [u8; 32] {
        SigningKey::from_bytes(seed.bytes())
            .verifying_key()
            .to_bytes()
    }

    fn sign(&self, seed: &Key, message: &[u8]) -> Signature {
        Signature(
            SigningKey::from_bytes(seed.bytes())
                .sign(message)
                .to_bytes(),
        )
    }

    fn verify(&self, public: &[u8; 32], message: &[u8], signature: &Signature) -> bool {
        // Strict: a key of small order would accept signatures of messages it never saw.
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        VerifyingKey::from_bytes(public)
            .is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
    }

    fn static_public(&self, secret: &Key) -> [u8; 32] {
        PublicKey::from(&StaticSecret::from(*secret.bytes())).to_bytes()
    }

    fn handshake(&self, setup: HandshakeSetup<'_>) -> Box<dyn Handshake> {
        let static_pair = self.static_pair(setup.static_key);
        Box::new(NoiseHandshake::new(setup, static_pair))
    }

    fn ciphers(&self) -> &'static [Cipher] {
        if self.has_aes {
            &[Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305]
        } else {
            &[Cipher::ChaCha20Poly1305]
        }
    }

    fn aead(&self, cipher: Cipher, key: &Key) -> Option<Box<dyn Aead>> {
        match cipher {
            Cipher::ChaCha20Poly1305 => {
                Some(Box::new(Rust(ChaCha20Poly1305::new(key.bytes().into()))))
            }
            Cipher::Aes256Gcm if self.has_aes => {
                Some(Box::new(Rust(Aes256Gcm::new(key.bytes().into()))))
            }
            Cipher::Aes256Gcm => None,
        }
    }
}

/// ChaCha20-Poly1305 (RFC 8439) or AES-256-GCM (NIST SP 800-38D) under one key.
struct Rust<A>(A);

impl<A> Aead for Rust<A>
where
    A: AeadInOut<NonceSize = U12, TagSize = U16> + Send + Sync,
{
    fn seal(&self, nonce: &[u8; 12], associated: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        let nonce = Nonce::from(*nonce);
        match self
            .0
            .encrypt_inout_detached(&nonce, associated, (&mut *text).into())
        {
            Ok(tag) => tag.into(),
            Err(_) => {
                // Only a text of 256 GiB gets here; nothing of it may leave.
                text.fill(0);
                [0; TAG_LEN]
            }
        }
    }

    fn open(
        &self,
        nonce: &[u8; 12],
        associated: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Forged> {
        let (nonce, tag) = (Nonce::from(*nonce), Tag::from(*tag));
        self.0
            .decrypt_inout_detached(&nonce, associated, text.into(), &tag)
            .map_err(|_| Forged)
    }
}

#[cfg(test)]
mod tests;
