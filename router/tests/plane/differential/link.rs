//! A packet socket on a TAP that sees and sends what the kernel does: super-frames, partial checksums.
#![allow(unsafe_code)]

use std::io::IoSlice;
use std::mem::{size_of, zeroed};
use std::os::fd::AsRawFd as _;

use rmesh_router::port::offload::{Offload, VIRTIO_HEADER_LEN};
use socket2::Socket;

use crate::tap::packet_socket;

/// Options of `SOL_PACKET` (linux/if_packet.h).
const AUXDATA: libc::c_int = 8;
const STATISTICS: libc::c_int = 6;
const VNET_HEADER: libc::c_int = 15;
/// Room for what comes while nobody reads.
const RECEIVE_BUFFER_LEN: libc::c_int = 128 << 20;
/// Longest frame with its virtio header.
const SPACE_LEN: usize = 66_000;
/// That a super-frame may carry congestion marks: of no concern to a cut.
const ECN: u8 = 0x80;

/// The kernel's end of a TAP.
pub struct TapLink(Socket);

fn set(socket: &Socket, level: libc::c_int, option: libc::c_int, value: libc::c_int) {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value is a number that outlives the call, and `len` is its size.
    let result = unsafe {
        let value = (&raw const value).cast();
        libc::setsockopt(socket.as_raw_fd(), level, option, value, len)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

impl TapLink {
    /// Opens an interface of the calling thread's network namespace, and brings it up.
    pub fn open(interface: &str) -> Self {
        let socket = packet_socket(interface);
        set(
            &socket,
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            RECEIVE_BUFFER_LEN,
        );
        set(&socket, libc::SOL_PACKET, VNET_HEADER, 1);
        set(&socket, libc::SOL_PACKET, AUXDATA, 1);
        TapLink(socket)
    }

    /// Hands a frame to the kernel, which does what the interface does not.
    pub fn send(&self, frame: &[u8], offload: &Offload) -> std::io::Result<()> {
        let header = offload.encode();
        let parts = [IoSlice::new(&header), IoSlice::new(frame)];
        self.0.send_vectored(&parts).map(|_| ())
    }

    /// The next frame and what it leaves to do; `None` if none comes for a moment.
    pub fn receive(&self) -> Option<(Vec<u8>, Offload)> {
        let (mut space, mut control) = (vec![0; SPACE_LEN], [0u64; 16]);
        let mut part = libc::iovec {
            iov_base: space.as_mut_ptr().cast(),
            iov_len: space.len(),
        };
        // SAFETY: a C structure of numbers and pointers, for which zero is valid.
        let mut message: libc::msghdr = unsafe { zeroed() };
        (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: the message names memory that outlives the call, and how much of it there is.
        let len = unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut message, 0) };
        let len = usize::try_from(len).ok()?;
        assert_eq!(
            message.msg_flags & libc::MSG_TRUNC,
            0,
            "a frame of {len} bytes"
        );
        let mut header = *space.first_chunk::<VIRTIO_HEADER_LEN>()?;
        header[1] &= !ECN;
        let mut frame = space[VIRTIO_HEADER_LEN..len].to_vec();
        let tag = tag_of(&message);
        // Checked before the tag goes back where the kernel took it from.
        let offload = Offload::decode(&header, frame.len());
        let mut offload = offload.unwrap_or_else(|| panic!("a header of the kernel: {header:?}"));
        if let Some(tag) = tag {
            frame.splice(12..12, tag);
            let moved = tag.len() as u16;
            offload
                .checksum
                .iter_mut()
                .for_each(|partial| partial.start += moved);
        }
        Some((frame, offload))
    }

    /// Frames that came and found no room since the last call.
    pub fn missed(&self) -> u32 {
        // SAFETY: a C structure of numbers, for which zero is valid.
        let mut counts: libc::tpacket_stats = unsafe { zeroed() };
        let mut len = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes, which is the structure's size.
        let result = unsafe {
            let counts = (&raw mut counts).cast();
            let socket = self.0.as_raw_fd();
            libc::getsockopt(socket, libc::SOL_PACKET, STATISTICS, counts, &raw mut len)
        };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        counts.tp_drops
    }
}

/// The VLAN tag that the kernel took out of a frame.
fn tag_of(message: &libc::msghdr) -> Option<[u8; 4]> {
    // SAFETY: the kernel filled the message in; the data of this kind is this structure, unaligned.
    let data = unsafe {
        let first = libc::CMSG_FIRSTHDR(message);
        let is_there = !first.is_null()
            && (*first).cmsg_level == libc::SOL_PACKET
            && (*first).cmsg_type == AUXDATA;
        is_there.then(|| {
            libc::CMSG_DATA(first)
                .cast::<libc::tpacket_auxdata>()
                .read_unaligned()
        })
    }?;
    if data.tp_status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let kind = match data.tp_status & libc::TP_STATUS_VLAN_TPID_VALID {
        0 => 0x8100,
        _ => data.tp_vlan_tpid,
    };
    let ([a, b], [c, d]) = (kind.to_be_bytes(), data.tp_vlan_tci.to_be_bytes());
    Some([a, b, c, d])
}
