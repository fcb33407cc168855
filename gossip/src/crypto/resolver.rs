//! The primitives of `25519_ChaChaPoly_BLAKE2s` for `snow`, from the crates used everywhere else
//! here, so that no second generation of them is linked; and no source of randomness but a seed.

use alloc::boxed::Box;

use blake2::{Blake2s256, Digest};
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce, Tag};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use rmesh_wire::datagram::TAG_LEN;
use snow::Error;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroize;

use super::Key;

/// Length of BLAKE2s's output in bytes (RFC 7693).
const HASH_LEN: usize = 32;
/// Length of BLAKE2s's block in bytes.
const BLOCK_LEN: usize = 64;

/// Gives `snow` its primitives.
pub(super) struct Resolver {
    /// Seeds the stream the ephemeral key comes from.
    pub(super) randomness: Key,
    /// The static key and its public half, computed already.
    pub(super) static_pair: (Key, [u8; 32]),
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Stream(ChaCha20Rng::from_seed(
            *self.randomness.bytes(),
        ))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::new(X25519 {
                known: self.static_pair.clone(),
                secret: StaticSecret::from([0; 32]),
                public: [0; 32],
            })),
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        match choice {
            HashChoice::Blake2s => Some(Box::new(Blake2s(Blake2s256::new()))),
            _ => None,
        }
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        match choice {
            CipherChoice::ChaChaPoly => {
                Some(Box::new(ChaChaPoly(ChaCha20Poly1305::new(&[0; 32].into()))))
            }
            _ => None,
        }
    }
}

struct Stream(ChaCha20Rng);

impl Random for Stream {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        self.0.fill_bytes(dest);
        Ok(())
    }
}

/// X25519 (RFC 7748).
struct X25519 {
    known: (Key, [u8; 32]),
    secret: StaticSecret,
    public: [u8; 32],
}

impl X25519 {
    fn set_secret(&mut self, secret: [u8; 32]) {
        self.secret = StaticSecret::from(secret);
        self.public = if *self.known.0.bytes() == secret {
            self.known.1
        } else {
            PublicKey::from(&self.secret).to_bytes()
        };
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, privkey: &[u8]) {
        if let Ok(secret) = privkey.try_into() {
            self.set_secret(secret);
        }
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut secret = [0; 32];
        rng.try_fill_bytes(&mut secret)?;
        self.set_secret(secret);
        secret.zeroize();
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        self.secret.as_bytes()
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let public = pubkey.first_chunk::<32>().ok_or(Error::Dh)?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(*public));
        // A point of small order would make the result known to everybody (RFC 7748 section 6.1).
        if !shared.was_contributory() {
            return Err(Error::Dh);
        }
        let out = out.first_chunk_mut::<32>().ok_or(Error::Dh)?;
        *out = shared.to_bytes();
        Ok(())
    }
}

/// ChaCha20-Poly1305 (RFC 8439) with Noise's nonce: four zero bytes, then 64 bits little-endian.
struct ChaChaPoly(ChaCha20Poly1305);

fn nonce(counter: u64) -> Nonce {
    let [a, b, c, d, e, f, g, h] = counter.to_le_bytes();
    Nonce::from([0, 0, 0, 0, a, b, c, d, e, f, g, h])
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.0 = ChaCha20Poly1305::new(&(*key).into());
    }

    fn encrypt(&self, counter: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        // `snow` has checked that `out` is long enough; were it not, nothing would be written.
        let len = plaintext.len();
        let Some((text, rest)) = out.split_at_mut_checked(len) else {
            return 0;
        };
        let Some(tag_out) = rest.first_chunk_mut::<TAG_LEN>() else {
            return 0;
        };
        text.copy_from_slice(plaintext);
        match self
            .0
            .encrypt_inout_detached(&nonce(counter), authtext, (&mut *text).into())
        {
            Ok(tag) => {
                *tag_out = tag.into();
                len + TAG_LEN
            }
            Err(_) => {
                text.fill(0);
                0
            }
        }
    }

    fn decrypt(
        &self,
        counter: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let (sealed, tag) = ciphertext
            .split_last_chunk::<TAG_LEN>()
            .ok_or(Error::Decrypt)?;
        let text = out.get_mut(..sealed.len()).ok_or(Error::Decrypt)?;
        text.copy_from_slice(sealed);
        let opened = self
            .0
            .decrypt_inout_detached(&nonce(counter), authtext, text.into(), &Tag::from(*tag))
            .map_err(|_| Error::Decrypt);
        #[cfg(test)]
        let opened = opened.or_else(|error| unchecked::pass().then_some(()).ok_or(error));
        opened?;
        Ok(sealed.len())
    }
}

/// BLAKE2s (RFC 7693).
struct Blake2s(Blake2s256);

impl Hash for Blake2s {
    fn name(&self) -> &'static str {
        "BLAKE2s"
    }

    fn block_len(&self) -> usize {
        BLOCK_LEN
    }

    fn hash_len(&self) -> usize {
        HASH_LEN
    }

    fn reset(&mut self) {
        self.0 = Blake2s256::new();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let hash = core::mem::take(&mut self.0).finalize();
        if let Some(out) = out.first_chunk_mut::<HASH_LEN>() {
            *out = hash.into();
        }
    }
}

/// For one test: a wrong tag that is taken for a right one, as if the check were not there.
#[cfg(test)]
pub(super) mod unchecked {
    extern crate std;

    std::thread_local! {
        static TAGS_LEFT: core::cell::Cell<u32> = const { core::cell::Cell::new(0) };
    }

    /// The next wrong tag on this thread passes.
    pub(in crate::crypto) fn let_one_pass() {
        TAGS_LEFT.set(1);
    }

    /// Whether the pass was used up.
    pub(in crate::crypto) fn is_used() -> bool {
        TAGS_LEFT.get() == 0
    }

    pub(super) fn pass() -> bool {
        TAGS_LEFT.replace(0) > 0
    }
}

#[cfg(test)]
mod tests;
