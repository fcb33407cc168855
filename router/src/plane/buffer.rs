//! Bytes with room in front and behind, so that sealing and wrapping happen in place.

use std::io;

use rmesh_wire::datagram::{DATAGRAM_LEN_MAX, HEADER_LEN, TAG_LEN};
use rmesh_wire::flood::FLOOD_HEADER_LEN;
use rmesh_wire::payload::HEAD_LEN;
use rmesh_wire::relay;

/// Frames or datagrams handled between two system calls.
pub const BATCH_LEN: usize = 64;
/// Room in front: relay header and ends, record header, payload head, flood header.
pub const HEADROOM: usize = relay::INNER_OFFSET + HEADER_LEN + HEAD_LEN + FLOOD_HEADER_LEN;
/// Room behind: the record's tag and the relay's.
pub const TAILROOM: usize = 2 * TAG_LEN;

/// One frame or datagram. All buffers have the same size, so they can be swapped between queues
/// instead of copied.
pub struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Default for Buffer {
    fn default() -> Self {
        Buffer {
            bytes: vec![0; HEADROOM + DATAGRAM_LEN_MAX + TAILROOM].into_boxed_slice(),
            start: HEADROOM,
            end: HEADROOM,
        }
    }
}

impl Buffer {
    /// `count` empty buffers; their pages cost memory only once they are used.
    pub fn many(count: usize) -> Vec<Buffer> {
        (0..count).map(|_| Buffer::default()).collect()
    }

    /// The content.
    pub fn data(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// The content, to be changed in place.
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// Where a datagram or frame may be read to: everything but the room in front and behind.
    pub(crate) fn space_mut(&mut self) -> &mut [u8] {
        self.bytes
            .get_mut(HEADROOM..HEADROOM + DATAGRAM_LEN_MAX)
            .unwrap_or_default()
    }

    /// Makes the first `len` bytes of [`Buffer::space_mut`] the content.
    pub(crate) fn set_len(&mut self, len: usize) {
        self.start = HEADROOM;
        self.end = HEADROOM + len.min(DATAGRAM_LEN_MAX);
    }

    /// Replaces the content by what `read` puts there.
    ///
    /// # Errors
    /// Those of `read`; the content is then empty.
    pub fn fill_with(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.set_len(0);
        let len = read(self.space_mut())?;
        self.set_len(len);
        Ok(len)
    }

    /// Replaces the content by `parts`, one after the other; false (and empty) if they do not fit.
    pub fn assign(&mut self, parts: &[&[u8]]) -> bool {
        self.set_len(0);
        parts.iter().all(|part| self.append(part)) || {
            self.set_len(0);
            false
        }
    }

    /// Puts `bytes` in front; false if there is no room.
    #[must_use]
    pub fn prepend(&mut self, bytes: &[u8]) -> bool {
        let Some(start) = self.start.checked_sub(bytes.len()) else {
            return false;
        };
        let Some(room) = self.bytes.get_mut(start..self.start) else {
            return false;
        };
        room.copy_from_slice(bytes);
        self.start = start;
        true
    }

    /// Puts `bytes` behind; false if there is no room.
    #[must_use]
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        let end = self.end + bytes.len();
        let Some(room) = self.bytes.get_mut(self.end..end) else {
            return false;
        };
        room.copy_from_slice(bytes);
        self.end = end;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_a_frame_is_wrapped_in_has_room() {
        let mut buffer = Buffer::default();
        assert!(buffer.assign(&[&[1, 2], &[3]]));
        assert!(buffer.prepend(&[0; HEADROOM]));
        assert!(!buffer.prepend(&[0]));
        assert!(buffer.append(&[0; TAILROOM]));
        assert_eq!(buffer.data().len(), HEADROOM + 3 + TAILROOM);
        buffer.set_len(DATAGRAM_LEN_MAX);
        assert!(buffer.append(&[0; TAILROOM]));
        assert!(!buffer.append(&[0]));
        assert!(!buffer.assign(&[&[0; DATAGRAM_LEN_MAX + TAILROOM + 1]]));
    }
}
