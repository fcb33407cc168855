//! The plain TAP port: one queue, one frame a system call, no offload metadata.
//!
//! The fallback everywhere, and the oracle that faster ports are tested against. The interface
//! goes when the process goes.

use std::io;
use std::os::fd::{AsRawFd as _, RawFd};

use tun_tap::{Iface, Mode};

use super::{FrameBatch, Port};

/// A TAP interface of the calling thread's network namespace.
pub struct PlainTap {
    interface: Iface,
}

impl PlainTap {
    /// Makes the interface; it is down and without address.
    ///
    /// # Errors
    /// Without the privilege, without `/dev/net/tun`, or if the name is taken.
    pub fn open(name: &str) -> io::Result<Self> {
        let interface = Iface::without_packet_info(name, Mode::Tap)?;
        interface.set_non_blocking()?;
        Ok(PlainTap { interface })
    }
}

impl Port for PlainTap {
    fn name(&self) -> &str {
        self.interface.name()
    }

    fn fd(&self) -> RawFd {
        self.interface.as_raw_fd()
    }

    fn read_batch(&mut self, batch: &mut FrameBatch) -> io::Result<()> {
        let interface = &self.interface;
        batch.fill(|bytes| interface.recv(bytes))
    }

    fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        self.interface.send(frame).map(|_| ())
    }
}
