//! The fast TAP port: each frame with a virtio header, so that super-frames of up to 64 KiB cross
//! in one system call and no transport checksum is computed on this host.
//!
//! The interface goes when the process goes.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use super::coalesce::PARTS_MAX;
use super::offload::{Offload, VIRTIO_HEADER_LEN};
use super::{FrameBatch, Offloads, Port};
use crate::sys::tap::Queue;
use crate::sys::{steer, tap};

/// A TAP interface of the calling thread's network namespace, with virtio headers.
pub struct FastTap {
    name: String,
    file: OwnedFd,
    offloads: Offloads,
}

impl FastTap {
    /// Makes the interface with so many queues, a port each; it is down and without address. All
    /// frames of a flow come by the same one.
    ///
    /// # Errors
    /// If the kernel has no virtio headers or no TCP offload for TAPs, without the privilege,
    /// without `/dev/net/tun`, or if the name is taken. Nothing is left behind.
    pub fn open(name: &str, queues: usize) -> io::Result<Vec<Self>> {
        let (which, of_many) = match queues {
            0 | 1 => (Queue::Only, false),
            _ => (Queue::First, true),
        };
        let (first, name) = tap::open(name, which)?;
        let udp = tap::set_offloads(&first, tap::TCP | tap::UDP).is_ok();
        if !udp {
            tap::set_offloads(&first, tap::TCP)?;
        }
        if of_many {
            // Without it flows may change their queue, and overtake themselves then.
            let steered = steer::load_program().and_then(|program| {
                // The kernel keeps the program while the interface has it.
                tap::set_steering(&first, &program)
            });
            if let Err(error) = steered {
                tracing::warn!(%error, "the kernel chooses the queues of flows by itself");
            }
        }
        let mut files = vec![first];
        for _ in 1..queues {
            files.push(tap::open(&name, Queue::Next)?.0);
        }
        let offloads = Offloads { tcp: true, udp };
        let port = |file| FastTap {
            name: name.clone(),
            file,
            offloads,
        };
        Ok(files.into_iter().map(port).collect())
    }
}

impl Port for FastTap {
    fn name(&self) -> &str {
        &self.name
    }

    fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn read_batch(&mut self, batch: &mut FrameBatch) -> io::Result<()> {
        let file = &self.file;
        batch.fill_offloaded(|space| {
            loop {
                let mut header = [0; VIRTIO_HEADER_LEN];
                let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(space)];
                let len = rustix::io::readv(file, &mut parts)?;
                let Some(len) = len.checked_sub(VIRTIO_HEADER_LEN) else {
                    return Ok((0, Offload::default()));
                };
                // One that makes no sense is the kernel's mistake and nothing to carry.
                if let Some(offload) = Offload::decode(&header, len) {
                    return Ok((len, offload));
                }
            }
        })
    }

    fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        self.write_parts(&[IoSlice::new(frame)], &Offload::default())
    }

    fn write_parts(&mut self, parts: &[IoSlice<'_>], offload: &Offload) -> io::Result<()> {
        let header = offload.encode();
        let mut all = [IoSlice::new(&[]); PARTS_MAX + 1];
        all[0] = IoSlice::new(&header);
        let count = parts.len().min(PARTS_MAX);
        all[1..=count].copy_from_slice(&parts[..count]);
        if count < parts.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        rustix::io::writev(&self.file, &all[..=count])?;
        Ok(())
    }
}
