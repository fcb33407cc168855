//! The peers between which frames go, and their ports.

use std::io::{self, IoSlice};
use std::os::fd::RawFd;

use rmesh_gossip::api::FloodTree;
use rmesh_gossip::crypto::Key;
use rmesh_gossip::{Forwarding, Path, PeerForwarding, SessionKeys, SourcePorts};
use rmesh_router::plane::counting::{ADDRESS, Stand};
use rmesh_router::port::offload::Offload;
use rmesh_router::port::{FrameBatch, Offloads, Port};
use rmesh_wire::handshake::Cipher;
use rmesh_wire::{Mac, PeerId};

use crate::frames::{Frame, mac};

/// The peers: two that talk, and one between them.
pub(crate) const FROM: u8 = 1;
pub(crate) const TO: u8 = 2;
pub(crate) const BETWEEN: u8 = 3;
const ALL: [u8; 3] = [FROM, TO, BETWEEN];
/// UDP payload of a packet of 1,500 bytes over IPv4.
const DATAGRAM_LEN_MAX: u16 = 1_472;

/// Gives the same frames whenever it is read, and forgets what is written.
struct Memory {
    frames: Vec<Frame>,
}

impl Port for Memory {
    fn name(&self) -> &str {
        "memory"
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

    fn read_batch(&mut self, batch: &mut FrameBatch) -> io::Result<()> {
        let mut frames = self.frames.iter();
        batch.fill_offloaded(|space| {
            let (frame, offload) = frames.next().ok_or(io::ErrorKind::WouldBlock)?;
            let place = space.get_mut(..frame.len());
            place
                .ok_or(io::ErrorKind::InvalidInput)?
                .copy_from_slice(frame);
            Ok((frame.len(), *offload))
        })
    }

    fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        std::hint::black_box(frame);
        Ok(())
    }

    fn write_parts(&mut self, parts: &[IoSlice<'_>], offload: &Offload) -> io::Result<()> {
        std::hint::black_box((parts, offload));
        Ok(())
    }
}

/// How the two that talk reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    Direct,
    /// Over the one between them.
    Relayed,
}

/// A worker of the peer `me`, whose bridge sends `frames` each turn.
pub(crate) fn peer(me: u8, reach: Reach, frames: Vec<Frame>) -> Stand {
    let stand = Stand::new(Box::new(Memory { frames }), forwarding(me, reach));
    stand.unwrap_or_else(|error| panic!("{error}"))
}

fn id(of: u8) -> PeerId {
    PeerId([of; 16])
}

fn keys(me: u8, other: u8) -> SessionKeys {
    let name = |from: u8, to: u8| from * 10 + to;
    SessionKeys {
        peer: id(other),
        local_index: name(me, other).into(),
        remote_index: name(other, me).into(),
        cipher: Cipher::Aes256Gcm,
        seal_key: Key::new([name(me, other); 32]),
        open_key: Key::new([name(other, me); 32]),
    }
}

fn forwarding(me: u8, reach: Reach) -> Forwarding {
    let others = || ALL.into_iter().filter(move |other| *other != me);
    let is_far = |other: u8| reach == Reach::Relayed && me != BETWEEN && other != BETWEEN;
    let reached = |other: u8| {
        let path = match is_far(other) {
            true => Path::Relay(id(BETWEEN)),
            false => Path::Direct(ADDRESS),
        };
        let reached = PeerForwarding {
            session: Some(keys(me, other).local_index),
            path: Some(path),
            path_epoch: 0,
            datagram_len_max: DATAGRAM_LEN_MAX,
            is_len_found: true,
            source_ports: SourcePorts::default(),
        };
        (id(other), reached)
    };
    let next_hop = |other: u8| {
        let next = if is_far(other) { BETWEEN } else { other };
        (id(other).short_id(), id(next))
    };
    // What the first floods goes to the one between them, which passes it on.
    let (parent, children) = match me {
        FROM => (None, vec![id(BETWEEN)]),
        BETWEEN => (Some(id(FROM)), vec![id(TO)]),
        _ => (Some(id(BETWEEN)), vec![]),
    };
    let tree = FloodTree { parent, children };
    Forwarding {
        me: id(me),
        sessions: others().map(|other| keys(me, other)).collect(),
        peers: others().map(reached).collect(),
        next_hops: others().map(next_hop).collect(),
        macs: ALL.map(|of| (Mac(mac(of)), id(of))).into(),
        floods: [(id(FROM).short_id(), tree)].into(),
        ..Forwarding::default()
    }
}
