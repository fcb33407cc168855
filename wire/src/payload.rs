//! The first four bytes inside every sealed record: what the record carries.
//!
//! ```text
//!  0      1       2        4
//! | kind | flags | aux    | body …
//! ```
//! Lane 0 belongs to the control side and carries only probes and control messages; the other
//! lanes belong to the data plane and carry only frames, floods and fragments.

/// Length of the payload head in bytes.
pub const HEAD_LEN: usize = 4;
/// The control side's lane; only it moves the address a peer is answered at.
pub const CONTROL_LANE: u8 = 0;
/// The channel of the ring's messages, among those that the mesh carries for another core.
pub const RING_CHANNEL: u8 = 1;

/// What a sealed payload carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PayloadKind {
    /// One Ethernet frame for the receiver; `flags` and `aux` are zero.
    Frame = 0,
    /// Several small frames, each after a 16-bit length; reserved, not sent yet.
    Bundle = 1,
    /// A piece of a payload that was too big for the path: see [`crate::fragment`].
    Fragment = 2,
    /// A liveness probe or its answer: see [`crate::probe`].
    Probe = 3,
    /// A control message, in the codec's encoding.
    Control = 4,
    /// An Ethernet frame on its way down a broadcast tree: see [`crate::flood`].
    Flood = 5,
}

/// A decoded payload head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What follows.
    pub kind: PayloadKind,
    /// Meaning depends on the kind.
    pub flags: u8,
    /// Meaning depends on the kind.
    pub aux: u16,
}

impl Head {
    /// A head without flags.
    pub const fn new(kind: PayloadKind) -> Self {
        Head {
            kind,
            flags: 0,
            aux: 0,
        }
    }

    /// The head as it stands on the wire.
    pub const fn encode(&self) -> [u8; HEAD_LEN] {
        let [high, low] = self.aux.to_be_bytes();
        [self.kind as u8, self.flags, high, low]
    }

    /// Splits a payload into head and body; `None` if it is too short or of an unknown kind.
    pub fn split(payload: &[u8]) -> Option<(Self, &[u8])> {
        let (&[kind, flags, high, low], body) = payload.split_first_chunk::<HEAD_LEN>()?;
        let kind = match kind {
            0 => PayloadKind::Frame,
            1 => PayloadKind::Bundle,
            2 => PayloadKind::Fragment,
            3 => PayloadKind::Probe,
            4 => PayloadKind::Control,
            5 => PayloadKind::Flood,
            _ => return None,
        };
        Some((
            Head {
                kind,
                flags,
                aux: u16::from_be_bytes([high, low]),
            },
            body,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_come_back_and_strangers_do_not() {
        let head = Head {
            kind: PayloadKind::Fragment,
            flags: 1,
            aux: 0x0203,
        };
        let bytes = [2, 1, 2, 3, 9];
        assert_eq!(head.encode(), [2, 1, 2, 3]);
        assert_eq!(Head::split(&bytes), Some((head, &[9u8][..])));
        assert_eq!(Head::split(&[6, 0, 0, 0]), None);
        assert_eq!(Head::split(&[0, 0, 0]), None);
    }
}
