//! TAP interfaces with virtio headers and several queues (linux/if_tun.h).
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::OpenOptions;
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

/// Partial checksums, and TCP super-frames over IPv4 and IPv6. Not those with congestion marks in
/// the middle: the kernel cuts them before.
pub(crate) const TCP: libc::c_uint = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
/// Super-frames of UDP; the kernel takes both families or none (since 6.2).
pub(crate) const UDP: libc::c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// The part of an interface that is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queue {
    /// All of a new one.
    Only,
    /// The first of many of a new one.
    First,
    /// One more of an interface that was made here.
    Next,
}

/// Opens a non-blocking TAP with virtio headers of 10 bytes; gives it and its real name.
pub(crate) fn open(name: &str, queue: Queue) -> io::Result<(OwnedFd, String)> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    // SAFETY: a C structure of numbers, for which zero is valid.
    let mut request: libc::ifreq = unsafe { zeroed() };
    if name.len() >= request.ifr_name.len() || name.contains('\0') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // Without asking for a new one, the queue would join whatever interface has the name.
    let which = match queue {
        Queue::Only => libc::IFF_TUN_EXCL,
        Queue::First => libc::IFF_TUN_EXCL | libc::IFF_MULTI_QUEUE,
        Queue::Next => libc::IFF_MULTI_QUEUE,
    };
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | which;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the request is a whole `ifreq` that outlives the call.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the name is an array of the request; the kernel ended it with a zero.
    let name = unsafe { CStr::from_ptr(request.ifr_name.as_ptr()) };
    let name = name.to_string_lossy().into_owned();
    Ok((file.into(), name))
}

/// Says what frames that are read may leave to do.
pub(crate) fn set_offloads(tap: &OwnedFd, offloads: libc::c_uint) -> io::Result<()> {
    let offloads = libc::c_ulong::from(offloads);
    // SAFETY: this request takes a number.
    match unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOFFLOAD, offloads) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets a BPF program choose the queue of each frame.
pub(crate) fn set_steering(tap: &OwnedFd, program: &OwnedFd) -> io::Result<()> {
    /// `TUNSETSTEERINGEBPF` of linux/if_tun.h.
    const SET_STEERING: libc::Ioctl = 0x8004_54e0_u32 as libc::Ioctl;
    let descriptor: libc::c_int = program.as_raw_fd();
    // SAFETY: this request reads one descriptor, which outlives the call.
    match unsafe { libc::ioctl(tap.as_raw_fd(), SET_STEERING, &raw const descriptor) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
