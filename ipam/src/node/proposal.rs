//! Cells on their way to a majority of the witnesses.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use rmesh_wire::{Instant, PeerId};

use super::Node;
use crate::cell::OwnerId;
use crate::ledger::cells;
use crate::limits::{RETRY_FIRST, RETRY_MAX, RUNS_LEN_MAX};
use crate::message::{Body, Decline};
use crate::packed::Runs;
use crate::random::Random;
use crate::ring::Run;
use crate::setup::Stamp;
use crate::space::GRANT_RUNS_MAX;

/// When to repeat something, with growing pauses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    pub(super) next: Instant,
    pause: Duration,
}

impl Retry {
    /// Due at `first`.
    pub(super) fn new(first: Instant) -> Self {
        Retry {
            next: first,
            pause: RETRY_FIRST,
        }
    }

    /// Whether it is time; then the next time is later.
    pub(super) fn is_due(&mut self, now: Instant, random: &mut Random) -> bool {
        if now < self.next {
            return false;
        }
        self.next = now + random.jittered(self.pause);
        self.pause = (self.pause * 2).min(RETRY_MAX);
        true
    }
}

/// Why cells are proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A grant of this peer. It is durable and repeated until it is chosen or superseded.
    Grant,
    /// The second phase of a succession, which begins anew if it does not get through.
    Takeover,
}

/// Cells that witnesses are asked to accept.
#[derive(Debug)]
pub(super) struct Proposal {
    runs: Runs,
    purpose: Purpose,
    /// The setup whose witnesses are counted.
    stamp: Stamp,
    accepted: BTreeSet<OwnerId>,
    /// Who did not accept lately, and why.
    declined: BTreeMap<PeerId, Decline>,
    retry: Retry,
}

impl Proposal {
    /// Peers that get something, each once.
    fn takers(&self) -> BTreeSet<PeerId> {
        self.runs
            .as_slice()
            .iter()
            .map(|run| run.cell.owner.peer)
            .collect()
    }

    /// Asks the witnesses again at this time.
    pub(super) fn retry_at(&mut self, at: Instant) {
        self.retry = Retry::new(at);
    }

    /// Whether something in `range` is on its way to `peer`.
    pub(super) fn gives(&self, peer: PeerId, range: crate::Range) -> bool {
        let mut runs = self.runs.as_slice().iter();
        runs.any(|run| run.cell.owner.peer == peer && run.range.overlaps(&range))
    }
}

impl Node {
    /// Asks the witnesses to accept cells; returns the proposal's id.
    pub(super) fn propose(&mut self, runs: Runs, purpose: Purpose) -> u64 {
        let id = self.random.number();
        let proposal = Proposal {
            runs,
            purpose,
            stamp: Stamp::default(),
            accepted: BTreeSet::new(),
            declined: BTreeMap::new(),
            retry: Retry::new(self.now),
        };
        self.proposals.insert(id, proposal);
        self.drive_proposal(id);
        id
    }

    /// Proposes again what was granted before a restart.
    pub(super) fn resume_grants(&mut self) {
        let granted: Vec<Run> = cells(&self.ledger.granted).collect();
        for chunk in granted.chunks(GRANT_RUNS_MAX) {
            if let Some(runs) = Runs::new(chunk.to_vec()) {
                self.propose(runs, Purpose::Grant);
            }
        }
    }

    pub(super) fn drive_proposals(&mut self) {
        let due = self
            .proposals
            .iter()
            .filter(|(_, proposal)| proposal.retry.next <= self.now);
        let due: Vec<u64> = due.map(|(id, _)| *id).collect();
        for id in due {
            self.drive_proposal(id);
        }
    }

    /// Sends a proposal to the witnesses that have not accepted it, if it is time.
    fn drive_proposal(&mut self, id: u64) {
        let Some(setup) = self.ledger.setup.clone() else {
            return;
        };
        let Some(proposal) = self.proposals.get_mut(&id) else {
            return;
        };
        if !proposal.retry.is_due(self.now, &mut self.random) {
            return;
        }
        if proposal.purpose == Purpose::Grant {
            // What was superseded meanwhile would have the rest declined with it.
            let granted = &self.ledger.granted;
            let runs = proposal.runs.as_slice().iter();
            let open = runs.flat_map(|run| {
                let within = granted.within(run.range);
                within
                    .filter(|(_, cell)| **cell == run.cell)
                    .map(|(range, _)| Run { range, ..*run })
            });
            let open: Vec<Run> = open.collect();
            if open.is_empty() {
                self.proposals.remove(&id);
                return;
            }
            // Too many pieces for one message are proposed with the rest, as they were.
            if let Some(open) = Runs::new(open) {
                proposal.runs = open;
            }
        }
        if proposal.stamp != setup.stamp {
            proposal.stamp = setup.stamp;
            proposal.accepted.clear();
        }
        let runs = proposal.runs.clone();
        let missing = setup
            .witnesses
            .as_slice()
            .iter()
            .filter(|w| !proposal.accepted.contains(w));
        let missing: Vec<PeerId> = missing.map(|witness| witness.peer).collect();
        let stamp = setup.stamp;
        for peer in missing {
            let runs = runs.clone();
            self.send(peer, Body::Accept { id, stamp, runs });
        }
    }

    pub(super) fn on_accepted(&mut self, from: OwnerId, id: u64, stamp: Stamp) {
        let Some(setup) = &self.ledger.setup else {
            return;
        };
        let is_witness = self.is_named(setup, from);
        let Some(proposal) = self.proposals.get_mut(&id) else {
            return;
        };
        let is_expected = stamp == setup.stamp && proposal.stamp == stamp;
        // Who answered a reform said that its grants are not chosen: they are not from then on.
        if !is_expected || !is_witness || self.ledger.has_left_generation() {
            return;
        }
        proposal.accepted.insert(from);
        if setup.is_majority(|witness| proposal.accepted.contains(witness)) {
            self.chosen(id);
        }
    }

    /// A majority of the witnesses of one setup has accepted.
    fn chosen(&mut self, id: u64) {
        let Some(proposal) = self.proposals.remove(&id) else {
            return;
        };
        self.learn(proposal.runs.as_slice(), None);
        for peer in proposal.takers() {
            if peer != self.me {
                self.send(peer, Body::Push(proposal.runs.clone()));
            }
        }
        if proposal.purpose == Purpose::Takeover {
            self.takeover_chosen(id);
        }
    }

    pub(super) fn on_declined(&mut self, from: OwnerId, id: u64, why: Decline) {
        let Some(proposal) = self.proposals.get_mut(&id) else {
            self.prepare_declined(id, why);
            return;
        };
        proposal.declined.insert(from.peer, why);
        match (why, proposal.purpose) {
            (Decline::Behind, _) => {
                let runs = proposal.runs.clone();
                proposal.retry = Retry::new(self.now + RETRY_FIRST / 4);
                self.tell_before(from.peer, &runs);
            }
            (Decline::Promised(n), Purpose::Grant) => {
                let runs = proposal.runs.clone();
                self.contest(&runs, n);
            }
            (Decline::Promised(_) | Decline::Newer, Purpose::Takeover) => {
                self.proposals.remove(&id);
                self.takeover_declined(id, why);
            }
            _ => {}
        }
    }

    /// Sends a witness the chosen cells that the proposed ones come after.
    fn tell_before(&mut self, peer: PeerId, runs: &Runs) {
        let known = runs
            .as_slice()
            .iter()
            .flat_map(|run| self.ledger.ring.within(run.range));
        for list in Runs::lists(known.collect::<Vec<Run>>(), RUNS_LEN_MAX) {
            self.send(peer, Body::Push(list));
        }
    }

    /// What keeps grants from being chosen.
    pub(super) fn declined_in_words(&self) -> Vec<String> {
        let declined = self
            .proposals
            .values()
            .filter(|proposal| !proposal.declined.is_empty());
        let words = declined.map(|proposal| {
            let runs = proposal.runs.as_slice().iter();
            let ranges: Vec<String> = runs.map(|run| alloc::format!("{}", run.range)).collect();
            let by = proposal.declined.iter();
            let by: Vec<String> = by
                .map(|(peer, why)| alloc::format!("{}: {why:?}", self.name(*peer)))
                .collect();
            alloc::format!(
                "{} waits for witnesses; {}",
                ranges.join(", "),
                by.join(", ")
            )
        });
        words.collect()
    }

    pub(super) fn proposals_due(&self) -> Option<Instant> {
        self.proposals
            .values()
            .map(|proposal| proposal.retry.next)
            .min()
    }
}
