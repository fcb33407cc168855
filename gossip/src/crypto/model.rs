//! A model of the cryptography for simulations: same messages, same lengths, no elliptic curves.
//!
//! **It gives no security whatever**: public keys are hashes, "signatures" can be computed from
//! the public key, and the handshake's secrecy rests on the mesh secret alone. What it keeps is
//! what a simulation needs: everything wrong, random, bent, cut or sealed with another secret is
//! refused, texts are unreadable on the wire, and the same inputs always give the same bytes.

use alloc::boxed::Box;
use alloc::vec::Vec;

use rmesh_wire::codec::Signature;
use rmesh_wire::datagram::TAG_LEN;
use rmesh_wire::handshake::Cipher;

use super::siphash;
use super::{Aead, Crypto, Forged, Handshake, HandshakeSetup, Key, OVERHEAD, Role};

/// The provider for simulations; see the module's warning.
#[derive(Debug, Clone, Copy, Default)]
pub struct ModelCrypto;

impl ModelCrypto {
    /// The provider.
    pub const fn new() -> Self {
        ModelCrypto
    }
}

impl Crypto for ModelCrypto {
    fn identity_public(&self, seed: &Key) -> [u8; 32] {
        expand(b"identity", &[seed.bytes()])
    }

    fn sign(&self, seed: &Key, message: &[u8]) -> Signature {
        signature(&self.identity_public(seed), message)
    }

    fn verify(&self, public: &[u8; 32], message: &[u8], claimed: &Signature) -> bool {
        signature(public, message) == *claimed
    }

    fn static_public(&self, secret: &Key) -> [u8; 32] {
        expand(b"static", &[secret.bytes()])
    }

    fn handshake(&self, setup: HandshakeSetup<'_>) -> Box<dyn Handshake> {
        Box::new(ModelHandshake {
            role: setup.role,
            local_static: self.static_public(setup.static_key),
            ephemeral: expand(b"ephemeral", &[setup.randomness.bytes()]),
            transcript: Transcript(expand(b"rmesh model", &[setup.psk.bytes(), setup.prologue])),
            remote_static: None,
            position: 0,
        })
    }

    fn ciphers(&self) -> &'static [Cipher] {
        &[Cipher::ChaCha20Poly1305]
    }

    fn aead(&self, cipher: Cipher, key: &Key) -> Option<Box<dyn Aead>> {
        match cipher {
            Cipher::ChaCha20Poly1305 => Some(Box::new(ModelAead(sip_key(key.bytes())))),
            Cipher::Aes256Gcm => None,
        }
    }
}

/// Hash of `parts` to 32 bytes, different for each `label`.
fn expand(label: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut out = [0; 32];
    for (half, bytes) in (0u64..).zip(out.chunks_exact_mut(16)) {
        let mut inner = siphash::hash([half, 0], &[label]);
        for part in parts {
            inner = siphash::hash(words(&inner), &[part]);
        }
        bytes.copy_from_slice(&inner);
    }
    out
}

fn words(bytes: &[u8; 16]) -> [u64; 2] {
    let number = u128::from_le_bytes(*bytes);
    [number as u64, (number >> 64) as u64]
}

fn sip_key(key: &[u8; 32]) -> [u64; 2] {
    words(&siphash::hash([0, 0], &[key]))
}

fn signature(public: &[u8; 32], message: &[u8]) -> Signature {
    let first = expand(b"signature", &[public, message]);
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(&first);
    bytes[32..].copy_from_slice(&expand(b"signature's end", &[&first]));
    Signature(bytes)
}

/// SipHash tag over nonce, associated data and text; the text under a SplitMix64 stream.
struct ModelAead([u64; 2]);

impl ModelAead {
    fn tag(&self, nonce: &[u8; 12], associated: &[u8], text: &[u8]) -> [u8; TAG_LEN] {
        siphash::hash(self.0, &[nonce, associated, text])
    }

    fn apply_stream(&self, nonce: &[u8; 12], text: &mut [u8]) {
        let [mut state, _] = words(&siphash::hash(self.0, &[nonce]));
        for chunk in text.chunks_mut(8) {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let stream = (mixed ^ (mixed >> 27)).to_le_bytes();
            for (byte, mask) in chunk.iter_mut().zip(stream) {
                *byte ^= mask;
            }
        }
    }
}

impl Aead for ModelAead {
    fn seal(&self, nonce: &[u8; 12], associated: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        self.apply_stream(nonce, text);
        self.tag(nonce, associated, text)
    }

    fn open(
        &self,
        nonce: &[u8; 12],
        associated: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Forged> {
        if self.tag(nonce, associated, text) != *tag {
            return Err(Forged);
        }
        self.apply_stream(nonce, text);
        Ok(())
    }
}

/// Chained hash of everything both ends know so far; also the key of what comes next.
#[derive(Clone, Copy)]
struct Transcript([u8; 32]);

impl Transcript {
    fn mix(&mut self, bytes: &[u8]) {
        self.0 = expand(b"mix", &[&self.0, bytes]);
    }

    fn append_sealed(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(text);
        let tag = ModelAead(sip_key(&self.0)).seal(&[0; 12], &[], &mut out[start..]);
        out.extend_from_slice(&tag);
        self.mix(&tag);
    }

    fn open(&mut self, sealed: &[u8]) -> Result<Vec<u8>, Forged> {
        let (text, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(Forged)?;
        let mut text = text.to_vec();
        ModelAead(sip_key(&self.0)).open(&[0; 12], &[], &mut text, tag)?;
        self.mix(tag);
        Ok(text)
    }
}

struct ModelHandshake {
    role: Role,
    local_static: [u8; 32],
    ephemeral: [u8; 32],
    transcript: Transcript,
    remote_static: Option<[u8; 32]>,
    /// Messages that went through.
    position: usize,
}

impl ModelHandshake {
    fn my_turn(&self) -> bool {
        let initiator_sends = self.position.is_multiple_of(2);
        self.position < OVERHEAD.len() && initiator_sends == (self.role == Role::Initiator)
    }

    /// Whether the message at this position carries an ephemeral and a static key.
    fn carries(&self) -> (bool, bool) {
        (self.position < 2, self.position > 0)
    }
}

impl Handshake for ModelHandshake {
    fn write(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Forged> {
        let len = payload.len() + OVERHEAD.get(self.position).ok_or(Forged)?;
        if !self.my_turn() || len > usize::from(u16::MAX) {
            return Err(Forged);
        }
        let (ephemeral, fixed) = self.carries();
        if ephemeral {
            out.extend_from_slice(&self.ephemeral);
            self.transcript.mix(&self.ephemeral);
        }
        if fixed {
            self.transcript.append_sealed(&self.local_static, out);
        }
        self.transcript.append_sealed(payload, out);
        self.position += 1;
        Ok(())
    }

    fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, Forged> {
        let too_long = message.len() > usize::from(u16::MAX);
        if self.my_turn() || self.position == OVERHEAD.len() || too_long {
            return Err(Forged);
        }
        let mut transcript = self.transcript;
        let mut rest = message;
        let mut remote_static = None;
        let (ephemeral, fixed) = self.carries();
        if ephemeral {
            let (bytes, tail) = rest.split_first_chunk::<32>().ok_or(Forged)?;
            transcript.mix(bytes);
            rest = tail;
        }
        if fixed {
            let (sealed, tail) = rest.split_first_chunk::<{ 32 + TAG_LEN }>().ok_or(Forged)?;
            remote_static = transcript.open(sealed)?.try_into().ok();
            rest = tail;
        }
        let payload = transcript.open(rest)?;
        self.transcript = transcript;
        self.remote_static = remote_static;
        self.position += 1;
        Ok(payload)
    }

    fn remote_static(&self) -> Option<[u8; 32]> {
        self.remote_static
    }

    fn split(&mut self) -> Option<(Key, Key)> {
        if self.position < OVERHEAD.len() {
            return None;
        }
        let secret = &self.transcript.0;
        Some((
            Key::new(expand(b"initiator to responder", &[secret])),
            Key::new(expand(b"responder to initiator", &[secret])),
        ))
    }
}

#[cfg(test)]
mod tests;
