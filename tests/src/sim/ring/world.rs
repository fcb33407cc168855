//! Time, and everything that happens in it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use rmesh_ipam::Range;
use rmesh_wire::Instant;

use super::super::calendar::Calendar;
use super::super::network::Network;
use super::super::random::Random;
use super::board::{Announcement, Board};
use super::check::Live;
use super::disk::Remains;
use super::fault::Step;
use super::host::Host;
use super::operator::Order;
use super::report::Meter;
use super::story::RingOptions;
use super::trace::Trace;

/// A host that asks for more turns than this without time going on is stuck.
const TURNS_PER_INSTANT_MAX: u32 = 10_000;
/// Violations kept; the first ones tell the story.
const VIOLATIONS_MAX: usize = 5;

/// Something that will happen.
pub(super) enum Action {
    /// A datagram of the mesh arrives.
    Datagram {
        to: usize,
        source: SocketAddr,
        bytes: Vec<u8>,
    },
    /// A message of the ring arrives.
    Message {
        to: usize,
        from: usize,
        bytes: Vec<u8>,
    },
    /// An announcement arrives.
    Announced {
        to: usize,
        of: usize,
        what: Announcement,
    },
    /// A host asked to be woken.
    Wake(usize),
    /// The disk has done a write of this life of the daemon.
    Commit { host: usize, life: u32 },
    /// A daemon looks at who is reachable and what they announce.
    Look { host: usize, life: u32 },
    /// A host compares announcements with another.
    Rumour(usize),
    /// A client of this host wants something.
    Work(usize),
    /// Something goes wrong, or well again.
    Step(Step),
    /// The operator gives a command.
    Order(Order),
}

/// The whole simulated world.
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) options: RingOptions,
    pub(super) hosts: Vec<Host>,
    pub(super) network: Network,
    pub(super) calendar: Calendar<Action>,
    pub(super) random: Random,
    pub(super) pools: Vec<Range>,
    /// Peers named at launch by everybody.
    pub(super) core: Vec<usize>,
    /// The first peer founds the ring, named by the others; otherwise the core founds it together.
    pub(super) is_founded_alone: bool,
    /// Neighbours of each host in the overlay, where wires are direct.
    pub(super) overlay: Vec<BTreeSet<usize>>,
    pub(super) board: Board,
    pub(super) live: Live,
    /// Cuts in force, by number.
    pub(super) cuts: BTreeSet<u64>,
    /// Nothing goes wrong before this: the operator minds the network.
    pub(super) truce: Instant,
    /// Faults and new work happen.
    pub(super) is_season: bool,
    pub(super) meter: Meter,
    pub(super) violations: Vec<String>,
    /// What the violations are about: lines with these words are told.
    pub(super) words: Vec<String>,
    pub(super) trace: Trace,
    turns_now: u32,
}

impl World {
    pub(super) fn new(options: RingOptions, hosts: Vec<Host>, network: Network, seed: u64) -> Self {
        let size = hosts.len();
        World {
            now: Instant::ZERO,
            options,
            hosts,
            network,
            calendar: Calendar::new(),
            random: Random::new(seed),
            pools: Vec::new(),
            core: Vec::new(),
            is_founded_alone: false,
            overlay: vec![BTreeSet::new(); size],
            board: Board::new(size),
            live: Live::default(),
            cuts: BTreeSet::new(),
            truce: Instant::ZERO,
            is_season: true,
            meter: Meter::default(),
            violations: Vec::new(),
            words: Vec::new(),
            trace: Trace::default(),
            turns_now: 0,
        }
    }

    /// Something must not be. `words` mark the lines of the trace that matter.
    pub(super) fn violate(&mut self, what: String, words: Vec<String>) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.note(None, || format!("VIOLATION: {what}"));
            let seconds = self.now.since(Instant::ZERO).as_secs_f64();
            self.violations.push(format!("at {seconds:.4} s: {what}"));
            self.words.extend(words);
        }
    }

    pub(super) fn note(&mut self, host: Option<usize>, what: impl FnOnce() -> String) {
        self.trace.note(self.now, host, what);
    }

    pub(super) fn schedule(&mut self, after: Duration, action: Action) {
        self.calendar.schedule(self.now + after, action);
    }

    /// Lets time go on for `duration`, or until something is violated.
    pub(super) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.violations.is_empty()
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
            Action::Datagram { to, source, bytes } => self.on_datagram(to, source, &bytes),
            Action::Message { to, from, bytes } => self.on_message(to, from, &bytes),
            Action::Announced { to, of, what } => self.on_announced(to, of, &what),
            Action::Wake(host) => self.wake(host),
            Action::Commit { host, life } => self.commit(host, life),
            Action::Look { host, life } => self.look(host, life),
            Action::Rumour(host) => self.rumour(host),
            Action::Work(host) => self.work(host),
            Action::Step(step) => self.strike(step),
            Action::Order(order) => self.give(order),
        }
    }

    fn wake(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        if host.wake != Some(self.now) {
            return;
        }
        host.wake = None;
        let clock = host.clock(self.now);
        let Some(daemon) = host.daemon.as_mut() else {
            return;
        };
        if daemon
            .node
            .poll_timeout()
            .is_some_and(|(at, _)| at <= clock)
        {
            daemon.node.handle_timeout(clock);
        }
        if let Some(mesh) = host.peer.mesh.as_mut()
            && mesh.poll_timeout().is_some_and(|(at, _)| at <= clock)
        {
            mesh.handle_timeout(clock);
        }
        self.turns_now += 1;
        if self.turns_now > TURNS_PER_INSTANT_MAX {
            let why = self.hosts[index]
                .daemon
                .as_ref()
                .and_then(|d| d.node.poll_timeout());
            self.violate(
                format!("peer{index} asks for one timeout for ever: {why:?}"),
                Vec::new(),
            );
            return;
        }
        self.settle(index);
    }

    /// Drains a host after an input, as the contract in [`rmesh_wire`] asks, and looks at it.
    pub(super) fn settle(&mut self, index: usize) {
        loop {
            self.drain_writes(index);
            let events = self.drain_events(index);
            let sent = self.drain_transmits(index);
            if !events && !sent {
                break;
            }
        }
        self.begin_write(index);
        self.check_ring(index);
        self.arm(index);
    }

    fn drain_writes(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        let Some(daemon) = host.daemon.as_mut() else {
            return;
        };
        let mut last = None;
        while let Some((number, entry)) = daemon.node.poll_write() {
            host.disk.queue(number, entry);
            last = Some(number);
        }
        // Without a token, what outlives the process is not found by the next one.
        let owner = daemon.node.owner();
        let is_noted = host
            .token
            .is_some_and(|token| token.incarnation == owner.incarnation);
        if let Some(number) = last
            && is_noted
            && daemon.hands_over
        {
            let clock = self.now + host.ahead;
            daemon.node.handle_handed_over(number, clock);
        }
    }

    /// Keeps one wake-up on the calendar, never later than the cores ask for.
    fn arm(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        let node = host.daemon.as_ref().and_then(|d| d.node.poll_timeout());
        let mesh = host.peer.mesh.as_ref().and_then(|m| m.poll_timeout());
        let Some(due) = node.into_iter().chain(mesh).map(|(at, _)| at).min() else {
            return;
        };
        let at = host.moment(due, self.now);
        if host.wake.is_none_or(|wake| wake > at) {
            host.wake = Some(at);
            self.calendar.schedule(at, Action::Wake(index));
        }
    }

    /// What a crash leaves of a write under way.
    pub(super) fn remains(&mut self) -> Remains {
        Remains::any(&mut self.random)
    }

    /// Hosts whose daemon runs.
    pub(super) fn running(&self) -> Vec<usize> {
        let running = self.hosts.iter().filter(|host| host.runs());
        running.map(|host| host.index).collect()
    }

    /// The host of a peer's id.
    pub(super) fn host_of(&self, id: rmesh_wire::PeerId) -> Option<usize> {
        self.hosts.iter().position(|host| host.id() == id)
    }
}
