//! Broadcast and multicast over UDP: who got which datagram how often.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::net::netdevice::name_to_index;
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    TICK,
    background::{Background, Running},
    is_timeout,
};
use crate::{Namespace, error::lock};

/// Most different payloads one listener tells apart.
const MAX_PAYLOADS: usize = 4096;
/// Longer payloads are cut.
const MAX_PAYLOAD_BYTES: usize = 9000;
/// Hops a multicast may take; one segment needs one.
const HOPS: u32 = 4;

type Counts = Arc<Mutex<BTreeMap<Vec<u8>, u64>>>;

/// What a [`UdpListener`] listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// IPv4 broadcasts (and unicasts) to the port.
    Broadcast,
    /// A multicast group, which is joined.
    Group(IpAddr),
}

/// Counts datagrams by payload on one interface.
#[derive(Debug)]
pub struct UdpListener {
    counts: Counts,
    work: Background<()>,
}

impl UdpListener {
    /// Listens on `port` of one interface.
    ///
    /// # Errors
    /// If there is no such interface, the port is taken, or the group cannot be joined.
    pub fn start(
        at: &Namespace,
        interface: &str,
        to: Listen,
        port: u16,
    ) -> io::Result<UdpListener> {
        let socket = at.enter(|| listening_socket(interface, to, port))?;
        let counts = Counts::default();
        let shared = Arc::clone(&counts);
        let work = Background::start(move |running| count_datagrams(&socket, &shared, running))?;
        Ok(UdpListener { counts, work })
    }

    /// Sends one datagram by that interface to a broadcast, multicast or other address. It is not
    /// looped back to listeners in the same namespace.
    ///
    /// # Errors
    /// If there is no such interface or the kernel refuses.
    pub fn send(
        from: &Namespace,
        interface: &str,
        to: SocketAddr,
        payload: &[u8],
    ) -> io::Result<()> {
        from.enter(|| {
            let socket = Socket::new(domain(to.ip()), Type::DGRAM, Some(Protocol::UDP))?;
            socket.bind_device(Some(interface.as_bytes()))?;
            let index = name_to_index(&socket, interface)?;
            if to.is_ipv4() {
                socket.set_broadcast(true)?;
                socket.set_multicast_loop_v4(false)?;
                socket.set_multicast_ttl_v4(HOPS)?;
            } else {
                socket.set_multicast_if_v6(index)?;
                socket.set_multicast_loop_v6(false)?;
                socket.set_multicast_hops_v6(HOPS)?;
            }
            UdpSocket::from(socket).send_to(payload, to).map(drop)
        })
    }

    /// How often this payload has arrived so far.
    pub fn count(&self, payload: &[u8]) -> u64 {
        lock(&self.counts).get(payload).copied().unwrap_or(0)
    }

    /// Waits until this payload has arrived, at most `limit`; tells whether it has.
    pub fn wait_for(&self, payload: &[u8], limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.count(payload) == 0 {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(TICK);
        }
        true
    }

    /// Stops listening: how often each payload has arrived.
    pub fn stop(self) -> BTreeMap<Vec<u8>, u64> {
        self.work.stop();
        std::mem::take(&mut lock(&self.counts))
    }
}

fn listening_socket(interface: &str, to: Listen, port: u16) -> io::Result<UdpSocket> {
    let family = match to {
        Listen::Group(IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let socket = Socket::new(domain(family), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    if family.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.bind(&SocketAddr::new(family, port).into())?;
    let index = name_to_index(&socket, interface)?;
    match to {
        Listen::Broadcast => {}
        Listen::Group(IpAddr::V4(group)) => {
            socket.join_multicast_v4_n(&group, &socket2::InterfaceIndexOrAddress::Index(index))?;
        }
        Listen::Group(IpAddr::V6(group)) => socket.join_multicast_v6(&group, index)?,
    }
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(TICK))?;
    Ok(socket)
}

fn domain(address: IpAddr) -> Domain {
    if address.is_ipv4() {
        Domain::IPV4
    } else {
        Domain::IPV6
    }
}

fn count_datagrams(socket: &UdpSocket, counts: &Counts, running: &Running) {
    let mut buffer = vec![0; MAX_PAYLOAD_BYTES];
    while running.goes_on() {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                let mut counts = lock(counts);
                if counts.len() < MAX_PAYLOADS || counts.contains_key(&buffer[..length]) {
                    *counts.entry(buffer[..length].to_vec()).or_default() += 1;
                }
            }
            Err(error) if is_timeout(&error) => {}
            Err(_) => return,
        }
    }
}
