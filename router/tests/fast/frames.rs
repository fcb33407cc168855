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

/// Sends a frame out of an interface.
pub(crate) fn send(namespace: &Namespace, interface: &str, frame: &[u8]) {
    namespace.enter(|| {
        let socket = Socket::new(Domain::PACKET, Type::RAW, None).unwrap();
        let mut storage = SockAddrStorage::zeroed();
        // SAFETY: `sockaddr_ll` is the address of this family.
        let address = unsafe {
            let link = storage.view_as::<libc::sockaddr_ll>();
            link.sll_family = libc::AF_PACKET as u16;
            link.sll_ifindex = name_to_index(&socket, interface).unwrap() as i32;
            SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as u32)
        };
        socket.send_to(frame, &address).unwrap();
    });
}
