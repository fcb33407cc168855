//! The first four bytes inside every sealed record: what the record carries.
//!
//! ```text
//!  0      1       2        4
//! | kind | flags | aux    | body …
//! ```
//! Lane 0 belongs to the control side and carries only probes of both kinds, control messages and what keeps
//! mappings; the other lanes belong to the data plane and carry only frames, bundles of them, floods and fragments.

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
    /// One Ethernet frame for the receiver; `flags` and `aux` are a [`PartialChecksum`] or zero.
    Frame = 0,
    /// Several small frames: see [`crate::bundle`].
    Bundle = 1,
    /// A piece of a payload that was too big for the path: see [`crate::fragment`].
    Fragment = 2,
    /// A liveness probe or its answer: see [`crate::probe`].
    Probe = 3,
    /// A control message, in the codec's encoding.
    Control = 4,
    /// An Ethernet frame on its way down a broadcast tree: see [`crate::flood`].
    Flood = 5,
    /// Whether another source port passes: see [`crate::port_probe`].
    PortProbe = 6,
    /// Nothing: it keeps the mapping of a translator of addresses, and needs no answer.
    Keep = 7,
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
            6 => PayloadKind::PortProbe,
            7 => PayloadKind::Keep,
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

/// Length of an Ethernet header without tags: no checksum begins before its end.
const ETHERNET_LEN: u16 = 14;

/// A transport checksum of which only the pseudo header's part was computed: the seal protects
/// the rest on its way, and nobody reads the payload for it.
///
/// In the head of a frame `flags` is 1 and twice half the offset (which is even in TCP and UDP),
/// and `aux` is the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Where in the frame the summed part begins, in bytes; it ends with the frame.
    pub start: u16,
    /// Where in that part the checksum's field is, in bytes.
    pub offset: u16,
}

impl PartialChecksum {
    /// Where in the frame the checksum's field is.
    pub fn field(&self) -> usize {
        usize::from(self.start) + usize::from(self.offset)
    }

    /// Whether the whole field is inside a frame of `len` bytes, behind its Ethernet header.
    pub fn fits(&self, len: usize) -> bool {
        self.start >= ETHERNET_LEN && self.field() + 2 <= len
    }

    /// The head of a frame with this checksum; `None` if its offset cannot be told there.
    pub fn head(self) -> Option<Head> {
        let half = u8::try_from(self.offset / 2).ok()?;
        let fits = self.offset.is_multiple_of(2) && half < 0x80;
        fits.then_some(Head {
            kind: PayloadKind::Frame,
            flags: half << 1 | 1,
            aux: self.start,
        })
    }

    /// What the head of a frame of `len` bytes says; `None` if it says something else or a field
    /// that is not inside the frame.
    pub fn of_frame(head: &Head, len: usize) -> Option<Option<Self>> {
        match (head.flags, head.aux) {
            (0, 0) => Some(None),
            (flags, start) => {
                let offset = u16::from(flags & 0xfe);
                let partial = PartialChecksum { start, offset };
                (flags & 1 == 1 && partial.fits(len)).then_some(Some(partial))
            }
        }
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
        assert_eq!(Head::split(&[8, 0, 0, 0]), None);
        assert_eq!(Head::split(&[0, 0, 0]), None);
    }

    #[test]
    fn a_partial_checksum_is_told_in_the_head_and_never_outside_the_frame() {
        let tcp = PartialChecksum {
            start: 34,
            offset: 16,
        };
        let head = tcp.head().unwrap();
        assert_eq!(head.encode(), [0, 17, 0, 34]);
        assert_eq!(PartialChecksum::of_frame(&head, 52), Some(Some(tcp)));
        assert_eq!(PartialChecksum::of_frame(&head, 51), None);
        let none = Head::new(PayloadKind::Frame);
        assert_eq!(PartialChecksum::of_frame(&none, 14), Some(None));
        let odd = |flags, aux| Head { flags, aux, ..none };
        assert_eq!(PartialChecksum::of_frame(&odd(1, 13), 100), None);
        assert_eq!(PartialChecksum::of_frame(&odd(2, 34), 100), None);
        assert_eq!(PartialChecksum::of_frame(&odd(0, 34), 100), None);
        assert!(
            PartialChecksum {
                start: 34,
                offset: 15
            }
            .head()
            .is_none()
        );
        assert!(
            PartialChecksum {
                start: 34,
                offset: 256
            }
            .head()
            .is_none()
        );
        let far = PartialChecksum {
            start: u16::MAX,
            offset: 254,
        };
        assert!(!far.fits(65_535) && far.head().is_some());
    }
}
