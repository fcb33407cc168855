//! Time, and everything that happens in it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use rmesh_gossip::{Event, SendFailure};
use rmesh_wire::{Instant, PeerId};

use super::calendar::Calendar;
use super::fault::Fault;
use super::network::{Fate, Network, wire_bytes};
use super::node::Node;
use super::report::Meter;

/// A core that asks for more turns than this without time going on is stuck.
const TURNS_PER_INSTANT_MAX: u32 = 2_000;
/// Datagrams one input may cause, per peer of the mesh: more is a storm.
const TRANSMITS_PER_TURN_AND_PEER_MAX: usize = 64;
/// Violations kept; the first ones tell the story.
const VIOLATIONS_MAX: usize = 20;

/// Something that will happen.
enum Action {
    Deliver {
        to: usize,
        source: SocketAddr,
        bytes: Vec<u8>,
    },
    Wake(usize),
    Fault(Fault),
}

/// The whole simulated world.
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) nodes: Vec<Node>,
    /// Where each identity is among them.
    pub(crate) numbers: HashMap<PeerId, usize>,
    pub(crate) network: Network,
    pub(crate) meter: Meter,
    /// What was wrong, in words.
    pub(crate) violations: Vec<String>,
    /// Tells every fault and event on standard error.
    pub(crate) is_traced: bool,
    /// Pairs that asked for a data session.
    pub(crate) wanted: Vec<(usize, usize)>,
    calendar: Calendar<Action>,
    turns_now: u32,
    refused: Vec<(SocketAddr, SendFailure)>,
}

impl World {
    pub(crate) fn new(nodes: Vec<Node>, network: Network) -> Self {
        let numbers = nodes.iter().map(|node| (node.id, node.index)).collect();
        World {
            now: Instant::ZERO,
            nodes,
            numbers,
            network,
            meter: Meter::default(),
            violations: Vec::new(),
            is_traced: false,
            wanted: Vec::new(),
            calendar: Calendar::new(),
            turns_now: 0,
            refused: Vec::new(),
        }
    }

    /// Puts a fault on the calendar.
    pub(crate) fn schedule_fault(&mut self, at: Instant, fault: Fault) {
        self.calendar.schedule(at, Action::Fault(fault));
    }

    pub(crate) fn violate(&mut self, what: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            let seconds = self.now.since(Instant::ZERO).as_secs_f64();
            self.violations.push(format!("at {seconds:.3} s: {what}"));
        }
    }

    /// Lets time go on for `duration`.
    pub(crate) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.violations.len() < VIOLATIONS_MAX
            && let Some((at, action)) = self.calendar.next_until(end)
        {
            if at > self.now {
                self.now = at;
                self.turns_now = 0;
            }
            self.meter.events += 1;
            self.act(action);
        }
        self.now = self.now.max(end);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Deliver { to, source, bytes } => self.deliver(to, source, &bytes),
            Action::Wake(node) => self.wake(node),
            Action::Fault(fault) => {
                self.trace(|| format!("{fault:?}"));
                fault.strike(self);
            }
        }
    }

    /// Tells something on standard error, if that was asked for.
    pub(crate) fn trace(&self, what: impl FnOnce() -> String) {
        if self.is_traced {
            let seconds = self.now.since(Instant::ZERO).as_secs_f64();
            eprintln!("{seconds:9.4} {}", what());
        }
    }

    /// What all cores have counted together, a peer.
    pub(crate) fn totals(&self) -> String {
        let counters = |node: &Node| Some(node.mesh.as_ref()?.report(self.now).counters);
        let all: Vec<_> = self.nodes.iter().filter_map(counters).collect();
        let a_peer = |of: fn(&rmesh_gossip::api::Counters) -> u64| {
            all.iter().map(of).sum::<u64>() as f64 / all.len().max(1) as f64
        };
        format!(
            "a peer: {:.0} datagrams, {:.0} handshakes, {:.0} records sent, {:.0} known, {:.0} taken, {:.0} repairs",
            a_peer(|c| c.control_datagrams_sent),
            a_peer(|c| c.handshakes_completed),
            a_peer(|c| c.records_sent),
            a_peer(|c| c.records_known),
            a_peer(|c| c.records_accepted),
            a_peer(|c| c.repairs_started),
        )
    }

    fn deliver(&mut self, to: usize, source: SocketAddr, bytes: &[u8]) {
        let node = &mut self.nodes[to];
        if node.is_paused {
            return;
        }
        self.meter.received(to, wire_bytes(source, bytes.len()));
        if let Some(mesh) = node.mesh.as_mut() {
            mesh.handle_datagram(source, bytes, self.now);
            self.settle(to);
        }
    }

    fn wake(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if node.wake != Some(self.now) {
            return;
        }
        node.wake = None;
        if node.is_paused {
            return;
        }
        let Some(mesh) = node.mesh.as_mut() else {
            return;
        };
        if mesh.poll_timeout().is_some_and(|(at, _)| at <= self.now) {
            mesh.handle_timeout(self.now);
            self.turns_now += 1;
        }
        if self.turns_now > TURNS_PER_INSTANT_MAX {
            let why = self.nodes[index]
                .mesh
                .as_ref()
                .and_then(|m| m.poll_timeout());
            self.violate(format!(
                "peer{index} asks for one timeout for ever: {why:?}"
            ));
            return;
        }
        self.settle(index);
    }

    /// Drains a node after an input, as the contract in [`rmesh_wire`] asks.
    pub(crate) fn settle(&mut self, index: usize) {
        self.drain_transmits(index);
        // A refusal is an input of its own and may cause more datagrams.
        while let Some((destination, why)) = self.refused.pop() {
            if let Some(mesh) = self.nodes[index].mesh.as_mut() {
                mesh.handle_send_failure(destination, why, self.now);
            }
            self.drain_transmits(index);
        }
        self.drain_events(index);
        self.arm(index);
    }

    fn drain_transmits(&mut self, index: usize) {
        let mut count = 0;
        while let Some(mesh) = self.nodes[index].mesh.as_mut()
            && let Some(transmit) = mesh.poll_transmit()
        {
            count += 1;
            let bytes = wire_bytes(transmit.destination, transmit.bytes.len());
            match self
                .network
                .fate(index, transmit.destination, transmit.bytes.len(), self.now)
            {
                Fate::Arrives(delay, to, source) => {
                    self.meter.sent(index, self.now, bytes);
                    let at = self.now + delay;
                    let bytes = transmit.bytes;
                    self.calendar
                        .schedule(at, Action::Deliver { to, source, bytes });
                }
                Fate::Lost => self.meter.sent(index, self.now, bytes),
                Fate::Refused(why) => self.refused.push((transmit.destination, why)),
            }
        }
        self.meter.transmits_per_turn_max = self.meter.transmits_per_turn_max.max(count);
        if count > TRANSMITS_PER_TURN_AND_PEER_MAX * self.nodes.len() {
            self.violate(format!(
                "peer{index} sent {count} datagrams after one input"
            ));
            self.refused.clear();
        }
    }

    fn drain_events(&mut self, index: usize) {
        while let Some(mesh) = self.nodes[index].mesh.as_mut()
            && let Some(event) = mesh.poll_event()
        {
            if event != Event::ForwardingChanged {
                self.trace(|| format!("peer{index}: {event:?}"));
            }
            match event {
                Event::BootRaised { counter } => self.nodes[index].raise_boot(counter),
                Event::PeerDown { .. } => self.meter.peer_downs += 1,
                Event::HandshakeRefused { .. } => self.meter.handshakes_refused += 1,
                _ => {}
            }
        }
    }

    /// Keeps one wake-up in the queue, never later than the core asks for.
    fn arm(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let deadline = node.mesh.as_ref().and_then(|mesh| mesh.poll_timeout());
        let Some((at, _)) = deadline else {
            return;
        };
        let at = at.max(self.now);
        if node.wake.is_none_or(|wake| wake > at) {
            node.wake = Some(at);
            self.calendar.schedule(at, Action::Wake(index));
        }
    }
}
