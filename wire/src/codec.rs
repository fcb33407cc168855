//! The one encoding for everything that is not a hand-laid header; the only user of `bincode`.
//!
//! A message is one version byte and then bincode 2's standard configuration with big-endian
//! variable-length integers. Decoding is bounded, refuses trailing bytes and refuses any encoding
//! that is not the one [`encode`] would produce, so that signed bytes have one form.

use alloc::vec::Vec;
use core::fmt;

use bincode::config::{BigEndian, Configuration, Limit, Varint};
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Version byte at the start of every encoded message.
pub const CODEC_VERSION: u8 = 1;
/// Largest encoded message in bytes; no datagram and no state file comes near.
pub const ENCODED_LEN_MAX: usize = 1 << 20;

/// Messages up to this length, in bytes, are decoded under a limit of their own: those of all
/// datagrams.
const SHORT_LEN_MAX: usize = 2_048;
/// Memory that such a message may claim, in bytes. bincode makes room for a text of the length it
/// reads before it looks whether the text is there; an integer of one byte may claim 16.
const SHORT_LIMIT: usize = 16 * SHORT_LEN_MAX;

const CONFIG: Configuration<BigEndian, Varint, Limit<ENCODED_LEN_MAX>> =
    bincode::config::standard()
        .with_big_endian()
        .with_limit::<ENCODED_LEN_MAX>();

/// Why a message could not be encoded or decoded. Nothing has been changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// There was no version byte.
    #[error("the message is empty")]
    Empty,
    /// Another version of the encoding.
    #[error("message version {0} is not spoken here (this is version {CODEC_VERSION})")]
    Version(u8),
    /// Bytes that no value encodes to, or beyond a bound.
    #[error("the message is malformed")]
    Malformed,
    /// Bytes after the end of the value.
    #[error("{0} bytes follow the message")]
    Trailing(usize),
    /// A value with a shorter or different encoding.
    #[error("the message is not in its one canonical form")]
    NotCanonical,
    /// The value is too big.
    #[error("the message is longer than {ENCODED_LEN_MAX} bytes")]
    TooLong,
}

/// Encodes `value` behind the version byte.
///
/// # Errors
/// [`CodecError::TooLong`] if the value does not fit [`ENCODED_LEN_MAX`].
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let body = bincode::serde::encode_to_vec(value, CONFIG).map_err(|_| CodecError::TooLong)?;
    if body.len() >= ENCODED_LEN_MAX {
        return Err(CodecError::TooLong);
    }
    let mut bytes = Vec::with_capacity(body.len() + 1);
    bytes.push(CODEC_VERSION);
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// Decodes exactly one value from the whole of `bytes`.
///
/// # Errors
/// Says what is wrong. Memory used is at most a small multiple of the length of `bytes` and, for
/// one text that is not there, 32 KiB (1 MiB if the message is longer than 2 KiB).
pub fn decode<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Result<T, CodecError> {
    let (&version, body) = bytes.split_first().ok_or(CodecError::Empty)?;
    if version != CODEC_VERSION {
        return Err(CodecError::Version(version));
    }
    let decoded = if body.len() <= SHORT_LEN_MAX {
        bincode::serde::decode_from_slice::<T, _>(body, CONFIG.with_limit::<SHORT_LIMIT>())
    } else {
        bincode::serde::decode_from_slice::<T, _>(body, CONFIG)
    };
    let (value, used) = decoded.map_err(|_| CodecError::Malformed)?;
    if used != body.len() {
        return Err(CodecError::Trailing(body.len() - used));
    }
    if encode(&value)? != bytes {
        return Err(CodecError::NotCanonical);
    }
    Ok(value)
}

/// A list that can never hold more than `N` elements, also while it is being decoded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Bounded<T, const N: usize>(Vec<T>);

impl<T, const N: usize> Bounded<T, N> {
    /// Takes the first `N` elements of `items`.
    pub fn take_from(items: impl IntoIterator<Item = T>) -> Self {
        Bounded(items.into_iter().take(N).collect())
    }

    /// The elements.
    pub fn as_slice(&self) -> &[T] {
        &self.0
    }

    /// The elements, owned.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T: Serialize, const N: usize> Serialize for Bounded<T, N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Bounded<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T, const N: usize>(core::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Elements<T, N> {
            type Value = Bounded<T, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {N} elements")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                // The announced length is checked before looping: elements may be of size zero.
                if seq.size_hint().is_some_and(|len| len > N) {
                    return Err(serde::de::Error::custom("too many elements"));
                }
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    if items.len() == N {
                        return Err(serde::de::Error::custom("too many elements"));
                    }
                    items.push(item);
                }
                Ok(Bounded(items))
            }
        }
        deserializer.deserialize_seq(Elements(core::marker::PhantomData))
    }
}

/// Bytes, at most `N` of them, also while they are being decoded. Encoded as `Bounded<u8, N>` is,
/// but in one piece instead of one element after the other.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Bytes<const N: usize>(Vec<u8>);

impl<const N: usize> Bytes<N> {
    /// Takes `bytes`; `None` if they are more than `N`.
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() <= N).then_some(Bytes(bytes))
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, owned.
    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }
}

impl<const N: usize> fmt::Debug for Bytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl<const N: usize> Serialize for Bytes<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Bytes<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Slice<const N: usize>;
        impl<const N: usize> Visitor<'_> for Slice<N> {
            type Value = Bytes<N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {N} bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                let fits = bytes.len() <= N;
                fits.then(|| Bytes(Vec::from(bytes)))
                    .ok_or_else(|| E::custom("too many bytes"))
            }
        }
        deserializer.deserialize_bytes(Slice)
    }
}

/// A 64-byte Ed25519 signature (RFC 8032).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (a, b) = self.0.split_at(32);
        (half(a), half(b)).serialize(serializer)
    }
}

fn half(bytes: &[u8]) -> [u8; 32] {
    let mut half = [0; 32];
    half.copy_from_slice(bytes);
    half
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (a, b) = <([u8; 32], [u8; 32])>::deserialize(deserializer)?;
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&a);
        bytes[32..].copy_from_slice(&b);
        Ok(Signature(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    type Sample = (u64, Bounded<u16, 4>, Option<[u8; 4]>);

    #[test]
    fn golden_bytes() {
        let value: Sample = (300, Bounded::take_from([1, 2]), Some([9, 8, 7, 6]));
        let bytes = encode(&value).unwrap();
        assert_eq!(bytes, [1, 251, 1, 44, 2, 1, 2, 1, 9, 8, 7, 6]);
        assert_eq!(decode(&bytes), Ok(value));
    }

    #[test]
    fn bytes_are_encoded_as_a_list_of_bytes() {
        let list: Bounded<u8, 300> = Bounded::take_from(0..=255);
        let bytes = Bytes::<300>::new(list.as_slice().to_vec()).unwrap();
        let encoded = encode(&list).unwrap();
        assert_eq!(encode(&bytes).unwrap(), encoded);
        assert_eq!(decode(&encoded), Ok(bytes));
        assert_eq!(decode::<Bytes<255>>(&encoded), Err(CodecError::Malformed));
        let cut = &encoded[..encoded.len() - 1];
        assert_eq!(decode::<Bytes<300>>(cut), Err(CodecError::Malformed));
        assert_eq!(Bytes::<2>::new(vec![0; 3]), None);
    }

    #[test]
    fn every_other_form_is_refused() {
        assert_eq!(decode::<u64>(&[]), Err(CodecError::Empty));
        assert_eq!(decode::<u64>(&[2, 5]), Err(CodecError::Version(2)));
        assert_eq!(decode::<u64>(&[1, 5, 0]), Err(CodecError::Trailing(1)));
        assert_eq!(
            decode::<u64>(&[1, 251, 0, 5]),
            Err(CodecError::NotCanonical)
        );
        assert_eq!(
            decode::<Bounded<u8, 2>>(&[1, 3, 0, 0, 0]),
            Err(CodecError::Malformed)
        );
        let huge = [1, 253, 0, 0, 1, 0, 0, 0, 0, 0];
        assert_eq!(decode::<Bounded<(), 9>>(&huge), Err(CodecError::Malformed));
        assert_eq!(decode::<vec::Vec<u8>>(&huge), Err(CodecError::Malformed));
    }

    #[test]
    fn short_messages_claim_little_and_all_of_them_are_still_read() {
        let integers: Bounded<u64, SHORT_LEN_MAX> = Bounded::take_from(vec![0; SHORT_LEN_MAX - 3]);
        let bytes = encode(&integers).unwrap();
        assert_eq!(bytes.len(), SHORT_LEN_MAX + 1);
        assert_eq!(decode(&bytes), Ok(integers));
        let text = alloc::string::String::from_utf8(vec![b'x'; SHORT_LEN_MAX * 20]).unwrap();
        assert_eq!(decode(&encode(&text).unwrap()), Ok(text));
    }

    proptest! {
        #[test]
        fn decoding_is_total(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<Sample>(&bytes);
            let _ = decode::<crate::handshake::Hello>(&bytes);
        }

        #[test]
        fn values_come_back(a in any::<u64>(), b in prop::collection::vec(any::<u16>(), 0..4)) {
            let value: Sample = (a, Bounded::take_from(b), None);
            prop_assert_eq!(decode::<Sample>(&encode(&value).unwrap()), Ok(value));
        }
    }
}
