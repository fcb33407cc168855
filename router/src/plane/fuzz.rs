//! The data plane under a fuzzer: one engine between a port that counts and sockets of its own.
//!
//! The engine outlives an input: making one costs megabytes of buffers.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Instant;

use rmesh_gossip::api::FloodTree;
use rmesh_gossip::crypto::Key;
use rmesh_gossip::{Forwarding, Path, PeerForwarding, SessionKeys, SourcePorts};
use rmesh_wire::datagram::{HEADER_LEN, TAG_LEN};
use rmesh_wire::handshake::Cipher;
use rmesh_wire::relay::{INNER_OFFSET, RelayEnds, TTL};
use rmesh_wire::{Mac, PeerId};
use tokio::sync::mpsc;

use super::api::{Inbound, Without};
use super::buffer::Buffer;
use super::engine::Engine;
use super::fdb::Fdb;
use super::floods::Floods;
use super::inbox::Inbox;
use super::outbox::Outbox;
use super::reassembly::Reassembly;
use super::receive::Place;
use super::session::Session;
use super::shared::Shared;
use super::sockets::Sockets;
use super::stats::{PeerStats, WorkerStats};
use super::tables::Tables;
use super::too_big::TooBig;
use super::transmit::{Transmitter, Worker};
use crate::port::offload::{Offload, VIRTIO_HEADER_LEN};
use crate::port::{FrameBatch, Offloads, Port};

const ME: PeerId = PeerId([1; 16]);
/// The member that speaks.
const MEMBER: PeerId = PeerId([2; 16]);
/// Another one, reached directly.
const OTHER: PeerId = PeerId([3; 16]);
/// One reached through the other.
const FAR: PeerId = PeerId([4; 16]);
/// Payloads one input may hold.
const PAYLOADS_MAX: usize = 64;
/// Messages that may wait for the control side.
const INBOUND_MAX: usize = 64;

/// Frames that came out.
struct CountingPort;

impl Port for CountingPort {
    fn name(&self) -> &str {
        "fuzz"
    }

    fn fd(&self) -> RawFd {
        -1
    }

    fn offloads(&self) -> Offloads {
        Offloads {
            tcp: true,
            udp: true,
        }
    }

    fn write_parts(&mut self, parts: &[IoSlice<'_>], offload: &Offload) -> io::Result<()> {
        let len = parts.iter().map(|part| part.len()).sum();
        let checked = Offload::decode(&offload.encode(), len);
        assert_eq!(checked, Some(*offload), "what the kernel would refuse");
        Ok(())
    }

    fn read_batch(&mut self, _: &mut FrameBatch) -> io::Result<()> {
        Ok(())
    }

    fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        assert!(frame.len() >= 14, "a frame without an Ethernet header");
        Ok(())
    }
}

struct World {
    engine: Engine,
    tables: Tables,
    member: Session,
    inbound: mpsc::Receiver<Inbound>,
    /// Made once, so that what is measured is the engine's own use of memory.
    buffer: [Buffer; 1],
    batch: FrameBatch,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new());
}

fn keys(peer: PeerId, index: u32, seal: u8, open: u8) -> SessionKeys {
    SessionKeys {
        peer,
        local_index: index,
        remote_index: index,
        cipher: Cipher::ChaCha20Poly1305,
        seal_key: Key::new([seal; 32]),
        open_key: Key::new([open; 32]),
    }
}

/// Everybody is reached at `address`, where nobody reads.
fn forwarding(address: SocketAddr) -> Forwarding {
    let reached = |index: u32, path: Path| PeerForwarding {
        session: Some(index),
        path: Some(path),
        path_epoch: 0,
        datagram_len_max: 1_452,
        is_len_found: true,
        source_ports: SourcePorts::default(),
    };
    let tree = |parent: Option<PeerId>| FloodTree {
        parent,
        children: vec![OTHER],
    };
    Forwarding {
        me: ME,
        sessions: vec![
            keys(MEMBER, 2, 12, 21),
            keys(OTHER, 3, 13, 31),
            keys(FAR, 4, 14, 41),
        ],
        peers: [
            (MEMBER, reached(2, Path::Direct(address))),
            (OTHER, reached(3, Path::Direct(address))),
            (FAR, reached(4, Path::Relay(OTHER))),
        ]
        .into(),
        next_hops: [(OTHER.short_id(), OTHER), (FAR.short_id(), OTHER)].into(),
        macs: [(Mac([2; 6]), MEMBER), (Mac([4; 6]), FAR)].into(),
        floods: [
            (ME.short_id(), tree(None)),
            (MEMBER.short_id(), tree(Some(MEMBER))),
            (FAR.short_id(), tree(Some(MEMBER))),
        ]
        .into(),
        ..Forwarding::default()
    }
}

impl World {
    fn new() -> World {
        let sockets = Sockets::open(
            &[Ipv4Addr::LOCALHOST.into()],
            None,
            0,
            1,
            Without::default(),
        )
        .expect("a loopback socket");
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), sockets.port());
        let stats = Arc::new(WorkerStats::default());
        let (sender, inbound) = mpsc::channel(INBOUND_MAX);
        let outbox = Outbox::new(0, Arc::new(sockets), Arc::clone(&stats));
        let worker = Worker {
            number: 0,
            count: 1,
        };
        let transmitter = Transmitter::new(worker, outbox, Arc::clone(&stats));
        let (inbox, now) = (Inbox::new(sender, Arc::clone(&stats)), Instant::now());
        let shared = Arc::new(Shared::new(1, now));
        let tables = Tables::build(forwarding(address), &Tables::default(), 1, now);
        let other_end = Session::new(&keys(ME, 2, 21, 12), Arc::new(PeerStats::new(1)));
        World {
            engine: Engine::new(
                Box::new(CountingPort),
                transmitter,
                inbox,
                (stats, shared),
                now,
            ),
            tables,
            member: other_end.expect("a cipher spoken here"),
            inbound,
            buffer: [Buffer::default()],
            batch: FrameBatch::default(),
        }
    }

    /// Forgets what earlier inputs made the engine remember.
    fn forget(&mut self) {
        self.engine.fdb = Fdb::default();
        self.engine.shared.broadcasts().floods = Floods::default();
        self.engine.reassembly = Reassembly::default();
    }

    /// The datagram in the buffer has arrived.
    fn take(&mut self) {
        let (source, now) = (SocketAddr::new([192, 0, 2, 9].into(), 6783), Instant::now());
        let class = self.buffer[0].data().last().copied().unwrap_or(0);
        let (number, from) = (0, 0);
        let place = Place {
            number,
            from,
            class,
        };
        let batch = &mut self.buffer;
        let datagram = batch[0].data_mut();
        self.engine
            .handle_datagram(source, (datagram, place), &self.tables, now);
        self.engine.deliver_all(batch);
        self.end_turn(now);
    }

    fn end_turn(&mut self, now: Instant) {
        self.engine.handle_tick(&self.tables, now);
        self.engine.flush(now);
        while self.inbound.try_recv().is_ok() {}
    }
}

/// A datagram of a stranger.
pub(crate) fn datagram(bytes: &[u8]) {
    WORLD.with_borrow_mut(|world| {
        if world.buffer[0].assign(&[bytes]) {
            world.take();
        }
    });
}

/// Payloads of a member on a data lane: each after a length of 16 bits, whose highest bit says
/// that it comes as the inner datagram of a relay datagram for whom the next byte says.
pub(crate) fn member(mut bytes: &[u8]) {
    WORLD.with_borrow_mut(|world| {
        world.forget();
        for _ in 0..PAYLOADS_MAX {
            let Some((len, rest)) = bytes.split_first_chunk::<2>() else {
                return;
            };
            let len = u16::from_be_bytes(*len);
            let (payload, rest) = rest.split_at(rest.len().min(usize::from(len & 0x7fff)));
            bytes = rest;
            let (member, buffer) = (&world.member, &mut world.buffer[0]);
            let sealed = if len & 0x8000 == 0 {
                sealed(member, payload, buffer)
            } else {
                wrapped(member, payload, buffer)
            };
            if sealed {
                world.take();
            }
        }
    });
}

fn sealed(member: &Session, payload: &[u8], buffer: &mut Buffer) -> bool {
    buffer.assign(&[&[0; HEADER_LEN], payload, &[0; TAG_LEN]])
        && member.seal_record(1, buffer.data_mut(), |_| Ok(())).is_ok()
}

fn wrapped(member: &Session, payload: &[u8], buffer: &mut Buffer) -> bool {
    let Some((whom, inner)) = payload.split_first() else {
        return false;
    };
    let destination = match whom & 3 {
        0 => ME,
        1 => OTHER,
        2 => MEMBER,
        _ => FAR,
    };
    let destination = destination.short_id();
    let ends = RelayEnds {
        source: FAR.short_id(),
        destination,
    };
    let ttl = TTL.min(whom >> 2);
    buffer.assign(&[&[0; INNER_OFFSET], inner, &[0; TAG_LEN]])
        && member.wrap(1, ends, ttl, buffer.data_mut()).is_ok()
}

/// A frame from the host's own bridge, which containers make.
pub(crate) fn frame(bytes: &[u8]) {
    from_bridge(bytes, Offload::default());
}

/// The same behind a virtio header.
pub(crate) fn super_frame(bytes: &[u8]) {
    if let Some((header, frame)) = bytes.split_first_chunk::<VIRTIO_HEADER_LEN>()
        && let Some(offload) = Offload::decode(header, frame.len())
    {
        from_bridge(frame, offload);
    }
}

fn from_bridge(bytes: &[u8], offload: Offload) {
    WORLD.with_borrow_mut(|world| {
        world.forget();
        let mut waiting = Some(bytes);
        let filled = world.batch.fill_offloaded(|space| {
            let frame = waiting.take().unwrap_or_default();
            let len = frame.len().min(space.len());
            space[..len].copy_from_slice(&frame[..len]);
            Ok((len, offload))
        });
        assert!(filled.is_ok());
        let now = Instant::now();
        world.engine.handle_frames(&world.batch, &world.tables, now);
        world.end_turn(now);
    });
}

/// A frame that is too long for a path which takes frames of the length in front of it.
pub(crate) fn too_big(bytes: &[u8]) {
    let Some((first, frame)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let (now, len_max) = (Instant::now(), usize::from(u16::from_be_bytes(*first)));
    let mut too_big = TooBig::new(now);
    if let Some(message) = too_big.message(&[frame], len_max, now) {
        assert!((14 + 28..=22 + 1_280).contains(&message.len()));
        assert_eq!(message[..6], frame[6..12], "to the sender");
        assert!(frame.len() > len_max, "it would have fitted");
    }
}
