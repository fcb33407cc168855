//! Waits for descriptors: news of addresses and interfaces, and a timer; the only `unsafe` of this crate.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use rmesh_router::kernel::AddressWatch;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Makes a watch something to wait for.
pub(super) fn register(watch: AddressWatch) -> io::Result<AsyncFd<AddressWatch>> {
    // SAFETY: the watch owns one socket, opened with it and closed with it, and always returns
    // that one's descriptor; nobody can take it out while the `AsyncFd` holds the watch.
    let registered = unsafe { AsyncFd::register_with_interest(watch, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

/// Makes a timer something to wait for.
pub(super) fn register_timer(timer: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: it is one descriptor for as long as it lives, and nobody can take it out.
    let registered = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) };
    registered.map_err(io::Error::from)
}
