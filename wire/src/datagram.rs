//! The 16 bytes at the start of every rmesh datagram.
//!
//! ```text
//!  0        1        2        4                8                        16
//! | ver|typ | ttl    | gen    | receiver index | lane(8) counter(56)    |
//! ```
//! Integers are big-endian. `ttl` is used by relay datagrams only, `gen` (secret generation) by
//! handshakes only; both are zero elsewhere. In handshake datagrams the last 8 bytes hold the
//! sender's index and four zero bytes. The whole header is the AEAD's associated data.

/// The version this code speaks.
pub const VERSION: u8 = 1;
/// Length of the header in bytes.
pub const HEADER_LEN: usize = 16;
/// Where the lane of a record or relay datagram stands, in bytes from the start.
pub const LANE_OFFSET: usize = 8;
/// Length of an AEAD tag in bytes (RFC 8439, NIST SP 800-38D).
pub const TAG_LEN: usize = 16;
/// Largest datagram accepted, in bytes: what UDP over IPv4 can carry.
pub const DATAGRAM_LEN_MAX: usize = 65_507;
/// Highest value of the 56-bit record counter.
pub const COUNTER_MAX: u64 = (1 << 56) - 1;

/// What a datagram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// First handshake message, initiator to responder.
    HandshakeInit,
    /// Second handshake message.
    HandshakeResponse,
    /// Third handshake message.
    HandshakeFinish,
    /// One sealed record of a session.
    Record,
    /// A datagram of two other peers, wrapped for one hop.
    Relay,
    /// Answer to a first message of one who must show first that it receives answers.
    Cookie,
}

impl Kind {
    /// The low four bits of a datagram's first byte.
    pub const fn code(self) -> u8 {
        match self {
            Kind::HandshakeInit => 1,
            Kind::HandshakeResponse => 2,
            Kind::HandshakeFinish => 3,
            Kind::Record => 4,
            Kind::Relay => 5,
            Kind::Cookie => 6,
        }
    }
}

/// Why bytes are not an rmesh datagram. The datagram is to be dropped and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Shorter than its kind requires.
    #[error("datagram of {0} bytes is too short")]
    Short(usize),
    /// Another protocol version.
    #[error("version {0} is not spoken here (this is version {VERSION})")]
    Version(u8),
    /// A kind nobody defined.
    #[error("datagram kind {0} is unknown")]
    Kind(u8),
}

/// A decoded header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What follows.
    pub kind: Kind,
    /// Hops left; relay datagrams only.
    pub ttl: u8,
    /// Which mesh secret; handshakes only.
    pub generation: u16,
    /// The receiver's index of the session or handshake; zero in a first message.
    pub receiver: u32,
    /// Lane and counter of a record, or the sender's index of a handshake.
    pub tail: u64,
}

impl Header {
    /// Header of a sealed record.
    pub const fn record(receiver: u32, lane: u8, counter: u64) -> Self {
        Header {
            kind: Kind::Record,
            ttl: 0,
            generation: 0,
            receiver,
            tail: tail(lane, counter),
        }
    }

    /// Header of a relay datagram under the session of two neighbours.
    pub const fn relay(receiver: u32, lane: u8, counter: u64, ttl: u8) -> Self {
        Header {
            kind: Kind::Relay,
            ttl,
            generation: 0,
            receiver,
            tail: tail(lane, counter),
        }
    }

    /// Header of a handshake message.
    pub const fn handshake(kind: Kind, generation: u16, sender: u32, receiver: u32) -> Self {
        Header {
            kind,
            ttl: 0,
            generation,
            receiver,
            tail: (sender as u64) << 32,
        }
    }

    /// The transmit queue the record came from.
    pub const fn lane(&self) -> u8 {
        (self.tail >> 56) as u8
    }

    /// The record's number in its lane.
    pub const fn counter(&self) -> u64 {
        self.tail & COUNTER_MAX
    }

    /// The AEAD nonce of a record: four zero bytes, then lane and counter.
    ///
    /// Stored as ciphers load it, in eight bytes and four: a processor hands on what it has just stored only to
    /// loads that lie within one store, and lets others wait until all stores before are done.
    pub const fn nonce(&self) -> [u8; 12] {
        let tail = self.tail.swap_bytes();
        let mut nonce = [0; 12];
        let (first, last) = nonce.split_at_mut(8);
        first.copy_from_slice(&(tail << 32).to_le_bytes());
        last.copy_from_slice(&((tail >> 32) as u32).to_le_bytes());
        nonce
    }

    /// The sender's index in a handshake message.
    pub const fn sender(&self) -> u32 {
        (self.tail >> 32) as u32
    }

    /// The header as it stands on the wire.
    pub const fn encode(&self) -> [u8; HEADER_LEN] {
        let kind = (VERSION << 4 | self.kind.code()) as u64;
        let hops = self.ttl as u64;
        let generation = self.generation as u64;
        let first = kind << 56 | hops << 48 | generation << 32 | self.receiver as u64;
        let mut header = [0; HEADER_LEN];
        let (head, tail) = header.split_at_mut(8);
        head.copy_from_slice(&first.to_be_bytes());
        tail.copy_from_slice(&self.tail.to_be_bytes());
        header
    }

    /// Reads the header at the start of `datagram`.
    ///
    /// # Errors
    /// Says what is wrong with the first bytes; nothing else has been looked at.
    pub fn decode(datagram: &[u8]) -> Result<Self, HeaderError> {
        let Some((head, _)) = datagram.split_first_chunk::<HEADER_LEN>() else {
            return Err(HeaderError::Short(datagram.len()));
        };
        let &[
            first,
            ttl,
            g0,
            g1,
            r0,
            r1,
            r2,
            r3,
            t0,
            t1,
            t2,
            t3,
            t4,
            t5,
            t6,
            t7,
        ] = head;
        if first >> 4 != VERSION {
            return Err(HeaderError::Version(first >> 4));
        }
        let kind = match first & 0x0f {
            1 => Kind::HandshakeInit,
            2 => Kind::HandshakeResponse,
            3 => Kind::HandshakeFinish,
            4 => Kind::Record,
            5 => Kind::Relay,
            6 => Kind::Cookie,
            other => return Err(HeaderError::Kind(other)),
        };
        Ok(Header {
            kind,
            ttl,
            generation: u16::from_be_bytes([g0, g1]),
            receiver: u32::from_be_bytes([r0, r1, r2, r3]),
            tail: u64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
        })
    }
}

const fn tail(lane: u8, counter: u64) -> u64 {
    (lane as u64) << 56 | (counter & COUNTER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_header_has_these_bytes() {
        let header = Header::record(0x0102_0304, 7, 0x0a0b);
        let bytes = [0x14, 0, 0, 0, 1, 2, 3, 4, 7, 0, 0, 0, 0, 0, 0x0a, 0x0b];
        assert_eq!(header.encode(), bytes);
        assert_eq!(Header::decode(&bytes), Ok(header));
        assert_eq!((header.lane(), header.counter()), (7, 0x0a0b));
        assert_eq!(bytes[LANE_OFFSET], 7);
        assert_eq!(header.nonce(), [0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0x0a, 0x0b]);
    }

    #[test]
    fn handshake_header_has_these_bytes() {
        let header = Header::handshake(Kind::HandshakeResponse, 1, 0xaabb_ccdd, 5);
        let bytes = [
            0x12, 0, 0, 1, 0, 0, 0, 5, 0xaa, 0xbb, 0xcc, 0xdd, 0, 0, 0, 0,
        ];
        assert_eq!(header.encode(), bytes);
        assert_eq!(Header::decode(&bytes).map(|h| h.sender()), Ok(0xaabb_ccdd));
    }

    #[test]
    fn foreign_bytes_are_refused_by_name() {
        assert_eq!(Header::decode(&[0x14; 15]), Err(HeaderError::Short(15)));
        assert_eq!(Header::decode(&[0x24; 16]), Err(HeaderError::Version(2)));
        assert_eq!(Header::decode(&[0x1f; 16]), Err(HeaderError::Kind(15)));
    }
}
