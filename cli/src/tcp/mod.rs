//! Datagrams over TCP, for networks where UDP does not pass (DESIGN D1).
//!
//! A connection stands beside a UDP socket of this host: what the data plane sends to that socket goes out
//! length-prefixed, and what comes in is sent to the data plane from it. So workers and control side need to know
//! nothing of TCP, and the socket's own buffer is the bounded queue, which drops whole datagrams when the
//! network is slower than who sends. One thread carries all connections, apart from the control side's.
//!
//! Whom to call, and whether somebody behind a connection has proved to be a peer, is the mesh's to say.

mod carry;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot};

/// Connections there can be; each takes two descriptors.
const CONNECTIONS_MAX: usize = 256;
/// Of them, kept for those that this host opens.
const OUTGOING_KEPT: usize = 32;
/// Of those that others have opened, so many may belong to nobody known.
const UNPROVEN_MAX: usize = 64;
/// And so many of one host (a /64 of IPv6 is one): a site behind one address may start all at once.
const UNPROVEN_PER_SOURCE: usize = 16;
/// Somebody has to have proved to be a peer after this time.
const PROVES_WITHIN: Duration = Duration::from_secs(8);
/// Room for datagrams that wait for a connection, in bytes; the kernel counts its own with them.
const QUEUE_LEN: usize = 256 << 10;
/// Pending connections of a listener.
const BACKLOG: i32 = 128;
/// What a connection brought may be under way inside this host for so long after its end.
const ENDED_FOR: Duration = Duration::from_secs(2);
/// What was sent last has this time to go out when all ends.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// All connections.
pub(crate) struct Tcp {
    shared: Arc<Shared>,
    runtime: Handle,
    port: Option<u16>,
    thread: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// What there is to tell of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TcpCounters {
    /// Connections there are.
    pub(crate) connections: u64,
    /// Of them, those whose other end has not proved to be a peer.
    pub(crate) unproven: u64,
    /// Connections turned away, for there were too many.
    pub(crate) refused: u64,
    /// Datagrams sent by TCP.
    pub(crate) sent: u64,
    /// Datagrams received by TCP.
    pub(crate) received: u64,
    /// Datagrams dropped because a connection did not take them in time.
    pub(crate) dropped: u64,
}

/// What the carrying thread and the control side share.
struct Shared {
    /// Where the data plane listens, as this host calls it.
    plane: SocketAddr,
    bind: Vec<IpAddr>,
    interface: Option<String>,
    table: Mutex<Table>,
    closed: mpsc::Sender<SocketAddr>,
    refused: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    /// By connections that are over.
    dropped: AtomicU64,
}

#[derive(Default)]
struct Table {
    /// By the address of the other end.
    connections: BTreeMap<SocketAddr, Connection>,
    /// Other ends by the address of the socket that stands for them.
    remotes: HashMap<SocketAddr, SocketAddr>,
    /// Sockets that stood for connections which have just ended, the latest last.
    ended: VecDeque<(SocketAddr, Instant)>,
}

struct Connection {
    local: SocketAddr,
    socket: Arc<UdpSocket>,
    opened: Instant,
    is_outgoing: bool,
    is_proven: bool,
    /// It has been told to end, to make room for another.
    is_ending: bool,
    end: Arc<Notify>,
}

/// A place in the table, for the task that carries.
struct Place {
    remote: SocketAddr,
    socket: Arc<UdpSocket>,
    end: Arc<Notify>,
}

impl Tcp {
    /// Listens at a port of the addresses in `bind`, or of all, by one interface or by all, if there is a port; and gives where the other ends
    /// of connections that have ended come to be told. `plane` is where the data plane is called from this host.
    ///
    /// # Errors
    /// If the port is taken, or the kernel refuses.
    pub(crate) fn start(
        (bind, interface): (&[IpAddr], Option<&str>),
        port: Option<u16>,
        plane: SocketAddr,
    ) -> io::Result<(Tcp, mpsc::Receiver<SocketAddr>)> {
        let listeners = port.map_or(Ok(Vec::new()), |port| listen((bind, interface), port))?;
        let listening = listeners.first().map(|one| one.local_addr());
        let port = listening.transpose()?.map(|address| address.port());
        let (closed, news) = mpsc::channel(CONNECTIONS_MAX * 4);
        let shared = Arc::new(Shared {
            plane,
            bind: bind.to_vec(),
            interface: interface.map(str::to_owned),
            table: Mutex::default(),
            closed,
            refused: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let carrier = Arc::clone(&shared);
        let thread = Builder::new().name("rmesh-tcp".into()).spawn(move || {
            runtime.block_on(async {
                for listener in listeners {
                    tokio::spawn(carry::accept(Arc::clone(&carrier), listener));
                }
                // An error is the end as well.
                let _ = stopped.await;
                if carrier.has_any() {
                    tokio::time::sleep(LAST_WORDS).await;
                }
            });
        })?;
        let tcp = Tcp {
            shared,
            runtime: handle,
            port,
            thread: Some((stop, thread)),
        };
        Ok((tcp, news))
    }

    /// The port that others can call, if there is one.
    pub(crate) fn port(&self) -> Option<u16> {
        self.port
    }

    /// The other end of the connection that a socket of this host stands for.
    pub(crate) fn remote(&self, local: SocketAddr) -> Option<SocketAddr> {
        if local.ip() != self.shared.plane.ip() {
            return None;
        }
        self.shared.table().remotes.get(&local).copied()
    }

    /// Whether a socket of this host stood for a connection that has just ended. What comes from it came by that
    /// connection, whose other end cannot be answered any more.
    pub(crate) fn has_ended(&self, local: SocketAddr, now: Instant) -> bool {
        if local.ip() != self.shared.plane.ip() {
            return false;
        }
        let table = self.shared.table();
        let is_it = |(ended, when): &(SocketAddr, Instant)| {
            *ended == local && now.saturating_duration_since(*when) < ENDED_FOR
        };
        !table.remotes.contains_key(&local) && table.ended.iter().any(is_it)
    }

    /// The socket that stands for the connection with `remote`, if there is one.
    pub(crate) fn known(&self, remote: SocketAddr) -> Option<SocketAddr> {
        let table = self.shared.table();
        table.connections.get(&remote).map(|known| known.local)
    }

    /// The socket that stands for the connection with `remote`, which is opened if there is none; nothing if
    /// there are too many.
    pub(crate) fn local(&self, remote: SocketAddr) -> Option<SocketAddr> {
        if let Some(known) = self.known(remote) {
            return Some(known);
        }
        let _context = self.runtime.enter();
        let place = self.shared.admit(remote, true)?;
        let local = place.socket.local_addr().ok();
        self.runtime
            .spawn(carry::call(Arc::clone(&self.shared), place));
        local
    }

    /// Asks about each connection whether its other end is a peer. Those of strangers are closed after a while,
    /// those of peers once they are of no more use.
    pub(crate) fn judge(&self, is_way: impl Fn(SocketAddr) -> bool, now: Instant) {
        for (remote, connection) in &mut self.shared.table().connections {
            if is_way(*remote) {
                connection.is_proven = true;
            } else if connection.is_proven || now >= connection.opened + PROVES_WITHIN {
                connection.end.notify_one();
            }
        }
    }

    /// The same about one, whose other end has just been heard.
    pub(crate) fn judge_one(&self, remote: SocketAddr, is_way: impl Fn(SocketAddr) -> bool) {
        let mut table = self.shared.table();
        let connection = table.connections.get_mut(&remote);
        if let Some(connection) = connection.filter(|connection| !connection.is_proven) {
            connection.is_proven = is_way(remote);
        }
    }

    /// Ends one.
    pub(crate) fn hang_up(&self, remote: SocketAddr) {
        if let Some(connection) = self.shared.table().connections.get(&remote) {
            connection.end.notify_one();
        }
    }

    /// Counts since the start.
    pub(crate) fn counters(&self) -> TcpCounters {
        let (shared, table) = (&self.shared, self.shared.table());
        let connections = || table.connections.values();
        let unproven = connections().filter(|connection| !connection.is_proven);
        let dropped = connections().map(|connection| dropped(&connection.socket));
        TcpCounters {
            connections: table.connections.len() as u64,
            unproven: unproven.count() as u64,
            refused: shared.refused.load(Ordering::Relaxed),
            sent: shared.sent.load(Ordering::Relaxed),
            received: shared.received.load(Ordering::Relaxed),
            dropped: shared.dropped.load(Ordering::Relaxed) + dropped.sum::<u64>(),
        }
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            drop(stop);
            if thread.join().is_err() {
                tracing::error!("the thread that carries TCP had panicked");
            }
        }
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_any(&self) -> bool {
        !self.table().connections.is_empty()
    }

    /// Makes a place for a connection; nothing if there are too many. To be called in the runtime's context.
    fn admit(&self, remote: SocketAddr, is_outgoing: bool) -> Option<Place> {
        let mut table = self.table();
        let has_room = table.has_room_for(remote, is_outgoing);
        if !has_room {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        if !has_room && !table.make_room_for(remote, is_outgoing) {
            return None;
        }
        let (local, socket) = stand_in(self.plane)
            .inspect_err(|error| {
                tracing::warn!("no socket for the connection with {remote}: {error}")
            })
            .ok()?;
        let (socket, end) = (Arc::new(socket), Arc::new(Notify::new()));
        let connection = Connection {
            local,
            socket: Arc::clone(&socket),
            opened: Instant::now(),
            is_outgoing,
            is_proven: false,
            is_ending: false,
            end: Arc::clone(&end),
        };
        table.connections.insert(remote, connection);
        table.remotes.insert(local, remote);
        Some(Place {
            remote,
            socket,
            end,
        })
    }

    /// A connection is over. Whoever knows of it is told.
    fn remove(&self, place: &Place) {
        let mut table = self.table();
        let Some(gone) = table.connections.remove(&place.remote) else {
            return;
        };
        table.remotes.remove(&gone.local);
        if table.ended.len() >= CONNECTIONS_MAX {
            table.ended.pop_front();
        }
        table.ended.push_back((gone.local, Instant::now()));
        self.dropped
            .fetch_add(dropped(&gone.socket), Ordering::Relaxed);
        if gone.is_outgoing || gone.is_proven {
            // Should there be no room, its path dies by itself.
            let _ = self.closed.try_send(place.remote);
        }
    }
}

impl Table {
    fn has_room_for(&self, remote: SocketAddr, is_outgoing: bool) -> bool {
        let has_place = self.has_place(remote, is_outgoing);
        let same = self.strangers_of(Some(source(remote.ip()))).count();
        let all = self.strangers_of(None).count();
        has_place && (is_outgoing || (all < UNPROVEN_MAX && same < UNPROVEN_PER_SOURCE))
    }

    fn has_place(&self, remote: SocketAddr, is_outgoing: bool) -> bool {
        let kept = if is_outgoing { 0 } else { OUTGOING_KEPT };
        let is_full = self.connections.len() + kept >= CONNECTIONS_MAX;
        !is_full && !self.connections.contains_key(&remote)
    }

    /// Connections that others have opened and that belong to nobody known, of one source or of all.
    fn strangers_of(&self, of: Option<u128>) -> impl Iterator<Item = (&SocketAddr, &Connection)> {
        self.connections.iter().filter(move |(remote, one)| {
            let is_strange = !one.is_proven && !one.is_outgoing && !one.is_ending;
            is_strange && of.is_none_or(|of| source(remote.ip()) == of)
        })
    }

    /// Ends the stranger's connection that has been there for longest, of the same source if that has too many:
    /// peers prove themselves within a few round trips, and who only occupies places keeps nobody out. Whether there is
    /// room then.
    fn make_room_for(&mut self, remote: SocketAddr, is_outgoing: bool) -> bool {
        if is_outgoing || !self.has_place(remote, is_outgoing) {
            return false;
        }
        let own = source(remote.ip());
        let is_own = self.strangers_of(Some(own)).count() >= UNPROVEN_PER_SOURCE;
        let strangers = self.strangers_of(is_own.then_some(own));
        let oldest = strangers.min_by_key(|(_, one)| one.opened);
        let Some(oldest) = oldest.map(|(remote, _)| *remote) else {
            return false;
        };
        if let Some(oldest) = self.connections.get_mut(&oldest) {
            oldest.is_ending = true;
            oldest.end.notify_one();
        }
        true
    }
}

/// An IPv4 host or an IPv6 /64 counts as one source.
fn source(ip: IpAddr) -> u128 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip) | u128::from(u64::MAX),
    }
}

/// A socket that only talks with the data plane.
fn stand_in(plane: SocketAddr) -> io::Result<(SocketAddr, UdpSocket)> {
    let socket = std::net::UdpSocket::bind(SocketAddr::new(plane.ip(), 0))?;
    socket.connect(plane)?;
    socket.set_nonblocking(true)?;
    socket2::SockRef::from(&socket).set_recv_buffer_size(QUEUE_LEN)?;
    Ok((socket.local_addr()?, UdpSocket::from_std(socket)?))
}

fn dropped(socket: &UdpSocket) -> u64 {
    rmesh_router::datagrams_dropped(socket)
}

/// Listeners at a port of these addresses, or of all of both families, where one that this host does not have is
/// left out.
fn listen(
    (bind, interface): (&[IpAddr], Option<&str>),
    port: u16,
) -> io::Result<Vec<std::net::TcpListener>> {
    let any = [
        IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    ];
    let is_any = bind.is_empty();
    let (mut listeners, mut port) = (Vec::new(), port);
    for ip in if is_any { &any } else { bind } {
        match listen_at(SocketAddr::new(*ip, port), interface) {
            Ok(listener) => {
                port = listener.local_addr()?.port();
                listeners.push(listener);
            }
            Err(error)
                if is_any
                    && matches!(
                        error.raw_os_error(),
                        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
                    ) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(listeners)
}

fn listen_at(address: SocketAddr, interface: Option<&str>) -> io::Result<std::net::TcpListener> {
    let kind = (Domain::for_address(address), Type::STREAM);
    let socket = Socket::new(kind.0, kind.1, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if let Some(interface) = interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    // A router that starts again need not wait for the connections of its last life.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
