//! The provider of all cryptography: handshake, AEAD and signatures behind one interface.
//!
//! The daemon uses [`real`]; simulations mostly use [`model`], which is cheap and still rejects
//! forgeries.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use rmesh_wire::PeerId;
use rmesh_wire::codec::Signature;
use rmesh_wire::datagram::TAG_LEN;
use rmesh_wire::handshake::Cipher;
use sha2::Digest as _;
use zeroize::{Zeroize, ZeroizeOnDrop};

pub mod model;
pub mod real;
pub mod secret;

/// 32 secret bytes: overwritten when dropped, never shown.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Key(pub [u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Which end of a handshake this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sends the first message.
    Initiator,
    /// Answers it.
    Responder,
}

/// A message failed authentication or came at the wrong time. The state it was given to is
/// unusable from now on, except that a failed first message leaves a responder untouched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("authentication failed")]
pub struct Forged;

/// Inputs of a handshake.
pub struct HandshakeSetup<'a> {
    /// Which end.
    pub role: Role,
    /// The Noise static key.
    pub static_key: &'a Key,
    /// The pre-shared mesh secret.
    pub psk: &'a Key,
    /// Bound into the transcript.
    pub prologue: &'a [u8],
    /// Fresh secret randomness for this handshake alone.
    pub randomness: Key,
}

/// Maker of handshakes, AEADs and signatures.
pub trait Crypto: Send {
    /// Public half of an identity seed (Ed25519, RFC 8032).
    fn identity_public(&self, seed: &Key) -> [u8; 32];
    /// Signature of `message` by the identity `seed`.
    fn sign(&self, seed: &Key, message: &[u8]) -> Signature;
    /// Whether `signature` is one of `message` by `public`.
    fn verify(&self, public: &[u8; 32], message: &[u8], signature: &Signature) -> bool;
    /// Public half of a Noise static key (X25519, RFC 7748).
    fn static_public(&self, secret: &Key) -> [u8; 32];
    /// A fresh handshake.
    fn handshake(&self, setup: HandshakeSetup<'_>) -> Box<dyn Handshake>;
    /// An AEAD under `key`.
    fn aead(&self, cipher: Cipher, key: &Key) -> Box<dyn Aead>;
}

/// One handshake of three messages (Noise XXpsk0).
pub trait Handshake: Send {
    /// Appends the next message, carrying `payload` sealed, to `out`.
    ///
    /// # Errors
    /// [`Forged`] if it is the other side's turn.
    fn write(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Forged>;
    /// Reads the other side's next message and returns its payload.
    ///
    /// # Errors
    /// [`Forged`] if it does not authenticate or it is this side's turn.
    fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, Forged>;
    /// The other side's static key, once known.
    fn remote_static(&self) -> Option<[u8; 32]>;
    /// Keys initiator-to-responder and responder-to-initiator, once all messages are through.
    fn split(&mut self) -> Option<(Key, Key)>;
}

/// Authenticated encryption with 96-bit nonces and 128-bit tags.
pub trait Aead: Send + Sync {
    /// Encrypts `text` in place and returns the tag.
    fn seal(&self, nonce: &[u8; 12], associated: &[u8], text: &mut [u8]) -> [u8; TAG_LEN];
    /// Decrypts `text` in place.
    ///
    /// # Errors
    /// [`Forged`] if the tag is wrong; `text` is then worthless.
    fn open(
        &self,
        nonce: &[u8; 12],
        associated: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Forged>;
}

/// Identity of the owner of an Ed25519 public key: the first 16 bytes of its SHA-256 hash.
pub fn peer_id(identity_public: &[u8; 32]) -> PeerId {
    let hash = sha2::Sha256::digest(identity_public);
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    PeerId(id)
}
