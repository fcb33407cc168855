//! The steps of a setup change: seal the old witnesses, carry their state over, install.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use rmesh_wire::PeerId;
use rmesh_wire::codec::Bounded;

use super::Node;
use crate::address::Range;
use crate::cell::{Cell, OwnerId, Term};
use crate::entry::{Entry, Promises};
use crate::ledger::cells;
use crate::limits::{PAGE_RUNS_LEN_MAX, PROMISES_MAX};
use crate::message::{Body, Page};
use crate::packed::Runs;
use crate::ring::Run;
use crate::runs::RunMap;
use crate::setup::{Ballot, Setup, Stamp};

/// What one witness told of its state.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// The life in which it told.
    pub(super) life: u64,
    pub(super) accepted: Option<(Ballot, Setup)>,
    /// From where on it is to be asked for more; `None`: it has told everything.
    pub(super) next: Option<u128>,
    pub(super) cells: RunMap<Cell>,
    pub(super) promised: RunMap<Term>,
}

impl Collected {
    /// Takes a page in; `hash_differs`: what it dropped since may be unknown here.
    pub(super) fn take(&mut self, page: &Page, hash_differs: bool) {
        merge_page(&mut self.cells, &mut self.promised, page);
        self.next = match page.covered_to.checked_add(1) {
            Some(next) => Some(next),
            None if hash_differs => Some(0),
            None => None,
        };
    }
}

/// Whether these witnesses of the old setup, in these lives, decide on its successor: a majority in the
/// lives it names, or so many in whatever lives that nothing can be forgotten. So many of the others are
/// known to have begun anew.
pub(super) fn decides(old: &Setup, lives: &BTreeMap<OwnerId, u64>, begun_anew: usize) -> bool {
    let is_named = |witness: &OwnerId| {
        lives
            .get(witness)
            .is_some_and(|life| old.names(*witness, *life))
    };
    let known = lives
        .keys()
        .filter(|witness| old.has_witness(**witness))
        .count();
    old.is_majority(is_named) || old.revives(known, begun_anew)
}

/// Raises cells and promises to those of a page.
pub(super) fn merge_page(cells: &mut RunMap<Cell>, promised: &mut RunMap<Term>, page: &Page) {
    for run in page.accepted.as_slice() {
        cells.update(run.range, |_, old| old.copied().max(Some(run.cell)));
    }
    for (range, term) in page.promised.as_slice() {
        promised.update(*range, |_, old| old.copied().max(Some(*term)));
    }
}

/// What of cells and promises begins at `from` and fits a message.
pub(super) fn page(accepted: &RunMap<Cell>, promised: &RunMap<Term>, from: u128) -> Page {
    let rest = Range::new(from, u128::MAX).unwrap_or(Range::ALL);
    let all: Vec<Run> = accepted
        .within(rest)
        .map(|(range, cell)| Run { range, cell: *cell })
        .collect();
    let cells = Runs::take_from(all.iter().copied(), PAGE_RUNS_LEN_MAX);
    let mut covered_to = match cells.as_slice().last() {
        Some(last) if cells.as_slice().len() < all.len() => last.range.last(),
        _ => u128::MAX,
    };
    let mut promises: Vec<(Range, Term)> = promised
        .within(rest)
        .take(PROMISES_MAX + 1)
        .map(|(range, term)| (range, *term))
        .collect();
    if promises.len() > PROMISES_MAX
        && let Some((first_left, _)) = promises.pop()
    {
        covered_to = covered_to.min(first_left.first().saturating_sub(1));
    }
    // What lies beyond is told again with the next page, which does no harm.
    Page {
        covered_to,
        accepted: cells,
        promised: Bounded::take_from(promises),
    }
}

impl Node {
    /// Sends whatever has not been answered.
    pub(super) fn repeat_change(&mut self) {
        let Some(change) = &mut self.change.change else {
            return;
        };
        if !change.retry.is_due(self.now, &mut self.random) {
            return;
        }
        let (target, ballot) = (change.target, change.ballot);
        let mut sends: Vec<(PeerId, Body)> = Vec::new();
        if change.setup.is_none() {
            for witness in change.old.witnesses.as_slice() {
                let body = match change.sealed.get(witness) {
                    None => Body::Seal { target, ballot },
                    Some(Collected {
                        next: Some(from), ..
                    }) => Body::AskState {
                        id: ballot.id(),
                        from: *from,
                    },
                    Some(_) => continue,
                };
                sends.push((witness.peer, body));
            }
        }
        for (peer, body) in sends {
            self.send(peer, body);
        }
        let members = self
            .change
            .change
            .iter()
            .flat_map(|change| change.members());
        for member in members.collect::<Vec<OwnerId>>() {
            self.carry_to(member);
        }
    }

    pub(super) fn on_seal(&mut self, from: OwnerId, target: Stamp, ballot: Ballot) {
        let Some(stamp) = self.ledger.setup.as_ref().map(|setup| setup.stamp) else {
            return;
        };
        if target <= stamp {
            self.send_setup(from.peer);
            return;
        }
        if target != stamp.next() {
            self.send(from.peer, Body::AskSetup);
            return;
        }
        if !self.acts() && !self.is_dormant() {
            return;
        }
        if !self.vote(from, target, ballot) {
            return;
        }
        let accepted = self.ledger.setup_accepted.clone();
        let accepted = accepted.filter(|(_, setup)| setup.stamp == target);
        let hash = self.ledger.ring.hash();
        self.send(
            from.peer,
            Body::Sealed {
                target,
                ballot,
                hash,
                accepted,
            },
        );
    }

    /// Whether a ballot for `target` may be heeded; then no lower one will be.
    fn vote(&mut self, from: OwnerId, target: Stamp, ballot: Ballot) -> bool {
        let left = self.ledger.left.last();
        if left.is_some_and(|left| left.generation > target.generation) {
            return false;
        }
        match self.ledger.setup_promised {
            Some((promised, highest)) if promised == target && highest > ballot => {
                let n = highest.n;
                self.send(from.peer, Body::Outvoted { target, n });
                return false;
            }
            Some((promised, highest)) if promised == target && highest == ballot => {}
            Some((promised, _)) if promised > target => return false,
            _ => self.log(&Entry::SetupPromised { target, ballot }),
        }
        true
    }

    pub(super) fn on_sealed(
        &mut self,
        from: OwnerId,
        (target, ballot): (Stamp, Ballot),
        hash: u64,
        accepted: Option<(Ballot, Setup)>,
    ) {
        let differs = hash != self.ledger.ring.hash();
        let Some(life) = self.life_of(from) else {
            return;
        };
        let Some(change) = &mut self.change.change else {
            return;
        };
        let is_expected = change.target == target && change.ballot == ballot;
        if !is_expected || !change.old.has_witness(from) {
            return;
        }
        if change
            .sealed
            .get(&from)
            .is_some_and(|sealed| sealed.life == life)
        {
            return;
        }
        let collected = Collected {
            life,
            accepted,
            next: Some(0),
            ..Collected::default()
        };
        change.sealed.insert(from, collected);
        if differs {
            self.start_sync(from.peer);
        }
        self.send(
            from.peer,
            Body::AskState {
                id: ballot.id(),
                from: 0,
            },
        );
    }

    pub(super) fn on_ask_state(&mut self, from: OwnerId, id: u64, first: u128) {
        let page = page(&self.ledger.accepted, &self.ledger.promised, first);
        let hash = self.ledger.ring.hash();
        self.send(
            from.peer,
            Body::State {
                id,
                from: first,
                hash,
                page,
            },
        );
    }

    pub(super) fn on_state(
        &mut self,
        from: OwnerId,
        id: u64,
        (first, hash): (u128, u64),
        page: Page,
    ) {
        if self.on_reform_state(from, id, (first, hash), &page) {
            return;
        }
        let differs = hash != self.ledger.ring.hash();
        let life = self.life_of(from);
        let Some(change) = &mut self.change.change else {
            return;
        };
        let is_expected = change.ballot.id() == id && change.setup.is_none();
        let Some(collected) = change.sealed.get_mut(&from) else {
            return;
        };
        let is_same_life = life == Some(collected.life);
        if !is_expected || !is_same_life || collected.next != Some(first) {
            return;
        }
        collected.take(&page, differs);
        match collected.next {
            Some(0) => self.start_sync(from.peer),
            Some(next) => self.send(from.peer, Body::AskState { id, from: next }),
            None => self.propose_setup(),
        }
    }

    /// As soon as a majority of the old set is sealed and has told everything.
    fn propose_setup(&mut self) {
        let mut now = BTreeMap::from([(self.owner(), self.ledger.life)]);
        now.extend(
            self.ring_members()
                .filter_map(|(owner, peer)| Some((owner, peer.life?))),
        );
        let old = self.change.change.as_ref().map(|change| &change.old);
        let begun_anew = old.map_or(0, |old| self.begun_anew(old));
        let Some(change) = &mut self.change.change else {
            return;
        };
        if self.ledger.has_left_generation() {
            return;
        }
        let told = change.sealed.iter().filter(|(_, told)| told.next.is_none());
        let lives = told.map(|(witness, told)| (*witness, told.life)).collect();
        if change.setup.is_some() || !decides(&change.old, &lives, begun_anew) {
            return;
        }
        change.setup = Some(change.proposal(&now));
        let (mut union, mut promised) = (RunMap::new(), RunMap::new());
        for collected in change.sealed.values() {
            for run in cells(&collected.cells) {
                union.update(run.range, |_, old: Option<&Cell>| {
                    old.copied().max(Some(run.cell))
                });
            }
            for (range, term) in collected.promised.iter() {
                promised.update(range, |_, old: Option<&Term>| old.copied().max(Some(*term)));
            }
        }
        let mut from = Some(0);
        while let Some(first) = from.filter(|_| !(union.is_empty() && promised.is_empty())) {
            let part = page(&union, &promised, first);
            from = part.covered_to.checked_add(1);
            change.parts.push(part);
        }
        let members = change.members();
        for member in members {
            self.carry_to(member);
        }
    }

    /// Sends a member the parts it lacks, or lets it install.
    fn carry_to(&mut self, member: OwnerId) {
        let life = self.life_of(member).unwrap_or_default();
        let Some(change) = &self.change.change else {
            return;
        };
        let Some(setup) = change.setup.clone() else {
            return;
        };
        if change.installed.contains_key(&member) {
            return;
        }
        let (target, ballot) = (change.target, change.ballot);
        let none = BTreeSet::new();
        let carried = change.carried.get(&(member, life)).unwrap_or(&none);
        let parts = (0u32..).zip(change.parts.iter());
        let missing = parts.filter(|(part, _)| !carried.contains(part));
        let missing = missing.map(|(part, page)| Body::Carry {
            target,
            ballot,
            part,
            page: page.clone(),
        });
        let mut bodies: Vec<Body> = missing.take(crate::limits::ANSWERS_MAX).collect();
        if bodies.is_empty() {
            let hash = self.ledger.ring.hash();
            bodies.push(Body::Install {
                target,
                ballot,
                hash,
                setup,
            });
        }
        for body in bodies {
            self.send(member.peer, body);
        }
    }

    pub(super) fn on_carry(
        &mut self,
        from: OwnerId,
        (target, ballot): (Stamp, Ballot),
        part: u32,
        page: Page,
    ) {
        let stamp = self
            .ledger
            .setup
            .as_ref()
            .map(|setup| setup.stamp)
            .unwrap_or_default();
        if target <= stamp {
            self.send_setup(from.peer);
            return;
        }
        if !self.vote(from, target, ballot) {
            return;
        }
        let accepted = page.accepted;
        let promised = Promises::take_from(page.promised.into_vec());
        self.log(&Entry::Carried { accepted, promised });
        self.send(
            from.peer,
            Body::Carried {
                target,
                ballot,
                part,
            },
        );
    }

    pub(super) fn on_carried(
        &mut self,
        from: OwnerId,
        (target, ballot): (Stamp, Ballot),
        part: u32,
    ) {
        let life = self.life_of(from).unwrap_or_default();
        let Some(change) = &mut self.change.change else {
            return;
        };
        if change.target != target || change.ballot != ballot || !change.members().contains(&from) {
            return;
        }
        let count = change.parts.len();
        let carried = change.carried.entry((from, life)).or_default();
        if usize::try_from(part).is_ok_and(|part| part < count) {
            carried.insert(part);
        }
        if carried.len() == count {
            self.carry_to(from);
        }
    }

    pub(super) fn on_install(
        &mut self,
        from: OwnerId,
        (target, ballot): (Stamp, Ballot),
        hash: u64,
        setup: Setup,
    ) {
        let stamp = self
            .ledger
            .setup
            .as_ref()
            .map(|setup| setup.stamp)
            .unwrap_or_default();
        if target <= stamp {
            self.send_setup(from.peer);
            return;
        }
        if setup.stamp != target || !setup.is_sound() {
            self.refuse(from.peer, "a setup that cannot be");
            return;
        }
        let me = self.owner();
        if setup.has_witness(me) && !self.is_named(&setup, me) {
            // It is for what this peer was before it forgot.
            return;
        }
        if self.ledger.ring.hash() != hash {
            self.start_sync(from.peer);
            return;
        }
        if !self.vote(from, target, ballot) {
            return;
        }
        let accepted = Some((ballot, setup.clone()));
        if self.ledger.setup_accepted != accepted {
            self.log(&Entry::SetupAccepted { ballot, setup });
        }
        self.send(from.peer, Body::Installed { target, ballot });
    }

    pub(super) fn on_installed(&mut self, from: OwnerId, target: Stamp, ballot: Ballot) {
        let life = self.life_of(from);
        let old = self.change.change.as_ref().map(|change| &change.old);
        let begun_anew = old.map_or(0, |old| self.begun_anew(old));
        let (Some(life), Some(change)) = (life, &mut self.change.change) else {
            return;
        };
        if change.target != target || change.ballot != ballot {
            return;
        }
        change.install(from, life);
        if !change.is_chosen(begun_anew) || self.ledger.has_left_generation() {
            return;
        }
        let (members, setup) = (change.members(), change.setup.clone());
        if let Some(setup) = setup {
            self.learn_setup(setup);
        }
        for member in members {
            if member.peer != self.me {
                self.send_setup(member.peer);
            }
        }
    }
}
