//! News of addresses and interfaces, and of firewall rules.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};

use super::KernelError;
use super::netlink::{failure, uninterrupted};
use crate::sys::poll::readable;

/// RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR and RTNLGRP_IPV6_IFADDR (linux/rtnetlink.h).
const GROUPS: [u32; 3] = [1, 5, 9];
/// RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_ROUTE and RTNLGRP_IPV6_RULE.
const ROUTE_GROUPS: [u32; 4] = [7, 8, 11, 19];
/// NFNLGRP_NFTABLES (linux/netfilter/nfnetlink.h).
const RULES_GROUP: u32 = 7;
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
        let socket = listen(NETLINK_ROUTE, &GROUPS);
        let doing = "listen to changes of addresses";
        let socket = socket.map_err(|cause| failure(doing, cause, String::new()))?;
        Ok(AddressWatch { socket })
    }

    /// Starts to listen to changes of routes instead.
    ///
    /// # Errors
    /// If the kernel gives no such socket.
    pub fn open_routes() -> Result<Self, KernelError> {
        let socket = listen(NETLINK_ROUTE, &ROUTE_GROUPS);
        let doing = "listen to changes of routes";
        let socket = socket.map_err(|cause| failure(doing, cause, String::new()))?;
        Ok(AddressWatch { socket })
    }

    /// Reads all news; true if there were any, or if some were lost.
    pub fn drain(&self) -> bool {
        drain(&self.socket)
    }
}

/// Hears of every change of nftables in the namespace it was opened in.
pub struct RulesetWatch {
    socket: Socket,
}

/// Why a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// Rules have changed.
    Changed,
    /// Nothing has happened for as long as was asked for.
    Quiet,
    /// The other descriptor is readable, or its other end is closed.
    Other,
}

impl RulesetWatch {
    /// Starts to listen.
    ///
    /// # Errors
    /// If the kernel has no nftables, or without the privilege.
    pub fn open() -> Result<Self, KernelError> {
        let socket = listen(NETLINK_NETFILTER, &[RULES_GROUP]);
        let doing = "listen to changes of nftables";
        let socket = socket.map_err(|cause| failure(doing, cause, String::new()))?;
        Ok(RulesetWatch { socket })
    }

    /// Waits for a change, for something at another descriptor, or for the end of the time.
    pub fn wait(&self, other: BorrowedFd<'_>, limit: Duration) -> Woken {
        let both = [self.socket.as_raw_fd(), other.as_raw_fd()];
        let [changed, is_other, ..] = readable(&both, limit);
        match (is_other, changed) {
            (true, _) => Woken::Other,
            (false, true) if drain(&self.socket) => Woken::Changed,
            (false, _) => Woken::Quiet,
        }
    }
}

fn listen(protocol: isize, groups: &[u32]) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    socket.set_non_blocking(true)?;
    for group in groups {
        socket.add_membership(*group)?;
    }
    Ok(socket)
}

/// True if there was something to read, or something was lost.
fn drain(socket: &Socket) -> bool {
    let mut changed = false;
    for _ in 0..DRAIN_MAX {
        // What it says does not matter: the caller looks at everything afresh.
        let mut nothing: &mut [u8] = &mut [];
        match uninterrupted(|| socket.recv(&mut nothing, 0)) {
            Ok(_) => changed = true,
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => break,
            // ENOBUFS: more news than the socket holds, some are lost.
            Err(cause) if cause.raw_os_error() == Some(libc::ENOBUFS) => changed = true,
            Err(_) => return true,
        }
    }
    changed
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
