//! What carries one connection: two loops, and their end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rmesh_wire::datagram::{HEADER_LEN, Header};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::{Place, Shared};

/// A call that is not answered by then has failed.
const CALL_MAX: Duration = Duration::from_secs(5);
/// Bytes before each datagram, which say its length.
const PREFIX_LEN: usize = 2;
/// The longest datagram there is.
const DATAGRAM_LEN_MAX: usize = u16::MAX as usize;
/// Bytes written at once, at most.
const BLOCK_LEN: usize = 64 << 10;
/// Bytes the kernel takes before the connection has room for them: what waits longer than that is to
/// wait where whole datagrams are dropped.
const UNSENT_MAX: u32 = 32 << 10;
/// A connection that is silent is asked after this time, and again, so often.
const KEEPALIVE: [Duration; 2] = [Duration::from_secs(15), Duration::from_secs(5)];
const KEEPALIVE_TRIES: u32 = 3;
/// What was sent has to be acknowledged within this time, or the connection is over.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(15);
/// Pause after what can only be for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Takes calls for ever.
pub(super) async fn accept(shared: Arc<Shared>, listener: std::net::TcpListener) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("nobody can call by TCP: {error}"),
    };
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                if let Some(place) = shared.admit(remote, false) {
                    tokio::spawn(carry(Arc::clone(&shared), place, stream));
                }
            }
            Err(error) => {
                tracing::debug!("cannot take a call by TCP: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Calls, and carries what then comes.
pub(super) async fn call(shared: Arc<Shared>, place: Place) {
    let called = tokio::select! {
        called = timeout(CALL_MAX, connect(&shared, place.remote)) => called,
        () = place.end.notified() => return shared.remove(&place),
    };
    match called {
        Ok(Ok(stream)) => carry(shared, place, stream).await,
        Ok(Err(error)) => {
            tracing::debug!("cannot call {} by TCP: {error}", place.remote);
            shared.remove(&place);
        }
        Err(_) => shared.remove(&place),
    }
}

async fn connect(shared: &Shared, remote: SocketAddr) -> io::Result<TcpStream> {
    let socket = match remote {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(interface) = &shared.interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    let mut bind = shared.bind.iter();
    if let Some(ip) = bind.find(|ip| ip.is_ipv4() == remote.is_ipv4()) {
        socket.bind(SocketAddr::new(*ip, 0))?;
    }
    socket.connect(remote).await
}

/// Carries both ways until one end is over, or nobody wants the connection any more.
async fn carry(shared: Arc<Shared>, place: Place, stream: TcpStream) {
    let remote = place.remote;
    let result = match prepare(&stream) {
        Err(error) => Err(error),
        Ok(()) => {
            let (reader, writer) = stream.into_split();
            tokio::select! {
                result = inward(&shared, &place.socket, reader) => result,
                result = outward(&shared, &place.socket, writer) => result,
                () = place.end.notified() => Ok(()),
            }
        }
    };
    match result {
        Ok(()) => tracing::debug!("the TCP connection with {remote} is closed"),
        Err(error) => tracing::debug!("the TCP connection with {remote} has ended: {error}"),
    }
    shared.remove(&place);
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let [idle, interval] = KEEPALIVE;
    let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval);
    socket.set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_TRIES))?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    socket.set_tcp_notsent_lowat(UNSENT_MAX)
}

/// From the network to the data plane.
async fn inward(shared: &Shared, plane: &UdpSocket, mut reader: OwnedReadHalf) -> io::Result<()> {
    let mut buffer = vec![0; BLOCK_LEN + PREFIX_LEN + DATAGRAM_LEN_MAX];
    let mut filled = 0;
    loop {
        match reader.read(&mut buffer[filled..]).await? {
            0 => return Ok(()),
            read => filled += read,
        }
        let mut from = 0;
        while let Some(datagram) = first(&buffer[from..filled]) {
            if datagram.len() < HEADER_LEN || Header::decode(datagram).is_err() {
                return Err(io::Error::other("what comes is nothing that peers say"));
            }
            from += PREFIX_LEN + datagram.len();
            match plane.send(datagram).await {
                Ok(_) => _ = shared.received.fetch_add(1, Ordering::Relaxed),
                // The data plane is about to end, or to begin.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
            }
        }
        buffer.copy_within(from..filled, 0);
        filled -= from;
    }
}

/// The first datagram, if all of it is there.
fn first(bytes: &[u8]) -> Option<&[u8]> {
    let (prefix, rest) = bytes.split_first_chunk::<PREFIX_LEN>()?;
    rest.get(..usize::from(u16::from_be_bytes(*prefix)))
}

/// From the data plane to the network. While that takes nothing the socket's buffer fills, and then drops whole
/// datagrams.
async fn outward(shared: &Shared, plane: &UdpSocket, mut writer: OwnedWriteHalf) -> io::Result<()> {
    let mut block = vec![0; BLOCK_LEN + PREFIX_LEN + DATAGRAM_LEN_MAX];
    loop {
        plane.readable().await?;
        let (mut filled, mut count) = (0, 0);
        while filled < BLOCK_LEN {
            let (place, rest) = block[filled..].split_at_mut(PREFIX_LEN);
            match plane.try_recv(rest) {
                Ok(len) => {
                    let len = u16::try_from(len).map_err(io::Error::other)?;
                    place.copy_from_slice(&len.to_be_bytes());
                    filled += PREFIX_LEN + usize::from(len);
                    count += 1;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // That of an earlier datagram, told late.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
            }
        }
        writer.write_all(&block[..filled]).await?;
        shared.sent.fetch_add(count, Ordering::Relaxed);
    }
}
