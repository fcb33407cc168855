//! How frames enter and leave this process.
//!
//! The data plane knows only [`Port`]; [`plain`] is the one that works everywhere, [`fast`] the
//! one that carries up to 64 KiB a system call.

use std::io::{self, IoSlice};
use std::os::fd::RawFd;

pub(crate) mod checksum;
pub(crate) mod coalesce;
pub(crate) mod ecn;
pub mod fast;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
pub(crate) mod mss;
pub mod offload;
pub mod plain;
mod segment;
pub(crate) mod split;

use crate::plane::buffer::{BATCH_LEN, Buffer};
use offload::Offload;

/// Bytes after which a batch ends: what is read should still be near when it is sealed.
const BATCH_BYTES: usize = 256 << 10;

/// Queues of one port, at most.
pub const QUEUES_MAX: usize = 8;

/// A batch of frames on their way from a port, in buffers that are made once.
pub struct FrameBatch {
    buffers: Vec<Buffer>,
    offloads: Vec<Offload>,
    used: usize,
    is_full: bool,
}

impl Default for FrameBatch {
    fn default() -> Self {
        FrameBatch::of(Buffer::few())
    }
}

impl FrameBatch {
    /// One with these buffers to begin with.
    pub(crate) fn of(buffers: Vec<Buffer>) -> Self {
        FrameBatch {
            buffers,
            offloads: vec![Offload::default(); BATCH_LEN],
            used: 0,
            is_full: false,
        }
    }

    /// Reads whole frames with `read` until it would block or the batch is full. An interrupted
    /// read counts as would-block: poll(2) tells again.
    ///
    /// # Errors
    /// Whatever `read` failed with before the first frame.
    pub fn fill(&mut self, mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<()> {
        self.fill_offloaded(|space| Ok((read(space)?, Offload::default())))
    }

    /// The same with what each frame leaves to do.
    ///
    /// # Errors
    /// Whatever `read` failed with before the first frame.
    pub fn fill_offloaded(
        &mut self,
        mut read: impl FnMut(&mut [u8]) -> io::Result<(usize, Offload)>,
    ) -> io::Result<()> {
        if self.used == self.buffers.len() {
            Buffer::add_more(&mut self.buffers);
        }
        (self.used, self.is_full) = (0, false);
        let mut bytes = 0;
        for (buffer, offload) in self.buffers.iter_mut().zip(&mut self.offloads) {
            match buffer.fill_with(|space| {
                let (len, left) = read(space)?;
                *offload = left;
                Ok(len)
            }) {
                Ok(0) => return Ok(()),
                Ok(len) => (self.used, bytes) = (self.used + 1, bytes + len),
                Err(error) if is_transient(&error) || self.used > 0 => return Ok(()),
                Err(error) => return Err(error),
            }
            if bytes >= BATCH_BYTES {
                break;
            }
        }
        self.is_full = true;
        Ok(())
    }

    /// The frames of the last [`FrameBatch::fill`], and what each leaves to do.
    pub fn frames(&self) -> impl Iterator<Item = (&[u8], &Offload)> {
        let buffers = self.buffers.iter().take(self.used);
        buffers.map(Buffer::data).zip(&self.offloads)
    }

    /// Whether the batch was filled to the brim, so that more may wait.
    pub fn is_full(&self) -> bool {
        self.is_full
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// What a port leaves to whoever gets its frames, and takes left undone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Partial checksums, and TCP super-frames.
    pub tcp: bool,
    /// Super-frames of UDP too; only with the former.
    pub udp: bool,
}

/// A non-blocking source and sink of Ethernet frames.
pub trait Port: Send {
    /// The interface's name.
    fn name(&self) -> &str;
    /// Descriptor that poll(2) reports readable while frames wait.
    fn fd(&self) -> RawFd;
    /// All of them, if the port has several queues; the others are negative.
    fn fds(&self) -> [RawFd; QUEUES_MAX] {
        let mut all = [-1; QUEUES_MAX];
        all[0] = self.fd();
        all
    }
    /// What frames that are read may leave to do, and frames that are written.
    fn offloads(&self) -> Offloads {
        Offloads::default()
    }
    /// Which of [`Port::fds`] were readable a moment ago: whoever reads now need not look.
    fn note_ready(&mut self, _ready: &[bool]) {}
    /// Reads what waits, up to one batch; an empty batch if nothing does.
    ///
    /// # Errors
    /// Whatever the kernel says; the batch is then empty.
    fn read_batch(&mut self, batch: &mut FrameBatch) -> io::Result<()>;
    /// Writes one whole frame.
    ///
    /// # Errors
    /// Whatever the kernel says; the frame is then lost.
    fn write(&mut self, frame: &[u8]) -> io::Result<()>;
    /// Writes one frame in parts, which leaves something to do that [`Port::offloads`] has.
    ///
    /// # Errors
    /// Whatever the kernel says; the frame is then lost.
    fn write_parts(&mut self, _parts: &[IoSlice<'_>], _offload: &Offload) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
