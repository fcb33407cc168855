//! Whole Ethernet frames in a container.
#![allow(unsafe_code)]

use std::io::Read as _;
use std::time::{Duration, Instant};

use rmesh_wire::Mac;
use rustix::net::netdevice::name_to_index;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use crate::namespace::Namespace;

/// Hears every frame that comes to a namespace or leaves it.
pub(crate) fn listen(namespace: &Namespace) -> Socket {
    let all = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
    namespace
        .enter(|| Socket::new(Domain::PACKET, Type::RAW, Some(all)))
        .unwrap()
}

/// What it has heard, and hears until `limit` has passed.
pub(crate) fn heard(mut ear: &Socket, limit: Duration) -> Vec<Vec<u8>> {
    let (start, mut frames) = (Instant::now(), Vec::new());
    ear.set_read_timeout(Some(limit)).unwrap();
    let mut buffer = [0; 2048];
    while start.elapsed() < limit
        && let Ok(len) = ear.read(&mut buffer)
    {
        frames.push(buffer[..len].to_vec());
    }
    frames
}

/// Hears every frame that comes by one interface or leaves by it.
pub(crate) fn listen_at(namespace: &Namespace, interface: &str) -> Socket {
    let all = (libc::ETH_P_ALL as u16).to_be();
    namespace.enter(|| {
        let socket = Socket::new(Domain::PACKET, Type::RAW, None).unwrap();
        let address = address(&socket, interface, all);
        socket.bind(&address).unwrap();
        socket
    })
}

fn address(socket: &Socket, interface: &str, protocol: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is the address of this family.
    unsafe {
        let link = storage.view_as::<libc::sockaddr_ll>();
        link.sll_family = libc::AF_PACKET as u16;
        link.sll_protocol = protocol;
        link.sll_ifindex = name_to_index(socket, interface).unwrap() as i32;
        SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as u32)
    }
}

/// Whether a frame is a part of a packet that was cut (RFC 791, RFC 8200 section 4.5).
pub(crate) fn is_fragment(frame: &[u8]) -> bool {
    match frame[12..14] {
        [0x08, 0x00] => u16::from_be_bytes([frame[20], frame[21]]) & 0x3fff != 0,
        [0x86, 0xdd] => frame[20] == 44,
        _ => false,
    }
}

/// Sends a frame out of an interface.
pub(crate) fn send(namespace: &Namespace, interface: &str, frame: &[u8]) {
    namespace.enter(|| {
        let socket = Socket::new(Domain::PACKET, Type::RAW, None).unwrap();
        let address = address(&socket, interface, 0);
        socket.send_to(frame, &address).unwrap();
    });
}

/// The frame of a heartbeat as hosts send it: UDP over IPv4 from and to nobody.
pub(crate) fn heartbeat(to: Mac, from: Mac, payload: &[u8]) -> Vec<u8> {
    const NOBODY: [u8; 4] = [192, 0, 0, 8];
    let udp_len = 8 + payload.len() as u16;
    let mut ip = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0].to_vec();
    ip[2..4].copy_from_slice(&(20 + udp_len).to_be_bytes());
    ip.extend([NOBODY, NOBODY].concat());
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum);
    let mut udp = [0, 9, 0, 9].to_vec();
    udp.extend(udp_len.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    let pseudo = [&NOBODY[..], &NOBODY, &[0, 17], &udp_len.to_be_bytes()].concat();
    let sum = checksum(&[pseudo, udp.clone()].concat());
    udp[6..8].copy_from_slice(&sum);
    [&to.0[..], &from.0, &[0x08, 0x00], &ip, &udp].concat()
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    (!(sum as u16)).to_be_bytes()
}
