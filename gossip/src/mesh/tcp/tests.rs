//! A few peers on wires that carry UDP or do not, and TCP always.

extern crate std;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use core::net::Ipv4Addr;

use rmesh_wire::Boot;

use super::*;
use crate::api::{Config, Target};
use crate::crypto::Key;
use crate::crypto::model::ModelCrypto;

const PORT: u16 = 6_783;
/// The port that connections of one peer come from.
const CALLING: u16 = 40_000;

pub(crate) struct World {
    pub(crate) peers: Vec<Mesh>,
    pub(crate) now: Instant,
    /// One that does nothing and hears nothing.
    pub(crate) asleep: Option<usize>,
    /// Pairs between which no UDP passes.
    blocked: Vec<[usize; 2]>,
    /// First messages, questions and all else that was sent by TCP.
    by_tcp: usize,
}

pub(crate) fn at(peer: usize) -> SocketAddr {
    let ip = Ipv4Addr::new(192, 0, 2, peer as u8 + 1);
    SocketAddr::new(ip.into(), PORT)
}

/// Peers that all call the first one.
pub(crate) fn world(count: usize, blocked: &[[usize; 2]]) -> World {
    world_of(count, blocked, |_, mesh| mesh)
}

fn world_of(count: usize, blocked: &[[usize; 2]], made: impl Fn(usize, Mesh) -> Mesh) -> World {
    let now = Instant::from_nanos(1 << 40);
    let peer = |number: usize| {
        let config = Config {
            identity: Key::new([number as u8 + 1; 32]),
            secret: Key::new([9; 32]),
            name: std::format!("p{number}"),
            boot: Boot {
                counter: 1,
                random: number as u64,
            },
            seed: [number as u8; 32],
            port: PORT,
            mtu_bytes: 1_328,
            advertise: Vec::new(),
        };
        let mesh = Mesh::new(config, Box::new(ModelCrypto), now).with_tcp(PORT);
        let mut mesh = made(number, mesh);
        mesh.handle_local_addresses(vec![at(number).ip()], now);
        if number > 0 {
            let target = Target {
                name: String::from("first"),
                addresses: vec![at(0)],
            };
            mesh.handle_targets(vec![target], now);
        }
        mesh
    };
    World {
        peers: (0..count).map(peer).collect(),
        now,
        asleep: None,
        blocked: blocked.to_vec(),
        by_tcp: 0,
    }
}

impl World {
    /// Lets time pass, and everything that falls due in it.
    pub(crate) fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 50 {
            self.now = self.now + Duration::from_millis(20);
            for number in (0..self.peers.len())
                .filter(|at| self.asleep != Some(*at))
                .collect::<Vec<_>>()
            {
                if self.peers[number]
                    .poll_timeout()
                    .is_some_and(|(due, _)| due <= self.now)
                {
                    self.peers[number].handle_timeout(self.now);
                }
            }
            while (0..self.peers.len()).any(|number| self.carry(number)) {}
        }
    }

    fn carry(&mut self, from: usize) -> bool {
        let mut sent = Vec::new();
        while let Some(transmit) = self.peers[from].poll_transmit() {
            sent.push(transmit);
        }
        for transmit in &sent {
            let remote = crate::tcp::tcp_remote(transmit.destination);
            let to = remote.unwrap_or(transmit.destination);
            let Some(peer) = (0..self.peers.len()).find(|peer| at(*peer).ip() == to.ip()) else {
                continue;
            };
            let source = match remote {
                // Who called hears from where it called.
                Some(to) if to.port() == CALLING => over_tcp(at(from)),
                Some(_) => over_tcp(SocketAddr::new(at(from).ip(), CALLING)),
                None => at(from),
            };
            self.by_tcp += usize::from(remote.is_some());
            let pair = [from.min(peer), from.max(peer)];
            let passes = remote.is_some() || !self.blocked.contains(&pair);
            if passes && self.asleep != Some(peer) {
                self.peers[peer].handle_datagram(source, &transmit.bytes, self.now);
            }
        }
        !sent.is_empty()
    }

    /// The path from one to another.
    pub(crate) fn path(&self, from: usize, to: usize) -> Option<Path> {
        let id = self.peers[to].id();
        let report = self.peers[from].report(self.now);
        let mut of = report.peers.into_iter().filter(|peer| peer.id == id);
        of.next()?.path
    }
}

#[test]
fn who_cannot_be_called_by_udp_is_called_by_tcp_after_a_while() {
    let mut world = world(2, &[[0, 1]]);
    world.run(UDP_PATIENCE.as_secs() - 1);
    assert_eq!((world.by_tcp, world.path(1, 0)), (0, None));
    world.run(3);
    assert_eq!(world.path(1, 0), Some(Path::Tcp(at(0))));
    assert!(matches!(world.path(0, 1), Some(Path::Tcp(_))));
    for peer in &world.peers {
        let own = peer.store.node(&peer.id()).unwrap();
        assert_eq!(
            own.addresses.as_slice().len(),
            1,
            "where TCP comes from is no address"
        );
    }
}

#[test]
fn tcp_takes_the_place_of_udp_that_ends_and_is_forgotten_when_it_works_again() {
    let mut world = world(2, &[]);
    world.run(3);
    assert_eq!(world.path(1, 0), Some(Path::Direct(at(0))));
    world.blocked.push([0, 1]);
    world.run(10);
    assert!(matches!(world.path(1, 0), Some(Path::Tcp(_))));
    let used = world.peers[1].peers.values().next().unwrap();
    let used = used.direct_address().unwrap();
    assert!(world.peers[1].has_way(used));
    let now = world.now;
    for (number, to) in [
        (1, used),
        (0, over_tcp(SocketAddr::new(at(1).ip(), CALLING))),
    ] {
        world.peers[number].handle_tcp_closed(to, now);
    }
    world.run(RETRY[0].as_secs() + 1);
    assert!(
        matches!(world.path(1, 0), Some(Path::Tcp(_))),
        "tried again"
    );
    world.blocked.clear();
    world.run(4);
    assert_eq!(world.path(1, 0), Some(Path::Direct(at(0))));
    world.run(UDP_SETTLED.as_secs() + 1);
    let counted = world.by_tcp;
    world.run(60);
    assert_eq!(world.by_tcp, counted);
    let ways = world.peers.iter().flat_map(|mesh| mesh.peers.values());
    assert!(
        ways.flat_map(|peer| peer.direct.keys())
            .all(|to| !is_tcp(*to))
    );
}

#[test]
fn who_is_relayed_does_not_try_tcp() {
    let mut world = world(3, &[[1, 2]]);
    world.run(60);
    let hub = world.peers[0].id();
    assert_eq!(world.path(1, 2), Some(Path::Relay(hub)));
    assert_eq!(world.by_tcp, 0);
}

#[test]
fn nothing_goes_through_a_host_that_carries_nothing_for_others() {
    let mut world = world_of(3, &[[1, 2]], |number, mesh| match number {
        0 => mesh.without_relaying(),
        _ => mesh,
    });
    world.run(20);
    assert_eq!(world.path(1, 0), Some(Path::Direct(at(0))));
    assert!(matches!(world.path(1, 2), Some(Path::Tcp(_))));
    assert!(matches!(world.path(2, 1), Some(Path::Tcp(_))));
    assert_eq!(
        world.peers[0].report(world.now).counters.datagrams_relayed,
        0
    );
}

#[test]
fn who_reaches_nobody_by_udp_keeps_two_links_by_tcp() {
    let mut world = world(5, &[[0, 4], [1, 4], [2, 4], [3, 4]]);
    world.run(60);
    let paths: Vec<Path> = (0..4).filter_map(|to| world.path(4, to)).collect();
    let by_tcp = paths.iter().filter(|path| matches!(path, Path::Tcp(_)));
    assert_eq!(
        (paths.len(), by_tcp.count()),
        (4, LINKS_WANTED),
        "{paths:?}"
    );
    world.blocked.extend([[0, 1], [0, 2], [0, 3]]);
    world.peers.truncate(5);
    world.run(30);
    assert!((0..4).all(|to| world.path(4, to).is_some()));
}
