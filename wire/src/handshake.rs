//! What the two ends of a handshake tell each other, inside its sealed payloads.
//!
//! `Noise_XXpsk0_25519_ChaChaPoly_BLAKE2s`: each message carries its sender's index; then
//! the second carries the responder's [`Hello`], the third the initiator's.

use alloc::string::String;
use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::codec::Bounded;
use crate::id::Boot;

/// Prologue of every handshake: binds protocol and version into the transcript.
pub const PROLOGUE: &[u8] = b"rmesh/1";
/// Prefix of what the identity key signs to bind the Noise static key to it.
pub const BINDING_CONTEXT: &[u8] = b"rmesh static key v1";
/// Longest peer name in bytes (a DNS label's limit, RFC 1035, leaves no room for abuse).
pub const NAME_LEN_MAX: usize = 63;
/// Most cipher suites one side may offer.
pub const CIPHERS_MAX: usize = 8;

/// How frames are sealed in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Cipher {
    /// RFC 8439.
    ChaCha20Poly1305,
    /// NIST SP 800-38D with a 256-bit key.
    Aes256Gcm,
}

/// One end's statement about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Ed25519 public key; its hash is the peer id.
    pub identity: [u8; 32],
    /// Signature by `identity` over [`BINDING_CONTEXT`] and the Noise static key.
    pub binding: crate::codec::Signature,
    /// Which life of the peer this is.
    pub boot: Boot,
    /// Human name; a label, never an identity. At most [`NAME_LEN_MAX`] bytes.
    pub name: String,
    /// Lowest and highest protocol version spoken.
    pub versions: (u8, u8),
    /// Ciphers offered, best first.
    pub ciphers: Bounded<Cipher, CIPHERS_MAX>,
    /// Whether this side's policy allows plaintext for this pair.
    pub plaintext_allowed: bool,
    /// Where this side saw the other's handshake come from; `None` over a relay.
    pub observed: Option<SocketAddr>,
    /// How long this life of it has lasted, in milliseconds: tells which of two hosts that run
    /// with one identity began first.
    pub up_ms: u64,
}
