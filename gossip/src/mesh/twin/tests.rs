//! A peer's state folder is copied, and both hosts run.

extern crate std;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use rmesh_wire::{Boot, Instant};

use crate::Mesh;
use crate::api::{Config, Event, Target};
use crate::crypto::Key;
use crate::crypto::model::ModelCrypto;

const STEP: Duration = Duration::from_millis(10);

fn at(host: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, host)), 6783)
}

/// Hosts that all reach each other, but for the pairs in `apart`.
struct Net {
    now: Instant,
    hosts: BTreeMap<u8, Mesh>,
    apart: Vec<(u8, u8)>,
    down: BTreeMap<u8, usize>,
    raised: usize,
}

impl Net {
    fn new() -> Net {
        Net {
            now: Instant::from_nanos(1 << 40),
            hosts: BTreeMap::new(),
            apart: Vec::new(),
            down: BTreeMap::new(),
            raised: 0,
        }
    }

    /// Starts a host with an identity and a boot counter, which calls others.
    fn start(&mut self, host: u8, identity: u8, counter: u64, calls: &[u8]) {
        let config = Config {
            identity: Key::new([identity; 32]),
            secret: Key::new([1; 32]),
            name: std::format!("host{host}"),
            boot: Boot {
                counter,
                random: u64::from(host),
            },
            seed: [host; 32],
            port: 6783,
            mtu_bytes: 1328,
            advertise: vec![at(host)],
        };
        let mut mesh = Mesh::new(config, Box::new(ModelCrypto), self.now);
        let target = |other: &u8| Target {
            name: std::format!("host{other}"),
            addresses: vec![at(*other)],
        };
        mesh.handle_targets(calls.iter().map(target).collect(), self.now);
        self.hosts.insert(host, mesh);
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + STEP;
            let mut carried = Vec::new();
            for (host, mesh) in &mut self.hosts {
                if mesh.poll_timeout().is_some_and(|(due, _)| due <= self.now) {
                    mesh.handle_timeout(self.now);
                }
                while let Some(transmit) = mesh.poll_transmit() {
                    carried.push((*host, transmit));
                }
                while let Some(event) = mesh.poll_event() {
                    match event {
                        Event::PeerDown { .. } => *self.down.entry(*host).or_default() += 1,
                        Event::BootRaised { .. } => self.raised += 1,
                        _ => {}
                    }
                }
            }
            for (from, transmit) in carried {
                let to = self
                    .hosts
                    .keys()
                    .copied()
                    .find(|h| at(*h) == transmit.destination);
                let Some(to) =
                    to.filter(|to| !self.apart.contains(&(from.min(*to), from.max(*to))))
                else {
                    continue;
                };
                if let Some(mesh) = self.hosts.get_mut(&to) {
                    mesh.handle_datagram(at(from), &transmit.bytes, self.now);
                }
            }
        }
    }

    fn warnings(&self, host: u8) -> String {
        self.hosts[&host].report(self.now).warnings.join("\n")
    }

    fn reaches(&self, host: u8, other: u8) -> bool {
        let id = self.hosts[&other].id();
        let peers = self.hosts[&host].report(self.now).peers;
        peers
            .iter()
            .any(|p| p.id == id && p.path == Some(crate::Path::Direct(at(other))))
    }

    /// Both are named wherever one looks, and only host 1 takes part.
    fn expect_copy_found(&self) {
        for host in [1, 2, 3, 9] {
            let warnings = self.warnings(host);
            for name in ["host1", "host9"] {
                assert!(warnings.contains(name), "{host}: {warnings}");
            }
        }
        assert!(
            self.warnings(9).contains("takes no part"),
            "{}",
            self.warnings(9)
        );
        for (host, other) in [(2, 1), (3, 1), (1, 2), (1, 3), (2, 3), (3, 2)] {
            assert!(self.reaches(host, other), "{host} does not reach {other}");
        }
        assert!(self.hosts[&9].report(self.now).peers.is_empty());
    }
}

/// Three hosts that have been up for a while.
fn settled() -> Net {
    let mut net = Net::new();
    net.start(1, 1, 5, &[]);
    net.start(2, 2, 1, &[1]);
    net.start(3, 3, 1, &[1]);
    net.run(Duration::from_secs(60));
    assert!(net.reaches(2, 1) && net.reaches(3, 2) && net.warnings(2).is_empty());
    net.down.clear();
    net
}

#[test]
fn the_copy_gives_way_and_both_are_named_everywhere() {
    // Copied while it ran, from an old backup, and after the original was reset to an old one.
    for counter in [6, 5, 2, 40] {
        let mut net = settled();
        net.start(9, 1, counter, &[2]);
        net.run(Duration::from_secs(8));
        net.expect_copy_found();
        net.run(Duration::from_secs(300));
        net.expect_copy_found();
        assert!(net.raised <= 4, "{} boots", net.raised);
        // Nobody else was disturbed: the only peer ever lost is the one that was copied.
        for other in [2, 3] {
            assert!(
                net.down.get(&other).copied().unwrap_or(0) <= 1,
                "{:?}",
                net.down
            );
        }
    }
}

#[test]
fn a_copy_that_calls_its_original_is_found_at_once() {
    let mut net = settled();
    net.start(9, 1, 6, &[1]);
    net.run(Duration::from_secs(2));
    net.expect_copy_found();
    let target = &net.hosts[&9].report(net.now).targets[0];
    assert_eq!(target.state, "runs with this peer's identity");
    assert!(net.down.is_empty(), "{:?}", net.down);
}

#[test]
fn the_copy_takes_over_when_the_original_ends() {
    let mut net = settled();
    net.start(9, 1, 6, &[2]);
    net.run(Duration::from_secs(30));
    net.expect_copy_found();
    net.hosts.remove(&1);
    net.run(Duration::from_secs(90));
    assert!(net.reaches(2, 9) && net.reaches(3, 9) && net.reaches(9, 2));
    assert!(
        !net.warnings(9).contains("takes no part"),
        "{}",
        net.warnings(9)
    );
}

#[test]
fn the_warning_ends_with_the_copy() {
    let mut net = settled();
    net.start(9, 1, 6, &[2]);
    net.run(Duration::from_secs(30));
    net.expect_copy_found();
    net.hosts.remove(&9);
    net.run(Duration::from_secs(60));
    for host in [1, 2, 3] {
        assert_eq!(net.warnings(host), "", "{host}");
    }
}

#[test]
fn copies_that_cannot_call_each_other_still_settle() {
    let mut net = settled();
    net.apart = vec![(1, 9)];
    net.start(9, 1, 6, &[2]);
    net.run(Duration::from_secs(10));
    net.expect_copy_found();
    let raised = net.raised;
    net.run(Duration::from_secs(1_200));
    net.expect_copy_found();
    // It comes back after 1, 2, 4 and 8 minutes, and gives way each time.
    assert!(net.raised - raised <= 16, "{} boots", net.raised - raised);
}

#[test]
fn copies_that_start_together_agree_who_goes_on() {
    for (first, second) in [(1, 9), (9, 1)] {
        let mut net = settled();
        net.hosts.remove(&1);
        net.run(Duration::from_secs(30));
        net.start(first, 1, 6, &[2]);
        net.run(Duration::from_millis(300));
        net.start(second, 1, 6, &[2]);
        net.run(Duration::from_secs(15));
        // The larger random number goes on.
        assert!(
            net.reaches(2, 9) && net.reaches(3, 9),
            "{}",
            net.warnings(2)
        );
        assert!(
            net.warnings(1).contains("takes no part"),
            "{}",
            net.warnings(1)
        );
        assert!(net.warnings(2).contains("host1"), "{}", net.warnings(2));
    }
}

#[test]
fn a_restart_is_no_twin() {
    let mut net = settled();
    for counter in [6, 7, 3] {
        net.hosts.remove(&1);
        net.run(Duration::from_millis(200));
        net.start(1, 1, counter, &[2]);
        net.run(Duration::from_secs(10));
        for host in [1, 2, 3] {
            assert_eq!(net.warnings(host), "", "boot {counter}, host {host}");
        }
        assert!(net.reaches(2, 1) && net.reaches(3, 1));
    }
}

#[test]
fn peers_of_one_name_are_named_everywhere() {
    let mut net = settled();
    net.start(4, 4, 1, &[1]);
    let mut named = |host: u8, identity: u8| {
        let config = Config {
            identity: Key::new([identity; 32]),
            secret: Key::new([1; 32]),
            name: "host4".into(),
            boot: Boot {
                counter: 1,
                random: 77,
            },
            seed: [host; 32],
            port: 6783,
            mtu_bytes: 1328,
            advertise: vec![at(host)],
        };
        let mut mesh = Mesh::new(config, Box::new(ModelCrypto), net.now);
        let target = Target {
            name: "host1".into(),
            addresses: vec![at(1)],
        };
        mesh.handle_targets(vec![target], net.now);
        net.hosts.insert(host, mesh);
    };
    named(5, 5);
    net.run(Duration::from_secs(5));
    let ids = [4, 5].map(|host| std::format!("{}", net.hosts[&host].id().short()));
    for host in 1..=5 {
        let warnings = net.warnings(host);
        assert!(
            ids.iter().all(|id| warnings.contains(id)),
            "{host}: {warnings}"
        );
    }
    assert!(net.down.is_empty(), "{:?}", net.down);
}
