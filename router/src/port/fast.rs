//! The fast TAP port: each frame with a virtio header, so that super-frames of up to 64 KiB cross
//! in one system call and no transport checksum is computed on this host.
//!
//! The interface goes when the process goes.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use super::coalesce::PARTS_MAX;
use super::offload::{Offload, VIRTIO_HEADER_LEN};
use super::{FrameBatch, Offloads, Port};
use crate::sys::tap;

/// A TAP interface of the calling thread's network namespace, with virtio headers.
pub struct FastTap {
    name: String,
    file: OwnedFd,
    offloads: Offloads,
}

impl FastTap {
    /// Makes the interface; it is down and without address.
    ///
    /// # Errors
    /// If the kernel has no virtio headers or no TCP offload for TAPs, without the privilege,
    /// without `/dev/net/tun`, or if the name is taken. Nothing is left behind.
    pub fn open(name: &str) -> io::Result<Self> {
        let (file, name) = tap::open(name)?;
        let udp = tap::set_offloads(&file, tap::TCP | tap::UDP).is_ok();
        if !udp {
            tap::set_offloads(&file, tap::TCP)?;
        }
        let offloads = Offloads { tcp: true, udp };
        Ok(FastTap {
            name,
            file,
            offloads,
        })
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
