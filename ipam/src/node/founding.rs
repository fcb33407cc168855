//! The first ring: founded at once, joined, or agreed on among those launched together (single-
//! decree Paxos, Lamport 2001; acceptors are peers and their promises are durable).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use rmesh_wire::codec::Bounded;
use rmesh_wire::{Instant, PeerId};

use super::Node;
use crate::address::Range;
use crate::api::{Event, Founding};
use crate::cell::OwnerId;
use crate::entry::{Entry, Foundation};
use crate::limits::FOUNDING_PATIENCE;
use crate::message::Body;
use crate::setup::{Ballot, Pool, RingId, Setup, Stamp};

/// How often a peer without a ring looks for one.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct State {
    plan: Founding,
    attempt: Option<Attempt>,
    highest: u32,
    next: Instant,
}

#[derive(Debug)]
struct Attempt {
    ballot: Ballot,
    promises: BTreeMap<PeerId, Option<(Ballot, Foundation)>>,
    value: Option<Foundation>,
    accepted: BTreeSet<PeerId>,
}

impl State {
    pub(super) fn new(plan: Founding, now: Instant) -> Self {
        State {
            plan,
            attempt: None,
            highest: 0,
            next: now + FOUNDING_PATIENCE,
        }
    }

    pub(super) fn set_targets(&mut self, count: usize) {
        if let Founding::Join { targets, .. } = &mut self.plan {
            *targets = count;
        }
    }

    fn pools(&self) -> &[Range] {
        match &self.plan {
            Founding::Found { pools } | Founding::Join { pools, .. } => pools,
        }
    }

    /// How many peers decide, and how many of them are a majority.
    fn majority(&self) -> usize {
        match self.plan {
            Founding::Found { .. } => 1,
            Founding::Join {
                targets,
                init_peers,
                ..
            } => init_peers.unwrap_or(targets.saturating_add(1)) / 2 + 1,
        }
    }
}

impl Node {
    pub(super) fn start_founding(&mut self) {
        if self.ledger.ring_id.is_none() && matches!(self.founding.plan, Founding::Found { .. }) {
            let foundation = self.foundation();
            self.found(&foundation);
        }
    }

    /// What this peer proposes.
    fn foundation(&mut self) -> Foundation {
        let founder = self.owner();
        let pools = self.founding.pools().iter().map(|range| Pool {
            range: *range,
            founder,
        });
        let setup = Setup {
            stamp: Stamp::default(),
            witnesses: Bounded::take_from([founder]),
            lives: Bounded::take_from([self.ledger.life]),
            pools: Bounded::take_from(pools),
        };
        let mut bytes = [0; 16];
        for half in bytes.as_chunks_mut::<8>().0 {
            *half = self.random.number().to_be_bytes();
        }
        Foundation {
            ring: RingId(bytes),
            setup,
        }
    }

    fn found(&mut self, foundation: &Foundation) {
        if !foundation.setup.is_sound() {
            let text = "the pools overlap; choose others with --cidr and --cidr6";
            self.gate.event(Event::Notice(String::from(text)));
            return;
        }
        self.enter(foundation.ring, foundation.setup.clone());
    }

    /// From now on this peer is in that ring.
    pub(super) fn enter(&mut self, ring: RingId, setup: Setup) {
        // Nobody acted in a first setup but its one witness, which therefore lacks nothing.
        let is_first = setup.stamp == Stamp::default();
        let installed = is_first && setup.names(self.owner(), self.ledger.life);
        self.log(&Entry::Joined {
            ring,
            setup,
            installed,
        });
        self.founding.attempt = None;
        self.follow_pending(Range::ALL);
        let running = core::mem::take(&mut self.running);
        if !running.is_empty() {
            self.follow_running(&running);
        }
        self.setup_changed();
        self.reconsider_wants();
        self.is_stale = true;
        let others: Vec<PeerId> = self.peers.keys().copied().collect();
        for peer in others
            .into_iter()
            .filter(|peer| self.is_reachable(*peer))
            .collect::<Vec<_>>()
        {
            self.send_setup(peer);
        }
    }

    pub(super) fn join_ring(&mut self, from: PeerId, ring: RingId, setup: Setup) {
        self.enter(ring, setup);
        self.start_sync(from);
    }

    /// Whether the answers of a peer count.
    fn takes_part(&self, peer: PeerId) -> bool {
        match self.founding.plan {
            Founding::Join {
                init_peers: Some(_),
                ..
            } => true,
            _ => peer == self.me || self.peers.get(&peer).is_some_and(|known| known.is_listed),
        }
    }

    /// Reachable peers that take part and are known to have no ring, and this one.
    fn partners(&self) -> BTreeSet<PeerId> {
        let others = self
            .peers
            .iter()
            .filter(|(_, p)| p.is_reachable && p.ring == Some(0));
        let others = others
            .map(|(peer, _)| *peer)
            .filter(|peer| self.takes_part(*peer));
        others.chain([self.me]).collect()
    }

    pub(super) fn drive_founding(&mut self) {
        if self.ledger.ring_id.is_some() || self.now < self.founding.next {
            return;
        }
        self.founding.next = self.now + self.random.jittered(LOOK_EVERY);
        let silent = self.peers.iter().filter(|(_, p)| p.is_reachable);
        let silent: Vec<PeerId> = silent.map(|(peer, _)| *peer).collect();
        for peer in silent {
            match self.peers.get(&peer).and_then(|known| known.ring) {
                None | Some(0) => self.send_digest(peer),
                Some(_) => self.send(peer, Body::AskSetup),
            }
        }
        let partners = self.partners();
        let rank = partners.iter().take_while(|peer| **peer != self.me).count();
        // The first one proposes; others do if it does not get through.
        let turns = self.random.below(rank.saturating_mul(2) + 1);
        let others_have_none = self
            .peers
            .values()
            .all(|p| !p.is_reachable || p.ring == Some(0));
        if partners.len() >= self.founding.majority() && turns == 0 && others_have_none {
            self.attempt(&partners);
        }
    }

    fn attempt(&mut self, partners: &BTreeSet<PeerId>) {
        let highest = self.founding.highest.max(self.ledger.founding_promised.n);
        let ballot = Ballot {
            n: highest.saturating_add(1),
            leader: self.me,
            life: self.ledger.life,
        };
        self.founding.highest = ballot.n;
        self.founding.attempt = Some(Attempt {
            ballot,
            promises: BTreeMap::new(),
            value: None,
            accepted: BTreeSet::new(),
        });
        for peer in partners {
            self.send(*peer, Body::FoundPrepare { ballot });
        }
    }

    pub(super) fn on_found_prepare(&mut self, from: OwnerId, ballot: Ballot) {
        if self.ledger.ring_id.is_some() {
            self.send_setup(from.peer);
            return;
        }
        if ballot > self.ledger.founding_promised {
            self.log(&Entry::FoundingPromised(ballot));
        }
        let promised = self.ledger.founding_promised;
        let accepted = self.ledger.founding_accepted.clone();
        self.send(
            from.peer,
            Body::FoundPromise {
                ballot,
                promised,
                accepted,
            },
        );
    }

    pub(super) fn on_found_promise(
        &mut self,
        from: OwnerId,
        ballot: Ballot,
        promised: Ballot,
        accepted: Option<(Ballot, Foundation)>,
    ) {
        self.founding.highest = self.founding.highest.max(promised.n);
        let counts = self.takes_part(from.peer) && promised == ballot;
        let majority = self.founding.majority();
        let Some(attempt) = &mut self.founding.attempt else {
            return;
        };
        if attempt.ballot != ballot || !counts || attempt.value.is_some() {
            return;
        }
        attempt.promises.insert(from.peer, accepted);
        if attempt.promises.len() < majority {
            return;
        }
        let known = attempt
            .promises
            .values()
            .flatten()
            .max_by_key(|(ballot, _)| *ballot);
        let value = known.map(|(_, foundation)| foundation.clone());
        let value = value.unwrap_or_else(|| self.foundation());
        if let Some(attempt) = &mut self.founding.attempt {
            attempt.value = Some(value.clone());
        }
        for peer in self.partners() {
            let foundation = value.clone();
            self.send(peer, Body::FoundAccept { ballot, foundation });
        }
    }

    pub(super) fn on_found_accept(&mut self, from: OwnerId, ballot: Ballot, value: Foundation) {
        if self.ledger.ring_id.is_some() {
            self.send_setup(from.peer);
            return;
        }
        if ballot >= self.ledger.founding_promised && value.setup.is_sound() {
            let foundation = value;
            self.log(&Entry::FoundingAccepted { ballot, foundation });
        }
        let promised = self.ledger.founding_promised;
        self.send(from.peer, Body::FoundAccepted { ballot, promised });
    }

    pub(super) fn on_found_accepted(&mut self, from: OwnerId, ballot: Ballot, promised: Ballot) {
        self.founding.highest = self.founding.highest.max(promised.n);
        let counts = self.takes_part(from.peer) && promised == ballot;
        let majority = self.founding.majority();
        let Some(attempt) = &mut self.founding.attempt else {
            return;
        };
        if attempt.ballot != ballot || !counts {
            return;
        }
        attempt.accepted.insert(from.peer);
        if attempt.accepted.len() >= majority
            && self.ledger.ring_id.is_none()
            && let Some(value) = attempt.value.clone()
        {
            self.found(&value);
        }
    }

    pub(super) fn founding_in_words(&self) -> String {
        let partners = self.partners();
        let others = partners.iter().copied().filter(|peer| *peer != self.me);
        let others = self.names(others);
        let who = if others.is_empty() {
            String::from("nobody")
        } else {
            others
        };
        alloc::format!(
            "{} peers have to agree on a first ring and only this one and {who} answer; start the \
             others, or launch one peer without naming others",
            self.founding.majority()
        )
    }

    pub(super) fn founding_due(&self) -> Option<Instant> {
        self.ledger.ring_id.is_none().then_some(self.founding.next)
    }
}
