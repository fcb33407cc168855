//! Planes on loopback with hand-made snapshots; their bridges are ends of socket pairs.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use rmesh_gossip::api::FloodTree;
use rmesh_gossip::crypto::Key;
use rmesh_gossip::{Forwarding, Path, PeerForwarding, SessionKeys, SourcePorts};
use rmesh_router::port::{FrameBatch, Port};
use rmesh_router::{Control, Inbound, Plane, PlaneOptions, Without};
use rmesh_wire::handshake::Cipher;
use rmesh_wire::{Boot, Mac, PeerId};
use rustix::event::PollFlags;
use tokio::sync::mpsc::{self, Receiver, UnboundedReceiver, UnboundedSender};

/// Messages of the workers the control side of a test lets wait.
const INBOX_LEN: usize = 64;

/// A port whose other end a test holds.
struct PairPort(UnixDatagram);

impl Port for PairPort {
    fn name(&self) -> &str {
        "pair"
    }

    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn read_batch(&mut self, batch: &mut FrameBatch) -> io::Result<()> {
        batch.fill(|bytes| self.0.recv(bytes))
    }

    fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        self.0.send(frame).map(|_| ())
    }
}

/// One peer: its plane, the bridge's end of its port, and what its control side is told by workers and
/// receives itself.
pub struct Peer {
    pub number: u8,
    pub plane: Plane,
    pub bridge: UnixDatagram,
    inbox: Receiver<Inbound>,
    received: UnboundedReceiver<Inbound>,
    pub forwarding: Forwarding,
}

pub fn id(number: u8) -> PeerId {
    PeerId([number; 16])
}

/// MAC of the container at `number`.
pub fn mac(number: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, number])
}

/// A frame of local experimental EtherType 1 with `len` bytes of recognisable body.
pub fn frame(to: Mac, from: Mac, body: &[u8]) -> Vec<u8> {
    [&to.0[..], &from.0, &[0x88, 0xb5], body].concat()
}

/// Size of the smallest path IPv6 allows, as UDP payload.
pub const SMALL_PATH: u16 = 1280 - 48;

/// Reads what is for the control side until nobody wants it any more.
fn read(mut control: Control, sender: &UnboundedSender<Inbound>) {
    let descriptors = control.descriptors().unwrap();
    let short = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 20_000_000,
    };
    while !sender.is_closed() {
        let entry = |descriptor| rustix::event::PollFd::new(descriptor, PollFlags::IN);
        let mut entries: Vec<_> = descriptors.iter().map(entry).collect();
        rustix::event::poll(&mut entries, Some(&short)).unwrap();
        let ready = entries.iter().map(|entry| !entry.revents().is_empty());
        let mut inbound = Vec::new();
        for (number, _) in ready.enumerate().filter(|(_, ready)| *ready) {
            if control.is_strangers(number) && !control.rest(Instant::now()).is_zero() {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            control.receive(number, &mut inbound);
        }
        for inbound in inbound {
            let _ = sender.send(inbound);
        }
    }
}

impl Peer {
    pub fn start(number: u8) -> Peer {
        Peer::start_with(number, options("pair"))
    }

    pub fn start_with(number: u8, options: PlaneOptions) -> Peer {
        let (port, bridge) = UnixDatagram::pair().unwrap();
        port.set_nonblocking(true).unwrap();
        bridge
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        let (sender, inbox) = mpsc::channel(INBOX_LEN);
        let port = Box::new(PairPort(port));
        let plane = Plane::start_on(vec![port], options, sender).unwrap();
        let control = plane.take_control().unwrap();
        let (sender, received) = mpsc::unbounded_channel();
        std::thread::spawn(move || read(control, &sender));
        Peer {
            number,
            plane,
            bridge,
            inbox,
            received,
            forwarding: forwarding_of(number),
        }
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::new([127, 0, 0, 1].into(), self.plane.port())
    }

    pub fn publish(&self) {
        self.plane.publish(self.forwarding.clone());
    }

    /// Adds a session with `other` that leaves by `path`.
    pub fn know(&mut self, other: u8, path: Path) {
        know(&mut self.forwarding, self.number, other, path);
    }

    /// Sends a frame from the bridge.
    pub fn inject(&self, frame: &[u8]) {
        self.bridge.send(frame).unwrap();
    }

    /// The next frame delivered to the bridge that is no second-way probe.
    pub fn delivered(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 66_000];
        loop {
            let len = self.bridge.recv(&mut bytes).ok()?;
            if matches!(bytes[12..14], [0x88, 0xb5] | [8, 0]) {
                return Some(bytes[..len].to_vec());
            }
        }
    }

    /// Asserts that nothing more is delivered for a while.
    pub fn assert_silent(&self, for_long: Duration) {
        self.bridge.set_read_timeout(Some(for_long)).unwrap();
        assert_eq!(self.delivered(), None, "peer {}", self.number);
        let long = Some(Duration::from_secs(2));
        self.bridge.set_read_timeout(long).unwrap();
    }

    /// The next message to the control side, within two seconds.
    pub fn told(&mut self) -> Option<Inbound> {
        let mut told = None;
        wait_until(|| {
            told = self.already_told();
            told.is_some()
        });
        told
    }

    /// The next message to the control side, if one waits.
    pub fn already_told(&mut self) -> Option<Inbound> {
        let received = self.received.try_recv();
        received.or_else(|_| self.inbox.try_recv()).ok()
    }

    pub fn dropped(&self, reason: &str) -> u64 {
        let counters = self.plane.counters();
        counters.drops.get(reason).copied().unwrap_or(0)
    }

    /// Waits until `count` drops for `reason` are counted.
    pub fn assert_drops(&self, reason: &str, count: u64) {
        wait_until(|| self.dropped(reason) >= count);
        assert_eq!(self.dropped(reason), count, "{reason}");
    }
}

pub fn options(tap: &str) -> PlaneOptions {
    PlaneOptions {
        bridge: "rmesh".to_owned(),
        tap: tap.to_owned(),
        bind: vec![[127, 0, 0, 1].into()],
        port: 0,
        mtu_bytes: 1328,
        workers: 1,
        interface: None,
        relay_limit: None,
        without: Without::default(),
    }
}

/// A snapshot of a peer that knows nobody yet.
pub fn forwarding_of(number: u8) -> Forwarding {
    Forwarding {
        me: id(number),
        boot: Boot {
            counter: 1,
            random: u64::from(number) << 32 | 1,
        },
        macs: [(mac(number), id(number))].into(),
        ..Forwarding::default()
    }
}

/// Keys that both ends of a pair compute alike.
pub fn know(forwarding: &mut Forwarding, me: u8, other: u8, path: Path) {
    let key = |from: u8, to: u8| Key::new([from * 16 + to; 32]);
    let index = |at: u8, of: u8| u32::from(at) << 8 | u32::from(of);
    forwarding.sessions.push(SessionKeys {
        peer: id(other),
        local_index: index(me, other),
        remote_index: index(other, me),
        cipher: Cipher::ChaCha20Poly1305,
        seal_key: key(me, other),
        open_key: key(other, me),
    });
    let reached = PeerForwarding {
        session: Some(index(me, other)),
        path: Some(path),
        path_epoch: 0,
        datagram_len_max: SMALL_PATH,
        is_len_found: true,
        source_ports: SourcePorts::default(),
    };
    forwarding.peers.insert(id(other), reached);
    forwarding.macs.insert(mac(other), id(other));
    let next_hop = match path {
        Path::Direct(_) | Path::Tcp(_) => id(other),
        Path::Relay(neighbour) => neighbour,
    };
    let short = id(other).short_id();
    forwarding.next_hops.insert(short, next_hop);
}

pub fn tree(parent: Option<u8>, children: &[u8]) -> FloodTree {
    FloodTree {
        parent: parent.map(id),
        children: children.iter().map(|child| id(*child)).collect(),
    }
}

/// Peers 1 to `count`; each knows those that `adjacent` says directly. Nothing is published yet.
pub fn mesh(count: u8, adjacent: impl Fn(u8, u8) -> bool) -> Vec<Peer> {
    let mut peers: Vec<_> = (1..=count).map(Peer::start).collect();
    introduce(&mut peers, adjacent);
    peers
}

/// The same for peers that are there.
pub fn introduce(peers: &mut [Peer], adjacent: impl Fn(u8, u8) -> bool) {
    let addresses: Vec<_> = peers.iter().map(Peer::address).collect();
    for peer in peers {
        for (other, address) in (1..).zip(&addresses) {
            if other != peer.number && adjacent(peer.number, other) {
                peer.know(other, Path::Direct(*address));
            }
        }
    }
}

pub fn publish_all(peers: &[Peer]) {
    peers.iter().for_each(Peer::publish);
}

/// Two peers that know each other, also as flood neighbours.
pub fn pair() -> (Peer, Peer) {
    let mut peers = mesh(2, |_, _| true);
    for peer in &mut peers {
        let (me, other) = (peer.number, 3 - peer.number);
        let floods = &mut peer.forwarding.floods;
        floods.insert(id(me).short_id(), tree(None, &[other]));
        floods.insert(id(other).short_id(), tree(Some(other), &[]));
    }
    publish_all(&peers);
    let second = peers.pop().unwrap();
    (peers.pop().unwrap(), second)
}

/// A socket in the middle of a path, whose datagrams a test passes on by hand.
pub fn wire() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let timeout = Some(Duration::from_secs(2));
    socket.set_read_timeout(timeout).unwrap();
    socket
}

pub fn next_datagram(wire: &UdpSocket) -> Vec<u8> {
    let mut bytes = vec![0; 66_000];
    let len = wire.recv(&mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}

/// Waits up to two seconds for `condition`.
pub fn wait_until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(2);
    while !condition() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
}
