//! Three peers in a row; the two at the ends reach each other through the middle only.

extern crate std;

use alloc::boxed::Box;
use alloc::vec;
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;

use rmesh_wire::{Boot, Mac};

use super::*;
use crate::api::{Config, Endpoint, Event, Target};
use crate::crypto::Key;
use crate::crypto::model::ModelCrypto;
use crate::topology::control::CHANNEL_LEN_MAX;

/// Largest UDP payload of a path whose size is not proven: IPv6's smallest packet (RFC 8200).
const PAYLOAD_LEN_MAX: usize = 1_280 - 48;

fn at(host: usize) -> SocketAddr {
    let host = u8::try_from(host + 1).unwrap();
    SocketAddr::new(Ipv4Addr::new(192, 0, 2, host).into(), 6_783)
}

struct Row {
    peers: Vec<Mesh>,
    now: Instant,
}

impl Row {
    fn new() -> Self {
        let now = Instant::from_nanos(1 << 40);
        let mesh = |number: u8| {
            let config = Config {
                identity: Key::new([number; 32]),
                secret: Key::new([9; 32]),
                name: alloc::format!("host{number}"),
                boot: Boot {
                    counter: 1,
                    random: number.into(),
                },
                seed: [number; 32],
                port: 6_783,
                mtu_bytes: 1_328,
                advertise: Vec::new(),
            };
            Mesh::new(config, Box::new(ModelCrypto), now)
        };
        let peers = [1, 2, 3].into_iter().map(mesh).collect();
        let mut row = Row { peers, now };
        for end in [0, 2] {
            let target = |name: &str, host| Target {
                name: name.into(),
                addresses: vec![at(host)],
            };
            let targets = vec![target("middle", 1), target("also the middle", 1)];
            row.peers[end].handle_targets(targets, now);
        }
        row
    }

    fn id(&self, peer: usize) -> PeerId {
        self.peers[peer].id()
    }

    /// Lets time pass; returns the length of the longest datagram.
    fn run(&mut self, time: Duration) -> usize {
        let end = self.now + time;
        let mut longest = 0;
        while self.now < end {
            self.now = self.now + Duration::from_millis(20);
            for peer in &mut self.peers {
                peer.handle_timeout(self.now);
            }
            longest = longest.max(self.carry());
        }
        longest
    }

    fn carry(&mut self) -> usize {
        let mut longest = 0;
        for _ in 0..4 {
            for from in 0..3 {
                while let Some(sent) = self.peers[from].poll_transmit() {
                    longest = longest.max(sent.bytes.len());
                    let to = (0..3).find(|host| at(*host) == sent.destination);
                    let Some(to) = to.filter(|to| to.abs_diff(from) == 1) else {
                        continue;
                    };
                    self.peers[to].handle_datagram(at(from), &sent.bytes, self.now);
                }
            }
        }
        longest
    }

    /// Channel messages that arrived at a peer.
    fn messages(&mut self, peer: usize) -> Vec<(PeerId, u8, Vec<u8>)> {
        let mut messages = Vec::new();
        while let Some(event) = self.peers[peer].poll_event() {
            if let Event::ChannelMessage {
                peer,
                channel,
                bytes,
            } = event
            {
                messages.push((peer, channel, bytes));
            }
        }
        messages
    }
}

fn announced(mesh: &mut Mesh) -> Vec<(PeerId, Vec<IpAddr>)> {
    core::iter::from_fn(|| mesh.poll_announced()).collect()
}

#[test]
fn the_longest_channel_message_arrives_directly_and_through_a_relay() {
    let mut row = Row::new();
    row.run(Duration::from_secs(5));
    let (first, now) = (row.id(0), row.now);
    for to in [1, 2] {
        row.messages(to);
        let peer = row.id(to);
        let bytes: Vec<u8> = (0..CHANNEL_LEN_MAX).map(|n| n as u8).collect();
        row.peers[0].handle_channel_send(peer, 7, &bytes, now);
        let longest = row.run(Duration::from_millis(100));
        assert_eq!(row.messages(to), [(first, 7, bytes)]);
        assert!(longest <= PAYLOAD_LEN_MAX, "{longest} bytes");
        std::println!("{CHANNEL_LEN_MAX} bytes to peer {to} take a datagram of {longest}");
    }
}

#[test]
fn a_message_for_a_peer_without_a_session_opens_one() {
    let mut row = Row::new();
    row.run(Duration::from_secs(5));
    let last = row.id(2);
    let (open, now): (Vec<u32>, _) = (row.peers[0].sessions.keys().copied().collect(), row.now);
    for index in open {
        if row.peers[0].sessions[&index].agreement.peer == last {
            row.peers[0].drop_session(index, now);
        }
    }
    row.messages(2);
    let mut sent = 0;
    while row.messages(2).is_empty() {
        sent += 1;
        assert!(sent < 10, "no message arrives");
        row.peers[0].handle_channel_send(last, 7, b"again", row.now);
        row.run(Duration::from_millis(500));
    }
}

#[test]
fn members_are_told_once_and_again_after_a_change() {
    let mut row = Row::new();
    row.run(Duration::from_secs(5));
    row.messages(0);
    let mut members = row.peers[0].poll_members().unwrap();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let member = |host: usize, neighbour| Member {
        peer: row.id(host),
        name: alloc::format!("host{}", host + 1),
        reachable: true,
        neighbour,
        listed: neighbour,
    };
    assert_eq!(members, [member(1, true), member(2, false)]);
    assert_eq!(row.peers[0].poll_members(), None);
    assert_eq!(row.peers[0].targets_of_others(), 1);
    let now = row.now;
    row.peers[2].handle_shutdown(now);
    row.run(Duration::from_secs(2));
    row.messages(0);
    let members = row.peers[0].poll_members().unwrap();
    let gone = members.iter().find(|member| member.peer == row.id(2));
    assert!(gone.is_none_or(|gone| !gone.reachable), "{gone:?}");
}

fn endpoint(number: u8) -> Endpoint {
    Endpoint {
        mac: Mac([2, 0, 0, 0, 0, number]),
        addresses: vec![alloc::format!("10.32.0.{number}/12").parse().unwrap()],
        name: String::new(),
        labels: Vec::new(),
    }
}

#[test]
fn addresses_are_told_when_they_change_and_stay_when_their_peer_goes() {
    let mut row = Row::new();
    row.run(Duration::from_secs(5));
    let (last, now) = (row.id(2), row.now);
    announced(&mut row.peers[0]);
    // More than one section.
    let endpoints: Vec<Endpoint> = (1..=12).map(endpoint).collect();
    row.peers[2].handle_endpoints(endpoints, now);
    row.run(Duration::from_secs(1));
    let told = announced(&mut row.peers[0]);
    let (_, addresses) = told.iter().rfind(|(peer, _)| *peer == last).unwrap();
    assert_eq!(addresses.len(), 12);
    let now = row.now;
    row.peers[2].handle_endpoints(vec![endpoint(3)], now);
    row.run(Duration::from_secs(1));
    let told = announced(&mut row.peers[0]);
    let (_, addresses) = told.iter().rfind(|(peer, _)| *peer == last).unwrap();
    assert_eq!(addresses, &["10.32.0.3".parse::<IpAddr>().unwrap()]);
    let now = row.now;
    row.peers[2].handle_shutdown(now);
    row.run(Duration::from_secs(2));
    let told = announced(&mut row.peers[0]);
    assert!(told.iter().all(|(peer, _)| *peer != last), "{told:?}");
}

#[test]
fn who_goes_without_leaving_a_container_behind_announces_nothing_any_more() {
    let mut row = Row::new();
    row.run(Duration::from_secs(5));
    let (last, now) = (row.id(2), row.now);
    row.peers[2].handle_endpoints(vec![endpoint(1)], now);
    row.run(Duration::from_secs(1));
    announced(&mut row.peers[0]);
    // At once: the record that says so is replaced by the last one before it is sent.
    let now = row.now;
    row.peers[2].handle_endpoints(Vec::new(), now);
    row.peers[2].handle_shutdown(now);
    row.run(Duration::from_secs(2));
    let told = announced(&mut row.peers[0]);
    assert!(told.contains(&(last, Vec::new())), "{told:?}");
}
