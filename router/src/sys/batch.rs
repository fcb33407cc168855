//! Many datagrams a system call: recvmmsg(2) and sendmmsg(2), and what the kernel cuts and joins
//! for us (udp(7), `UDP_SEGMENT` and `UDP_GRO`).
#![allow(unsafe_code)]

use std::io;
use std::mem::zeroed;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::ptr::null_mut;

use socket2::{SockAddr, SockAddrStorage};

use crate::plane::buffer::{BATCH_LEN, Buffer};

/// Datagrams of one run, at most; older kernels take no more (`UDP_MAX_SEGMENTS`).
const RUN_MAX: usize = 64;
/// Bytes of one run, at most: what the length field of UDP over IPv4 can say.
const RUN_LEN_MAX: usize = 65_507;
/// Room for two control messages of at most four bytes each, in their alignment.
const CONTROL_WORDS: usize = 8;

/// Where the datagrams in the buffer of the same number came from.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Arrival {
    /// `None` if the kernel gave an address of another family.
    pub(crate) source: Option<SocketAddr>,
    /// Whether they were longer than the buffer.
    pub(crate) truncated: bool,
    /// Length of each but the last; 0 if there is one only.
    pub(crate) datagram_len: usize,
    /// Traffic class of all of them: code point and congestion field.
    pub(crate) class: u8,
}

/// Datagrams of one length, but that the last may be shorter, to one destination, one behind the
/// other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) start: usize,
    pub(crate) len: usize,
    pub(crate) datagram_len: usize,
    pub(crate) count: usize,
    pub(crate) destination: SocketAddr,
    class: u8,
}

impl Run {
    /// A run of one datagram, `len` bytes from `start`.
    pub(crate) fn new(start: usize, len: usize, (destination, class): (SocketAddr, u8)) -> Run {
        Run {
            start,
            len,
            datagram_len: len,
            count: 1,
            destination,
            class,
        }
    }

    /// Adds the datagram that follows, if it may be the next of this run.
    pub(crate) fn take(&mut self, to: (SocketAddr, u8), len: usize) -> bool {
        let fits = to == (self.destination, self.class)
            && (1..=self.datagram_len).contains(&len)
            && self.len == self.count * self.datagram_len
            && self.count < RUN_MAX
            && self.len + len <= RUN_LEN_MAX;
        if fits {
            self.len += len;
            self.count += 1;
        }
        fits
    }

    /// Its datagrams' bytes, one behind the other.
    pub(crate) fn bytes<'a>(&self, arena: &'a [u8]) -> Option<&'a [u8]> {
        arena.get(self.start..self.start + self.len)
    }

    /// Its datagrams, each as a run of its own.
    pub(crate) fn singles(&self) -> impl Iterator<Item = Run> {
        let run = *self;
        (0..run.count).map(move |index| {
            let at = index * run.datagram_len;
            let len = run.datagram_len.min(run.len - at);
            Run::new(run.start + at, len, (run.destination, run.class))
        })
    }
}

/// The arguments of recvmmsg(2) and sendmmsg(2), made once: to clear them costs more than most calls.
/// Each call fills in what the kernel reads of them.
pub(crate) struct Messages(Box<Arguments>);

struct Arguments {
    headers: [libc::mmsghdr; BATCH_LEN],
    parts: [libc::iovec; BATCH_LEN],
    names: [libc::sockaddr_storage; BATCH_LEN],
    controls: [[u64; CONTROL_WORDS]; BATCH_LEN],
}

// SAFETY: its pointers are followed by the kernel only, during a call that has set them before.
unsafe impl Send for Messages {}

impl Default for Messages {
    fn default() -> Self {
        // SAFETY: all are C structures of numbers and pointers, for which zero is valid.
        Messages(Box::new(unsafe { zeroed() }))
    }
}

impl Arguments {
    /// Points header `at` to its name and to `len` bytes at `bytes`, without control messages.
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
        header.msg_control = null_mut();
        header.msg_controllen = 0;
        header.msg_flags = 0;
    }

    /// Gives header `at` room for a control message, as [`Arguments::point`] does for the rest.
    fn point_control(&mut self, at: usize) {
        let header = &mut self.headers[at].msg_hdr;
        header.msg_control = (&raw mut self.controls[at]).cast();
        header.msg_controllen = size_of::<[u64; CONTROL_WORDS]>() as _;
    }

    /// Adds a control message to header `at`, behind those it has. As [`Arguments::point`], and what has no
    /// room is left out.
    fn add_control<T>(&mut self, at: usize, (level, kind): (i32, i32), value: T) {
        let used = self.headers[at].msg_hdr.msg_controllen;
        // SAFETY: it only computes a length.
        let (space, len) = unsafe {
            let value_len = size_of::<T>() as u32;
            (
                libc::CMSG_SPACE(value_len) as usize,
                libc::CMSG_LEN(value_len),
            )
        };
        if used + space > size_of::<[u64; CONTROL_WORDS]>() {
            return;
        }
        let room = (&raw mut self.controls[at]).cast::<u8>();
        let header = &mut self.headers[at].msg_hdr;
        header.msg_control = room.cast();
        header.msg_controllen = (used + space) as _;
        // SAFETY: `used` is a sum of what CMSG_SPACE gave, so it keeps the alignment of the room, and the
        // message ends within it.
        unsafe {
            let message = room.add(used).cast::<libc::cmsghdr>();
            (*message).cmsg_level = level;
            (*message).cmsg_type = kind;
            (*message).cmsg_len = len as _;
            libc::CMSG_DATA(message).cast::<T>().write_unaligned(value);
        }
    }

    /// What the kernel says of message `at`: the length of its datagrams, 0 if nothing, and their traffic
    /// class.
    fn told(&self, at: usize) -> (usize, u8) {
        let header = &self.headers[at].msg_hdr;
        let (mut datagram_len, mut class) = (0, 0);
        // SAFETY: the kernel filled in as much of the control room as `msg_controllen` says; the
        // macros stay within it. The values are of the lengths that udp(7), ip(7) and ipv6(7) give.
        unsafe {
            let mut message = libc::CMSG_FIRSTHDR(header);
            while !message.is_null() {
                let len = (*message).cmsg_len as usize;
                let data = libc::CMSG_DATA(message);
                let is_int = len >= libc::CMSG_LEN(size_of::<libc::c_int>() as u32) as usize;
                let is_byte = len >= libc::CMSG_LEN(1) as usize;
                match ((*message).cmsg_level, (*message).cmsg_type) {
                    (libc::SOL_UDP, libc::UDP_GRO) if is_int => {
                        let told = data.cast::<libc::c_int>().read_unaligned();
                        datagram_len = usize::try_from(told).unwrap_or(0);
                    }
                    (libc::SOL_IP, libc::IP_TOS) if is_byte => class = data.read(),
                    (libc::SOL_IPV6, libc::IPV6_TCLASS) if is_int => {
                        class = data.cast::<libc::c_int>().read_unaligned() as u8;
                    }
                    _ => {}
                }
                message = libc::CMSG_NXTHDR(header, message);
            }
        }
        (datagram_len, class)
    }
}

/// Receives what waits, up to [`BATCH_LEN`] buffers, each with one datagram or several of one
/// length.
///
/// # Errors
/// Whatever the kernel says, also errors of earlier datagrams; none is fatal to the socket.
pub(crate) fn receive(
    Messages(messages): &mut Messages,
    socket: &UdpSocket,
    buffers: &mut [Buffer],
    arrivals: &mut [Arrival],
) -> io::Result<usize> {
    let name_len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    let count = buffers.len().min(arrivals.len()).min(BATCH_LEN);
    for (at, buffer) in buffers.iter_mut().take(count).enumerate() {
        let space = buffer.space_mut();
        messages.point(at, name_len, space.as_mut_ptr(), space.len());
        messages.point_control(at);
    }
    // SAFETY: the first `count` headers point to names, control rooms and buffers that outlive the
    // call, each with its own length.
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
        (arrival.datagram_len, arrival.class) = messages.told(at);
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

/// Sends runs, whose bytes are in `arena`, until one fails. Gives how many were taken, at least
/// one; of a run that is taken every datagram is.
///
/// # Errors
/// Why the first was not taken; the others were not tried.
pub(crate) fn send(
    Messages(messages): &mut Messages,
    socket: &UdpSocket,
    arena: &[u8],
    runs: &[Run],
) -> io::Result<usize> {
    let count = runs.len().min(BATCH_LEN);
    for (at, run) in runs.iter().take(count).enumerate() {
        let name = SockAddr::from(run.destination);
        let name_len = name.len();
        let mut storage = name.as_storage();
        // SAFETY: `SockAddrStorage` is a transparent `sockaddr_storage`.
        messages.names[at] = unsafe { *storage.view_as::<libc::sockaddr_storage>() };
        let bytes = run.bytes(arena).unwrap_or_default();
        messages.point(at, name_len, bytes.as_ptr().cast_mut(), bytes.len());
        if run.count > 1 {
            // A run's datagrams are shorter than the run, which is shorter than 64 KiB.
            let len = run.datagram_len as u16;
            messages.add_control(at, (libc::SOL_UDP, libc::UDP_SEGMENT), len);
        }
        if run.class > 0 {
            let option = match run.destination {
                SocketAddr::V4(_) => (libc::SOL_IP, libc::IP_TOS),
                SocketAddr::V6(_) => (libc::SOL_IPV6, libc::IPV6_TCLASS),
            };
            messages.add_control(at, option, libc::c_int::from(run.class));
        }
    }
    // SAFETY: the first `count` headers point to names, control messages and bytes that outlive
    // the call; the kernel only reads them.
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

/// Whether a run was refused for being one: the way out cannot cut (no checksum offload), or not
/// this run.
pub(crate) fn cannot_segment(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::EINVAL | libc::EOPNOTSUPP)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::udp;

    fn pair() -> [UdpSocket; 2] {
        [0; 2].map(|_| udp::open("127.0.0.1:0".parse().unwrap()).unwrap())
    }

    #[test]
    fn a_batch_arrives_with_its_lengths_and_sources() {
        let [a, b] = pair();
        let destination = b.local_addr().unwrap();
        let arena = vec![7; 3_000];
        let runs = [0, 1, 2].map(|n| Run::new(0, n * 1_000, (destination, 0)));
        assert_eq!(
            send(&mut Messages::default(), &a, &arena, &runs).unwrap(),
            3
        );
        let (mut into, mut arrivals) = (Buffer::many(8), [Arrival::default(); 8]);
        assert_eq!(
            receive(&mut Messages::default(), &b, &mut into, &mut arrivals).unwrap(),
            3
        );
        for at in 0..3 {
            assert_eq!(into[at].data(), &arena[..at * 1_000]);
            assert_eq!(arrivals[at].source, Some(a.local_addr().unwrap()));
            assert!(!arrivals[at].truncated);
            assert_eq!(arrivals[at].datagram_len, 0);
        }
        let error = receive(&mut Messages::default(), &b, &mut into, &mut arrivals).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_run_is_cut_by_the_kernel_and_joined_again_where_that_was_asked_for() {
        for joins in [false, true] {
            let [a, b] = pair();
            assert!(!joins || udp::ask_for_joined(&b).is_ok());
            let destination = b.local_addr().unwrap();
            let arena: Vec<u8> = (0..2_500u32).map(|n| n as u8).collect();
            let mut run = Run::new(0, 1_000, (destination, 0));
            assert!(run.take((destination, 0), 1_000) && run.take((destination, 0), 500));
            assert!(
                !run.take((destination, 0), 500),
                "only the last may be short"
            );
            assert_eq!(
                send(&mut Messages::default(), &a, &arena, &[run]).unwrap(),
                1
            );
            let (mut into, mut arrivals) = (Buffer::many(8), [Arrival::default(); 8]);
            let count = receive(&mut Messages::default(), &b, &mut into, &mut arrivals).unwrap();
            let lens: Vec<_> = into[..count].iter().map(|b| b.data().len()).collect();
            if joins {
                assert_eq!((lens, arrivals[0].datagram_len), (vec![2_500], 1_000));
            } else {
                assert_eq!(lens, [1_000, 1_000, 500]);
            }
            let all: Vec<u8> = into[..count]
                .iter()
                .flat_map(|b| b.data().to_vec())
                .collect();
            assert_eq!(all, arena);
        }
    }

    #[test]
    fn the_traffic_class_goes_with_a_datagram_and_with_each_of_a_run() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let [a, b] = [0; 2].map(|_| udp::open(host.parse().unwrap()).unwrap());
            let destination = b.local_addr().unwrap();
            let mut run = Run::new(0, 100, (destination, 0xba));
            assert!(run.take((destination, 0xba), 100));
            let runs = [
                run,
                Run::new(0, 50, (destination, 0)),
                Run::new(0, 60, (destination, 3)),
            ];
            assert_eq!(
                send(&mut Messages::default(), &a, &[7; 200], &runs).unwrap(),
                3
            );
            let (mut into, mut arrivals) = (Buffer::many(8), [Arrival::default(); 8]);
            let count = receive(&mut Messages::default(), &b, &mut into, &mut arrivals).unwrap();
            let classes: Vec<u8> = arrivals[..count]
                .iter()
                .map(|arrival| arrival.class)
                .collect();
            assert_eq!(classes, [0xba, 0xba, 0, 3], "{host}");
        }
    }

    #[test]
    fn runs_are_bounded_and_come_apart_as_they_were_made() {
        let [here, there] = ["192.0.2.1:1", "192.0.2.2:1"].map(|text| (text.parse().unwrap(), 2));
        let mut run = Run::new(10, 100, here);
        assert!(!run.take((here.0, 0), 100), "of another class");
        assert!(!run.take(there, 100) && !run.take(here, 101) && !run.take(here, 0));
        while run.take(here, 100) {}
        assert_eq!((run.count, run.len), (RUN_MAX, 100 * RUN_MAX));
        let starts: Vec<_> = run.singles().map(|single| single.start).collect();
        assert_eq!((starts[0], starts[1], starts.len()), (10, 110, RUN_MAX));
        let mut long = Run::new(0, 1_400, here);
        while long.take(here, 1_400) {}
        assert!(long.len <= RUN_LEN_MAX && long.count == 46);
        assert!(long.take(here, 9) && !long.take(here, 9));
        assert_eq!(long.singles().last().map(|last| last.len), Some(9));
    }
}
