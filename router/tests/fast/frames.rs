//! Whole Ethernet frames in a container.
#![allow(unsafe_code)]

use std::io::Read as _;
use std::time::{Duration, Instant};

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
