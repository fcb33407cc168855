//! News of addresses and interfaces.
use std::os::fd::{AsRawFd, RawFd};

use netlink_sys::Socket;

use super::KernelError;

/// A netlink socket that hears of every change of addresses and interfaces in the namespace it
/// was opened in. Wait until it is readable, then [`AddressWatch::drain`] it.
pub struct AddressWatch {
    socket: Socket,
}

impl AddressWatch {
    /// Starts to listen; the socket does not block.
    pub fn open() -> Result<Self, KernelError> {
        unimplemented!()
    }

    /// Reads all news; true if there were any.
    pub fn drain(&self) -> bool {
        unimplemented!()
    }
}

impl AsRawFd for AddressWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
