//! TCP connections between the mesh, to which they are marked addresses, and the data plane, to which they
//! are sockets of this host.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use rmesh_gossip::tcp::{over_tcp, tcp_remote};
use rmesh_gossip::{Forwarding, Mesh, Path, SendFailure};
use tokio::sync::mpsc;

use crate::failure::Failure;
use crate::tcp::{Tcp, TcpCounters};

/// Where TCP listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TcpPort {
    /// At the number of the UDP port, if that is free.
    Same,
    /// At this one.
    At(u16),
    /// There is no TCP at all.
    Off,
}

/// Where the other ends of connections that have ended are told.
pub(super) type Closed = Option<mpsc::Receiver<SocketAddr>>;

/// The connections, if TCP is on.
pub(super) struct Streams(Option<Tcp>);

impl Streams {
    /// Starts to listen, beside a data plane at this UDP port.
    pub(super) fn start(
        (bind, interface): (&[IpAddr], Option<&str>),
        wanted: TcpPort,
        udp_port: u16,
    ) -> Result<(Streams, Closed), Failure> {
        let cannot = |what: String| {
            Failure::failed("cannot start the router", what)
                .todo("launch with another --tcp-port, or with --tcp-port none")
        };
        let plane = SocketAddr::new(plane_at(bind), udp_port);
        let port = match wanted {
            TcpPort::Off => return Ok((Streams(None), None)),
            TcpPort::Same => udp_port,
            TcpPort::At(port) => port,
        };
        let started = Tcp::start((bind, interface), Some(port), plane).or_else(|error| {
            if wanted != TcpPort::Same {
                return Err(error);
            }
            tracing::warn!("nobody can call this host by TCP: port {port}: {error}");
            Tcp::start((bind, interface), None, plane)
        });
        let (tcp, closed) = started.map_err(|error| cannot(format!("TCP port {port}: {error}")))?;
        Ok((Streams(Some(tcp)), Some(closed)))
    }

    /// Tells the mesh what there is.
    pub(super) fn introduce(&self, mesh: Mesh) -> Mesh {
        match &self.0 {
            Some(tcp) => mesh.with_tcp(tcp.port().unwrap_or(0)),
            None => mesh,
        }
    }

    /// The port that others can call.
    pub(super) fn port(&self) -> Option<u16> {
        self.0.as_ref()?.port()
    }

    /// Counts since the start.
    pub(super) fn counters(&self) -> TcpCounters {
        self.0.as_ref().map(Tcp::counters).unwrap_or_default()
    }

    /// Whom the mesh knows as the sender of what came from this address; nobody if that stood for a connection
    /// which has just ended: an address of this host is no peer's.
    pub(super) fn source(&self, from: SocketAddr) -> Option<SocketAddr> {
        let Some(tcp) = &self.0 else {
            return Some(from);
        };
        if let Some(remote) = tcp.remote(from) {
            return Some(over_tcp(remote));
        }
        (!tcp.has_ended(from, std::time::Instant::now())).then_some(from)
    }

    /// Where the data plane sends what the mesh has for this address.
    pub(super) fn destination(&self, to: SocketAddr) -> Result<SocketAddr, SendFailure> {
        let Some(remote) = tcp_remote(to) else {
            return Ok(to);
        };
        let local = self.0.as_ref().and_then(|tcp| tcp.local(remote));
        local.ok_or(SendFailure::Unreachable)
    }

    /// Puts the data plane's addresses for the mesh's.
    pub(super) fn translate(&self, forwarding: &mut Forwarding) {
        for peer in forwarding.peers.values_mut() {
            if let Some(Path::Tcp(remote)) = peer.path {
                let local = self.0.as_ref().and_then(|tcp| tcp.known(remote));
                peer.path = local.map(Path::Direct);
            }
        }
    }

    /// Closes what is of no use to the mesh.
    pub(super) fn judge(&self, mesh: &Mesh) {
        if let Some(tcp) = &self.0 {
            let is_way = |remote| mesh.has_way(over_tcp(remote));
            tcp.judge(is_way, std::time::Instant::now());
        }
    }

    /// Ends the connections of those that the mesh has refused.
    pub(super) fn hang_up(&self, mesh: &mut Mesh) {
        while let Some(unwelcome) = mesh.poll_unwelcome() {
            if let Some((tcp, remote)) = self.0.as_ref().zip(tcp_remote(unwelcome)) {
                tcp.hang_up(remote);
            }
        }
    }

    /// Somebody was heard at an address: perhaps a peer, by a connection that was a stranger's.
    pub(super) fn heard(&self, from: SocketAddr, mesh: &Mesh) {
        if let Some((tcp, remote)) = self.0.as_ref().zip(tcp_remote(from)) {
            tcp.judge_one(remote, |remote| mesh.has_way(over_tcp(remote)));
        }
    }
}

/// An address of this host at which the data plane hears it.
fn plane_at(bind: &[IpAddr]) -> IpAddr {
    let (v4, v6) = (
        IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
    );
    if bind.is_empty() {
        let has_v4 = UdpSocket::bind(SocketAddr::new(v4, 0)).is_ok();
        return if has_v4 { v4 } else { v6 };
    }
    let first = bind.iter().find(|ip| ip.is_ipv4()).or(bind.first());
    first.copied().unwrap_or(v4)
}
