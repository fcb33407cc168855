//! Memory for what is read, made once.

use std::io;

/// Frames or datagrams handled between two system calls.
pub const BATCH_LEN: usize = 64;
/// Longest frame or datagrams in one: the largest network packet, an Ethernet header and tags.
pub const SPACE_LEN: usize = 65_535 + 14 + 8;
/// Buffers of a batch to begin with: an idle daemon needs no more, and each takes a page.
const FEW: usize = 4;
/// What a buffer's memory is longer than its space: buffers that lie a multiple of a page apart fill the same few
/// sets of the processor's caches with their first bytes, which are most of what is used.
const STAGGER: usize = 1_664;

/// A frame, or datagrams that came in one.
pub struct Buffer {
    bytes: Box<[u8]>,
    len: usize,
}

impl Default for Buffer {
    fn default() -> Self {
        Buffer {
            bytes: vec![0; SPACE_LEN + STAGGER].into_boxed_slice(),
            len: 0,
        }
    }
}

impl Buffer {
    /// `count` empty buffers; their pages cost memory only once they are used.
    pub fn many(count: usize) -> Vec<Buffer> {
        (0..count).map(|_| Buffer::default()).collect()
    }

    /// The first few of [`BATCH_LEN`], where it is yet to be seen how many a batch takes.
    pub(crate) fn few() -> Vec<Buffer> {
        let mut few = Vec::with_capacity(BATCH_LEN);
        few.extend(Buffer::many(FEW));
        few
    }

    /// Twice as many, at most [`BATCH_LEN`]: all were used at once.
    pub(crate) fn add_more(buffers: &mut Vec<Buffer>) {
        let more = buffers.len().min(BATCH_LEN.saturating_sub(buffers.len()));
        buffers.extend(Buffer::many(more));
    }

    /// Takes the whole buffer out; one without room stays.
    pub(crate) fn take(&mut self) -> Buffer {
        let bytes = std::mem::take(&mut self.bytes);
        let len = std::mem::take(&mut self.len);
        Buffer { bytes, len }
    }

    /// The content.
    pub fn data(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// The content, to be changed in place.
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.len).unwrap_or_default()
    }

    /// Where something may be read to.
    pub(crate) fn space_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..SPACE_LEN).unwrap_or_default()
    }

    /// Makes the first `len` bytes of [`Buffer::space_mut`] the content.
    pub(crate) fn set_len(&mut self, len: usize) {
        self.len = len.min(SPACE_LEN);
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
        self.append(parts)
    }

    /// Puts `parts` behind; false (and nothing of them) if they do not fit.
    #[must_use]
    pub fn append(&mut self, parts: &[&[u8]]) -> bool {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let end = Some(self.len + len).filter(|end| *end <= SPACE_LEN);
        let room = end.and_then(|end| self.bytes.get_mut(self.len..end));
        let fits = room.is_some();
        concatenate(room.unwrap_or_default(), parts);
        self.len += if fits { len } else { 0 };
        fits
    }
}

/// Fills `to` with `parts`, one after the other, as far as it goes.
pub(crate) fn concatenate(to: &mut [u8], parts: &[&[u8]]) {
    let mut at = 0;
    for part in parts {
        if let Some(place) = to.get_mut(at..at + part.len()) {
            place.copy_from_slice(part);
        }
        at += part.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_not_taken_at_all() {
        let mut buffer = Buffer::default();
        assert!(buffer.assign(&[&[1, 2], &[3]]));
        assert_eq!(buffer.data(), [1, 2, 3]);
        assert!(!buffer.assign(&[&[0; SPACE_LEN], &[0]]));
        assert!(buffer.data().is_empty());
        assert!(buffer.assign(&[&[7; SPACE_LEN]]));
        assert_eq!(buffer.data().len(), SPACE_LEN);
    }
}
