//! Asking other owners for space, one after the other.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use rmesh_wire::{Instant, PeerId};

use super::Node;
use crate::address::Range;
use crate::cell::OwnerId;
use crate::limits::{
    ASK_PATIENCE, ASK_PAUSE, ASK_PAUSE_MAX, ASKS_MAX, FIRST_BLOCK_MAX, FIRST_BLOCK_MIN,
    FIRST_BLOCK_PART, WANT_EVERY,
};
use crate::message::{Body, Denial, Wish};

/// A grant that is under way is waited for this many times as long as an answer.
const GRANTING_PATIENCE: u32 = 4;
/// Rounds after which an answer "nothing free" from everybody counts.
const ROUNDS_ENOUGH: u32 = 2;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// Some addresses of a range.
    Block(Range),
    /// This one.
    Exact(u128),
}

/// How an owner reacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Silent,
    Unreachable,
    Granting,
    Denied(Denial),
}

/// One round of asking after the other.
#[derive(Debug)]
pub(super) struct Ask {
    id: u64,
    queue: VecDeque<PeerId>,
    current: Option<PeerId>,
    /// When the current one has had its time, or the pause is over.
    next: Instant,
    pause: Duration,
    /// Rounds in which somebody waited for an answer.
    urgent_rounds: u32,
    pub(super) outcomes: BTreeMap<PeerId, Outcome>,
}

/// What this peer would like to have without a client waiting for it.
#[derive(Debug, Default)]
pub(super) struct Want {
    ranges: BTreeSet<Range>,
    due: Instant,
}

impl Node {
    /// Begins to ask for what is wanted and stops asking for what is not wanted any more.
    pub(super) fn want(&mut self) {
        if self.now >= self.want.due {
            self.want.due = self.now + WANT_EVERY;
            let pools = self.pools().into_iter();
            self.want.ranges = pools.filter(|pool| self.is_short_of(*pool)).collect();
        }
        if self.is_leaving() {
            self.asks.clear();
            return;
        }
        if self.has_left {
            self.want.ranges.clear();
        }
        let waiting = self.requests.values().filter_map(|waiting| waiting.subject);
        let ranges = self.want.ranges.iter().map(|range| Subject::Block(*range));
        let pending = self.pending.iter().map(|at| Subject::Exact(*at));
        let wanted = waiting.chain(ranges).chain(pending).take(ASKS_MAX);
        let wanted: BTreeSet<Subject> = wanted.collect();
        self.asks.retain(|subject, _| wanted.contains(subject));
        for subject in wanted {
            if !self.asks.contains_key(&subject) {
                self.start_ask(subject);
            }
        }
    }

    /// Whether more of a pool should be asked for before it is needed.
    pub(super) fn is_short_of(&self, pool: Range) -> bool {
        let counts = self.ledger.space.counts(pool, self.now);
        let free = counts
            .fresh
            .saturating_add(counts.rested)
            .saturating_add(counts.resting);
        self.may_use() && !self.has_left && free < block_size(pool, counts.allocated) / 4
    }

    fn start_ask(&mut self, subject: Subject) {
        let ask = Ask {
            id: 0,
            queue: VecDeque::new(),
            current: None,
            next: self.now,
            pause: ASK_PAUSE,
            urgent_rounds: 0,
            outcomes: BTreeMap::new(),
        };
        self.asks.insert(subject, ask);
        self.drive_ask(subject);
    }

    pub(super) fn drive_asks(&mut self) {
        let due = self.asks.iter().filter(|(_, ask)| ask.next <= self.now);
        let due: Vec<Subject> = due.map(|(subject, _)| *subject).collect();
        for subject in due {
            self.drive_ask(subject);
            self.is_stale = true;
        }
    }

    /// The current one has had its time: the next one is asked, or there is a pause.
    fn drive_ask(&mut self, subject: Subject) {
        let is_urgent = self
            .requests
            .values()
            .any(|waiting| waiting.subject == Some(subject));
        let begins = self
            .asks
            .get(&subject)
            .is_some_and(|ask| ask.current.is_none() && ask.queue.is_empty());
        let targets = if begins {
            self.targets(subject)
        } else {
            Vec::new()
        };
        let id = self.random.number();
        let pause = self.random.jittered(ASK_PAUSE);
        let Some(ask) = self.asks.get_mut(&subject) else {
            return;
        };
        if begins {
            ask.id = id;
            ask.urgent_rounds = if is_urgent { ask.urgent_rounds + 1 } else { 0 };
            ask.outcomes.clear();
            for (peer, is_reachable) in targets {
                if is_reachable {
                    ask.queue.push_back(peer);
                } else {
                    ask.outcomes.insert(peer, Outcome::Unreachable);
                }
            }
        }
        if let Some(silent) = ask.current.take() {
            ask.outcomes.entry(silent).or_insert(Outcome::Silent);
        }
        let Some(peer) = ask.queue.pop_front() else {
            ask.next = self.now + if is_urgent { pause } else { ask.pause };
            ask.pause = (ask.pause * 2).min(ASK_PAUSE_MAX);
            return;
        };
        ask.current = Some(peer);
        ask.next = self.now + ASK_PATIENCE;
        let id = ask.id;
        let (within, wish) = self.wish(subject, is_urgent);
        self.send(peer, Body::Ask { id, within, wish });
    }

    fn wish(&self, subject: Subject, is_urgent: bool) -> (Range, Wish) {
        match subject {
            Subject::Exact(at) => (Range::one(at), Wish::Exact(at)),
            Subject::Block(range) => {
                let counts = self.ledger.space.counts(range, self.now);
                let count = block_size(range, counts.allocated);
                // Owners that are short themselves would else ask each other without end.
                (
                    range,
                    if is_urgent {
                        Wish::Block(count)
                    } else {
                        Wish::Spare(count)
                    },
                )
            }
        }
    }

    /// The other owners, the most promising first, and whether each is reachable.
    fn targets(&self, subject: Subject) -> Vec<(PeerId, bool)> {
        let range = match subject {
            Subject::Block(range) => range,
            Subject::Exact(at) => Range::one(at),
        };
        let mut sizes: BTreeMap<PeerId, u128> = BTreeMap::new();
        for (owner, size) in self.ledger.ring.sizes(range) {
            if owner.peer != self.me {
                let sum = sizes.entry(owner.peer).or_default();
                *sum = sum.saturating_add(size);
            }
        }
        let has_free = |peer: &PeerId| self.peers.get(peer).is_some_and(|known| known.has_free);
        let mut targets: Vec<(PeerId, u128)> = sizes.into_iter().collect();
        targets.sort_by_key(|(peer, size)| core::cmp::Reverse((has_free(peer), *size)));
        targets
            .into_iter()
            .map(|(peer, _)| (peer, self.is_reachable(peer)))
            .collect()
    }

    fn ask_of(&mut self, from: PeerId, id: u64) -> Option<(Subject, &mut Ask)> {
        let mut asks = self.asks.iter_mut();
        let (subject, ask) = asks.find(|(_, ask)| ask.id == id && id != 0)?;
        (ask.current == Some(from)).then_some((*subject, ask))
    }

    pub(super) fn on_granting(&mut self, from: OwnerId, id: u64) {
        let now = self.now;
        if let Some((_, ask)) = self.ask_of(from.peer, id) {
            ask.outcomes.insert(from.peer, Outcome::Granting);
            ask.next = now + ASK_PATIENCE * GRANTING_PATIENCE;
        }
    }

    pub(super) fn on_denied(&mut self, from: OwnerId, id: u64, why: Denial) {
        if let Some((subject, ask)) = self.ask_of(from.peer, id) {
            ask.outcomes.insert(from.peer, Outcome::Denied(why));
            self.drive_ask(subject);
            self.is_stale = true;
        }
    }

    /// Whether everybody has said for good that there is nothing.
    pub(super) fn is_hopeless(&self, subject: Subject) -> bool {
        let Some(ask) = self.asks.get(&subject) else {
            return false;
        };
        let is_round_over = ask.current.is_none() && ask.queue.is_empty();
        let is_no = |outcome: &Outcome| matches!(outcome, Outcome::Denied(Denial::NoFree));
        ask.urgent_rounds >= ROUNDS_ENOUGH && is_round_over && ask.outcomes.values().all(is_no)
    }

    /// Whether somebody who was asked did not answer.
    pub(super) fn has_silent(&self, subject: Subject) -> bool {
        let ask = self.asks.get(&subject);
        let mut outcomes = ask.iter().flat_map(|ask| ask.outcomes.values());
        outcomes.any(|outcome| matches!(outcome, Outcome::Silent | Outcome::Unreachable))
    }

    /// Who was asked and what they answered.
    pub(super) fn explain(&self, subject: Subject) -> String {
        let none = BTreeMap::new();
        let outcomes = self.asks.get(&subject).map_or(&none, |ask| &ask.outcomes);
        let mut parts = Vec::new();
        let of = |wanted: fn(&Outcome) -> bool| {
            let some = outcomes.iter().filter(move |(_, outcome)| wanted(outcome));
            some.map(|(peer, _)| *peer).collect::<Vec<PeerId>>()
        };
        let gone = of(|outcome| matches!(outcome, Outcome::Silent | Outcome::Unreachable));
        if !gone.is_empty() {
            parts.push(alloc::format!(
                "{} not answer",
                owners(&self.names(gone.clone()), gone.len())
            ));
        }
        let slow = of(|outcome| matches!(outcome, Outcome::Granting));
        if !slow.is_empty() {
            let names = self.names(slow);
            parts.push(alloc::format!(
                "{names} would give, but no majority of the witnesses answers"
            ));
        }
        for (peer, outcome) in outcomes {
            if let Outcome::Denied(why) = outcome {
                parts.push(alloc::format!("{} {}", self.name(*peer), self.denial(why)));
            }
        }
        if parts.is_empty() {
            return String::from(
                "no other peer owns any of it, and what this peer owns is in use or rests for a minute",
            );
        }
        parts.join("; ")
    }

    fn denial(&self, why: &Denial) -> String {
        match why {
            Denial::Used(by) => alloc::format!("says that {} uses it", by.read()),
            Denial::Held(peer) => {
                alloc::format!("holds it for the removed peer {}", self.name(*peer))
            }
            Denial::NoFree => String::from("has none free"),
            Denial::Resting => String::from("has only addresses freed less than a minute ago"),
            Denial::Fenced => String::from("is not sure that its ledger is up to date"),
            Denial::NotMine => String::from("does not own it any more"),
            Denial::Busy => String::from("waits for the witnesses with other grants"),
        }
    }

    /// Somebody begins to wait for an answer: the pause is over, and old answers do not count.
    pub(super) fn hurry(&mut self, subject: Subject) {
        let now = self.now;
        if let Some(ask) = self.asks.get_mut(&subject) {
            ask.urgent_rounds = 0;
            if ask.current.is_none() {
                ask.queue.clear();
                ask.outcomes.clear();
                ask.next = now;
            }
        }
    }

    pub(super) fn asks_due(&self) -> Option<Instant> {
        self.asks.values().map(|ask| ask.next).min()
    }

    /// Ownership changed: what is wanted is looked at anew.
    pub(super) fn reconsider_wants(&mut self) {
        self.want.due = self.now;
    }
}

/// How many addresses to ask for, with so many in use.
fn block_size(pool: Range, used: u128) -> u128 {
    let first = (pool.count() / FIRST_BLOCK_PART).clamp(FIRST_BLOCK_MIN, FIRST_BLOCK_MAX);
    first.max(used / 4).next_power_of_two()
}

/// The beginning of a sentence about owners.
fn owners(names: &str, count: usize) -> String {
    if count == 1 {
        alloc::format!("peer {names} owns the rest and does")
    } else {
        alloc::format!("peers {names} own the rest and do")
    }
}
