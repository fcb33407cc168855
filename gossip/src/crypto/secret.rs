//! Text forms of the mesh secret.
//!
//! A generated secret is `rmesh1-` and the 52 base32 characters (RFC 4648, lower case, unpadded)
//! of its 256 bits, and is used as it is. Any other text is a passphrase, stretched once by
//! Argon2id (RFC 9106: 64 MiB, 3 passes, 1 lane) over the fixed salt [`PASSPHRASE_SALT`] to 32
//! bytes. The salt is fixed because all members must reach the same key with nothing but the
//! passphrase; so whoever recorded a handshake can try passphrases offline, at that cost each.
//!
//! Only the 32 bytes are kept. Their `rmesh1-` form joins the same mesh as the passphrase did.

use alloc::string::String;
use alloc::vec;
use core::fmt;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::Zeroizing;

use super::Key;

/// What a generated secret starts with.
pub const SECRET_PREFIX: &str = "rmesh1-";
/// Shortest passphrase in bytes.
pub const PASSPHRASE_LEN_MIN: usize = 16;
/// Longest passphrase in bytes.
pub const PASSPHRASE_LEN_MAX: usize = 256;
/// Salt of the passphrase stretching; a change of it or of the costs is a new secret form.
pub const PASSPHRASE_SALT: &[u8] = b"rmesh passphrase v1";

/// Argon2id's memory in KiB.
const STRETCH_MEMORY_KIB: u32 = 64 * 1024;
const STRETCH_PASSES: u32 = 3;
const STRETCH_LANES: u32 = 1;

/// Base32 characters that carry 256 bits.
const BASE32_LEN: usize = 52;
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Why a text is not a mesh secret. It is never repeated in the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Nothing at all.
    #[error("the mesh secret is empty; `rmesh secret` on a member prints it")]
    Empty,
    /// Fewer than [`PASSPHRASE_LEN_MIN`] bytes.
    #[error(
        "the passphrase has {0} bytes, but whoever hears a handshake can guess at it, so it needs \
         at least {PASSPHRASE_LEN_MIN}; use the secret that `rmesh secret` prints on a member"
    )]
    TooShort(usize),
    /// More than [`PASSPHRASE_LEN_MAX`] bytes.
    #[error(
        "the passphrase has {0} bytes, more than {PASSPHRASE_LEN_MAX}; is this the right file?"
    )]
    TooLong(usize),
    /// Looks like a generated secret, with the wrong number of characters.
    #[error(
        "a secret that starts with {SECRET_PREFIX} has {BASE32_LEN} characters after it, this one \
         has {0}; copy it again from `rmesh secret` on a member"
    )]
    Length(usize),
    /// Looks like a generated secret, with a character that none has.
    #[error(
        "character {0} after {SECRET_PREFIX} is not one of a-z and 2-7 (all lower case); copy the \
         secret again from `rmesh secret` on a member"
    )]
    Character(usize),
    /// Looks like a generated secret, with bits after its end.
    #[error(
        "the last character of the secret can only be `a` or `q`; copy it again from \
         `rmesh secret` on a member"
    )]
    LastCharacter,
    /// Looks like a generated secret, but does not start like one.
    #[error(
        "this looks like a generated secret, but those start exactly with {SECRET_PREFIX} in \
         lower case with no space before it; copy it again from `rmesh secret` on a member"
    )]
    Prefix,
}

/// A mesh secret as it was typed, checked.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Form);

#[derive(Clone, PartialEq, Eq)]
enum Form {
    Generated(Key),
    Passphrase(Zeroizing<String>),
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(…)")
    }
}

/// Reads a mesh secret; one newline at its end does not belong to it.
///
/// # Errors
/// Says what is wrong and where to get the right one. What looks like a generated secret is never
/// taken for a passphrase.
pub fn parse(text: &str) -> Result<SecretText, SecretError> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if let Some(encoded) = text.strip_prefix(SECRET_PREFIX) {
        return decode(encoded).map(|key| SecretText(Form::Generated(key)));
    }
    if looks_generated(text) {
        return Err(SecretError::Prefix);
    }
    match text.len() {
        0 => Err(SecretError::Empty),
        len if len < PASSPHRASE_LEN_MIN => Err(SecretError::TooShort(len)),
        len if len > PASSPHRASE_LEN_MAX => Err(SecretError::TooLong(len)),
        _ => Ok(SecretText(Form::Passphrase(Zeroizing::new(text.into())))),
    }
}

/// Whether a text without the exact prefix was most likely meant to have it: `RMESH1-…`,
/// ` rmesh1-…`, `rmesh1…`, or the 52 characters alone.
fn looks_generated(text: &str) -> bool {
    let start = text.trim_start().as_bytes();
    let stem = SECRET_PREFIX.trim_end_matches('-').as_bytes();
    let starts_alike = start
        .get(..stem.len())
        .is_some_and(|bytes| bytes.eq_ignore_ascii_case(stem));
    starts_alike || (text.len() == BASE32_LEN && text.bytes().all(|byte| BASE32.contains(&byte)))
}

impl SecretText {
    /// Whether this must be stretched, and can be guessed at by a listener.
    pub fn is_passphrase(&self) -> bool {
        matches!(self.0, Form::Passphrase(_))
    }

    /// The pre-shared key. A passphrase takes 64 MiB and some tenths of a second.
    pub fn into_key(self) -> Key {
        match self.0 {
            Form::Generated(key) => key,
            Form::Passphrase(passphrase) => stretch(passphrase.as_bytes()),
        }
    }
}

#[expect(
    clippy::expect_used,
    reason = "Argon2 fails only on lengths out of range, and all of them are constants or checked"
)]
fn stretch(passphrase: &[u8]) -> Key {
    let params = Params::new(
        STRETCH_MEMORY_KIB,
        STRETCH_PASSES,
        STRETCH_LANES,
        Some(size_of::<[u8; 32]>()),
    )
    .expect("constants within Argon2's bounds");
    let mut memory = Zeroizing::new(vec![Block::default(); params.block_count()]);
    Key::made_by(|key| {
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(passphrase, PASSPHRASE_SALT, key, memory.as_mut_slice())
            .expect("lengths within Argon2's bounds");
    })
}

/// The text of a new secret made of 32 bytes of the best randomness there is.
pub fn generate(random: &[u8; 32]) -> Zeroizing<String> {
    encode(random)
}

/// The text that stands for `key`, wherever it came from.
pub fn format(key: &Key) -> Zeroizing<String> {
    encode(key.bytes())
}

fn encode(bytes: &[u8; 32]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(SECRET_PREFIX.len() + BASE32_LEN));
    text.push_str(SECRET_PREFIX);
    for index in 0..BASE32_LEN {
        let value = (0..5).fold(0, |value, bit| value << 1 | bit_at(bytes, index * 5 + bit));
        text.push(char::from(BASE32[usize::from(value)]));
    }
    text
}

/// Bit `index` counted from the most significant of the first byte; zero after the end.
fn bit_at(bytes: &[u8; 32], index: usize) -> u8 {
    bytes
        .get(index / 8)
        .map_or(0, |byte| byte >> (7 - index % 8) & 1)
}

fn decode(encoded: &str) -> Result<Key, SecretError> {
    let len = encoded.chars().count();
    if len != BASE32_LEN {
        return Err(SecretError::Length(len));
    }
    let mut result = Ok(());
    let key = Key::made_by(|key| result = decode_into(encoded, key));
    result.map(|()| key)
}

fn decode_into(encoded: &str, key: &mut [u8; 32]) -> Result<(), SecretError> {
    for (index, character) in encoded.chars().enumerate() {
        let value = BASE32
            .iter()
            .position(|&known| char::from(known) == character)
            .ok_or(SecretError::Character(index + 1))?;
        for bit in (0..5).filter(|bit| value >> (4 - bit) & 1 == 1) {
            let position = index * 5 + bit;
            let byte = key.get_mut(position / 8);
            *byte.ok_or(SecretError::LastCharacter)? |= 0x80 >> (position % 8);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
