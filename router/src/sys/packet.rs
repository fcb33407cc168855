//! Whole Ethernet frames out of one interface, and in by one (packet(7)).
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rmesh_wire::Mac;
use rustix::net::sockopt;
use socket2::{Domain, Socket, Type};

use super::udp::set_option;

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

    /// The same for frames that have a virtio header of 10 bytes before them, which says what is left to do.
    pub(crate) fn open_virtio() -> io::Result<Self> {
        let sender = PacketSocket::open()?;
        let one: libc::c_int = 1;
        set_option(
            &sender.socket,
            (libc::SOL_PACKET, libc::PACKET_VNET_HDR, one),
        )?;
        Ok(sender)
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

/// `TP_STATUS_CSUMNOTREADY` of linux/if_packet.h.
const CHECKSUM_NOT_READY: u32 = 1 << 3;
/// Bytes of frames that may wait: a thousand of them, with what the kernel counts beside.
const WAITING_LEN_MAX: usize = 4 << 20;

/// A socket that hears frames of one EtherType to one MAC which the host itself is given by one
/// interface, before any packet filter. It does not block.
pub(crate) struct FrameListener {
    socket: Socket,
}

impl FrameListener {
    /// Listens at the interface with this index.
    pub(crate) fn open(index: u32, mac: Mac, ethertype: u16) -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        socket.set_nonblocking(true)?;
        attach_filter(&socket, mac, ethertype)?;
        let one: libc::c_int = 1;
        set_option(&socket, (libc::SOL_PACKET, libc::PACKET_AUXDATA, one))?;
        // A kernel that lacks it (before 4.20) shows what is sent too, which the filter drops.
        let _ = set_option(
            &socket,
            (libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, one),
        );
        let forced = sockopt::set_socket_recv_buffer_size_force(&socket, WAITING_LEN_MAX);
        if forced.is_err() {
            let _ = socket.set_recv_buffer_size(WAITING_LEN_MAX);
        }
        // SAFETY: sockaddr_ll is plain integers and byte arrays, for which all zeros is a value.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as libc::c_ushort;
        // All protocols: only then frames are shown before packet filters see them.
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
        let len = mem::size_of_val(&address) as libc::socklen_t;
        // SAFETY: `address` is live for the call, and the length is its own.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
        match bound {
            0 => Ok(FrameListener { socket }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Takes the next frame, its Ethernet header included, as far as it fits; gives its length, and whether
    /// its checksum is still to be completed, as it is where it was never on a wire.
    pub(crate) fn receive(&self, frame: &mut [u8]) -> io::Result<(usize, bool)> {
        /// Room for one `tpacket_auxdata` with its header.
        #[repr(C, align(8))]
        struct Control([u8; 64]);
        let mut control = Control([0; 64]);
        let mut part = libc::iovec {
            iov_base: frame.as_mut_ptr().cast(),
            iov_len: frame.len(),
        };
        // SAFETY: msghdr is plain integers and pointers, for which all zeros is a value.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = size_of_val(&control) as _;
        // SAFETY: `message` and all it points to are live for the call, and the lengths are theirs.
        let received = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
        let len = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        // SAFETY: the kernel has filled in the message, whose control buffer is aligned and live.
        let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        // SAFETY: it is null or points to a whole header in that buffer.
        let header = unsafe { header.as_ref() };
        let status = header
            .filter(|header| {
                header.cmsg_level == libc::SOL_PACKET && header.cmsg_type == libc::PACKET_AUXDATA
            })
            // SAFETY: auxiliary data of this type begin with a number of 32 bits, the status.
            .map(|header| unsafe { libc::CMSG_DATA(header).cast::<u32>().read_unaligned() });
        Ok((len, status.unwrap_or(0) & CHECKSUM_NOT_READY != 0))
    }
}

impl AsFd for FrameListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Lets through frames of one EtherType to one MAC (classic BPF, socket(7)).
fn attach_filter(socket: &Socket, mac: Mac, ethertype: u16) -> io::Result<()> {
    let [a, b, c, d, e, f] = mac.0;
    let step = |code: u32, jump_false: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: jump_false,
        k,
    };
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let load = |size: u32| libc::BPF_LD | libc::BPF_ABS | size;
    let mut program = [
        step(load(libc::BPF_H), 0, 12),
        step(equal, 5, ethertype.into()),
        step(load(libc::BPF_W), 0, 0),
        step(equal, 3, u32::from_be_bytes([a, b, c, d])),
        step(load(libc::BPF_H), 0, 4),
        step(equal, 1, u16::from_be_bytes([e, f]).into()),
        step(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
        step(libc::BPF_RET | libc::BPF_K, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        filter: program.as_mut_ptr(),
    };
    set_option(socket, (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program))
}
