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

/// Makes a descriptor something to wait for.
pub(super) fn register_owned(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: it owns what it stands for, always returns that, and closes it when it is dropped.
    let registered = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    registered.map_err(io::Error::from)
}
