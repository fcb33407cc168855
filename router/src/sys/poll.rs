//! Waiting for descriptors with poll(2), by number: ports and sockets have different owners.
#![allow(unsafe_code)]

use std::os::fd::RawFd;
use std::time::Duration;

use crate::port::QUEUES_MAX;

/// Most descriptors one worker waits for: its wake-up, its port's queues, and a socket for each of eight
/// addresses.
pub(crate) const DESCRIPTORS_MAX: usize = 1 + QUEUES_MAX + 8;

/// Waits until one of `descriptors` is readable or in error, or `timeout` has passed, and says
/// which are. Negative descriptors are skipped; an interrupted wait reports nothing.
pub(crate) fn readable(descriptors: &[RawFd], timeout: Duration) -> [bool; DESCRIPTORS_MAX] {
    let mut entries = [libc::pollfd {
        fd: -1,
        events: libc::POLLIN,
        revents: 0,
    }; DESCRIPTORS_MAX];
    for (entry, descriptor) in entries.iter_mut().zip(descriptors) {
        entry.fd = *descriptor;
    }
    let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let count = libc::nfds_t::try_from(entries.len()).unwrap_or(0);
    // SAFETY: the pointer and count describe `entries`, which outlives the call.
    let ready = unsafe { libc::poll(entries.as_mut_ptr(), count, timeout) };
    entries.map(|entry| ready > 0 && entry.revents != 0)
}
