//! Wires: who can send to whom, how long it takes, and what gets lost.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rmesh_gossip::SendFailure;
use rmesh_wire::Instant;

use super::layout::{Families, Layout};
use super::random::Random;

/// UDP port of every simulated peer.
pub(crate) const PORT: u16 = 6783;
/// MTU of every wire, in bytes.
const PACKET_LEN_MAX: u64 = 1_500;
/// Bytes of IPv4 and UDP headers that are counted with every datagram.
const HEADERS_V4: u64 = 28;
/// Bytes of IPv6 and UDP headers that are counted with every datagram.
const HEADERS_V6: u64 = 48;
/// A datagram's time on the wire varies by up to this part of its latency.
const JITTER: f64 = 0.2;

/// What becomes of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives after this time, at this node, from this address.
    Arrives(Duration, usize, SocketAddr),
    /// Nobody hears of it again.
    Lost,
    /// The sender's own kernel has no route, or the datagram is too long for its interface.
    Refused(SendFailure),
}

/// A translator of addresses before one node: one port for all that it calls, open for whom it called lately. Only
/// what goes out keeps it open (RFC 4787 REQ-6 asks for no more).
#[derive(Debug, Clone)]
pub(crate) struct Translator {
    lifetime: Duration,
    port: u16,
    called: HashMap<IpAddr, Instant>,
}

impl Translator {
    /// One that keeps what is not used for `lifetime`.
    pub(crate) fn new(lifetime: Duration) -> Self {
        Translator {
            lifetime,
            port: 20_000,
            called: HashMap::new(),
        }
    }

    fn lets_out(&mut self, to: IpAddr, now: Instant) {
        self.called.insert(to, now);
    }

    fn lets_in(&self, from: IpAddr, now: Instant) -> bool {
        let called = self.called.get(&from);
        called.is_some_and(|called| now.since(*called) < self.lifetime)
    }
}

/// The state of all wires.
pub(crate) struct Network {
    size: usize,
    /// For each ordered pair, how many faults cut it at the moment; permanent blocks count too.
    cuts: Vec<u16>,
    /// For each ordered pair, latency in nanoseconds.
    latency: Vec<u32>,
    families: Vec<Families>,
    /// How often each node has moved to a new address.
    places: Vec<u8>,
    /// What each node is behind.
    translators: Vec<Option<Translator>>,
    loss: f64,
    random: Random,
}

impl Network {
    pub(crate) fn new(layout: &Layout, loss: f64, mut random: Random) -> Self {
        let size = layout.size();
        let mut network = Network {
            size,
            cuts: vec![0; size * size],
            latency: latencies(size, &mut random),
            families: layout.families.clone(),
            places: vec![0; size],
            translators: vec![None; size],
            loss,
            random,
        };
        for &(a, b) in &layout.blocked {
            network.cut(a, b);
            network.cut(b, a);
        }
        network
    }

    /// One more reason why nothing from `from` reaches `to`.
    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.cuts[from * self.size + to] += 1;
    }

    /// One reason less.
    pub(crate) fn mend(&mut self, from: usize, to: usize) {
        let cuts = &mut self.cuts[from * self.size + to];
        *cuts = cuts.saturating_sub(1);
    }

    pub(crate) fn set_loss(&mut self, loss: f64) {
        self.loss = loss;
    }

    /// The node gets new addresses; datagrams to the old ones are lost.
    pub(crate) fn roam(&mut self, node: usize) {
        self.places[node] = self.places[node].wrapping_add(1);
    }

    /// Puts a node behind a translator of its own.
    pub(crate) fn translate(&mut self, node: usize, translator: Translator) {
        self.translators[node] = Some(translator);
    }

    /// Addresses of a node, as it knows them, without port.
    pub(crate) fn addresses(&self, node: usize) -> Vec<IpAddr> {
        if self.translators[node].is_some() {
            let [high, low] = (node as u16 + 1).to_be_bytes();
            return vec![Ipv4Addr::new(172, 16, high, low).into()];
        }
        let families = self.families[node];
        [false, true]
            .into_iter()
            .filter(|&v6| families.has(v6))
            .map(|v6| self.address(node, v6))
            .collect()
    }

    fn address(&self, node: usize, v6: bool) -> IpAddr {
        let place = self.places[node];
        let number = node as u16 + 1;
        let [high, low] = number.to_be_bytes();
        if v6 {
            Ipv6Addr::new(0xfd00, u16::from(place), 0, 0, 0, 0, 0, number).into()
        } else {
            Ipv4Addr::new(10, place, high, low).into()
        }
    }

    /// The node that has this address now.
    pub(crate) fn node_at(&self, address: SocketAddr) -> Option<usize> {
        let number = match address.ip() {
            IpAddr::V4(v4) => {
                let [_, _, high, low] = v4.octets();
                u16::from_be_bytes([high, low])
            }
            IpAddr::V6(v6) => v6.segments()[7],
        };
        let node = usize::from(number).checked_sub(1)?;
        let v6 = address.is_ipv6();
        let there = node < self.size
            && self.families[node].has(v6)
            && address == SocketAddr::new(self.address(node, v6), self.port_of(node));
        there.then_some(node)
    }

    /// The port that others see it at.
    fn port_of(&self, node: usize) -> u16 {
        let translator = self.translators[node].as_ref();
        translator.map_or(PORT, |translator| translator.port)
    }

    /// Whether datagrams from `from` to `to` have a chance.
    pub(crate) fn is_open(&self, from: usize, to: usize) -> bool {
        self.cuts[from * self.size + to] == 0
    }

    /// Whether two nodes have a family in common and open wires both ways.
    pub(crate) fn meet(&self, a: usize, b: usize) -> bool {
        self.families[a].meets(self.families[b]) && self.is_open(a, b) && self.is_open(b, a)
    }

    /// Decides what becomes of a datagram sent now.
    pub(crate) fn fate(
        &mut self,
        from: usize,
        destination: SocketAddr,
        len: usize,
        now: Instant,
    ) -> Fate {
        let v6 = destination.is_ipv6();
        if !self.families[from].has(v6) {
            return Fate::Refused(SendFailure::Unreachable);
        }
        if wire_bytes(destination, len) > PACKET_LEN_MAX {
            let len = u16::try_from(len).unwrap_or(u16::MAX);
            return Fate::Refused(SendFailure::TooBig { len });
        }
        if let Some(translator) = &mut self.translators[from] {
            translator.lets_out(destination.ip(), now);
        }
        let Some(to) = self.node_at(destination) else {
            return Fate::Lost;
        };
        let source = SocketAddr::new(self.address(from, v6), self.port_of(from));
        let mut inward = self.translators[to].iter();
        if !inward.all(|translator| translator.lets_in(source.ip(), now)) {
            return Fate::Lost;
        }
        if !self.is_open(from, to) || self.random.chance(self.loss) {
            return Fate::Lost;
        }
        let nanos = f64::from(self.latency[from * self.size + to]);
        let delay = Duration::from_nanos((nanos * (1.0 + JITTER * self.random.unit())) as u64);
        Fate::Arrives(delay, to, source)
    }
}

/// Bytes a datagram takes on the wire, without Ethernet.
pub(crate) fn wire_bytes(destination: SocketAddr, len: usize) -> u64 {
    let headers = if destination.is_ipv6() {
        HEADERS_V6
    } else {
        HEADERS_V4
    };
    headers + len as u64
}

/// One-way latencies: nodes live in up to four regions, 0.2 to 50 ms apart.
fn latencies(size: usize, random: &mut Random) -> Vec<u32> {
    const REGIONS: usize = 4;
    let mut between = [[Duration::ZERO; REGIONS]; REGIONS];
    for pair in 0..REGIONS * REGIONS {
        let (a, b) = (pair / REGIONS, pair % REGIONS);
        let (low, high) = if a == b {
            (Duration::from_micros(200), Duration::from_millis(2))
        } else {
            (Duration::from_millis(1), Duration::from_millis(50))
        };
        if b <= a {
            between[a][b] = random.log_between(low, high);
            between[b][a] = between[a][b];
        }
    }
    let regions: Vec<usize> = (0..size).map(|_| random.below(REGIONS)).collect();
    let pairs = (0..size * size).map(|at| between[regions[at / size]][regions[at % size]]);
    pairs.map(|latency| latency.as_nanos() as u32).collect()
}
