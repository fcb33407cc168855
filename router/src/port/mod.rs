//! How frames enter and leave this process.
//!
//! The data plane knows only [`Port`]; [`plain`] is the one that works everywhere.

use std::io;
use std::os::fd::RawFd;

pub mod plain;

use crate::plane::buffer::{BATCH_LEN, Buffer};

/// A batch of frames on their way from a port, in buffers that are made once.
pub struct FrameBatch {
    buffers: Vec<Buffer>,
    used: usize,
}

impl Default for FrameBatch {
    fn default() -> Self {
        FrameBatch {
            buffers: Buffer::many(BATCH_LEN),
            used: 0,
        }
    }
}

impl FrameBatch {
    /// Reads with `read` until it would block or the batch is full. An interrupted read counts as
    /// would-block: poll(2) tells again.
    ///
    /// # Errors
    /// Whatever `read` failed with before the first frame.
    pub fn fill(&mut self, mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<()> {
        self.used = 0;
        for buffer in &mut self.buffers {
            match buffer.fill_with(&mut read) {
                Ok(0) => break,
                Ok(_) => self.used += 1,
                Err(error) if is_transient(&error) || self.used > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The frames of the last [`FrameBatch::fill`].
    pub fn frames_mut(&mut self) -> &mut [Buffer] {
        self.buffers.get_mut(..self.used).unwrap_or_default()
    }

    /// Whether the batch was filled to the brim, so that more may wait.
    pub fn is_full(&self) -> bool {
        self.used == self.buffers.len()
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// A non-blocking source and sink of Ethernet frames.
pub trait Port: Send {
    /// The interface's name.
    fn name(&self) -> &str;
    /// Descriptor that poll(2) reports readable while frames wait.
    fn fd(&self) -> RawFd;
    /// Queues that can be read by threads of their own.
    fn queues(&self) -> usize {
        1
    }
    /// Reads what waits, up to one batch; an empty batch if nothing does.
    ///
    /// # Errors
    /// Whatever the kernel says; the batch is then empty.
    fn read_batch(&mut self, batch: &mut FrameBatch) -> io::Result<()>;
    /// Writes one frame.
    ///
    /// # Errors
    /// Whatever the kernel says; the frame is then lost.
    fn write(&mut self, frame: &[u8]) -> io::Result<()>;
}
