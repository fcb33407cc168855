//! The witnesses' majority is lost for good and the operator says so: a new generation of the
//! setup, formed from what everybody who answers knows.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use rmesh_wire::codec::Bounded;
use rmesh_wire::{Instant, PeerId};

use super::Node;
use super::install::{Collected, page};
use super::proposal::Retry;
use crate::api::Event;
use crate::cell::{Cell, OwnerId, Term};
use crate::entry::{Entry, Promises};
use crate::limits::{LEFT_MAX, REFORM_PATIENCE};
use crate::message::{Body, Page};
use crate::runs::RunMap;
use crate::setup::{Generation, Setup, Stamp};

#[derive(Debug)]
pub(super) struct Reform {
    id: u64,
    /// The setup that is left.
    after: Stamp,
    target: Stamp,
    since: Instant,
    members: BTreeMap<OwnerId, Collected>,
    retry: Retry,
}

impl Node {
    pub(super) fn begin_reform(&mut self) {
        let Some(after) = self.ledger.setup.as_ref().map(|setup| setup.stamp) else {
            return;
        };
        if self.reform.is_some() {
            return;
        }
        self.end_dropped_reform();
        let left = self.ledger.left.last().copied();
        let seen = [Some(after), left, self.ledger.reform_ended];
        let seen = seen.into_iter().flatten().map(|stamp| stamp.generation.n);
        let n = seen.max().unwrap_or(0).saturating_add(1);
        let target = Stamp::first_of(Generation { n, by: self.me });
        self.leave_generation(target);
        self.log(&Entry::ReformBegan(target));
        let fresh = || Collected {
            next: Some(0),
            ..Collected::default()
        };
        let members = self.ring_members().map(|(owner, _)| (owner, fresh()));
        let members: BTreeMap<OwnerId, Collected> = members.collect();
        for member in members.keys().map(|owner| owner.peer).collect::<Vec<_>>() {
            self.start_sync(member);
        }
        let (id, since) = (self.random.number(), self.now);
        let retry = Retry::new(self.now);
        self.reform = Some(Reform {
            id,
            after,
            target,
            since,
            members,
            retry,
        });
        self.drive_reform();
    }

    pub(super) fn drive_reform(&mut self) {
        let Some(reform) = &mut self.reform else {
            self.end_dropped_reform();
            self.ask_how_it_ended();
            return;
        };
        if self.now.since(reform.since) >= REFORM_PATIENCE {
            self.finish_reform();
            return;
        }
        if reform.retry.is_due(self.now, &mut self.random) {
            let (id, after, target) = (reform.id, reform.after, reform.target);
            let asked = reform.members.iter();
            let asked = asked.filter_map(|(owner, told)| Some((owner.peer, told.next?)));
            for (peer, from) in asked.collect::<Vec<_>>() {
                let ask = Body::AskReform {
                    id,
                    after,
                    target,
                    from,
                };
                self.send(peer, ask);
            }
        }
    }

    /// From now on nothing is acknowledged and nothing counts in the generation there is.
    fn leave_generation(&mut self, target: Stamp) {
        if !self.ledger.left.contains(&target) {
            self.log(&Entry::Left(target));
        }
        if self.change.change.is_some() {
            self.abort_change();
        }
    }

    /// Every peer that answers seals itself first, witness or not: what it says then stays true.
    pub(super) fn on_ask_reform(
        &mut self,
        from: OwnerId,
        (id, first): (u64, u128),
        after: Stamp,
        target: Stamp,
    ) {
        let Some(stamp) = self.ledger.setup.as_ref().map(|setup| setup.stamp) else {
            return;
        };
        if target.generation.by != from.peer || target.generation <= after.generation {
            self.refuse(from.peer, "reforms what it cannot reform");
            return;
        }
        if stamp > after {
            self.send_setup(from.peer);
            return;
        }
        if stamp < after {
            self.send(from.peer, Body::AskSetup);
            return;
        }
        if let Some(left) = self.ledger.left.last().filter(|left| **left > target) {
            let n = left.generation.n;
            self.send(from.peer, Body::Outvoted { target, n });
            return;
        }
        let is_known = self.ledger.left.contains(&target);
        if self.ledger.left.len() >= LEFT_MAX && !is_known {
            self.refuse(from.peer, "reforms while too many reforms have not ended");
            return;
        }
        if self.reform.as_ref().is_some_and(|own| own.target < target) {
            self.reform = None;
        }
        self.leave_generation(target);
        self.on_ask_state(from, id, first);
    }

    /// True if `target` was a reform's, which gives way to another one then.
    pub(super) fn reform_outvoted(&mut self, target: Stamp) -> bool {
        let is_mine = self.reform.as_ref().is_some_and(|own| own.target == target);
        if is_mine {
            self.reform = None;
            self.is_stale = true;
        }
        is_mine
    }

    /// True if the answer was to a reform's question.
    pub(super) fn on_reform_state(
        &mut self,
        from: OwnerId,
        id: u64,
        (first, hash): (u128, u64),
        page: &Page,
    ) -> bool {
        let differs = hash != self.ledger.ring.hash();
        let Some(reform) = self.reform.as_mut().filter(|reform| reform.id == id) else {
            return false;
        };
        let (after, target) = (reform.after, reform.target);
        let Some(told) = reform
            .members
            .get_mut(&from)
            .filter(|told| told.next == Some(first))
        else {
            return true;
        };
        told.take(page, differs);
        match told.next {
            // It is asked again when it is time: what it knows to be chosen has to come first.
            Some(0) => self.start_sync(from.peer),
            Some(from_next) => {
                let ask = Body::AskReform {
                    id,
                    after,
                    target,
                    from: from_next,
                };
                self.send(from.peer, ask);
            }
            None => {}
        }
        true
    }

    fn finish_reform(&mut self) {
        let (Some(reform), Some(old)) = (self.reform.take(), self.ledger.setup.clone()) else {
            return;
        };
        for told in reform.members.values() {
            self.carry_over(&told.cells, &told.promised);
        }
        let setup = Setup {
            stamp: reform.target,
            witnesses: Bounded::take_from([self.owner()]),
            lives: Bounded::take_from([self.ledger.life]),
            pools: old.pools,
        };
        self.log(&Entry::SetupChosen {
            setup,
            installed: true,
        });
        let text = String::from("the witness set was formed anew; this peer is the only witness");
        self.gate.event(Event::Notice(text));
        self.setup_changed();
        let members: Vec<OwnerId> = self.ring_members().map(|(owner, _)| owner).collect();
        for member in members {
            self.send_setup(member.peer);
        }
    }

    fn carry_over(&mut self, cells: &RunMap<Cell>, promised: &RunMap<Term>) {
        let mut from = Some(0);
        while let Some(first) = from {
            let part = page(cells, promised, first);
            from = part.covered_to.checked_add(1);
            let accepted = part.accepted;
            let promised = Promises::take_from(part.promised.into_vec());
            self.log(&Entry::Carried { accepted, promised });
        }
    }

    /// A reform that was dropped never comes to its setup: those who answered may come back. Not
    /// while this ledger may be older than what became of it.
    fn end_dropped_reform(&mut self) {
        let Some(target) = self.ledger.reforming.filter(|_| !self.may_be_older()) else {
            return;
        };
        self.log(&Entry::ReformEnded(target));
        let members: Vec<PeerId> = self.ring_members().map(|(owner, _)| owner.peer).collect();
        for member in members {
            self.send(member, Body::ReformEnded(target));
        }
    }

    /// Reforms of others that were answered and whose end is not known.
    fn awaited(&self) -> impl Iterator<Item = Stamp> {
        let left = self.ledger.left.iter().copied();
        left.filter(|left| left.generation.by != self.me)
    }

    /// Who has to end, or somebody else in their place, before this peer bears witness again.
    pub(super) fn awaited_reformers(&self) -> Vec<PeerId> {
        if !self.ledger.has_left_generation() {
            return Vec::new();
        }
        self.awaited().map(|left| left.generation.by).collect()
    }

    pub(super) fn awaited_in_words(&self) -> Option<String> {
        let reformers = self.awaited_reformers();
        let last = self.name(*reformers.last()?);
        let who = self.names(reformers);
        Some(alloc::format!(
            "{who} began to form the witness set anew and did not end: this peer bears no witness until \
             {who} is back and says how it ended, or, if it is gone for good, until: rmesh rmpeer {last} \
             --force"
        ))
    }

    fn ask_how_it_ended(&mut self) {
        let awaited: Vec<Stamp> = self.awaited().collect();
        if awaited.is_empty() || self.now < self.ask_reformer_at {
            return;
        }
        self.ask_reformer_at = self.now + REFORM_PATIENCE + self.random.jittered(REFORM_PATIENCE);
        for target in awaited {
            self.send(target.generation.by, Body::AskReformEnd(target));
        }
    }

    pub(super) fn on_ask_reform_end(&mut self, from: OwnerId, target: Stamp) {
        let setup = self.ledger.setup.as_ref();
        if setup.is_some_and(|setup| setup.stamp.generation >= target.generation) {
            self.send_setup(from.peer);
        } else if self.ledger.reform_ended >= Some(target) && target.generation.by == self.me {
            self.send(from.peer, Body::ReformEnded(target));
        }
    }

    /// The generation that was left goes on: no other one will come of that reform.
    pub(super) fn on_reform_ended(&mut self, from: OwnerId, target: Stamp) {
        if target.generation.by != from.peer {
            self.refuse(from.peer, "ends a reform that is not its own");
        } else if self.ledger.left.contains(&target) {
            self.log(&Entry::ReformEnded(target));
            self.is_stale = true;
        }
    }

    pub(super) fn reform_due(&self) -> Option<Instant> {
        let Some(reform) = &self.reform else {
            return self.awaited().next().map(|_| self.ask_reformer_at);
        };
        Some(reform.retry.next.min(reform.since + REFORM_PATIENCE))
    }
}
