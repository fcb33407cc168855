//! Removing a peer: when it may begin, what is recorded, and when it is done or given up.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use rmesh_wire::{Instant, PeerId};

use super::Node;
use super::request::Served;
use crate::address::Range;
use crate::api::{Answer, Refusal, Request, RequestId};
use crate::cell::{Cell, OwnerId};
use crate::entry::Entry;
use crate::limits::{RANGES_MAX, REMOVAL_MARGIN, REMOVAL_SILENCE};
use crate::runs::RunMap;

impl Node {
    /// When a removal may begin, if it has to wait: a peer that was away for less than
    /// [`REMOVAL_SILENCE`] uses what it owns as soon as it is back.
    pub(super) fn removal_wait(&self, request: &Request) -> Option<Instant> {
        let Request::RemovePeer {
            peer, is_forced, ..
        } = request
        else {
            return None;
        };
        let begin = self.last_sign(*peer) + REMOVAL_SILENCE + REMOVAL_MARGIN;
        (!is_forced && *peer != self.me && begin > self.now).then_some(begin)
    }

    pub(super) fn begin_removal(
        &mut self,
        (peer, name): (PeerId, &str),
        is_forced: bool,
        deadline: Instant,
    ) -> Served {
        let Some(setup) = self.ledger.setup.clone() else {
            return Some(Err(Refusal::NoRing(self.founding_in_words())));
        };
        let shown = if name.is_empty() {
            self.name(peer)
        } else {
            String::from(name)
        };
        if peer == self.me && !is_forced {
            let why = "this is the peer itself; run rmesh reset to leave";
            return Some(Err(Refusal::Invalid(String::from(why))));
        }
        if peer != self.me && self.is_reachable(peer) && !is_forced {
            return Some(Err(Refusal::Alive(shown)));
        }
        let may_act = |w: &OwnerId| w.peer != peer && self.is_said_to_act(*w);
        let acts = |w: &OwnerId| w.peer != peer && self.is_acting(*w);
        // A reform that was answered and did not end leaves no other way than another one.
        let has_left = self.ledger.has_left_generation() || self.is_change_stuck();
        if (!setup.is_majority(may_act) || has_left) && !is_forced {
            let words = self.awaited_in_words();
            let why = words.unwrap_or_else(|| self.witnesses_in_words());
            return Some(Err(Refusal::NoMajority { why, peer: shown }));
        }
        let sign = self.last_sign(peer);
        let begin = sign + REMOVAL_SILENCE + REMOVAL_MARGIN;
        if !is_forced && begin > self.now {
            let heard = self.now.since(sign);
            let peer = shown;
            return (begin >= deadline).then_some(Err(Refusal::Recent { peer, heard }));
        }
        let is_lost = !setup.is_majority(acts) || has_left;
        if is_forced && is_lost && self.is_fenced() {
            // Nobody is left who could prove it: what the old ledger owned is taken over like any
            // other that may have been forgotten.
            self.new_incarnation("the witnesses that could say whether it is current are gone");
        }
        self.record_removal(peer, &shown);
        if is_forced && is_lost {
            self.begin_reform();
        }
        None
    }

    fn record_removal(&mut self, peer: PeerId, name: &str) {
        let mut owners: BTreeSet<OwnerId> = self
            .ledger
            .ring
            .owned_by_peer(peer)
            .map(|run| run.cell.owner)
            .collect();
        if let Some(incarnation) = self.peers.get(&peer).and_then(|known| known.incarnation) {
            owners.insert(OwnerId { peer, incarnation });
        }
        let witnesses = self
            .ledger
            .setup
            .iter()
            .flat_map(|setup| setup.witnesses.as_slice());
        owners.extend(witnesses.filter(|witness| witness.peer == peer));
        owners.remove(&self.owner());
        let n = self.highest_term();
        for owner in owners {
            let known = self.ledger.removed.get(&owner);
            if known.is_none_or(|(_, known)| *known < n) {
                let name = String::from(name);
                self.log(&Entry::Removed { owner, name, n });
            }
        }
        self.succession.spared = RunMap::new();
        self.succession.taken.remove(&peer);
        self.succession.held.remove(&peer);
        self.begin_hearsay(peer);
        let members: Vec<PeerId> = self.ring_members().map(|(owner, _)| owner.peer).collect();
        for member in members.into_iter().take(RANGES_MAX) {
            self.start_sync(member);
        }
    }

    pub(super) fn serve_removal(&mut self, id: RequestId, peer: PeerId) -> Served {
        if self.requests.get(&id)?.not_before.is_some() {
            return None;
        }
        let is_asking = self.hearsay.contains_key(&peer);
        let is_left = self.to_take_over().any(|(_, cell)| cell.owner.peer == peer);
        if self.reform.is_some() || is_asking || is_left {
            return None;
        }
        if self.is_back(peer) {
            let name = self.name(peer);
            return Some(Err(Refusal::TimedOut(alloc::format!(
                "{name} took a new term for what it owns while it was being removed: it is back; \
                 run the command again if it is gone for good"
            ))));
        }
        let taken = self.succession.taken.remove(&peer).unwrap_or_default();
        let held = self.succession.held.remove(&peer).unwrap_or_default();
        Some(Ok(Answer::Removed { taken, held }))
    }

    pub(super) fn removal_too_late(&self, peer: PeerId) -> Refusal {
        let left = self
            .ledger
            .ring
            .owned_by_peer(peer)
            .map(|run| alloc::format!("{}", run.range));
        let left: Vec<String> = left.collect();
        Refusal::TimedOut(alloc::format!(
            "{} of {} could not be taken over in time: {}; run the command again",
            left.join(", "),
            self.name(peer),
            self.witnesses_in_words()
        ))
    }

    /// A grant to a peer that was under way when it was removed may be chosen later.
    pub(super) fn given_to_removed_in_words(&self) -> Option<String> {
        let is_gone =
            |owner: &OwnerId| self.ledger.removed.contains_key(owner) && !self.is_current(*owner);
        let sizes = self.ledger.ring.sizes(Range::ALL);
        let gone = sizes
            .keys()
            .filter(|owner| is_gone(owner) && !self.is_asked_to_remove(**owner));
        let gone: Vec<PeerId> = gone.map(|owner| owner.peer).collect();
        let first = self.name(*gone.first()?);
        let who = self.names(gone);
        Some(alloc::format!(
            "{who}: removed, and owns addresses again by a grant that was under way; run rmesh rmpeer {first} \
             once more to take them over"
        ))
    }

    /// Whether an owner took the term of a cell itself after its removal had begun.
    pub(super) fn is_renewed(&self, cell: &Cell) -> bool {
        let removed = self.ledger.removed.get(&cell.owner);
        let is_later = removed.is_some_and(|(_, n)| cell.term.n > *n);
        is_later && cell.term.taker == cell.owner.peer
    }

    /// Whether something of a peer was left to it since it is back.
    fn is_back(&self, peer: PeerId) -> bool {
        let mut own = self.ledger.ring.owned_by_peer(peer);
        own.any(|run| {
            let spared = &self.succession.spared;
            self.is_asked_to_remove(run.cell.owner)
                && (self.is_renewed(&run.cell) || spared.within(run.range).next().is_some())
        })
    }

    /// Whether a removal of this owner is under way.
    pub(super) fn is_asked_to_remove(&self, owner: OwnerId) -> bool {
        let is_asked = |request: &Request| matches!(request, Request::RemovePeer { peer, .. } if *peer == owner.peer);
        self.ledger.removed.contains_key(&owner)
            && self
                .requests
                .values()
                .any(|waiting| waiting.not_before.is_none() && is_asked(&waiting.request))
    }
}
