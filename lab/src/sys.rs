//! The system calls that no safe wrapper offers.
#![allow(unsafe_code)]

use std::{
    fs::{File, OpenOptions},
    io, mem,
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

/// Makes a TAP in the calling thread's network namespace, which goes when the file is closed. It is
/// non-blocking, has one queue, and offers no offloads, unless checksums are left to its reader: then frames
/// have virtio headers, which say where.
pub(crate) fn open_tap(interface: &str, leaves_checksums: bool) -> io::Result<File> {
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
    let virtio = if leaves_checksums {
        libc::IFF_VNET_HDR
    } else {
        0
    };
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | virtio) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if leaves_checksums {
        let offloads = libc::c_ulong::from(libc::TUN_F_CSUM);
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, offloads) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(file)
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
