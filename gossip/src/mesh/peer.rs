//! What is known of one other peer: its sessions, the ways to it, and the one in use.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use rmesh_wire::{Instant, PeerId};

use super::fast::FastPath;
use super::guard::Allowance;
use super::path::{Mapping, Pace, PathState, Watcher};
use super::source_ports::PortStates;
use super::spread::Budget;
use super::tcp::TcpState;
use super::traffic::{Flow, LATELY, WANTED};
use super::ways::Ways;
use crate::api::Path;
use crate::tcp::{is_tcp, unmarked};

/// Direct addresses kept for one peer; the ones longest dead give way.
pub(crate) const CANDIDATES_MAX: usize = 16;
/// New addresses of one peer's records that are tried at once, and a second after that: its records
/// cannot make others send to one address after another.
const PUBLISHED_BURST: u32 = 16;
const PUBLISHED_PER_S: u32 = 1;
/// A direct path in use gives way to another only if that is shorter by a quarter and this much.
const SHORTER_BY: Duration = Duration::from_millis(1);
/// IP and UDP headers before a datagram, in bytes.
const HEADERS_V4: u16 = 28;
const HEADERS_V6: u16 = 48;

/// Which way of a peer: the key of a [`PathState`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// Straight to an address.
    Direct(SocketAddr),
    /// Through whichever neighbour the routes name.
    Relay,
}

/// One other peer.
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) name: String,
    /// Local index of the session to seal with.
    pub(crate) current: Option<u32>,
    pub(crate) direct: Ways,
    pub(crate) relay: PathState,
    pub(crate) tcp: TcpState,
    pub(super) ports: PortStates,
    /// The kernel's VXLAN, for what is announced to be there and may cross in plaintext.
    pub(crate) fast: FastPath,
    pub(crate) chosen: Option<Path>,
    pub(crate) chosen_since: Instant,
    pub(crate) path_epoch: u32,
    /// This side wants a control link with it.
    pub(crate) desired: bool,
    /// Its last probe said that it wants one with us.
    pub(crate) desires_us: bool,
    /// A frame waited for a session until lately.
    pub(crate) wanted_until: Instant,
    /// Until then there is traffic with it.
    pub(super) busy_until: Instant,
    pub(super) flow: Flow,
    /// Since when traffic has been sent without anything coming back.
    pub(crate) silent_since: Option<Instant>,
    /// When traffic has been missing for a while, if nothing comes until then.
    pub(crate) lull_at: Option<Instant>,
    /// When it is asked again because somebody waits here.
    pub(crate) next_demand: Instant,
    /// Records it may still publish.
    pub(crate) records: Allowance,
    /// When it last published more than that.
    pub(crate) limited: Option<Instant>,
    /// Digests in a row that differed from ours.
    pub(crate) mismatches: u32,
    /// When the next is counted: several probes may come at once.
    pub(crate) next_mismatch: Instant,
    /// When buckets may be sent to it again.
    pub(crate) next_buckets: Instant,
    /// Cost of the link as last published, in microseconds, and when.
    pub(crate) published_cost: Option<(u32, Instant)>,
    /// It answered a dial, and is not dialled again before this time.
    pub(crate) rests_until: Instant,
    /// A peer is reported up once it is, and down once.
    pub(crate) reported_up: bool,
    /// New addresses it may still publish.
    pub(crate) published: Allowance,
    /// Records it was sent because it asked.
    pub(crate) answered: Budget,
}

impl Peer {
    pub(crate) fn new(id: PeerId, now: Instant) -> Self {
        Peer {
            id,
            name: String::new(),
            current: None,
            direct: Ways::default(),
            // Some hop may be IPv6.
            relay: PathState::new(HEADERS_V6, now),
            tcp: TcpState::default(),
            ports: PortStates::default(),
            fast: FastPath::new(now),
            chosen: None,
            chosen_since: now,
            path_epoch: 0,
            desired: false,
            desires_us: false,
            wanted_until: Instant::ZERO,
            busy_until: Instant::ZERO,
            flow: Flow::default(),
            silent_since: None,
            lull_at: None,
            next_demand: Instant::ZERO,
            records: Allowance::default(),
            limited: None,
            // A new neighbour most likely knows other records: the first difference counts.
            mismatches: 1,
            next_mismatch: Instant::ZERO,
            next_buckets: Instant::ZERO,
            published_cost: None,
            rests_until: Instant::ZERO,
            reported_up: false,
            published: Allowance::default(),
            answered: Budget::default(),
        }
    }

    /// The state of one way.
    pub(crate) fn way_mut(&mut self, way: Way) -> Option<&mut PathState> {
        match way {
            Way::Direct(address) => self.direct.get_mut(&address),
            Way::Relay => Some(&mut self.relay),
        }
    }

    /// Adds an address to try, if it is new and there is room.
    pub(crate) fn add_candidate(&mut self, address: SocketAddr, now: Instant) {
        if self.direct.contains_key(&address) {
            return;
        }
        let by_tcp = self.direct.keys().filter(|known| is_tcp(**known)).count();
        if is_tcp(address) && by_tcp >= super::tcp::ADDRESSES_MAX {
            return;
        }
        if self.direct.len() >= CANDIDATES_MAX {
            let dead = self.direct.iter().filter(|(_, path)| !path.is_alive());
            let Some(oldest) = dead.min_by_key(|(_, path)| path.since).map(|(a, _)| *a) else {
                return;
            };
            self.direct.remove(&oldest);
        }
        let headers = if address.is_ipv4() {
            HEADERS_V4
        } else {
            HEADERS_V6
        };
        let path = PathState::new(headers, now);
        let path = if is_tcp(address) {
            path.over_stream()
        } else {
            path
        };
        self.direct.insert(address, path);
    }

    /// Adds an address that it published, unless it has published too many lately; it says so again.
    pub(crate) fn add_published(&mut self, address: SocketAddr, now: Instant) {
        let known = self.direct.contains_key(&address);
        if !known && self.published.take(PUBLISHED_BURST, PUBLISHED_PER_S, now) {
            self.add_candidate(address, now);
        }
    }

    /// Forgets dead addresses for which `keep` is false.
    pub(crate) fn retain_candidates(&mut self, keep: impl Fn(&SocketAddr) -> bool) {
        self.direct
            .retain(|address, path| path.is_alive() || keep(address));
    }

    /// Whether a direct path works.
    pub(crate) fn has_direct(&self) -> bool {
        self.direct.values().any(PathState::is_alive)
    }

    /// The control link with it exists: a direct path works and one side wants the link.
    pub(crate) fn is_neighbour(&self) -> bool {
        self.current.is_some() && (self.desired || self.desires_us) && self.has_direct()
    }

    /// Whether the path in use is a relay.
    pub(crate) fn is_relayed(&self) -> bool {
        matches!(self.chosen, Some(Path::Relay(_)))
    }

    /// How eagerly its ways are watched.
    ///
    /// Control links of a large mesh, over which nothing else goes, are watched more rarely: who else
    /// misses the same peer says so.
    pub(crate) fn pace(&self, is_large: bool, now: Instant) -> Pace {
        let is_link = self.desired || self.desires_us;
        match () {
            () if now < self.busy_until => Pace::BUSY,
            () if self.had_traffic_lately(now) => Pace::CLOSE,
            () if is_link && is_large => Pace::LINK,
            () if is_link || now < self.wanted_until => Pace::QUIET,
            () => Pace::IDLE,
        }
    }

    fn had_traffic_lately(&self, now: Instant) -> bool {
        now + (WANTED - LATELY) < self.wanted_until
    }

    /// How eagerly one of them is watched.
    pub(crate) fn pace_of(&self, way: Way, watcher: Watcher, is_large: bool, now: Instant) -> Pace {
        let pace = match self.is_spare(way) {
            true => self.pace(is_large, now).of_spare(),
            false => self.pace(is_large, now),
        };
        let mapping = match way {
            Way::Direct(address) => self.direct.get(&address).map(|path| path.mapping),
            Way::Relay => None,
        };
        mapping.unwrap_or(Mapping::default()).adapt(pace, watcher)
    }

    /// There is traffic for `time`. What is not watched as closely as that wants is asked at once.
    pub(crate) fn note_busy(&mut self, time: Duration, now: Instant) {
        if now >= self.busy_until
            && let Some(path) = self.used_mut()
        {
            path.ask_now(now);
        }
        self.busy_until = self.busy_until.max(now + time);
    }

    /// Whether a way works as far as is known, and another is used.
    fn is_spare(&self, way: Way) -> bool {
        match way {
            Way::Direct(address) => {
                let path = self.direct.get(&address);
                self.direct_address() != Some(address) && path.is_some_and(PathState::is_alive)
            }
            Way::Relay => false,
        }
    }

    /// The path in use.
    pub(crate) fn used(&self) -> Option<&PathState> {
        match self.chosen? {
            Path::Direct(address) => self.direct.get(&address),
            Path::Relay(_) => Some(&self.relay),
            Path::Tcp(_) => None,
        }
    }

    /// The path in use.
    pub(crate) fn used_mut(&mut self) -> Option<&mut PathState> {
        match self.chosen? {
            Path::Direct(address) => self.direct.get_mut(&address),
            Path::Relay(_) => Some(&mut self.relay),
            Path::Tcp(_) => None,
        }
    }

    /// Round trip of the path in use.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.used()?.round_trip()
    }

    /// The address to send direct datagrams to.
    pub(crate) fn direct_address(&self) -> Option<SocketAddr> {
        match self.chosen {
            Some(Path::Direct(address)) => Some(address),
            Some(Path::Relay(_) | Path::Tcp(_)) | None => None,
        }
    }

    /// The best way now, given the neighbour the routes name as first hop: straight by UDP, through others, by
    /// TCP.
    pub(crate) fn best_path(&self, next_hop: Option<PeerId>) -> Option<Path> {
        let relay = || next_hop.filter(|hop| *hop != self.id).map(Path::Relay);
        let udp = self.best_direct(false);
        udp.or_else(relay).or_else(|| self.best_direct(true))
    }

    /// This host is seen at these addresses beyond its translator: what leads there goes round by that one.
    pub(crate) fn mark_hairpins(&mut self, outside: &[IpAddr]) {
        for (address, path) in self.direct.iter_mut() {
            path.is_hairpin = outside.contains(&address.ip());
        }
    }

    /// The best address by TCP or by UDP.
    fn best_direct(&self, tcp: bool) -> Option<Path> {
        let all = || self.direct.iter().filter(|(at, _)| is_tcp(**at) == tcp);
        let trip = |path: &PathState| path.distance().unwrap_or(Duration::MAX);
        let has_sure = all().any(|(_, path)| path.is_sure());
        let works = |path: &PathState| path.is_alive() && (path.is_sure() || !has_sure);
        let outdone = |path: &PathState| all().any(|(_, other)| path.is_outdone_by(other));
        let good = |path: &PathState| works(path) && !outdone(path);
        // A translator is no place to go by between two hosts of one network.
        let is_straight = all().any(|(_, path)| good(path) && !path.is_hairpin);
        let good = |path: &PathState| good(path) && !(is_straight && path.is_hairpin);
        let alive = all().filter(|(_, path)| good(path));
        let (shortest, path) = alive.min_by_key(|(_, path)| trip(path))?;
        let used = self.direct_address().filter(|at| is_tcp(*at) == tcp);
        let used = used.and_then(|at| Some((at, self.direct.get(&at)?)));
        if let Some((address, used)) = used.filter(|(_, used)| good(used)) {
            let (old, new) = (trip(used), trip(path));
            if new + SHORTER_BY > old || new + new / 4 > old {
                return Some(Path::Direct(address));
            }
        }
        Some(Path::Direct(*shortest))
    }

    /// Why a direct path that works is not the one in use; empty if it is, or does not.
    pub(crate) fn reason_against(&self, address: SocketAddr, path: &PathState) -> String {
        if self.direct_address() == Some(address) || !path.is_alive() {
            return String::new();
        }
        if is_tcp(address) {
            return String::from("TCP is only used where nothing else works");
        }
        if path.is_withdrawn() {
            return format!("{} has stopped to publish this address", self.name);
        }
        if path.is_hairpin {
            return String::from("it leads round by the translator of the own network");
        }
        let used = self.used().and_then(PathState::distance);
        match (path.distance(), used) {
            (Some(this), Some(used)) if this < used => {
                String::from("not shorter by a quarter and 1 ms")
            }
            _ => String::from("not shorter"),
        }
    }

    /// Why the path in use is not a direct one, for an operator; empty if it is.
    pub(crate) fn reason(&self, now: Instant) -> String {
        let by_tcp = self.direct_address().is_some_and(is_tcp);
        if matches!(self.chosen, Some(Path::Direct(_))) && !by_tcp {
            return String::new();
        }
        if self.direct.is_empty() {
            return String::from("it has published no address");
        }
        let tried = self
            .direct
            .iter()
            .filter(|(at, _)| !by_tcp || !is_tcp(**at));
        let tried: Vec<String> = tried
            .map(|(address, path)| {
                let by = if is_tcp(*address) { "TCP " } else { "" };
                format!("{by}{} {}", unmarked(*address), state_of(path, now))
            })
            .collect();
        let what = if by_tcp {
            "no way by UDP"
        } else {
            "no direct way"
        };
        format!("{what}: {}", tried.join(", "))
    }
}

/// What came of an address, in words.
pub(crate) fn state_of(path: &PathState, now: Instant) -> String {
    if path.is_alive() {
        String::from("alive")
    } else if path.inside {
        String::from("this host's route to it leads into the mesh itself")
    } else if path.refused {
        String::from("unreachable from this host")
    } else if path.tried {
        format!("no answer for {} s", now.since(path.since).as_secs())
    } else {
        String::from("not tried yet")
    }
}
