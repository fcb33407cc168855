//! The UDP sockets of a data plane: a group for each address listened at.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};

use rmesh_gossip::SOURCE_PORTS_MAX;

use super::api::{PlaneError, Without};
use crate::sys::udp;

/// Addresses listened at, at most: a socket of each that one worker reads leaves poll(2) entries for
/// port and wake-up.
const ADDRESSES_MAX: usize = 8;
/// With port 0: attempts to find a port that is free in every family.
const ATTEMPTS: usize = 16;

/// Sockets on one port.
pub(crate) struct Sockets {
    /// Whether the kernel cuts runs that are sent; false for good once it has refused to.
    segments: AtomicBool,
    /// Whether it joins what is received.
    joins: bool,
    /// By worker, then by address.
    sealed: Vec<Vec<UdpSocket>>,
    control: Vec<UdpSocket>,
    strangers: Vec<UdpSocket>,
    /// By source port, from number 1 on, then by address. They only send.
    apart: Vec<Vec<UdpSocket>>,
    first_v4: Option<usize>,
    first_v6: Option<usize>,
    /// Where one interface is used only: the one for this host itself.
    loopback: Option<usize>,
    port: u16,
}

/// An address to listen at, by one interface or by all.
type Place<'a> = (IpAddr, Option<&'a str>);

impl Sockets {
    /// Opens `port` for `workers` at every address of `bind`, or at all addresses of both families if it is
    /// empty, where a family this host does not have is left out. With `interface` that is by this one only, and
    /// by the loopback interface, by which TCP comes.
    pub(crate) fn open(
        bind: &[IpAddr],
        interface: Option<&str>,
        port: u16,
        workers: usize,
        without: Without,
    ) -> Result<Self, PlaneError> {
        let optional = bind.is_empty();
        let places: Vec<Place<'_>> = match (optional, interface) {
            (false, _) => bind.iter().map(|ip| (*ip, None)).collect(),
            (true, None) => ANY.map(|ip| (ip, None)).to_vec(),
            (true, Some(_)) => {
                // Not by all, or its address would count as one of the other sockets'.
                let here = (loopback(), Some(LOOPBACK_INTERFACE));
                ANY.map(|ip| (ip, interface))
                    .into_iter()
                    .chain([here])
                    .collect()
            }
        };
        let attempts = if port == 0 { ATTEMPTS } else { 1 };
        let mut result = Err(PlaneError::NoFamily);
        for _ in 0..attempts {
            result = Self::open_all((&places, optional), port, workers, without);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn open_all(
        (places, optional): (&[Place<'_>], bool),
        mut port: u16,
        workers: usize,
        without: Without,
    ) -> Result<Self, PlaneError> {
        let mut sealed: Vec<Vec<UdpSocket>> = (0..workers.max(1)).map(|_| Vec::new()).collect();
        let (mut control, mut strangers): (Vec<UdpSocket>, Vec<UdpSocket>) = Default::default();
        let mut loopback = None;
        for (ip, interface) in places.iter().take(ADDRESSES_MAX) {
            let address = SocketAddr::new(*ip, port);
            let opened = udp::open_group(address, *interface, workers).and_then(|group| {
                port = group.strangers.local_addr()?.port();
                Ok(group)
            });
            match opened {
                Ok(group) => {
                    if ip.is_loopback() && optional {
                        loopback = Some(strangers.len());
                    }
                    for (worker, socket) in sealed.iter_mut().zip(group.sealed) {
                        worker.push(socket);
                    }
                    control.push(group.control);
                    strangers.push(group.strangers);
                }
                Err(error) if optional && is_missing_family(&error) => {
                    tracing::info!(%ip, %error, "not listening: this host lacks the family");
                }
                Err(source) if source.raw_os_error() == Some(libc::ENODEV) => {
                    let name = interface.unwrap_or_default().to_owned();
                    return Err(PlaneError::Interface { name });
                }
                Err(source) => return Err(PlaneError::Bind { address, source }),
            }
        }
        let first = |is_v6: bool| {
            let of_family = |s: &UdpSocket| s.local_addr().is_ok_and(|a| a.is_ipv6() == is_v6);
            strangers.iter().position(of_family)
        };
        let (first_v4, first_v6) = (first(false), first(true));
        if strangers.is_empty() {
            return Err(PlaneError::NoFamily);
        }
        let apart = open_apart((places, &strangers), workers, without);
        let segments = !without.udp_segmentation && sealed.iter().flatten().all(udp::can_segment);
        let ask = |socket| udp::ask_for_joined(socket).is_ok();
        // All or none: which socket the kernel asks before it joins, it chooses by the addresses alone.
        let mut all = sealed.iter().flatten().chain(&control).chain(&strangers);
        let joins = !without.udp_receive_offload && all.all(ask);
        Ok(Sockets {
            segments: AtomicBool::new(segments),
            joins,
            sealed,
            control,
            strangers,
            apart,
            first_v4,
            first_v6,
            loopback,
            port,
        })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Whether the kernel cuts runs that are sent.
    pub(crate) fn segments(&self) -> bool {
        self.segments.load(Ordering::Relaxed)
    }

    /// The kernel has refused to cut.
    pub(crate) fn stop_segmenting(&self) {
        self.segments.store(false, Ordering::Relaxed);
    }

    /// Whether the kernel joins what is received.
    pub(crate) fn joins(&self) -> bool {
        self.joins
    }

    /// For the records and relay datagrams that come to `worker`, and for all that it sends.
    pub(crate) fn sealed(&self, worker: usize) -> &[UdpSocket] {
        self.sealed.get(worker).map_or(&[], Vec::as_slice)
    }

    /// Those of all workers, and of the control side.
    pub(crate) fn all_sealed(&self) -> impl Iterator<Item = &UdpSocket> {
        self.sealed.iter().flatten().chain(&self.control)
    }

    /// For records and relay datagrams of lane 0, and for all that the control side sends, by the same
    /// numbers.
    pub(crate) fn control(&self) -> &[UdpSocket] {
        &self.control
    }

    /// For what anybody may send, by the same numbers.
    pub(crate) fn strangers(&self) -> &[UdpSocket] {
        &self.strangers
    }

    /// By the same numbers, those to send from another source port, of number 1 and more; none if there is no such port.
    pub(crate) fn apart(&self, port: usize) -> &[UdpSocket] {
        let port = port.checked_sub(1).and_then(|port| self.apart.get(port));
        port.map_or(&[], Vec::as_slice)
    }

    /// Source ports besides the one listened at, from number 1 on: for IPv4 and for IPv6.
    pub(crate) fn source_ports(&self) -> [Vec<u16>; 2] {
        [self.first_v4, self.first_v6].map(|first| {
            let of_family = |port: &Vec<UdpSocket>| {
                let socket = port.get(first?)?;
                socket.local_addr().ok().map(|address| address.port())
            };
            self.apart.iter().filter_map(of_family).collect()
        })
    }

    /// Number of the socket that reaches `destination`: the first of its family.
    pub(crate) fn number_for(&self, destination: SocketAddr) -> Option<usize> {
        if self.loopback.is_some() && destination.ip().is_loopback() {
            return self.loopback;
        }
        if destination.is_ipv6() {
            self.first_v6
        } else {
            self.first_v4
        }
    }
}

/// Opens sockets to send from, a source port for each worker but the first, as far as there may be. Without them all
/// send from the port listened at.
fn open_apart(
    (places, opened): (&[Place<'_>], &[UdpSocket]),
    workers: usize,
    without: Without,
) -> Vec<Vec<UdpSocket>> {
    let ports = match without.source_ports {
        true => 1,
        false => workers.min(SOURCE_PORTS_MAX),
    };
    let open = |listening: &UdpSocket| {
        let ip = listening.local_addr()?.ip();
        let place = places.iter().find(|(place, _)| *place == ip);
        udp::open_to_send(ip, place.and_then(|(_, interface)| *interface))
    };
    let open_port = |_| opened.iter().map(open).collect::<io::Result<Vec<_>>>();
    let apart: io::Result<Vec<_>> = (1..ports).map(open_port).collect();
    apart.unwrap_or_else(|error| {
        tracing::warn!(%error, "all workers send from one port: no other can be opened");
        Vec::new()
    })
}

/// Every Linux host has it by this name.
const LOOPBACK_INTERFACE: &str = "lo";

const ANY: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    IpAddr::V6(Ipv6Addr::UNSPECIFIED),
];

/// What this host calls itself.
fn loopback() -> IpAddr {
    let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
    match UdpSocket::bind(SocketAddr::new(v4, 0)) {
        Ok(_) => v4,
        Err(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

fn is_missing_family(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT)
    )
}
