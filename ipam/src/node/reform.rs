//! The witnesses' majority is lost for good and the operator says so: a new generation of the
//! setup, formed from what everybody who answers knows.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use rmesh_wire::Instant;
use rmesh_wire::codec::Bounded;

use super::Node;
use super::install::{Collected, page};
use super::proposal::Retry;
use crate::api::Event;
use crate::cell::{Cell, OwnerId, Term};
use crate::entry::{Entry, Promises};
use crate::limits::REFORM_PATIENCE;
use crate::message::{Body, Page};
use crate::runs::RunMap;
use crate::setup::{Setup, Stamp};

#[derive(Debug)]
pub(super) struct Reform {
    id: u64,
    since: Instant,
    members: BTreeMap<OwnerId, Collected>,
    retry: Retry,
}

impl Node {
    pub(super) fn begin_reform(&mut self) {
        if self.reform.is_some() {
            return;
        }
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
            since,
            members,
            retry,
        });
        self.drive_reform();
    }

    pub(super) fn drive_reform(&mut self) {
        let Some(reform) = &mut self.reform else {
            return;
        };
        if self.now.since(reform.since) >= REFORM_PATIENCE {
            self.finish_reform();
            return;
        }
        if reform.retry.is_due(self.now, &mut self.random) {
            let id = reform.id;
            let asked = reform.members.iter();
            let asked = asked.filter_map(|(owner, told)| Some((owner.peer, told.next?)));
            for (peer, from) in asked.collect::<Vec<_>>() {
                self.send(peer, Body::AskState { id, from });
            }
        }
    }

    /// True if the answer was to a reform's question.
    pub(super) fn on_reform_state(
        &mut self,
        from: OwnerId,
        id: u64,
        first: u128,
        page: &Page,
    ) -> bool {
        let Some(reform) = self.reform.as_mut().filter(|reform| reform.id == id) else {
            return false;
        };
        let Some(told) = reform
            .members
            .get_mut(&from)
            .filter(|told| told.next == Some(first))
        else {
            return true;
        };
        told.take(page, false);
        if let Some(from_next) = told.next {
            self.send(
                from.peer,
                Body::AskState {
                    id,
                    from: from_next,
                },
            );
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
        let generation = old.stamp.generation.saturating_add(1);
        let setup = Setup {
            stamp: Stamp {
                generation,
                epoch: 0,
            },
            witnesses: Bounded::take_from([self.owner()]),
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

    pub(super) fn reform_due(&self) -> Option<Instant> {
        let reform = self.reform.as_ref()?;
        Some(reform.retry.next.min(reform.since + REFORM_PATIENCE))
    }
}
