//! UDP sockets, and many datagrams a system call by recvmmsg(2) and sendmmsg(2).
#![allow(unsafe_code)]

use std::io;
use std::mem::zeroed;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::ptr::null_mut;

use rmesh_gossip::SendFailure;
use rmesh_wire::datagram::Kind;
use rustix::net::sockopt;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use crate::plane::buffer::{BATCH_LEN, Buffer};

/// Room for datagrams under way, in bytes: 30 ms at 1 Gbit/s.
const SOCKET_BUFFER_LEN: usize = 4 << 20;

/// Room for handshakes that wait, in bytes: about 600 of them.
const STRANGERS_BUFFER_LEN: usize = 512 << 10;

/// A non-blocking socket for `address`, not yet bound, which never fragments: its datagrams carry
/// DF, and the kernel's own idea of the path MTU is ignored (RFC 8899 section 3).
fn open_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    let discover = if address.is_ipv6() {
        socket.set_only_v6(true)?;
        let (name, value) = (libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE);
        (libc::IPPROTO_IPV6, name, value)
    } else {
        let (name, value) = (libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE);
        (libc::IPPROTO_IP, name, value)
    };
    set_option(&socket, discover)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A non-blocking socket of [`open_socket`], alone on `address`.
#[cfg(test)]
fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = open_socket(address)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// What one address is listened at with. The kernel sorts what comes by its first byte before it
/// queues anything, so that no flood of handshakes takes the place of a record.
pub(crate) struct Pair {
    /// For records and relay datagrams, and for everything that is sent.
    pub(crate) sealed: UdpSocket,
    /// For what anybody may send: handshakes, cookies, and what no peer sends.
    pub(crate) strangers: UdpSocket,
}

/// Opens both on `address`, as [`open_socket`] says.
///
/// # Errors
/// If the family is not available or the address is taken.
pub(crate) fn open_pair(address: SocketAddr) -> io::Result<Pair> {
    let sealed = open_socket(address)?;
    resize_buffers(&sealed, SOCKET_BUFFER_LEN);
    // Without SO_REUSEPORT, so that the address of another daemon counts as taken; with it set
    // afterwards, so that the second socket may join.
    sealed.bind(&address.into())?;
    let bound = sealed.local_addr()?;
    let strangers = open_socket(address)?;
    resize_buffers(&strangers, STRANGERS_BUFFER_LEN);
    for socket in [&sealed, &strangers] {
        socket.set_reuse_port(true)?;
    }
    strangers.bind(&bound)?;
    attach_chooser(&sealed, [Kind::Record.code(), Kind::Relay.code()])?;
    Ok(Pair {
        sealed: sealed.into(),
        strangers: strangers.into(),
    })
}

/// Lets the kernel choose the first socket of the group for datagrams whose low four bits of the
/// first byte are one of `kinds`, and the second for all others (classic BPF, socket(7)).
fn attach_chooser(socket: &Socket, kinds: [u8; 2]) -> io::Result<()> {
    let [load, mask, equal, answer] = [
        libc::BPF_LD | libc::BPF_B | libc::BPF_ABS,
        libc::BPF_ALU | libc::BPF_AND | libc::BPF_K,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    ];
    let step = |code: u32, jump_true, jump_false, k| libc::sock_filter {
        code: code as u16,
        jt: jump_true,
        jf: jump_false,
        k,
    };
    // An empty datagram ends the program at its first step, which chooses the first socket.
    let mut program = [
        step(load, 0, 0, 0),
        step(mask, 0, 0, 0x0f),
        step(equal, 2, 0, u32::from(kinds[0])),
        step(equal, 1, 0, u32::from(kinds[1])),
        step(answer, 0, 0, 1),
        step(answer, 0, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        filter: program.as_mut_ptr(),
    };
    set_option(
        socket,
        (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, program),
    )
}

/// Datagrams the kernel dropped because the socket's queue was full.
pub(crate) fn dropped(socket: &UdpSocket) -> u64 {
    /// `SK_MEMINFO_DROPS` of linux/sock_diag.h, of nine numbers.
    const DROPS: usize = 8;
    let mut values = [0u32; 9];
    let mut len = size_of_val(&values) as libc::socklen_t;
    // SAFETY: pointer and length describe `values`, which outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result == 0 {
        u64::from(values[DROPS])
    } else {
        0
    }
}

fn set_option<T>(socket: &Socket, (level, name, value): (i32, i32, T)) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    let pointer = (&raw const value).cast();
    // SAFETY: pointer and length describe `value`, which outlives the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, pointer, len) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Best effort: beyond the system's limit only a privileged process may go.
fn resize_buffers(socket: &Socket, receive_len: usize) {
    if sockopt::set_socket_recv_buffer_size_force(socket, receive_len).is_err() {
        let _ = socket.set_recv_buffer_size(receive_len);
    }
    if sockopt::set_socket_send_buffer_size_force(socket, SOCKET_BUFFER_LEN).is_err() {
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER_LEN);
    }
}

/// Where the datagram in the buffer of the same number came from.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Arrival {
    /// `None` if the kernel gave an address of another family.
    pub(crate) source: Option<SocketAddr>,
    /// Whether it was longer than the buffer.
    pub(crate) truncated: bool,
}

/// The arguments of one recvmmsg(2) or sendmmsg(2), on the stack.
struct Messages {
    headers: [libc::mmsghdr; BATCH_LEN],
    parts: [libc::iovec; BATCH_LEN],
    names: [libc::sockaddr_storage; BATCH_LEN],
}

impl Messages {
    fn new() -> Self {
        // SAFETY: all three are C structures of numbers and pointers, for which zero is valid.
        unsafe { zeroed() }
    }

    /// Points header `at` to its name and to `len` bytes at `bytes`. `self` must not move between
    /// this and the system call.
    fn point(&mut self, at: usize, name_len: libc::socklen_t, bytes: *mut u8, len: usize) {
        self.parts[at] = libc::iovec {
            iov_base: bytes.cast(),
            iov_len: len,
        };
        let header = &mut self.headers[at].msg_hdr;
        header.msg_name = (&raw mut self.names[at]).cast();
        header.msg_namelen = name_len;
        header.msg_iov = &raw mut self.parts[at];
        header.msg_iovlen = 1;
    }
}

/// Receives what waits, one datagram a buffer, up to [`BATCH_LEN`].
///
/// # Errors
/// Whatever the kernel says, also errors of earlier datagrams; none is fatal to the socket.
pub(crate) fn receive(
    socket: &UdpSocket,
    buffers: &mut [Buffer],
    arrivals: &mut [Arrival],
) -> io::Result<usize> {
    let mut messages = Messages::new();
    let name_len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    let count = buffers.len().min(arrivals.len()).min(BATCH_LEN);
    for (at, buffer) in buffers.iter_mut().take(count).enumerate() {
        let space = buffer.space_mut();
        messages.point(at, name_len, space.as_mut_ptr(), space.len());
    }
    // SAFETY: the first `count` headers point to names and buffers that outlive the call, each
    // buffer with its own length.
    let received = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            messages.headers.as_mut_ptr(),
            count as libc::c_uint,
            libc::MSG_DONTWAIT,
            null_mut(),
        )
    };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    for (at, arrival) in arrivals.iter_mut().take(received).enumerate() {
        let header = &messages.headers[at];
        buffers[at].set_len(header.msg_len as usize);
        arrival.truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        arrival.source = address_of(&messages.names[at], header.msg_hdr.msg_namelen);
    }
    Ok(received)
}

fn address_of(name: &libc::sockaddr_storage, len: libc::socklen_t) -> Option<SocketAddr> {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `SockAddrStorage` is a transparent `sockaddr_storage`, which the kernel filled in up
    // to `len` and which was zero beyond.
    unsafe {
        *storage.view_as::<libc::sockaddr_storage>() = *name;
        SockAddr::new(storage, len).as_socket()
    }
}

/// Sends the content of each buffer to the destination of the same number, until one fails.
/// Gives how many were taken, at least one.
///
/// # Errors
/// Why the first was not taken; the others were not tried.
pub(crate) fn send(
    socket: &UdpSocket,
    buffers: &[Buffer],
    destinations: &[SocketAddr],
) -> io::Result<usize> {
    let mut messages = Messages::new();
    let count = buffers.len().min(destinations.len()).min(BATCH_LEN);
    for (at, (buffer, destination)) in buffers.iter().zip(destinations).take(count).enumerate() {
        let name = SockAddr::from(*destination);
        let name_len = name.len();
        let mut storage = name.as_storage();
        // SAFETY: `SockAddrStorage` is a transparent `sockaddr_storage`.
        messages.names[at] = unsafe { *storage.view_as::<libc::sockaddr_storage>() };
        let data = buffer.data();
        messages.point(at, name_len, data.as_ptr().cast_mut(), data.len());
    }
    // SAFETY: the first `count` headers point to names and buffers that outlive the call; the
    // kernel only reads from the buffers.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            messages.headers.as_mut_ptr(),
            count as libc::c_uint,
            libc::MSG_DONTWAIT,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// What a failed send means for the path; `None` if it only means that buffers are full.
pub(crate) fn failure(error: &io::Error) -> Option<SendFailure> {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR) => None,
        Some(libc::EMSGSIZE) => Some(SendFailure::TooBig),
        // ENETUNREACH, EHOSTUNREACH, EPERM, EACCES, EADDRNOTAVAIL, ENETDOWN, and whatever else a
        // firewall or a vanished interface answers: this path does not work now.
        _ => Some(SendFailure::Unreachable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_arrives_with_its_lengths_and_sources() {
        let [a, b] = [0; 2].map(|_| open("127.0.0.1:0".parse().unwrap()).unwrap());
        let destination = b.local_addr().unwrap();
        let mut buffers = Buffer::many(3);
        for (len, buffer) in buffers.iter_mut().enumerate() {
            assert!(buffer.assign(&[&vec![7; len * 1000]]));
        }
        assert_eq!(send(&a, &buffers, &[destination; 3]).unwrap(), 3);
        let (mut into, mut arrivals) = (Buffer::many(8), [Arrival::default(); 8]);
        assert_eq!(receive(&b, &mut into, &mut arrivals).unwrap(), 3);
        for at in 0..3 {
            assert_eq!(into[at].data(), buffers[at].data());
            assert_eq!(arrivals[at].source, Some(a.local_addr().unwrap()));
            assert!(!arrivals[at].truncated);
        }
        let error = receive(&b, &mut into, &mut arrivals).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn the_kernel_sorts_sealed_datagrams_from_those_anybody_may_send() {
        let pair = open_pair("127.0.0.1:0".parse().unwrap()).unwrap();
        let to = pair.sealed.local_addr().unwrap();
        assert_eq!(pair.strangers.local_addr().unwrap(), to);
        let taken = open_pair(to).err().expect("the address is taken");
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        let from = open("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut buffer = [0; 8];
        for first in 0..=u8::MAX {
            let (own, other) = match first & 0x0f {
                4 | 5 => (&pair.sealed, &pair.strangers),
                _ => (&pair.strangers, &pair.sealed),
            };
            from.send_to(&[first, 1, 2], to).unwrap();
            assert_eq!(own.recv(&mut buffer).unwrap(), 3);
            assert_eq!(buffer[0], first);
            assert!(other.recv(&mut buffer).is_err());
        }
        from.send_to(&[], to).unwrap();
        assert_eq!(pair.sealed.recv(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn a_flood_of_handshakes_is_dropped_and_counted_by_the_kernel() {
        let pair = open_pair("127.0.0.1:0".parse().unwrap()).unwrap();
        let to = pair.sealed.local_addr().unwrap();
        let from = open("127.0.0.1:0".parse().unwrap()).unwrap();
        let sent = 5_000;
        for _ in 0..sent {
            from.send_to(&[0x11; 368], to).unwrap();
        }
        from.send_to(&[0x14; 100], to).unwrap();
        let mut buffer = [0; 512];
        let kept = (0..sent).take_while(|_| pair.strangers.recv(&mut buffer).is_ok());
        let kept = kept.count() as u64;
        assert!((100..2_000).contains(&kept), "{kept}");
        assert_eq!(kept + dropped(&pair.strangers), sent);
        assert_eq!(
            (
                pair.sealed.recv(&mut buffer).unwrap(),
                dropped(&pair.sealed)
            ),
            (100, 0)
        );
    }

    #[test]
    fn errors_say_what_they_mean_for_the_path() {
        let of = |code| failure(&io::Error::from_raw_os_error(code));
        assert_eq!(of(libc::EPERM), Some(SendFailure::Unreachable));
        assert_eq!(of(libc::ENETUNREACH), Some(SendFailure::Unreachable));
        assert_eq!(of(libc::EMSGSIZE), Some(SendFailure::TooBig));
        assert_eq!(of(libc::EAGAIN), None);
    }
}
