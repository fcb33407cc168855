//! Two meshes with a sealed way and a tunnel between them, each of which may be blocked either way.

extern crate std;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use rmesh_wire::{Boot, Instant};

use crate::api::{Config, Event, FastForwarding, Target};
use crate::crypto::Key;
use crate::crypto::model::ModelCrypto;
use crate::{Mesh, PlaintextPolicy};

const STEP: Duration = Duration::from_millis(5);
/// One way, over either.
const DELAY: Duration = Duration::from_millis(1);

fn address(host: u8) -> SocketAddr {
    SocketAddr::new(ip(host), 6783)
}

fn ip(host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, host))
}

fn everywhere() -> PlaintextPolicy {
    PlaintextPolicy {
        everywhere: true,
        trusted: Vec::new(),
    }
}

fn trusting(net: &str) -> PlaintextPolicy {
    PlaintextPolicy {
        everywhere: false,
        trusted: vec![net.parse().unwrap()],
    }
}

/// What is blocked from each of the two hosts to the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Blocked {
    sealed: [bool; 2],
    tunnel: [bool; 2],
}

/// What a host's network card does to checksums that are left to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Card {
    Completes,
    /// They arrive wrong.
    Damages,
    /// What has one does not arrive.
    Loses,
}

enum Carried {
    Sealed(Vec<u8>),
    /// And whether its checksum is right.
    Heartbeat(Vec<u8>, bool),
}

struct World {
    now: Instant,
    hosts: [Mesh; 2],
    /// Where each is seen by the other.
    seen: [SocketAddr; 2],
    policies: [PlaintextPolicy; 2],
    lives: u64,
    under_way: VecDeque<(Instant, usize, Carried)>,
    blocked: Blocked,
    cards: [Card; 2],
    events: [Vec<(Duration, Event)>; 2],
    /// Bytes that the kernels have counted.
    counted: u64,
}

impl World {
    fn new(policies: [PlaintextPolicy; 2]) -> Self {
        World::at([address(1), address(2)], policies)
    }

    /// Hosts that listen at these addresses.
    fn at(seen: [SocketAddr; 2], policies: [PlaintextPolicy; 2]) -> Self {
        let now = Instant::from_nanos(1 << 40);
        let hosts = [0, 1].map(|number| {
            let port = seen[number].port();
            mesh(number, 0, policies[number].clone(), port, now)
        });
        let mut world = World {
            now,
            hosts,
            seen,
            policies,
            lives: 0,
            under_way: VecDeque::new(),
            blocked: Blocked::default(),
            cards: [Card::Completes; 2],
            events: [Vec::new(), Vec::new()],
            counted: 0,
        };
        world.introduce(0);
        world.introduce(1);
        world
    }

    fn introduce(&mut self, number: usize) {
        let mesh = &mut self.hosts[number];
        mesh.handle_local_addresses(vec![ip(1 + number as u8)], self.now);
        let target = Target {
            name: String::from("other"),
            addresses: vec![self.seen[1 - number]],
        };
        mesh.handle_targets(vec![target], self.now);
    }

    /// The router of a host starts again.
    fn restart(&mut self, number: usize) {
        self.lives += 1;
        let policy = self.policies[number].clone();
        let port = self.seen[number].port();
        self.hosts[number] = mesh(number, self.lives, policy, port, self.now);
        self.introduce(number);
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + STEP;
            self.step();
        }
    }

    fn step(&mut self) {
        while let Some((due, to, carried)) = self.under_way.pop_front() {
            if due > self.now {
                self.under_way.push_front((due, to, carried));
                break;
            }
            let mesh = &mut self.hosts[to];
            match carried {
                Carried::Sealed(bytes) => mesh.handle_datagram(self.seen[1 - to], &bytes, self.now),
                Carried::Heartbeat(bytes, is_intact) => {
                    mesh.handle_fast(&bytes, is_intact, self.now);
                }
            }
        }
        for number in 0..2 {
            let mesh = &mut self.hosts[number];
            if mesh.poll_timeout().is_some_and(|(due, _)| due <= self.now) {
                mesh.handle_timeout(self.now);
            }
            self.drain(number);
        }
    }

    fn drain(&mut self, number: usize) {
        let (mesh, other) = (&mut self.hosts[number], 1 - number);
        while let Some(event) = mesh.poll_event() {
            let time = self.now.since(Instant::from_nanos(1 << 40));
            if matches!(event, Event::ChecksumsDamaged { .. }) {
                // As the shell does.
                self.cards[number] = Card::Completes;
            }
            self.events[number].push((time, event));
        }
        let due = self.now + DELAY;
        let mut heartbeats = Vec::new();
        while let Some(transmit) = mesh.poll_transmit() {
            if transmit.destination == self.seen[other] && !self.blocked.sealed[number] {
                let carried = Carried::Sealed(transmit.bytes);
                self.under_way.push_back((due, other, carried));
            }
        }
        while let Some(transmit) = mesh.poll_fast_transmit() {
            heartbeats.push(transmit);
        }
        for transmit in heartbeats {
            self.counted += transmit.bytes.len() as u64 + 78;
            let allowed = self.hosts[other].forwarding().fast.allowed;
            let passes = allowed.contains(&self.seen[number].ip());
            let card = match transmit.leaves_checksum {
                true => self.cards[number],
                false => Card::Completes,
            };
            let is_blocked = self.blocked.tunnel[number] || card == Card::Loses;
            if transmit.address == self.seen[other].ip() && passes && !is_blocked {
                let carried = Carried::Heartbeat(transmit.bytes, card == Card::Completes);
                self.under_way.push_back((due, other, carried));
            }
        }
    }

    fn fast(&self, number: usize) -> FastForwarding {
        self.hosts[number].forwarding().fast
    }

    fn is_in_use(&self, number: usize) -> bool {
        !self.fast(number).in_use.is_empty()
    }

    fn both_in_use(&self) -> bool {
        self.is_in_use(0) && self.is_in_use(1)
    }

    fn reason(&self, number: usize) -> String {
        let report = self.hosts[number].report(self.now);
        let fast = report.peers[0].fast.clone();
        fast.map_or(String::new(), |fast| fast.reason)
    }

    /// The kernels' counts are looked at ten times a second.
    fn run_and_count(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.run(SECOND / 10);
            for number in 0..2 {
                let counts = [(self.seen[1 - number].ip(), self.counted)];
                self.hosts[number].handle_fast_traffic(&counts, self.now);
            }
        }
    }

    /// Traffic over the tunnel, as the kernels would count it.
    fn use_tunnel(&mut self) {
        self.counted += 1_000_000;
        for number in 0..2 {
            let counts = [(self.seen[1 - number].ip(), self.counted)];
            self.hosts[number].handle_fast_traffic(&counts, self.now);
        }
    }

    /// How long it takes until `is_so`; fails after `limit`.
    fn time_until(&mut self, limit: Duration, is_so: impl Fn(&World) -> bool) -> Duration {
        let start = self.now;
        while !is_so(self) {
            assert!(
                self.now.since(start) < limit,
                "{:?}",
                [self.reason(0), self.reason(1)]
            );
            self.run(STEP);
        }
        self.now.since(start)
    }
}

fn mesh(number: usize, life: u64, policy: PlaintextPolicy, port: u16, now: Instant) -> Mesh {
    let byte = number as u8 + 1;
    let config = Config {
        identity: Key::new([byte; 32]),
        secret: Key::new([9; 32]),
        name: String::from(["left", "right"][number]),
        boot: Boot {
            counter: life,
            random: life * 2 + number as u64,
        },
        seed: [byte + life as u8; 32],
        port,
        mtu_bytes: 1328,
        advertise: Vec::new(),
    };
    Mesh::new(config, Box::new(ModelCrypto), now).with_plaintext(policy)
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_fresh_pair_is_on_the_tunnel_within_two_seconds() {
    let mut world = World::new([everywhere(), everywhere()]);
    let took = world.time_until(2 * SECOND, World::both_in_use);
    std::println!("on the tunnel after {took:?}");
    let [left, right] = [world.fast(0), world.fast(1)];
    assert_eq!(left.allowed, [ip(2)].into());
    assert_eq!(right.allowed, [ip(1)].into());
    assert_eq!(world.reason(0), "");
}

#[test]
fn both_sides_have_to_agree() {
    let never = PlaintextPolicy::default;
    let here = || trusting("192.0.2.0/24");
    let elsewhere = || trusting("198.51.100.0/24");
    let cases = [
        ([everywhere(), everywhere()], true),
        ([everywhere(), never()], false),
        ([never(), everywhere()], false),
        ([here(), here()], true),
        ([here(), everywhere()], true),
        ([here(), never()], false),
        ([here(), elsewhere()], false),
        ([here(), trusting("192.0.2.1/32")], false),
    ];
    for (policies, agreed) in cases {
        let mut world = World::new(policies.clone());
        world.run(5 * SECOND);
        let is_in_use = [0, 1].map(|number| world.is_in_use(number));
        assert_eq!(is_in_use, [agreed; 2], "{policies:?}");
        if !agreed {
            assert_eq!(
                world.counted, 0,
                "nothing goes out in plaintext: {policies:?}"
            );
            assert!(world.fast(0).allowed.is_empty() && world.fast(1).allowed.is_empty());
            let told = (0..2).filter(|n| policies[*n] != never());
            let silent: Vec<usize> = told.filter(|n| world.reason(*n).is_empty()).collect();
            assert!(silent.is_empty(), "{policies:?}");
        }
    }
}

#[test]
fn a_translated_path_is_always_sealed() {
    let mut world = World::new([everywhere(), everywhere()]);
    // The left one's own address is 192.0.2.1.
    world.seen[0] = SocketAddr::new(ip(77), 40_000);
    world.run(10 * SECOND);
    assert!(!world.is_in_use(0) && !world.is_in_use(1));
    assert_eq!(world.counted, 0);
    let reason = world.reason(0);
    assert!(
        reason.contains("sees this peer at 192.0.2.77:40000"),
        "{reason}"
    );
}

#[test]
fn hosts_at_other_ports_are_sealed_and_told_why() {
    let ports = [address(1), SocketAddr::new(ip(2), 7000)];
    let mut world = World::at(ports, [everywhere(), everywhere()]);
    world.run(10 * SECOND);
    assert!(!world.is_in_use(0) && !world.is_in_use(1));
    assert_eq!(world.counted, 0);
    for number in [0, 1] {
        let reason = world.reason(number);
        assert!(reason.contains("the same --port"), "{reason}");
    }
}

/// A host's routes lead to the other by the mesh itself, so its shell sends nothing there.
#[test]
fn a_tunnel_that_would_be_inside_itself_is_left_at_once() {
    let mut world = World::new([everywhere(), everywhere()]);
    world.time_until(2 * SECOND, World::both_in_use);
    let inside = crate::SendFailure::Inside;
    world.hosts[0].handle_send_failure(world.seen[1], inside, world.now);
    assert!(!world.is_in_use(0));
    let reason = world.reason(0);
    assert!(reason.contains("leads into the mesh itself"), "{reason}");
    let report = world.hosts[0].report(world.now);
    assert_eq!(report.counters.sends_inside, 1);
    world.hosts[0].handle_routes(world.now);
    world.time_until(5 * SECOND, World::both_in_use);
}

#[test]
fn a_blocked_tunnel_is_left_within_two_seconds_and_taken_again_within_ten() {
    for tunnel in [[true, true], [true, false], [false, true]] {
        let mut world = World::new([everywhere(), everywhere()]);
        world.time_until(2 * SECOND, World::both_in_use);
        world.run(3 * SECOND);
        world.use_tunnel();
        world.run(SECOND);
        world.blocked.tunnel = tunnel;
        let neither = |world: &World| !world.is_in_use(0) && !world.is_in_use(1);
        let left = world.time_until(2 * SECOND, neither);
        world.run(30 * SECOND);
        assert!(neither(&world), "blocked it stays unused");
        assert!(world.reason(0).contains("UDP 6784"), "{}", world.reason(0));
        world.blocked.tunnel = [false; 2];
        let back = world.time_until(10 * SECOND, World::both_in_use);
        std::println!("{tunnel:?}: left after {left:?}, back after {back:?}");
    }
}

#[test]
fn one_that_is_silent_on_all_ways_keeps_its_entries_for_a_minute() {
    let mut world = World::new([everywhere(), everywhere()]);
    world.time_until(2 * SECOND, World::both_in_use);
    world.use_tunnel();
    world.blocked = Blocked {
        sealed: [true; 2],
        tunnel: [true; 2],
    };
    world.run(50 * SECOND);
    assert!(world.both_in_use(), "its router may be restarting");
    assert_eq!(world.fast(0).allowed, [ip(2)].into());
    assert!(
        world.reason(0).contains("silent on every way"),
        "{}",
        world.reason(0)
    );
    world.run(15 * SECOND);
    assert!(!world.is_in_use(0) && !world.is_in_use(1));
    world.blocked = Blocked::default();
    let back = world.time_until(10 * SECOND, World::both_in_use);
    std::println!("back {back:?} after a minute of silence");
}

#[test]
fn a_restarting_router_leaves_the_tunnel_in_use_at_the_other_end() {
    let mut world = World::new([everywhere(), everywhere()]);
    world.time_until(2 * SECOND, World::both_in_use);
    world.use_tunnel();
    world.run(SECOND);
    world.blocked = Blocked {
        sealed: [true; 2],
        tunnel: [true; 2],
    };
    world.run(5 * SECOND);
    world.events = [Vec::new(), Vec::new()];
    world.blocked = Blocked::default();
    world.restart(1);
    world.time_until(10 * SECOND, World::both_in_use);
    world.run(5 * SECOND);
    let moved = |(_, event): &&(Duration, Event)| matches!(event, Event::FastPathChanged { .. });
    let moved: Vec<_> = world.events[0].iter().filter(moved).collect();
    assert!(moved.is_empty(), "{moved:?}");
}

#[test]
fn one_that_comes_back_with_encryption_is_never_sent_plaintext_again() {
    let mut world = World::new([everywhere(), everywhere()]);
    world.time_until(2 * SECOND, World::both_in_use);
    world.policies[1] = PlaintextPolicy::default();
    world.restart(1);
    let left = world.time_until(10 * SECOND, |world| !world.is_in_use(0));
    let before = world.counted;
    world.run(20 * SECOND);
    assert_eq!(world.counted, before);
    assert!(world.fast(0).allowed.is_empty());
    assert_eq!(world.reason(0), "right encrypts everything");
    std::println!("encrypted {left:?} after it said so");
}

#[test]
fn an_address_that_changes_is_followed() {
    let mut world = World::new([everywhere(), everywhere()]);
    world.time_until(2 * SECOND, World::both_in_use);
    world.run(5 * SECOND);
    world.seen[0] = address(7);
    let now = world.now;
    world.hosts[0].handle_local_addresses(vec![ip(7)], now);
    let moved = |world: &World| world.fast(1).in_use.values().all(|to| *to == ip(7));
    let off = world.time_until(SECOND, moved);
    let on = world.time_until(3 * SECOND, |world| moved(world) && world.both_in_use());
    std::println!("off the old address after {off:?}, on the new one {on:?} later");
    world.run(5 * SECOND);
    assert_eq!(world.fast(1).allowed, [ip(7)].into());
}

#[test]
fn heartbeats_are_no_traffic() {
    let mut world = World::new([everywhere(), everywhere()]);
    world.time_until(2 * SECOND, World::both_in_use);
    // What is under way when the kernel's counts are read looks like traffic, until it has once.
    world.run_and_count(120);
    let (start, time) = (world.counted, 60);
    world.run_and_count(time);
    let rate = (world.counted - start) / time;
    std::println!("an idle tunnel costs {rate} bytes a second, both ways together");
    assert!(rate < 800, "{rate}");
}

#[test]
fn a_thousand_flaps_leave_nothing_stale() {
    let mut world = World::new([everywhere(), everywhere()]);
    world.time_until(2 * SECOND, World::both_in_use);
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
    let mut roll = |below: u64| {
        dice = dice.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (dice >> 33) % below
    };
    for flap in 0..1_000 {
        world.blocked = match roll(6) {
            0 => Blocked {
                sealed: [true; 2],
                tunnel: [true; 2],
            },
            1 => Blocked {
                sealed: [true, false],
                tunnel: [false; 2],
            },
            kind => Blocked {
                sealed: [false; 2],
                tunnel: [kind & 1 == 1 || kind == 2, kind > 2],
            },
        };
        if roll(2) == 0 {
            world.use_tunnel();
        }
        world.run(Duration::from_millis(50 + roll(3_000)));
        for number in 0..2 {
            let fast = world.fast(number);
            let known = |to: &IpAddr| *to == world.seen[1 - number].ip();
            assert!(
                fast.in_use.len() <= 1 && fast.allowed.iter().all(known),
                "{flap}"
            );
            assert!(
                fast.in_use.values().all(|to| fast.allowed.contains(to)),
                "{flap}"
            );
        }
        world.blocked = Blocked::default();
        world.run(Duration::from_millis(roll(1_500)));
    }
    world.time_until(10 * SECOND, World::both_in_use);
    for number in 0..2 {
        let only = ip(2 - number as u8);
        let fast = world.fast(number);
        assert_eq!(fast.allowed, [only].into());
        assert_eq!(fast.in_use.values().copied().collect::<Vec<_>>(), [only]);
    }
}

fn damages(world: &World, number: usize) -> usize {
    let events = world.events[number].iter();
    events
        .filter(|(_, event)| matches!(event, Event::ChecksumsDamaged { .. }))
        .count()
}

#[test]
fn a_card_that_breaks_checksums_is_found_before_any_frame_crosses() {
    for cards in [
        [Card::Damages, Card::Completes],
        [Card::Damages, Card::Damages],
    ] {
        let mut world = World::new([everywhere(), everywhere()]);
        world.cards = cards;
        let took = world.time_until(2 * SECOND, World::both_in_use);
        std::println!("{cards:?}: on the tunnel after {took:?}");
        let found = cards.map(|card| usize::from(card == Card::Damages));
        assert_eq!([0, 1].map(|number| damages(&world, number)), found);
    }
    // One that nobody mends is never used.
    let mut world = World::new([everywhere(), everywhere()]);
    for _ in 0..100 {
        world.cards[0] = Card::Damages;
        world.run(SECOND / 10);
        assert!(!world.is_in_use(0));
    }
    let reason = world.reason(0);
    assert!(reason.contains("wrong checksums"), "{reason}");
}

#[test]
fn a_card_that_loses_what_has_a_checksum_to_complete_is_found() {
    for cards in [[Card::Completes, Card::Loses], [Card::Loses, Card::Loses]] {
        let mut world = World::new([everywhere(), everywhere()]);
        world.cards = cards;
        let took = world.time_until(10 * SECOND, World::both_in_use);
        std::println!("{cards:?}: on the tunnel after {took:?}");
        let found = cards.map(|card| usize::from(card == Card::Loses));
        assert_eq!([0, 1].map(|number| damages(&world, number)), found);
    }
}

#[test]
fn a_firewall_is_not_taken_for_a_card() {
    for pause in 1..60u32 {
        let mut world = World::new([everywhere(), everywhere()]);
        world.blocked.tunnel = [true, pause % 2 == 0];
        world.run(pause * SECOND / 4);
        world.blocked = Blocked::default();
        world.time_until(10 * SECOND, World::both_in_use);
        assert_eq!([damages(&world, 0), damages(&world, 1)], [0, 0], "{pause}");
    }
}

/// The other side neither leaves the tunnel for what a router says before it knows, nor stays off it.
#[test]
fn a_restart_at_any_moment_ends_no_tunnel() {
    for moment in 0..200u32 {
        let mut world = World::new([everywhere(), everywhere()]);
        world.time_until(2 * SECOND, World::both_in_use);
        world.run(3 * SECOND + moment * SECOND / 100);
        let before = world.events[1].len();
        world.restart(0);
        world.time_until(2 * SECOND, World::both_in_use);
        world.run(5 * SECOND);
        assert!(world.both_in_use(), "{moment}");
        let moved = |(_, event): &(Duration, Event)| matches!(event, Event::FastPathChanged { .. });
        let since = &world.events[1][before..];
        assert!(!since.iter().any(moved), "{moment}: {since:?}");
    }
}
