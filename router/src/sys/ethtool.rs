//! What an interface leaves to its network card (linux/ethtool.h).
#![allow(unsafe_code)]

use std::io;
use std::mem::zeroed;
use std::os::fd::AsRawFd as _;

use socket2::{Domain, Socket, Type};

/// `ETHTOOL_GTXCSUM` and `ETHTOOL_STXCSUM`.
const GET_CHECKSUMS: u32 = 0x16;
const SET_CHECKSUMS: u32 = 0x17;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Whether checksums of what is sent on the interface are left to others.
pub(crate) fn leaves_checksums(name: &str) -> io::Result<bool> {
    Ok(ask(name, GET_CHECKSUMS, 0)? != 0)
}

/// Has the kernel complete them before.
pub(crate) fn complete_checksums(name: &str) -> io::Result<()> {
    ask(name, SET_CHECKSUMS, 0).map(drop)
}

fn ask(name: &str, command: u32, data: u32) -> io::Result<u32> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)
        .or_else(|_| Socket::new(Domain::IPV6, Type::DGRAM, None))?;
    let mut value = Value { command, data };
    // SAFETY: a C structure of numbers, for which zero is valid.
    let mut request: libc::ifreq = unsafe { zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request is a whole `ifreq` whose data points to what both commands read and write; both
    // outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    match result {
        0 => Ok(value.data),
        _ => Err(io::Error::last_os_error()),
    }
}
