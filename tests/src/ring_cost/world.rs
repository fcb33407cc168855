//! Nodes, wires and virtual time.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use rmesh_ipam::{
    Answer, Event, Found, Founding, Identity, Ledger, Member, Node, Range, Recovered, Request,
    RequestId,
};
use rmesh_wire::{Instant, PeerId};

use crate::sim::calendar::Calendar;
use crate::sim::random::Random;

/// IPv4 and UDP heads of a message, in bytes.
const HEADS: u64 = 28;
/// A message is under way for so long, from and to.
const TRIP: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));
/// A client waits so long at most.
const PATIENCE: Duration = Duration::from_secs(30);

/// What will happen.
pub(super) enum What {
    Message {
        to: usize,
        from: usize,
        bytes: Vec<u8>,
    },
    Wake(usize),
    Claim {
        host: usize,
        address: IpAddr,
    },
}

pub(super) struct Host {
    pub(super) id: PeerId,
    pub(super) node: Node,
    /// Addresses of its containers.
    pub(super) carried: Vec<IpAddr>,
    wake: Option<Instant>,
}

/// What was sent while the meter runs.
#[derive(Default)]
pub(super) struct Meter {
    pub(super) messages: u64,
    /// By peer.
    pub(super) bytes: Vec<u64>,
    this_second: Vec<(u64, u64)>,
    pub(super) worst_second: u64,
}

impl Meter {
    fn new(count: usize) -> Self {
        Meter {
            bytes: vec![0; count],
            this_second: vec![(0, 0); count],
            ..Meter::default()
        }
    }

    fn count(&mut self, from: usize, bytes: u64, now: Instant) {
        self.messages += 1;
        self.bytes[from] += bytes;
        let second = now.as_nanos() / 1_000_000_000;
        let (of, sum) = &mut self.this_second[from];
        if *of != second {
            (*of, *sum) = (second, 0);
        }
        *sum += bytes;
        self.worst_second = self.worst_second.max(*sum);
    }
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) hosts: Vec<Host>,
    pub(super) random: Random,
    pub(super) meter: Meter,
    pub(super) refused: Vec<String>,
    by_id: BTreeMap<PeerId, usize>,
    calendar: Calendar<What>,
    requests: u64,
}

impl World {
    pub(super) fn new(count: usize, seed: u64) -> Self {
        World {
            now: Instant::ZERO + Duration::from_secs(1),
            hosts: Vec::with_capacity(count),
            random: Random::new(seed),
            meter: Meter::new(count),
            refused: Vec::new(),
            by_id: BTreeMap::new(),
            calendar: Calendar::new(),
            requests: 0,
        }
    }

    /// One more host starts; the first founds the ring.
    pub(super) fn start(&mut self, pools: &[Range]) {
        let pools = pools.to_vec();
        let founding = match self.hosts.is_empty() {
            true => Founding::Found { pools },
            false => Founding::Join {
                pools,
                targets: 1,
                init_peers: None,
            },
        };
        let seed = self.random.bytes();
        let mut id = [0; 16];
        id.copy_from_slice(&self.random.bytes()[..16]);
        let id = PeerId(id);
        let incarnation = self.random.next() | 1;
        let identity = Identity {
            me: id,
            incarnation,
            seed,
        };
        let (ledger, written, found) = (Ledger::default(), 0, Found::Nothing);
        let node = Node::new(
            identity,
            Recovered {
                ledger,
                written,
                found,
            },
            founding,
            self.now,
        );
        let index = self.hosts.len();
        self.by_id.insert(id, index);
        self.hosts.push(Host {
            id,
            node,
            carried: Vec::new(),
            wake: None,
        });
        self.settle(index);
    }

    /// Counts from zero.
    pub(super) fn reset_meter(&mut self) {
        self.meter = Meter::new(self.hosts.len());
    }

    pub(super) fn schedule(&mut self, after: Duration, what: What) {
        self.calendar.schedule(self.now + after, what);
    }

    pub(super) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some((at, what)) = self.calendar.next_until(end) {
            self.now = self.now.max(at);
            match what {
                What::Message { to, from, bytes } => {
                    let from = self.hosts[from].id;
                    self.hosts[to].node.handle_message(from, &bytes, self.now);
                    self.settle(to);
                }
                What::Wake(host) => self.wake(host),
                What::Claim { host, address } => self.claim(host, address),
            }
        }
        self.now = end;
    }

    fn wake(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        if host.wake != Some(self.now) {
            return;
        }
        host.wake = None;
        let due = host.node.poll_timeout();
        if due.is_some_and(|(at, _)| at <= self.now) {
            host.node.handle_timeout(self.now);
        }
        self.settle(index);
    }

    /// Tells a host who is there: `is_there` and `is_near` by index.
    pub(super) fn tell_members(
        &mut self,
        index: usize,
        is_there: impl Fn(usize) -> bool,
        is_near: impl Fn(usize) -> bool,
    ) {
        let others = (0..self.hosts.len()).filter(|other| *other != index && is_there(*other));
        let members = others.map(|other| Member {
            peer: self.hosts[other].id,
            name: format!("host-{other}"),
            reachable: true,
            neighbour: is_near(other),
            listed: other == 0,
        });
        let members = members.collect();
        self.hosts[index].node.handle_members(members, self.now);
        self.settle(index);
    }

    /// A container of the host wants any address.
    pub(super) fn allocate(&mut self, index: usize, wants_v6: bool) {
        let container = format!("{:064x}", self.requests);
        let request = Request::Allocate {
            container,
            subnet: None,
            wants_v6,
        };
        self.request(index, request);
    }

    fn claim(&mut self, index: usize, address: IpAddr) {
        let container = format!("{:064x}", self.requests);
        self.request(index, Request::Claim { container, address });
    }

    fn request(&mut self, index: usize, request: Request) {
        self.requests += 1;
        let id = RequestId(self.requests);
        let until = self.now + PATIENCE;
        let node = &mut self.hosts[index].node;
        node.handle_request(id, request, until, self.now);
        self.settle(index);
    }

    /// Everybody else hears what a host's containers carry.
    pub(super) fn announce(&mut self, index: usize) {
        let (id, carried) = (self.hosts[index].id, self.hosts[index].carried.clone());
        for other in (0..self.hosts.len()).filter(|other| *other != index) {
            let node = &mut self.hosts[other].node;
            node.handle_announced(id, &carried, self.now);
            self.settle(other);
        }
    }

    /// Drains a node, whose disk writes at once, and asks when to wake it.
    fn settle(&mut self, index: usize) {
        let mut is_announced = true;
        loop {
            let node = &mut self.hosts[index].node;
            let mut last = None;
            while let Some((number, _)) = node.poll_write() {
                last = Some(number);
            }
            if let Some(number) = last {
                node.handle_written(number, self.now);
            }
            let mut is_idle = last.is_none();
            while let Some(event) = self.hosts[index].node.poll_event() {
                is_idle = false;
                is_announced &= !self.on_event(index, event);
            }
            while let Some((to, bytes)) = self.hosts[index].node.poll_transmit() {
                is_idle = false;
                self.send(index, to, bytes);
            }
            if is_idle {
                break;
            }
        }
        self.arm(index);
        if !is_announced {
            self.announce(index);
        }
    }

    /// Whether a container has an address that it did not have.
    fn on_event(&mut self, index: usize, event: Event) -> bool {
        match event {
            Event::Answer {
                result: Ok(Answer::Address(address)),
                ..
            } => {
                self.hosts[index].carried.push(address);
                true
            }
            Event::Answer { result, .. } => {
                self.refused.push(format!("host-{index}: {result:?}"));
                false
            }
            Event::Claimed { .. } | Event::Notice(_) => false,
        }
    }

    fn send(&mut self, from: usize, to: PeerId, bytes: Vec<u8>) {
        self.meter.count(from, bytes.len() as u64 + HEADS, self.now);
        let delay = self.random.between(TRIP.0, TRIP.1);
        if let Some(&to) = self.by_id.get(&to) {
            self.schedule(delay, What::Message { to, from, bytes });
        }
    }

    fn arm(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        let Some((due, _)) = host.node.poll_timeout() else {
            return;
        };
        let at = due.max(self.now);
        if host.wake.is_none_or(|wake| wake > at) {
            host.wake = Some(at);
            self.calendar.schedule(at, What::Wake(index));
        }
    }
}
