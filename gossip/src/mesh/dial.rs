//! Whom to open a session with, and when to try again.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use rmesh_wire::{Instant, PeerId};

use super::peer::Peer;
use super::session::Session;
use super::tcp::{ADDRESSES_MAX, UDP_PATIENCE};
use super::watched::Watched;
use super::{Mesh, Origin};
use crate::api::{Event, Target, TargetReport};
use crate::limits::REKEY_AFTER_RECORDS;
use crate::tcp::over_tcp;

/// First repetition of an unanswered first message; doubles up to [`WAIT_MAX`].
const WAIT_FIRST: Duration = Duration::from_millis(250);
/// After an answer the same goal is left alone for this long, whatever became of the session.
const ANSWERED_REST: Duration = Duration::from_secs(1);
/// A peer that starts late must be found within 5 s, so nobody waits longer than this.
const WAIT_MAX: Duration = Duration::from_secs(4);
/// Peers that are not needed at the moment are tried more rarely.
const WAIT_MAX_IDLE: Duration = Duration::from_secs(30);
/// A target that has not answered for this long is reported.
const NO_ANSWER_AFTER: Duration = Duration::from_secs(5);
/// … and again after this time.
const NO_ANSWER_AGAIN: Duration = Duration::from_secs(60);
/// Hints of an earlier life are tried for this long.
const HINT_LIFETIME: Duration = Duration::from_secs(30);
/// Addresses one first message is sent to.
const DIAL_ADDRESSES_MAX: usize = 16;
/// A session that has been silent for this long beyond two probes is opened anew.
const SILENCE_MIN: Duration = Duration::from_secs(2);
/// When both ends want a session the one with the larger id lets the other begin.
const YIELD_TO_SMALLER: Duration = Duration::from_millis(300);
/// The end that did not open a session renews it only this much later than the other should have.
const REKEY_YIELD: Duration = Duration::from_secs(10);

/// After this time it is seen whether a peer that has become wanted has to be dialled: the other end
/// may be about to open a session.
pub(super) const CHECK: Duration = Duration::from_millis(20);

/// Timers of a large mesh look for sessions that are missing or silent at most this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a dial is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Goal {
    /// A configured peer, by the name the operator wrote.
    Target(String),
    /// An address of an earlier life.
    Hint(SocketAddr),
    /// A peer known by its record.
    Peer(PeerId),
}

/// When `me` renews a session.
pub(crate) fn rekey_at(session: &Session, me: PeerId, age: Duration) -> Instant {
    let opened = session.agreement.opener == me;
    let yielding = if opened { Duration::ZERO } else { REKEY_YIELD };
    session.established + age + yielding
}

/// One goal being worked at.
pub(crate) struct Dial {
    index: Option<u32>,
    pub(crate) next: Instant,
    wait: Duration,
    since: Instant,
    reported: Option<Instant>,
    /// UDP has had its time.
    by_tcp: bool,
}

impl Dial {
    fn new(since: Instant, next: Instant) -> Self {
        Dial {
            index: None,
            next,
            wait: WAIT_FIRST,
            since,
            reported: None,
            by_tcp: false,
        }
    }
}

/// One configured peer.
pub(crate) struct TargetState {
    addresses: Vec<SocketAddr>,
    peer: Option<PeerId>,
    rests_until: Instant,
    is_me: bool,
}

/// Everything about dialling.
#[derive(Default)]
pub(crate) struct Dialer {
    pub(crate) targets: BTreeMap<String, TargetState>,
    pub(crate) dials: Watched<Goal, Dial>,
    /// When it was last seen who is to be dialled.
    looked: Instant,
}

impl TargetState {
    /// Whether it turned out to be this very peer.
    pub(crate) fn is_me(&self) -> bool {
        self.is_me
    }

    /// Who answers there.
    pub(crate) fn peer(&self) -> Option<PeerId> {
        self.peer
    }
}

impl Mesh {
    /// Peers that answer where a configured one should be.
    pub(crate) fn listed(&self) -> impl Iterator<Item = PeerId> {
        self.dialer
            .targets
            .values()
            .filter_map(|target| target.peer)
    }

    pub(crate) fn set_targets(&mut self, targets: Vec<Target>, now: Instant) {
        let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
        self.dialer
            .targets
            .retain(|name, _| names.contains(&name.as_str()));
        self.dialer.dials.retain(|goal, _| match goal {
            Goal::Target(name) => names.contains(&name.as_str()),
            Goal::Hint(_) | Goal::Peer(_) => true,
        });
        for Target {
            name,
            mut addresses,
        } in targets
        {
            addresses.truncate(DIAL_ADDRESSES_MAX);
            let state = self
                .dialer
                .targets
                .entry(name.clone())
                .or_insert(TargetState {
                    addresses: Vec::new(),
                    peer: None,
                    rests_until: Instant::ZERO,
                    is_me: false,
                });
            if state.addresses != addresses {
                state.addresses = addresses;
                state.is_me = false;
                if let Some(dial) = self.dialer.dials.get_mut(&Goal::Target(name)) {
                    dial.wait = WAIT_FIRST;
                    dial.next = now;
                }
            }
        }
        self.dial(now);
    }

    pub(crate) fn add_hints(&mut self, addresses: Vec<SocketAddr>, now: Instant) {
        for address in addresses.into_iter().take(DIAL_ADDRESSES_MAX) {
            let dial = Dial::new(now, now);
            self.dialer.dials.insert(Goal::Hint(address), dial);
        }
        self.dial(now);
    }

    pub(crate) fn target_is_me(&mut self, name: &str, address: Option<SocketAddr>) {
        let Some(target) = self.dialer.targets.get_mut(name) else {
            return;
        };
        target.addresses.retain(|other| Some(*other) != address);
        target.is_me = target.addresses.is_empty();
        self.news.members = true;
    }

    /// A dial succeeded: remember who it was.
    pub(crate) fn dial_answered(
        &mut self,
        goal: Option<Goal>,
        peer: PeerId,
        origin: Origin,
        now: Instant,
    ) {
        let Some(goal) = goal else { return };
        self.dialer.dials.remove(&goal);
        if let Goal::Target(name) = goal
            && let Some(target) = self.dialer.targets.get_mut(&name)
        {
            target.peer = Some(peer);
            target.rests_until = now + ANSWERED_REST;
        }
        self.meet(peer, "", now);
        if let Some((address, entry)) = origin.address().zip(self.peers.get_mut(&peer)) {
            entry.add_candidate(address, now);
        }
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.rests_until = now + ANSWERED_REST;
        }
    }

    /// Whether a timer has to see who is to be dialled: in a large mesh not every one looks at everybody.
    pub(crate) fn is_dial_due(&self, now: Instant) -> bool {
        let due = [self.dial_check, self.dial_deadline()];
        let is_due = due.into_iter().flatten().any(|due| due <= now);
        is_due || !self.is_large() || now >= self.dialer.looked + LOOK_EVERY
    }

    /// Starts, repeats and ends dials.
    pub(crate) fn dial(&mut self, now: Instant) {
        self.dial_check = self.dial_check.filter(|check| *check > now);
        self.dialer.looked = now;
        if self.gives_way() {
            return;
        }
        self.want_targets(now);
        self.want_peers(now);
        let hint_over = |goal: &Goal, dial: &Dial| {
            matches!(goal, Goal::Hint(_)) && now.since(dial.since) >= HINT_LIFETIME
        };
        self.dialer
            .dials
            .retain(|goal, dial| !hint_over(goal, dial));
        for goal in self.dialer.dials.due_by(now) {
            let dial = self.dialer.dials.get(&goal);
            if dial.is_some_and(|dial| dial.next <= now) {
                self.dial_once(&goal, now);
            }
        }
    }

    pub(crate) fn dial_deadline(&self) -> Option<Instant> {
        if self.gives_way() {
            return None;
        }
        self.dialer.dials.first_due().map(|(due, _)| *due)
    }

    /// Targets whose peer is unknown or not reachable are dialled.
    fn want_targets(&mut self, now: Instant) {
        let mut wanted = Vec::new();
        for (name, target) in &self.dialer.targets {
            // In a large mesh it is enough that it is there: a session is opened when it is used.
            let is_reached = |peer| match self.is_large() {
                true => self.is_reachable(&peer),
                false => self.is_connected(peer),
            };
            if target.peer.is_some_and(is_reached) || target.is_me {
                self.dialer.dials.remove(&Goal::Target(name.clone()));
            } else {
                wanted.push((Goal::Target(name.clone()), target.rests_until));
            }
        }
        for (goal, rest) in wanted {
            self.want(goal, rest, now);
        }
    }

    /// Dials from `from` on, if that is not being done.
    fn want(&mut self, goal: Goal, from: Instant, now: Instant) {
        if !self.dialer.dials.contains_key(&goal) {
            self.dialer
                .dials
                .insert(goal, Dial::new(now, from.max(now)));
        }
    }

    /// Peers known by record that need a session (or a new one) are dialled.
    fn want_peers(&mut self, now: Instant) {
        let (mut at_rest, mut wanted, mut over) = (Vec::new(), Vec::new(), Vec::new());
        for id in &self.active {
            let Some(peer) = self.peers.get(id) else {
                at_rest.push(*id);
                continue;
            };
            let needed = peer.desired || peer.desires_us || now < peer.wanted_until;
            let session = peer.current.and_then(|index| self.sessions.get(&index));
            let renew = session.is_some_and(|session| self.is_rekey_due(session, now));
            let patience = self.patience(peer, now);
            let silent = session.is_some_and(|session| now.since(session.heard) >= patience);
            let stuck = silent || (session.is_some() && peer.chosen.is_none());
            let missing = session.is_none() && needed && self.is_known(*id);
            let goal = Goal::Peer(*id);
            // What nobody has used for long comes to its end.
            if missing || (needed && (stuck || renew)) {
                let yielding = if missing && *id < self.me && peer.desired {
                    YIELD_TO_SMALLER
                } else {
                    Duration::ZERO
                };
                wanted.push((goal, (now + yielding).max(peer.rests_until)));
            } else {
                over.push(goal);
                if session.is_none() && !needed && peer.fast.deadline().is_none() {
                    at_rest.push(*id);
                }
            }
        }
        for (goal, from) in wanted {
            self.want(goal, from, now);
        }
        for goal in over {
            self.dialer.dials.remove(&goal);
        }
        for id in at_rest {
            self.active.remove(&id);
        }
        let peers = &self.peers;
        self.dialer.dials.retain(|goal, _| match goal {
            Goal::Peer(id) => peers.contains_key(id),
            Goal::Target(_) | Goal::Hint(_) => true,
        });
    }

    /// There are probes every second or ten: longer silence means that the other end has forgotten the session, or
    /// that nothing gets through.
    fn patience(&self, peer: &Peer, now: Instant) -> Duration {
        SILENCE_MIN + peer.pace(self.is_large(), now).alive * 2
    }

    fn is_rekey_due(&self, session: &Session, now: Instant) -> bool {
        rekey_at(session, self.me, self.rekey_after) <= now
            || session.records >= REKEY_AFTER_RECORDS
    }

    fn dial_once(&mut self, goal: &Goal, now: Instant) {
        let tcp_on = self.is_tcp_on();
        let (index, since) = match self.dialer.dials.get_mut(goal) {
            Some(dial) => {
                dial.by_tcp = tcp_on && now >= dial.since + UDP_PATIENCE;
                (dial.index, dial.since)
            }
            None => return,
        };
        let wait_max = match goal {
            Goal::Peer(id) if !self.is_needed(*id, now) => WAIT_MAX_IDLE,
            Goal::Target(_) | Goal::Hint(_) | Goal::Peer(_) => WAIT_MAX,
        };
        let repeat = index.and_then(|i| Some((i, self.half_opens.message(i, now)?)));
        let repeat = repeat.or_else(|| {
            let index = self.open_handshake(goal.clone(), now)?;
            Some((index, self.half_opens.message(index, now)?))
        });
        if let Some((_, message)) = &repeat {
            for origin in self.dial_origins(goal, now) {
                self.send_first(origin, message.clone(), now);
            }
        }
        let mut report = None;
        if let Some(dial) = self.dialer.dials.get_mut(goal) {
            dial.index = repeat.map(|(index, _)| index);
            dial.next = now + dial.wait.min(wait_max);
            if tcp_on && now < since + UDP_PATIENCE {
                dial.next = dial.next.min(since + UDP_PATIENCE);
            }
            dial.wait = (dial.wait * 2).min(wait_max);
            let silent = now.since(since) >= NO_ANSWER_AFTER;
            let again = dial
                .reported
                .is_none_or(|then| now.since(then) >= NO_ANSWER_AGAIN);
            if let (Goal::Target(name), true) = (goal, silent && again) {
                dial.reported = Some(now);
                report = Some(name.clone());
            }
        }
        self.events
            .extend(report.map(|target| Event::NoAnswer { target }));
    }

    fn is_needed(&self, peer: PeerId, now: Instant) -> bool {
        let needed = |p: &super::peer::Peer| p.desired || p.desires_us || now < p.wanted_until;
        self.peers.get(&peer).is_some_and(needed)
    }

    /// Where a goal is called.
    pub(crate) fn dial_origins(&self, goal: &Goal, now: Instant) -> Vec<Origin> {
        let dial = self.dialer.dials.get(goal);
        let by_tcp = dial.is_some_and(|dial| dial.by_tcp);
        let is_first = dial.is_none_or(|dial| dial.wait == WAIT_FIRST);
        let direct = |addresses: &[SocketAddr]| {
            let tcp = addresses
                .iter()
                .take(if by_tcp { ADDRESSES_MAX } else { 0 });
            let tcp = tcp.map(|address| over_tcp(*address));
            addresses
                .iter()
                .copied()
                .chain(tcp)
                .map(Origin::Direct)
                .collect()
        };
        match goal {
            Goal::Target(name) => self
                .dialer
                .targets
                .get(name)
                .map_or_else(Vec::new, |target| direct(&target.addresses)),
            Goal::Hint(address) => direct(&[*address]),
            Goal::Peer(id) => {
                let Some(peer) = self.peers.get(id) else {
                    return Vec::new();
                };
                let known = peer.direct.keys().copied();
                let mut origins: Vec<Origin> = known.map(Origin::Direct).collect();
                // A renewal goes under the session it renews as well, where no flood is in its way; at first only
                // so if all is well.
                let renewed = peer.current.is_some().then_some(*id);
                let renewed_straight = renewed.filter(|_| peer.direct_address().is_some());
                let hop = renewed_straight.or_else(|| self.next_hop(*id).or(renewed));
                let is_heard =
                    |session: &Session| now.since(session.heard) < self.patience(peer, now);
                let session = peer.current.and_then(|index| self.sessions.get(&index));
                if is_first && renewed_straight.is_some() && session.is_some_and(is_heard) {
                    origins.clear();
                }
                if by_tcp && peer.chosen.is_none() {
                    let new = self.tcp_addresses(*id).into_iter();
                    let new = new.filter(|address| !peer.direct.contains_key(address));
                    origins.extend(new.map(Origin::Direct));
                }
                origins.extend(hop.map(|neighbour| Origin::Relayed {
                    neighbour,
                    source: Some(id.short_id()),
                }));
                origins
            }
        }
    }

    pub(crate) fn target_reports(&self, now: Instant) -> Vec<TargetReport> {
        let report = |(name, target): (&String, &TargetState)| {
            let dial = self.dialer.dials.get(&Goal::Target(name.clone()));
            let silent = dial.is_some_and(|dial| now.since(dial.since) >= NO_ANSWER_AFTER / 2);
            let state = if target.is_me {
                String::from("this peer")
            } else if target.peer == Some(self.me) {
                String::from("runs with this peer's identity")
            } else if target.peer.is_some_and(|peer| self.is_reachable(&peer)) {
                String::from("connected")
            } else if target.addresses.is_empty() {
                String::from("does not resolve")
            } else if silent {
                format!("no answer from {name}: unreachable, or a different secret")
            } else {
                String::from("dialing")
            };
            TargetReport {
                name: name.clone(),
                addresses: target.addresses.clone(),
                peer: target.peer,
                state,
                retry_in: dial.map(|dial| dial.next.since(now)),
            }
        };
        self.dialer.targets.iter().map(report).collect()
    }
}
