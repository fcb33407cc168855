//! The system calls that no safe wrapper offers.
#![allow(unsafe_code)]

use std::{
    fs::{File, OpenOptions},
    io, mem,
    net::UdpSocket,
    os::{
        fd::AsRawFd,
        unix::{fs::OpenOptionsExt, process::CommandExt},
    },
    process::Command,
};

use rustix::{
    process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal},
    thread::{UnshareFlags, unshare_unsafe},
};
use socket2::Socket;

/// Gives the calling thread a new, empty network namespace.
pub(crate) fn unshare_network() -> io::Result<()> {
    // SAFETY: NEWNET replaces the network namespace only; file descriptors and memory stay shared,
    // which is what makes other flags of this call unsafe.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}

/// Has the kernel kill the child when the *thread* that starts it ends, by whatever cause.
pub(crate) fn die_with_parent(command: &mut Command) {
    let parent: Pid = getpid();
    let before_exec = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the signal was armed.
        if getppid() == Some(parent) {
            return Ok(());
        }
        Err(io::Error::from(io::ErrorKind::BrokenPipe))
    };
    // SAFETY: the closure runs between fork and exec and makes two plain system calls; it neither
    // allocates nor takes a lock.
    unsafe { command.pre_exec(before_exec) };
}

/// What the reader of a TAP leaves undone and so has to do, or says with each frame that it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TapOffers {
    /// Nothing: frames are whole and end with their last byte.
    Nothing,
    /// Checksums; frames have virtio headers, which say where.
    Checksums,
    /// Those, and the cutting of super-frames of TCP.
    SuperFrames,
}

/// Makes a TAP in the calling thread's network namespace, which goes when the file is closed. It is
/// non-blocking and has one queue.
pub(crate) fn open_tap(interface: &str, offers: TapOffers) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    // SAFETY: ifreq is a structure of integers and a union of such, for which zero is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    let (virtio, offloads) = match offers {
        TapOffers::Nothing => (0, 0),
        TapOffers::Checksums => (libc::IFF_VNET_HDR, libc::TUN_F_CSUM),
        TapOffers::SuperFrames => (
            libc::IFF_VNET_HDR,
            libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6,
        ),
    };
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | virtio) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if offloads != 0 {
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        let result = unsafe {
            let offloads = libc::c_ulong::from(offloads);
            libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, offloads)
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(file)
}

/// Sets an option of a socket that is a number.
fn set_option(
    socket: &UdpSocket,
    (level, name): (libc::c_int, libc::c_int),
    value: usize,
) -> io::Result<()> {
    let value = libc::c_int::try_from(value).map_err(io::Error::other)?;
    // SAFETY: the pointer and the length describe `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            mem::size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives a socket room for this much on its way, above the limit for everybody.
pub(crate) fn make_room(socket: &UdpSocket, bytes: usize) -> io::Result<()> {
    set_option(socket, (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE), bytes)?;
    set_option(socket, (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE), bytes)
}

/// Has the kernel cut what is sent by this socket into datagrams of this length (`UDP_SEGMENT`).
pub(crate) fn cut_datagrams(socket: &UdpSocket, len: usize) -> io::Result<()> {
    set_option(socket, (libc::SOL_UDP, libc::UDP_SEGMENT), len)
}

/// Has the kernel hand over rows of datagrams as one, where something before the socket has joined them (`UDP_GRO`).
pub(crate) fn join_datagrams(socket: &UdpSocket) -> io::Result<()> {
    set_option(socket, (libc::SOL_UDP, libc::UDP_GRO), 1)
}

/// Room for what the kernel says beside the bytes: the length of joined datagrams, in a header of 16 bytes.
#[derive(Clone)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

const CONTROL_LEN: usize = 24;

impl Control {
    /// The length of each datagram of a row.
    fn datagram_len(&self) -> Option<usize> {
        let number = |at: usize| {
            let bytes = self.0.get(at..at + 4)?;
            bytes.try_into().ok().map(libc::c_int::from_ne_bytes)
        };
        let is_told = number(8) == Some(libc::SOL_UDP) && number(12) == Some(libc::UDP_GRO);
        usize::try_from(number(16)?).ok().filter(|_| is_told)
    }
}

/// Takes datagrams that wait at a non-blocking socket, one or a row into each buffer. In `lens` are left how many bytes
/// that are, and how many each datagram. Gives how many buffers were filled.
pub(crate) fn receive_many(
    socket: &UdpSocket,
    buffers: &mut [Vec<u8>],
    lens: &mut [(usize, usize)],
) -> io::Result<usize> {
    let mut controls = vec![Control([0; CONTROL_LEN]); buffers.len()];
    let part = |buffer: &mut Vec<u8>| libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut parts: Vec<libc::iovec> = buffers.iter_mut().map(part).collect();
    let message = |(part, control): (&mut libc::iovec, &mut Control)| {
        // SAFETY: mmsghdr is a structure of integers and pointers, for which zero is a value.
        let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
        message.msg_hdr.msg_iov = part;
        message.msg_hdr.msg_iovlen = 1;
        message.msg_hdr.msg_control = (&raw mut control.0).cast();
        message.msg_hdr.msg_controllen = CONTROL_LEN;
        message
    };
    let both = parts.iter_mut().zip(&mut controls);
    let mut messages: Vec<libc::mmsghdr> = both.map(message).collect();
    // SAFETY: each message points to one part and one control buffer, each part to one buffer of its length; they
    // outlive the call.
    let count = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            messages.len() as libc::c_uint,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
        )
    };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    for ((lens, message), control) in lens.iter_mut().zip(&messages[..count]).zip(&controls) {
        let len = message.msg_len as usize;
        *lens = (len, control.datagram_len().unwrap_or(len));
    }
    Ok(count)
}

/// Binds an `AF_PACKET` socket to one interface and one EtherType (0 receives nothing).
pub(crate) fn bind_packet(socket: &Socket, interface: u32, ethertype: u16) -> io::Result<()> {
    let index = libc::c_int::try_from(interface).map_err(io::Error::other)?;
    // SAFETY: all fields of sockaddr_ll are integers, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = index;
    // SAFETY: the pointer and the length describe `address`, which outlives the call.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Frames the kernel could not hand to this packet socket since the last call.
pub(crate) fn packet_drops(socket: &Socket) -> io::Result<u64> {
    let mut statistics = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let mut length = mem::size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: the pointers describe `statistics` and `length`, which outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(u64::from(statistics.tp_drops))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Hands a command of linux/ethtool.h to an interface of the calling thread's namespace; the kernel
/// answers in place, as far as the command says it may.
pub(crate) fn ethtool(interface: &str, command: &mut [u8]) -> io::Result<()> {
    let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    // SAFETY: ifreq is a structure of integers and a union of such, for which zero is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = command.as_mut_ptr().cast();
    // SAFETY: the request and the command it points to outlive the call; callers make a command as
    // long as its own counts say the answer is.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
