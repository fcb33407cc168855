//! What can be said about the ring from here.

use alloc::string::String;
use alloc::vec::Vec;

use rmesh_wire::{Instant, PeerId};

use super::Node;
use crate::address::{Range, address};
use crate::api::Report;
use crate::cell::OwnerId;
use crate::ledger::cells;
use crate::space::Use;

impl Node {
    /// The ring as seen from here.
    pub fn report(&self, _now: Instant) -> Report {
        let setup = self.ledger.setup.clone();
        let witnesses = setup.iter().flat_map(|setup| setup.witnesses.as_slice());
        let reachable = witnesses
            .filter(|witness| self.is_current(**witness))
            .count();
        let majority = setup.as_ref().map_or(0, |setup| setup.majority());
        let space = &self.ledger.space;
        let v4 = space.counts(Range::V4, self.now);
        let allocated = space.allocated();
        let allocated = allocated.map(|(at, key)| (address(at), String::from(key.as_ref())));
        Report {
            ring: self.ledger.ring_id,
            owner: Some(self.owner()),
            spare_witnesses: reachable.saturating_sub(majority),
            has_majority: setup
                .as_ref()
                .is_some_and(|setup| setup.is_majority(|w| self.is_acting(*w)))
                && !self.is_change_stuck(),
            reachable_witnesses: reachable,
            is_stuck: self.is_change_stuck(),
            setup,
            is_witness: self.is_installed(),
            owners: self.ledger.ring.sizes(Range::ALL),
            runs: self.ledger.ring.len(),
            hash: self.ledger.ring.hash(),
            allocated: allocated.collect(),
            pending: self.pending.iter().map(|at| address(*at)).collect(),
            held: self.held(),
            granted: cells(&self.ledger.granted)
                .map(|run| (run.range, run.cell.owner))
                .collect(),
            v4,
            v6: space.counts(Range::ALL, self.now).beyond(&v4),
            fence: self.is_fenced().then(|| self.fence_in_words()),
            waiting: self.waiting_in_words(),
            former_witnesses: self.former_witnesses(),
            reformers: self.awaited_reformers(),
            refused: self.refused.clone(),
            dropped: self.gate.dropped(),
            halted: self.gate.halted().cloned(),
        }
    }

    /// What is held for removed peers, and free addresses that are given to nobody since a peer that
    /// does not answer announced them.
    fn held(&self) -> Vec<(Range, PeerId)> {
        let space = &self.ledger.space;
        let held = space.held().map(|(range, hold)| (range, hold.peer));
        let is_free = |at: u128| {
            matches!(
                space.state(at, self.now),
                Use::Resting(_) | Use::Rested | Use::Fresh
            )
        };
        let announced = self.gone_announcers();
        let announced = announced.filter(|(at, _)| is_free(*at));
        held.chain(announced.map(|(at, peer)| (Range::one(at), peer)))
            .collect()
    }

    /// Whether a witness is there and did not say of this setup that it does not act in it.
    pub(super) fn is_said_to_act(&self, witness: OwnerId) -> bool {
        if witness == self.owner() {
            return self.is_installed();
        }
        let stamp = self.ledger.setup.as_ref().map(|setup| setup.stamp);
        let said = self.peers.get(&witness.peer);
        let said = said.filter(|known| Some(known.stamp) == stamp);
        self.is_current(witness) && said.is_none_or(|known| known.acts)
    }

    /// Whether a witness is there and acts, by its last digest.
    pub(super) fn is_acting(&self, witness: OwnerId) -> bool {
        if witness == self.owner() {
            return self.is_installed();
        }
        let known = self.peers.get(&witness.peer);
        self.is_current(witness) && known.is_some_and(|known| known.acts)
    }

    fn former_witnesses(&self) -> Vec<PeerId> {
        let witnesses = self.witnesses().filter(|w| self.is_superseded(*w));
        witnesses.map(|witness| witness.peer).collect()
    }

    fn waiting_in_words(&self) -> Vec<String> {
        let mut words: Vec<String> = self.succession_in_words().into_iter().collect();
        if self.ledger.ring_id.is_none() {
            words.push(self.founding_in_words());
        }
        let setup = self.ledger.setup.as_ref();
        let is_sealed = setup.is_some_and(|setup| {
            self.ledger
                .setup_promised
                .is_some_and(|(target, _)| target > setup.stamp)
        });
        if self.is_change_stuck() {
            let mut gone = self.witnesses().filter(|w| !self.is_current(*w));
            let command = match gone.next() {
                Some(owner) => alloc::format!("rmesh rmpeer {} --force", self.name(owner.peer)),
                None => String::from("rmesh rmpeer NAME --force with this host's own name"),
            };
            words.push(alloc::format!(
                "a change of the witnesses cannot end, as those it needs are gone or have forgotten it: {}; \
                 run {command}",
                self.witnesses_in_words()
            ));
        } else if is_sealed {
            words.push(alloc::format!(
                "a change of the witnesses: {}",
                self.witnesses_in_words()
            ));
        }
        words.extend(self.lives_in_words());
        words.extend(self.awaited_in_words());
        words.extend(self.given_to_removed_in_words());
        words.extend(self.declined_in_words());
        words.extend(self.adoption_in_words());
        words
    }

    /// Who owns an address by the ring as it is known here.
    pub fn owner_of(&self, ip: core::net::IpAddr) -> Option<OwnerId> {
        let cell = self.ledger.ring.get(crate::address::number(ip))?;
        Some(cell.owner)
    }
}
