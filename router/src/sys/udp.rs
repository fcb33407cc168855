//! UDP sockets and their options.
#![allow(unsafe_code)]

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use rmesh_gossip::SendFailure;
use rmesh_wire::datagram::{Kind, LANE_OFFSET};
use rustix::net::sockopt;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Room for datagrams under way, in bytes: 30 ms at 1 Gbit/s.
const SOCKET_BUFFER_LEN: usize = 4 << 20;

/// Hops a datagram may take, as most systems begin with.
const HOPS: u32 = 64;
/// Hop limits that workers have between them: far more are no use, and no path is so long that it matters.
const WORKERS_TOLD_APART: usize = 16;

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
    let (discover, tell_class) = if address.is_ipv6() {
        socket.set_only_v6(true)?;
        let (name, value) = (libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE);
        let tell = (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1);
        ((libc::IPPROTO_IPV6, name, value), tell)
    } else {
        let (name, value) = (libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE);
        let tell = (libc::IPPROTO_IP, libc::IP_RECVTOS, 1);
        ((libc::IPPROTO_IP, name, value), tell)
    };
    set_option(&socket, discover)?;
    // Congestion marks are carried to the frames (RFC 6040).
    set_option(&socket, tell_class)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A non-blocking socket of [`open_socket`], alone on `address`.
#[cfg(test)]
pub(crate) fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = open_socket(address)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// What one address is listened at with. The kernel sorts what comes by its first byte before it
/// queues anything, so that no flood of handshakes takes the place of a record; and records by their
/// lane, so that those of one sending worker come to one worker here, in their order.
pub(crate) struct Group {
    /// For records and relay datagrams of frames, and for all that workers send; one a worker.
    pub(crate) sealed: Vec<UdpSocket>,
    /// For those of lane 0, and for everything that the control side sends, which frames must not keep from it.
    pub(crate) control: UdpSocket,
    /// For what anybody may send: handshakes, cookies, and what no peer sends.
    pub(crate) strangers: UdpSocket,
}

/// Opens sockets for `workers` on `address`, as [`open_socket`] says, at one interface or at all.
///
/// # Errors
/// If the family is not available or the address is taken.
pub(crate) fn open_group(
    address: SocketAddr,
    interface: Option<&str>,
    workers: usize,
) -> io::Result<Group> {
    let first = open_socket_at(address, interface)?;
    resize_buffers(&first, SOCKET_BUFFER_LEN);
    // Without SO_REUSEPORT, so that the address of another daemon counts as taken; with it set
    // afterwards, so that the other sockets may join.
    first.bind(&address.into())?;
    first.set_reuse_port(true)?;
    let bound = first.local_addr()?;
    let mut sealed = vec![first];
    // The kernel numbers a group's sockets in the order in which they are bound.
    for worker in 1..workers.max(1) {
        let socket = join((address, interface), &bound, SOCKET_BUFFER_LEN)?;
        set_hops(&socket, address.is_ipv6(), worker % WORKERS_TOLD_APART)?;
        sealed.push(socket);
    }
    let control = join((address, interface), &bound, SOCKET_BUFFER_LEN)?;
    set_hops(&control, address.is_ipv6(), WORKERS_TOLD_APART)?;
    let strangers = join((address, interface), &bound, STRANGERS_BUFFER_LEN)?;
    attach_chooser(&strangers, sealed.len())?;
    Ok(Group {
        sealed: sealed.into_iter().map(UdpSocket::from).collect(),
        control: control.into(),
        strangers: strangers.into(),
    })
}

/// A socket to send from, on a port that the kernel chooses; it drops whatever comes there.
///
/// # Errors
/// If it cannot be opened.
pub(crate) fn open_to_send(ip: IpAddr, interface: Option<&str>) -> io::Result<UdpSocket> {
    let address = SocketAddr::new(ip, 0);
    let socket = open_socket_at(address, interface)?;
    drop_all(&socket)?;
    resize_buffers(&socket, 0);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Lets the kernel drop what comes before it takes room.
fn drop_all(socket: &Socket) -> io::Result<()> {
    let mut nothing = libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: 0,
    };
    let program = libc::sock_fprog {
        len: 1,
        filter: &raw mut nothing,
    };
    set_option(socket, (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program))
}

/// A socket that sends and receives by one interface, if there is one, whatever addresses that has.
fn open_socket_at(address: SocketAddr, interface: Option<&str>) -> io::Result<Socket> {
    let socket = open_socket(address)?;
    if let Some(interface) = interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    Ok(socket)
}

/// One more socket of the group on `bound`.
fn join(
    (address, interface): (SocketAddr, Option<&str>),
    bound: &SockAddr,
    receive_len: usize,
) -> io::Result<Socket> {
    let socket = open_socket_at(address, interface)?;
    resize_buffers(&socket, receive_len);
    socket.set_reuse_port(true)?;
    socket.bind(bound)?;
    Ok(socket)
}

/// Gives what this socket sends a hop limit of its own. Workers and the control side share a port, so a
/// receiving kernel would join datagrams of several into one (GRO) and bring them all to the socket of the
/// first; it joins none whose hop limits differ.
fn set_hops(socket: &Socket, is_v6: bool, fewer: usize) -> io::Result<()> {
    let hops = HOPS - fewer as u32;
    if is_v6 {
        socket.set_unicast_hops_v6(hops)
    } else {
        socket.set_ttl_v4(hops)
    }
}

/// Lets the kernel choose by the first byte of a datagram, and for records and relay datagrams by
/// their lane, whose worker is that of the same number here if there are as many (classic BPF,
/// socket(7)). Lane 0 goes to the socket after the workers', all others to the last of the group.
fn attach_chooser(socket: &Socket, workers: usize) -> io::Result<()> {
    let [load, mask, equal, subtract, modulo, answer, answer_loaded] = [
        libc::BPF_LD | libc::BPF_B | libc::BPF_ABS,
        libc::BPF_ALU | libc::BPF_AND | libc::BPF_K,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_ALU | libc::BPF_SUB | libc::BPF_K,
        libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
        libc::BPF_RET | libc::BPF_A,
    ];
    let step = |code: u32, jump_true, k: usize| libc::sock_filter {
        code: code as u16,
        jt: jump_true,
        jf: 0,
        k: k as u32,
    };
    // A load from beyond the end ends the program, which chooses the first socket.
    let mut program = [
        step(load, 0, 0),
        step(mask, 0, 0x0f),
        step(equal, 2, usize::from(Kind::Record.code())),
        step(equal, 1, usize::from(Kind::Relay.code())),
        step(answer, 0, workers + 1),
        step(load, 0, LANE_OFFSET),
        step(equal, 3, 0),
        step(subtract, 0, 1),
        step(modulo, 0, workers),
        step(answer_loaded, 0, 0),
        step(answer, 0, workers),
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

/// Lets the kernel hand over datagrams of one sender joined, as [`super::batch`] takes them apart.
pub(crate) fn ask_for_joined(socket: &impl AsRawFd) -> io::Result<()> {
    let value: libc::c_int = 1;
    set_option(socket, (libc::SOL_UDP, libc::UDP_GRO, value))
}

/// Whether the kernel cuts runs of datagrams (since 4.18).
pub(crate) fn can_segment(socket: &impl AsRawFd) -> bool {
    let value: libc::c_int = 0;
    set_option(socket, (libc::SOL_UDP, libc::UDP_SEGMENT, value)).is_ok()
}

/// Datagrams the kernel dropped because the socket's queue was full.
pub fn dropped(socket: &impl AsRawFd) -> u64 {
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

pub(super) fn set_option<T>(
    socket: &impl AsRawFd,
    (level, name, value): (i32, i32, T),
) -> io::Result<()> {
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

/// Bytes of a socket's sending buffer that are taken, and all of them, as the kernel reckons.
pub(crate) fn taken(socket: &UdpSocket) -> (usize, usize) {
    let mut taken: libc::c_int = 0;
    // SAFETY: the request writes one number, which outlives the call.
    let asked = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut taken) };
    let size = socket2::SockRef::from(socket).send_buffer_size();
    match (asked, usize::try_from(taken), size) {
        (0, Ok(taken), Ok(size)) => (taken, size),
        _ => (0, 0),
    }
}

/// Whether a send failed because buffers are full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR)
    )
}

/// What a failed send of a datagram of `len` bytes means for the path; `None` if it only means that
/// buffers are full.
pub(crate) fn failure(error: &io::Error, len: usize) -> Option<SendFailure> {
    match error.raw_os_error() {
        _ if is_full(error) => None,
        Some(libc::EMSGSIZE) => Some(SendFailure::TooBig {
            len: u16::try_from(len).unwrap_or(u16::MAX),
        }),
        // ENETUNREACH, EHOSTUNREACH, EPERM, EACCES, EADDRNOTAVAIL, ENETDOWN, and whatever else a
        // firewall or a vanished interface answers: this path does not work now.
        _ => Some(SendFailure::Unreachable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmesh_wire::datagram::Header;

    #[test]
    fn the_kernel_sorts_sealed_datagrams_from_those_anybody_may_send() {
        let group = open_group("127.0.0.1:0".parse().unwrap(), None, 3).unwrap();
        let (sealed, strangers) = (&group.sealed[0], &group.strangers);
        let to = sealed.local_addr().unwrap();
        assert_eq!(strangers.local_addr().unwrap(), to);
        let taken = open_group(to, None, 2).err().expect("the address is taken");
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        let from = open("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut buffer = [0; 8];
        for first in 0..=u8::MAX {
            let (own, other) = match first & 0x0f {
                4 | 5 => (sealed, strangers),
                _ => (strangers, sealed),
            };
            from.send_to(&[first, 1, 2], to).unwrap();
            assert_eq!(own.recv(&mut buffer).unwrap(), 3);
            assert_eq!(buffer[0], first);
            assert!(other.recv(&mut buffer).is_err());
            assert!(group.control.recv(&mut buffer).is_err());
        }
        from.send_to(&[], to).unwrap();
        assert_eq!(sealed.recv(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn a_socket_to_send_from_hears_nothing_and_each_has_a_port_of_its_own() {
        for host in ["127.0.0.1", "::1"] {
            let ip = host.parse().unwrap();
            let [one, other] = [0, 1].map(|_| open_to_send(ip, None).unwrap());
            let [at, beside] = [&one, &other].map(|socket| socket.local_addr().unwrap());
            assert_ne!(at.port(), beside.port());
            let listener = open(SocketAddr::new(ip, 0)).unwrap();
            let listens = listener.local_addr().unwrap();
            let mut buffer = [0; 8];
            one.send_to(&[1, 2], listens).unwrap();
            assert_eq!(listener.recv_from(&mut buffer).unwrap(), (2, at));
            listener.send_to(&[3], at).unwrap();
            assert!(one.recv(&mut buffer).is_err());
            assert!(can_segment(&one));
        }
    }

    #[test]
    fn the_kernel_brings_each_lane_to_its_worker() {
        for (host, workers) in [("127.0.0.1:0", 3), ("[::1]:0", 2), ("127.0.0.1:0", 1)] {
            let group = open_group(host.parse().unwrap(), None, workers).unwrap();
            let to = group.strangers.local_addr().unwrap();
            let from = open(host.parse().unwrap()).unwrap();
            for lane in 0..=u8::MAX {
                let header = Header::record(7, lane, 1);
                from.send_to(&header.encode(), to).unwrap();
                let expected = match usize::from(lane) {
                    0 => workers,
                    lane => (lane - 1) % workers,
                };
                let mut buffer = [0; 64];
                let all = group.sealed.iter().chain([&group.control]);
                for (number, socket) in all.enumerate() {
                    let came = socket.recv(&mut buffer).is_ok();
                    assert_eq!(came, number == expected, "lane {lane} at {number}");
                }
            }
        }
    }

    #[test]
    fn datagrams_of_two_workers_and_of_the_control_side_are_not_joined_into_one() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let group = open_group(host.parse().unwrap(), None, 2).unwrap();
            let hops = |socket: &UdpSocket| {
                let socket = socket2::SockRef::from(socket);
                match host.starts_with('[') {
                    true => socket.unicast_hops_v6(),
                    false => socket.ttl_v4(),
                }
            };
            let [first, second] = [0, 1].map(|worker| hops(&group.sealed[worker]).unwrap());
            assert_eq!((first, second), (HOPS, HOPS - 1));
            let apart = WORKERS_TOLD_APART as u32;
            assert_eq!(hops(&group.control).unwrap(), HOPS - apart);
        }
    }

    #[test]
    fn a_flood_of_handshakes_is_dropped_and_counted_by_the_kernel() {
        let group = open_group("127.0.0.1:0".parse().unwrap(), None, 1).unwrap();
        let (sealed, strangers) = (&group.sealed[0], &group.strangers);
        let to = sealed.local_addr().unwrap();
        let from = open("127.0.0.1:0".parse().unwrap()).unwrap();
        let sent = 5_000;
        for _ in 0..sent {
            from.send_to(&[0x11; 368], to).unwrap();
        }
        from.send_to(&[0x14; 100], to).unwrap();
        let mut buffer = [0; 512];
        let kept = (0..sent).take_while(|_| strangers.recv(&mut buffer).is_ok());
        let kept = kept.count() as u64;
        assert!((100..2_000).contains(&kept), "{kept}");
        assert_eq!(kept + dropped(strangers), sent);
        assert_eq!(
            (sealed.recv(&mut buffer).unwrap(), dropped(sealed)),
            (100, 0)
        );
    }

    #[test]
    fn errors_say_what_they_mean_for_the_path() {
        let of = |code| failure(&io::Error::from_raw_os_error(code), 1_500);
        assert_eq!(of(libc::EPERM), Some(SendFailure::Unreachable));
        assert_eq!(of(libc::ENETUNREACH), Some(SendFailure::Unreachable));
        assert_eq!(of(libc::EMSGSIZE), Some(SendFailure::TooBig { len: 1_500 }));
        assert_eq!(of(libc::EAGAIN), None);
    }
}
