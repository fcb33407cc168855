//! News of addresses and interfaces.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::KernelError;
use super::netlink::{failure, uninterrupted};

/// RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR and RTNLGRP_IPV6_IFADDR (linux/rtnetlink.h).
const GROUPS: [u32; 3] = [1, 5, 9];
/// Messages read in one go; a host that makes more of them meanwhile is asked again soon anyway.
const DRAIN_MAX: usize = 1 << 16;

/// A netlink socket that hears of every change of addresses and interfaces in the namespace it
/// was opened in. Wait until it is readable, then [`AddressWatch::drain`] it.
pub struct AddressWatch {
    socket: Socket,
}

impl AddressWatch {
    /// Starts to listen; the socket does not block.
    pub fn open() -> Result<Self, KernelError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            socket.set_non_blocking(true)?;
            for group in GROUPS {
                socket.add_membership(group)?;
            }
            Ok(socket)
        };
        let doing = "listen to changes of addresses";
        let socket = open().map_err(|cause| failure(doing, cause, String::new()))?;
        Ok(AddressWatch { socket })
    }

    /// Reads all news; true if there were any, or if some were lost.
    pub fn drain(&self) -> bool {
        let mut changed = false;
        for _ in 0..DRAIN_MAX {
            // What it says does not matter: the caller looks at everything afresh.
            let mut nothing: &mut [u8] = &mut [];
            match uninterrupted(|| self.socket.recv(&mut nothing, 0)) {
                Ok(_) => changed = true,
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => break,
                // ENOBUFS: more news than the socket holds, some are lost.
                Err(cause) if cause.raw_os_error() == Some(libc::ENOBUFS) => changed = true,
                Err(_) => return true,
            }
        }
        changed
    }
}

impl AsRawFd for AddressWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for AddressWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
