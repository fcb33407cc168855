//! Sealing and opening, whatever the cipher.

use chacha20poly1305::aead::AeadInOut as _;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _};
use rmesh_gossip::crypto::Key;
use rmesh_wire::datagram::TAG_LEN;
use rmesh_wire::handshake::Cipher;

/// An AEAD under one key (RFC 5116): 96-bit nonces, 128-bit tags. The one place to add a faster one.
pub(crate) enum Aead {
    ChaCha20Poly1305(Box<ChaCha20Poly1305>),
}

/// A tag did not match; the text it belongs to is worthless.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Forged;

impl Aead {
    /// `None` if the cipher is not spoken here.
    pub(crate) fn new(cipher: Cipher, key: &Key) -> Option<Self> {
        match cipher {
            Cipher::ChaCha20Poly1305 => Some(Aead::ChaCha20Poly1305(Box::new(
                ChaCha20Poly1305::new(&key.0.into()),
            ))),
            Cipher::Aes256Gcm => None,
        }
    }

    /// Encrypts `text` in place and gives the tag; `None` only beyond the cipher's length limit.
    pub(crate) fn seal(
        &self,
        nonce: [u8; 12],
        associated: &[u8],
        text: &mut [u8],
    ) -> Option<[u8; TAG_LEN]> {
        match self {
            Aead::ChaCha20Poly1305(aead) => aead
                .encrypt_inout_detached(&nonce.into(), associated, text.into())
                .ok()
                .map(Into::into),
        }
    }

    /// Decrypts `text` in place if `tag` matches.
    pub(crate) fn open(
        &self,
        nonce: [u8; 12],
        associated: &[u8],
        text: &mut [u8],
        tag: [u8; TAG_LEN],
    ) -> Result<(), Forged> {
        match self {
            Aead::ChaCha20Poly1305(aead) => aead
                .decrypt_inout_detached(&nonce.into(), associated, text.into(), &tag.into())
                .map_err(|_| Forged),
        }
    }
}
