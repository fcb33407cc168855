//! Sending whole Ethernet frames out of one interface (packet(7)).
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::AsRawFd;

use socket2::{Domain, Socket, Type};

/// A socket that only sends, in the network namespace it was opened in.
pub(crate) struct PacketSocket {
    socket: Socket,
}

impl PacketSocket {
    /// Opens one. Protocol 0: nothing is received on it.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        Ok(PacketSocket { socket })
    }

    /// Sends a frame, Ethernet header included, out of the interface with this index.
    pub(crate) fn send(&self, index: u32, frame: &[u8]) -> io::Result<()> {
        // SAFETY: sockaddr_ll is plain integers and byte arrays, for which all zeros is a value.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as libc::c_ushort;
        address.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
        let len = mem::size_of_val(&address) as libc::socklen_t;
        loop {
            // SAFETY: `frame` and `address` are live for the call, and the lengths are theirs.
            let sent = unsafe {
                libc::sendto(
                    self.socket.as_raw_fd(),
                    frame.as_ptr().cast(),
                    frame.len(),
                    libc::MSG_DONTWAIT,
                    (&raw const address).cast(),
                    len,
                )
            };
            let cause = io::Error::last_os_error();
            match sent {
                0.. => return Ok(()),
                _ if cause.kind() == io::ErrorKind::Interrupted => {}
                _ => return Err(cause),
            }
        }
    }
}
