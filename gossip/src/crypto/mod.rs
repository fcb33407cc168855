//! The provider of all cryptography: handshake, AEAD and signatures behind one interface.
//!
//! The daemon uses [`real::RealCrypto`]; simulations mostly use [`model::ModelCrypto`], which is
//! cheap and still rejects forgeries. Messages, keys and tags have the same lengths in both.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use rmesh_wire::PeerId;
use rmesh_wire::codec::Signature;
use rmesh_wire::datagram::TAG_LEN;
use rmesh_wire::handshake::Cipher;
use sha2::Digest as _;
use zeroize::{Zeroize as _, Zeroizing};

pub mod model;
mod noise;
pub mod real;
mod resolver;
pub mod secret;
mod siphash;
#[cfg(test)]
mod testing;

/// 32 secret bytes: never shown, and overwritten when the last who has them drops them.
///
/// They stay at one place of the heap: a move or a clone copies an address. What was copied byte by
/// byte into a stack frame that is left again, nobody would overwrite.
#[derive(Clone)]
pub struct Key(Arc<Zeroizing<[u8; 32]>>);

impl Key {
    /// These bytes, of which the caller keeps a copy: for those that are no secret, as in tests.
    pub fn new(bytes: [u8; 32]) -> Self {
        Key::made_by(|key| *key = bytes)
    }

    /// The bytes that `make` writes where they stay.
    pub fn made_by(make: impl FnOnce(&mut [u8; 32])) -> Self {
        let mut key = Arc::new(Zeroizing::new([0; 32]));
        // Nobody else has it yet.
        if let Some(bytes) = Arc::get_mut(&mut key) {
            make(bytes);
        }
        Key(key)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Bytes of the stack that [`wipe_stack`] overwrites.
const WIPED_LEN: usize = 16 << 10;

/// Overwrites what functions called before have left on the stack below: libraries move keys through
/// frames that nobody clears.
#[inline(never)]
pub fn wipe_stack() {
    let mut below = [0u8; WIPED_LEN];
    below.zeroize();
    core::hint::black_box(&below);
}

/// Which end of a handshake this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sends the first message.
    Initiator,
    /// Answers it.
    Responder,
}

/// A message failed authentication or came at the wrong time. The state it was given to is as it
/// was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("authentication failed")]
pub struct Forged;

/// Bytes that the three messages of a handshake have beside their payloads: an ephemeral key (32)
/// in the first two, a sealed static key (32 + 16) in the last two, and a tag (16) in each.
pub const OVERHEAD: [usize; 3] = [48, 96, 64];

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

impl fmt::Debug for HandshakeSetup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandshakeSetup")
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
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
    /// A fresh handshake. Costs no public-key work by itself, so that a stranger's first message
    /// is refused cheaply.
    fn handshake(&self, setup: HandshakeSetup<'_>) -> Box<dyn Handshake>;
    /// The ciphers [`Crypto::aead`] can make, best first.
    fn ciphers(&self) -> &'static [Cipher];
    /// An AEAD under `key`; `None` if `cipher` is not one of [`Crypto::ciphers`].
    fn aead(&self, cipher: Cipher, key: &Key) -> Option<Box<dyn Aead>>;
}

/// One handshake of three messages (Noise XXpsk0).
///
/// Beside its payload a message is [`OVERHEAD`] bytes long. A message that fails leaves the
/// handshake as it was, so one who races damaged copies against the genuine message gains nothing.
pub trait Handshake: Send {
    /// Appends the next message, carrying `payload` sealed, to `out`.
    ///
    /// # Errors
    /// [`Forged`] if it is the other side's turn or the message would exceed 65,535 bytes.
    fn write(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Forged>;
    /// Reads the other side's next message and returns its payload.
    ///
    /// # Errors
    /// [`Forged`] if it does not authenticate or it is this side's turn.
    fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, Forged>;
    /// The other side's static key, once it has proved to own it.
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
