//! Which source ports of this host pass on the way to a peer.
//!
//! While traffic flows straight to a peer, each port asks for itself ([`rmesh_wire::port_probe`]). One is used once the
//! peer has seen its question come from the very port and an address of this host: nobody translates, and no
//! firewall minds. It is asked for as long as it is used, and left when answers are missing: the path itself may be well.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use rmesh_wire::payload::Head;
use rmesh_wire::port_probe::PortProbe;
use rmesh_wire::{Instant, PeerId};

use super::traffic::LATELY;
use super::{Mesh, Origin};
use crate::api::{PortTransmit, SOURCE_PORTS_MAX, SourcePorts};
use crate::limits::TRANSMITS_MAX;
use crate::tcp::is_tcp;

/// A port in use is asked for so often.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// … and so often once an answer is missing, or as long as none has come.
const ASK_FAST: Duration = Duration::from_millis(100);
/// An answer is missing after the larger of this and four round trips.
const TIMEOUT_MIN: Duration = Duration::from_millis(250);
/// Answers missing in a row that end the use of a port, …
const MISSES_MAX: u32 = 4;
/// … and those that are enough where none has ever come.
const UNPROVEN_MISSES_MAX: u32 = 3;
/// Then it rests; twice as long each time.
const REST: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(600)];

/// This host's source ports besides the one listened at, by family.
#[derive(Debug, Default)]
pub(crate) struct OwnPorts {
    v4: Vec<u16>,
    v6: Vec<u16>,
    /// Questions to be sent.
    questions: VecDeque<PortTransmit>,
}

impl OwnPorts {
    fn for_destination(&self, destination: SocketAddr) -> &[u16] {
        match destination {
            SocketAddr::V4(_) => &self.v4,
            SocketAddr::V6(_) => &self.v6,
        }
    }
}

/// What is known of the ports on the way to one address of a peer.
#[derive(Debug, Default)]
pub(crate) struct PortStates {
    address: Option<SocketAddr>,
    /// That of number 1 first.
    each: Vec<PortState>,
    /// With traffic as late as then they are asked for.
    until: Instant,
}

#[derive(Debug)]
struct PortState {
    asked: Option<(u64, Instant)>,
    misses: u32,
    is_proven: bool,
    next: Instant,
    rest: Duration,
}

impl PortState {
    fn new(now: Instant) -> Self {
        PortState {
            asked: None,
            misses: 0,
            is_proven: false,
            next: now,
            rest: REST[0],
        }
    }

    /// It is not used for a while; whether it was.
    fn leave(&mut self, now: Instant) -> bool {
        self.asked = None;
        self.misses = 0;
        self.next = now + self.rest;
        self.rest = (self.rest * 2).min(REST[1]);
        core::mem::replace(&mut self.is_proven, false)
    }

    /// Judges the last question, and asks the next with `token`; whether it asks, and whether the port is left.
    fn tick(&mut self, token: u64, timeout: Duration, now: Instant) -> (bool, bool) {
        if self.next > now {
            return (false, false);
        }
        if self.asked.is_some() {
            self.misses += 1;
            let most = match self.is_proven {
                true => MISSES_MAX,
                false => UNPROVEN_MISSES_MAX,
            };
            if self.misses >= most {
                return (false, self.leave(now));
            }
        }
        self.asked = Some((token, now));
        self.next = now + timeout.max(ASK_FAST);
        (true, false)
    }

    /// Its question was answered, and seen to come from here or elsewhere; whether that changes anything.
    fn answered(&mut self, is_itself: bool, now: Instant) -> bool {
        if !is_itself {
            return self.leave(now);
        }
        self.asked = None;
        self.misses = 0;
        self.rest = REST[0];
        self.next = now + ASK_EVERY;
        !core::mem::replace(&mut self.is_proven, true)
    }
}

impl PortStates {
    /// Those that pass on the way to `address`.
    pub(crate) fn proven(&self, address: Option<SocketAddr>) -> SourcePorts {
        if address.is_none() || self.address != address {
            return SourcePorts::default();
        }
        let numbered = (1..).zip(&self.each).filter(|(_, port)| port.is_proven);
        numbered.fold(SourcePorts::default(), |all, (number, _)| all.with(number))
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.each.iter().map(|port| port.next).min()
    }

    /// There is traffic to `address`, which `count` ports are for.
    fn flow(&mut self, address: SocketAddr, count: usize, now: Instant) {
        self.until = now + LATELY;
        if self.address != Some(address) || self.each.is_empty() {
            let count = count.min(SOURCE_PORTS_MAX - 1);
            self.address = Some(address);
            self.each = (0..count).map(|_| PortState::new(now)).collect();
        }
    }

    fn clear(&mut self) {
        *self = PortStates::default();
    }
}

impl Mesh {
    /// Frames may leave from these source ports too, where they pass: those of number 1, 2, … for IPv4 and for IPv6.
    #[must_use]
    pub fn with_source_ports(mut self, v4: Vec<u16>, v6: Vec<u16>) -> Self {
        self.own_ports.v4 = v4;
        self.own_ports.v6 = v6;
        self
    }

    /// Next question to send from a source port.
    pub fn poll_port_transmit(&mut self) -> Option<PortTransmit> {
        self.own_ports.questions.pop_front()
    }

    /// The kernel refused to send to `destination` from the source port of this number.
    pub fn handle_port_failure(&mut self, destination: SocketAddr, number: usize, now: Instant) {
        let there = self.active_peers();
        let there = there.filter(|peer| peer.ports.address == Some(destination));
        for id in there.map(|peer| peer.id).collect::<Vec<_>>() {
            let peer = self.peers.get_mut(&id);
            let port = peer.and_then(|peer| peer.ports.each.get_mut(number.checked_sub(1)?));
            self.dirty.forwarding |= port.is_some_and(|port| port.leave(now));
        }
        self.settle(now);
    }

    /// Traffic flows to a peer: its way may carry more than one port.
    pub(super) fn note_port_flow(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(address) = peer.direct_address().filter(|address| !is_tcp(*address)) else {
            return;
        };
        let count = self.own_ports.for_destination(address).len();
        if count > 0 {
            peer.ports.flow(address, count, now);
        }
    }

    /// Asks from each port that is due.
    pub(super) fn watch_ports(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.ports.deadline().is_none_or(|due| due > now) {
            return;
        }
        let used = peer.direct_address();
        let Some(address) = used.filter(|_| used == peer.ports.address && now <= peer.ports.until)
        else {
            self.dirty.forwarding |= peer.ports.proven(used).count() > 0;
            return peer.ports.clear();
        };
        let timeout = (peer.round_trip().unwrap_or_default() * 4).max(TIMEOUT_MIN);
        let mut questions = Vec::new();
        for (number, port) in (1..).zip(&mut peer.ports.each) {
            let token = self.random.public_u64();
            let (asks, is_left) = port.tick(token, timeout, now);
            self.dirty.forwarding |= is_left;
            questions.extend(asks.then_some((number, token)));
        }
        let index = peer.current;
        for (number, token) in questions {
            self.ask_port(index, (number, address), token);
        }
    }

    fn ask_port(&mut self, index: Option<u32>, (number, to): (usize, SocketAddr), token: u64) {
        let session = index.and_then(|index| self.sessions.get_mut(&index));
        let Some(session) = session.filter(|_| self.own_ports.questions.len() < TRANSMITS_MAX)
        else {
            return;
        };
        let question = PortProbe {
            is_answer: false,
            token,
            observed: None,
        };
        let bytes = session.seal_record(&question.encode());
        self.counters.control_datagrams_sent += 1;
        self.counters.control_bytes_sent += bytes.len() as u64;
        self.own_ports.questions.push_back(PortTransmit {
            number,
            destination: to,
            bytes,
        });
    }

    /// A question or an answer arrived from a peer.
    pub(super) fn on_port_probe(
        &mut self,
        id: PeerId,
        origin: Origin,
        (head, body): (Head, &[u8]),
        now: Instant,
    ) {
        let Some(probe) = PortProbe::decode(head, body) else {
            self.counters.datagrams_ignored += 1;
            return;
        };
        match (probe.is_answer, origin) {
            (true, _) => self.on_port_answer(id, &probe, now),
            (false, Origin::Direct(_)) => {
                let answer = PortProbe {
                    is_answer: true,
                    observed: origin.seen(),
                    ..probe
                };
                self.send_by_used(id, &answer.encode(), now);
            }
            (false, _) => self.counters.datagrams_ignored += 1,
        }
    }

    fn on_port_answer(&mut self, id: PeerId, probe: &PortProbe, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let is_asked = |port: &PortState| port.asked.is_some_and(|(token, _)| token == probe.token);
        let at = peer.ports.each.iter().position(is_asked);
        let Some((at, address)) = at.zip(peer.ports.address) else {
            return;
        };
        let own = self.own_ports.for_destination(address).get(at);
        let is_itself = probe.observed.is_some_and(|seen| {
            Some(&seen.port()) == own && self.local_addresses.contains(&seen.ip())
        });
        if let Some(port) = peer.ports.each.get_mut(at) {
            self.dirty.forwarding |= port.answered(is_itself, now);
        }
    }
}

#[cfg(test)]
mod tests;
