//! Taking over what an owner had that will not come back: a new term that a majority of the
//! witnesses has promised, so that no old grant can appear later.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use rmesh_wire::codec::Bounded;
use rmesh_wire::{Instant, PeerId};

use super::Node;
use super::proposal::{Purpose, Retry};
use crate::address::Range;
use crate::addresses::Addresses;
use crate::cell::{Cell, OwnerId, Term};
use crate::entry::Entry;
use crate::limits::{RANGES_MAX, RUNS_LEN_MAX, YIELD_MIN};
use crate::message::{Body, Decline};
use crate::packed::{RUNS_MAX, Runs};
use crate::ring::Run;
use crate::runs::RunMap;
use crate::setup::Stamp;

/// A round that takes longer begins anew, with a new term.
const ROUND_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct State {
    round: Option<Round>,
    /// When the next round may begin.
    next: Instant,
    /// The highest number of a term that was heard of.
    highest: u32,
    /// Own space that somebody had a term promised for: this owner takes a higher one.
    contested: RunMap<()>,
    /// What an owner took a new term for after its removal had begun: it is back.
    pub(super) spared: RunMap<()>,
    pub(super) taken: BTreeMap<PeerId, Vec<Range>>,
    pub(super) held: BTreeMap<PeerId, u128>,
}

#[derive(Debug)]
struct Round {
    id: u64,
    term: Term,
    stamp: Stamp,
    removed: PeerId,
    ranges: Vec<Range>,
    promises: BTreeMap<OwnerId, Promise>,
    /// Proposals of the second phase that are not chosen yet; `None` in the first.
    proposals: Option<BTreeSet<u64>>,
    retry: Retry,
    since: Instant,
}

#[derive(Debug)]
struct Promise {
    covered_to: u128,
    cells: Runs,
    announced: Option<Vec<u128>>,
}

impl Round {
    /// Per address the newest cell that any of the majority told, as far as all have answered.
    fn newest(&self) -> Vec<Run> {
        let promises = self.promises.values();
        let covered_to = promises.map(|promise| promise.covered_to).min();
        let mut newest: RunMap<Cell> = RunMap::new();
        for promise in self.promises.values() {
            for run in promise.cells.as_slice() {
                newest.update(run.range, |_, old| old.copied().max(Some(run.cell)));
            }
        }
        let up_to = Range::new(0, covered_to.unwrap_or(0)).unwrap_or(Range::ALL);
        let ranges = self.ranges.iter().filter_map(|r| r.intersect(&up_to));
        let told = ranges.flat_map(|range| newest.within(range).collect::<Vec<_>>());
        told.map(|(range, cell)| Run { range, cell: *cell })
            .collect()
    }
}

impl Node {
    /// Whether an owner is the one this peer knows to be there, and reachable.
    pub(super) fn is_current(&self, owner: OwnerId) -> bool {
        let known = self
            .peers
            .get(&owner.peer)
            .and_then(|known| known.incarnation);
        owner == self.owner()
            || (self.is_reachable(owner.peer) && known.is_none_or(|i| i == owner.incarnation))
    }

    /// Pieces of the ring that are to be taken over.
    pub(super) fn to_take_over(&self) -> impl Iterator<Item = (Range, Cell)> {
        let is_any = self.may_take_over();
        debug_assert!(is_any || !self.ledger.ring.iter().any(|run| self.is_target(&run.cell)));
        let runs = is_any.then(|| self.ledger.ring.iter());
        let runs = runs.into_iter().flatten();
        let runs = runs.filter(|run| self.is_target(&run.cell));
        runs.flat_map(|run| {
            let left = self.succession.spared.gaps(run.range);
            left.map(move |range| (range, run.cell))
        })
    }

    /// Whether there may be such pieces, without a walk: this is asked after every input.
    fn may_take_over(&self) -> bool {
        let me = self.owner();
        let is_removing = !self.ledger.removed.is_empty() && !self.requests.is_empty();
        is_removing || self.ledger.ring.owners_of(self.me).any(|owner| owner != me)
    }

    /// Whether what has this cell is to be taken over: its owner is an earlier one of this peer, or
    /// its removal is under way and it is not back.
    fn is_target(&self, cell: &Cell) -> bool {
        if cell.owner.peer == self.me {
            return cell.owner != self.owner();
        }
        self.is_asked_to_remove(cell.owner) && !self.is_renewed(cell)
    }

    pub(super) fn drive_succession(&mut self) {
        let stamp = self
            .ledger
            .setup
            .as_ref()
            .map(|setup| setup.stamp)
            .unwrap_or_default();
        let is_over = self.succession.round.as_ref().is_some_and(|round| {
            let is_old = self.now.since(round.since) > ROUND_MAX;
            is_old || (round.proposals.is_none() && round.stamp != stamp)
        });
        if is_over {
            self.abort_round();
        }
        if self.succession.round.is_none() {
            self.begin_round(stamp);
        }
        self.repeat_prepare();
    }

    fn begin_round(&mut self, stamp: Stamp) {
        let is_kept = self.reform.is_some() || self.ledger.has_left_generation();
        let may_begin = self.may_use() || self.is_renewing();
        if self.now < self.succession.next || !may_begin || is_kept {
            return;
        }
        // Who is unsure of its ledger takes a new term for its own and for nothing else.
        let targets = self.to_take_over().filter(|_| self.may_use());
        let contested = self.contested().map(|run| (run.range, run.cell));
        let targets = targets.chain(contested);
        let mut targets: Vec<(Range, Cell)> = targets.take(RANGES_MAX).collect();
        let is_earlier = |cell: &Cell| cell.owner.peer == self.me && cell.owner != self.owner();
        if targets.iter().any(|(_, cell)| is_earlier(cell)) && !self.has_heard_of_gone() {
            let me = self.owner();
            targets.retain(|(_, cell)| cell.owner.peer != self.me || cell.owner == me);
        }
        let Some(removed) = targets.first().map(|(_, cell)| cell.owner.peer) else {
            return;
        };
        let ranges = targets
            .iter()
            .filter(|(_, cell)| cell.owner.peer == removed);
        let mut ranges: Vec<Range> = ranges.map(|(range, _)| *range).collect();
        // What the owner before had and what is contested of this one's own lie among each other.
        ranges.sort();
        let term = Term {
            n: self.highest_term().saturating_add(1),
            taker: self.me,
        };
        self.log(&Entry::TermUsed(term.n));
        self.succession.round = Some(Round {
            id: self.random.number(),
            term,
            stamp,
            removed,
            ranges,
            promises: BTreeMap::new(),
            proposals: None,
            retry: Retry::new(self.now),
            since: self.now,
        });
    }

    /// The highest number of a term that this peer has seen or used.
    pub(super) fn highest_term(&self) -> u32 {
        let known = self.ledger.ring.iter().map(|run| run.cell.term.n).max();
        known
            .unwrap_or(0)
            .max(self.ledger.term_used)
            .max(self.succession.highest)
    }

    /// Takes a new term for everything this owner has, as its ledger says, but for what it granted:
    /// no succession that began meanwhile gets through any more.
    pub(super) fn contest_everything(&mut self) {
        let own: Vec<Run> = self.ledger.ring.owned_by(self.owner()).collect();
        for run in own {
            let kept: Vec<Range> = self.ledger.granted.gaps(run.range).collect();
            for range in kept {
                self.succession.contested.set(range, ());
            }
        }
        self.succession.next = self.now;
    }

    /// Whether nothing of this owner is contested any more.
    pub(super) fn is_uncontested(&self) -> bool {
        self.contested().next().is_none()
    }

    /// Grants of this owner were declined since a higher term was promised: a succession began there
    /// and did not end, because the taker knew less or was cut off. The owner ends it.
    pub(super) fn contest(&mut self, runs: &Runs, n: u32) {
        self.succession.highest = self.succession.highest.max(n);
        for run in runs.as_slice() {
            let own = self.ledger.ring.within(run.range);
            let me = self.owner();
            let own: Vec<Run> = own.filter(|own| own.cell.owner == me).collect();
            for own in own {
                self.succession.contested.set(own.range, ());
            }
        }
    }

    /// Contested pieces that are this owner's still.
    fn contested(&self) -> impl Iterator<Item = Run> {
        let contested = self.succession.contested.iter();
        let own = contested.flat_map(|(range, ())| self.ledger.ring.within(range));
        own.filter(|run| run.cell.owner == self.owner())
    }

    fn repeat_prepare(&mut self) {
        let (Some(round), Some(setup)) = (&mut self.succession.round, &self.ledger.setup) else {
            return;
        };
        if round.proposals.is_some() || !round.retry.is_due(self.now, &mut self.random) {
            return;
        }
        let (id, stamp, term, removed) = (round.id, round.stamp, round.term, round.removed);
        let ranges = Bounded::take_from(round.ranges.iter().copied());
        let witnesses = setup.witnesses.as_slice().iter();
        let silent = witnesses.filter(|witness| !round.promises.contains_key(witness));
        let silent: Vec<PeerId> = silent.map(|witness| witness.peer).collect();
        for peer in silent {
            let ranges = ranges.clone();
            self.send(
                peer,
                Body::Prepare {
                    id,
                    stamp,
                    term,
                    removed,
                    ranges,
                },
            );
        }
    }

    pub(super) fn on_promise(
        &mut self,
        from: OwnerId,
        (id, stamp, covered_to): (u64, Stamp, u128),
        cells: Runs,
        announced: Option<Vec<u128>>,
    ) {
        let is_witness = self.is_witness(from);
        let (Some(round), Some(setup)) = (&mut self.succession.round, &self.ledger.setup) else {
            return;
        };
        let is_expected = round.id == id && round.stamp == stamp && setup.stamp == stamp;
        if !is_expected || round.proposals.is_some() || !is_witness {
            return;
        }
        if self.ledger.has_left_generation() {
            return;
        }
        round.promises.insert(
            from,
            Promise {
                covered_to,
                cells,
                announced,
            },
        );
        if setup.is_majority(|witness| round.promises.contains_key(witness)) {
            self.take_over();
        }
    }

    /// The second phase: per address the newest cell that any of the majority knows decides whose
    /// it is from now on.
    fn take_over(&mut self) {
        let Some(round) = &self.succession.round else {
            return;
        };
        let (term, removed) = (round.term, round.removed);
        let told = round.newest();
        let announced = self.announced_of(removed);
        let (mut runs, mut mine) = (Vec::new(), Vec::new());
        if self.is_renewing() && told.iter().any(|run| self.is_news(run)) {
            self.new_incarnation("what it owned was given to others while it was away");
            return;
        }
        for Run { range, cell } in told {
            let is_asked = cell.owner.peer != self.me && self.is_asked_to_remove(cell.owner);
            if is_asked && self.is_renewed(&cell) {
                self.succession.spared.set(range, ());
                continue;
            }
            let is_mine = self.is_target(&cell);
            let owner = if is_mine { self.owner() } else { cell.owner };
            if is_mine {
                mine.push(range);
            }
            runs.push(Run {
                range,
                cell: Cell {
                    term,
                    seq: 0,
                    owner,
                },
            });
        }
        if removed != self.me {
            self.hold_for(removed, &mine, announced.as_ref());
        }
        self.succession
            .taken
            .entry(removed)
            .or_default()
            .extend(mine);
        let runs = super::witness::joined(runs.into_iter());
        let mut proposals = BTreeSet::new();
        for list in Runs::lists(runs, RUNS_LEN_MAX) {
            proposals.insert(self.propose(list, Purpose::Takeover));
        }
        let is_empty = proposals.is_empty();
        if let Some(round) = &mut self.succession.round {
            round.proposals = Some(proposals);
        }
        if is_empty {
            self.abort_round();
        }
    }

    /// Whether a cell is newer than what this ledger knows, own grants included.
    fn is_news(&self, told: &Run) -> bool {
        self.ledger.ring.news(told).any(|news| {
            let granted = self.ledger.granted.pieces(news.range);
            let mut known = granted.map(|(_, granted)| granted.copied());
            known.any(|granted| granted.is_none_or(|granted| granted < news.cell))
        })
    }

    /// What a peer last announced, as far as anybody of the majority or this peer knows.
    fn announced_of(&self, peer: PeerId) -> Option<Addresses> {
        let round = self.succession.round.as_ref()?;
        let told = round
            .promises
            .values()
            .filter_map(|promise| promise.announced.as_ref());
        let told: Vec<&Vec<u128>> = told.collect();
        let own = self.announced.get(&peer);
        if told.is_empty() && own.is_none() {
            return None;
        }
        let own = own.into_iter().flatten();
        Some(told.into_iter().flatten().chain(own).copied().collect())
    }

    /// Addresses that containers of the removed peer may carry are not handed out; all of them if
    /// nobody knows what it announced.
    fn hold_for(&mut self, peer: PeerId, taken: &[Range], announced: Option<&Addresses>) {
        let held: Vec<Range> = match announced {
            None => taken.to_vec(),
            Some(announced) => {
                let inside = taken.iter().flat_map(|range| announced.within(*range));
                inside.map(|at| Range::one(*at)).collect()
            }
        };
        let count = held
            .iter()
            .fold(0u128, |sum, range| sum.saturating_add(range.count()));
        let sum = self.succession.held.entry(peer).or_default();
        *sum = sum.saturating_add(count);
        for chunk in held.chunks(RUNS_MAX) {
            let ranges = Bounded::take_from(chunk.iter().copied());
            self.log(&Entry::Held { peer, ranges });
        }
    }

    pub(super) fn takeover_chosen(&mut self, id: u64) {
        let Some(round) = &mut self.succession.round else {
            return;
        };
        let proposals = round.proposals.get_or_insert_default();
        proposals.remove(&id);
        if proposals.is_empty() {
            let ranges = core::mem::take(&mut round.ranges);
            let term = round.term;
            self.succession.round = None;
            self.succession.next = self.now;
            self.end_contest(&ranges, term);
        }
        self.is_stale = true;
    }

    fn end_contest(&mut self, ranges: &[Range], term: Term) {
        let settled = ranges
            .iter()
            .flat_map(|range| self.ledger.ring.within(*range));
        let settled = settled.filter(|run| run.cell.term >= term);
        for range in settled.map(|run| run.range).collect::<Vec<Range>>() {
            self.succession.contested.remove(range);
        }
        self.end_renewal();
    }

    pub(super) fn takeover_declined(&mut self, id: u64, why: Decline) {
        let round = self.succession.round.as_ref();
        let proposals = round.and_then(|round| round.proposals.as_ref());
        if proposals.is_some_and(|proposals| proposals.contains(&id)) {
            self.note_term(why);
            self.abort_round();
        }
    }

    pub(super) fn prepare_declined(&mut self, id: u64, why: Decline) {
        let round = self.succession.round.as_ref();
        if round.is_some_and(|round| round.id == id) && matches!(why, Decline::Promised(_)) {
            self.note_term(why);
            self.abort_round();
        }
    }

    fn note_term(&mut self, why: Decline) {
        if let Decline::Promised(n) = why {
            self.succession.highest = self.succession.highest.max(n);
        }
    }

    /// The round did not get through; the next one waits a little, since another taker may be at
    /// it.
    fn abort_round(&mut self) {
        let Some(round) = self.succession.round.take() else {
            return;
        };
        for id in round.proposals.into_iter().flatten() {
            self.proposals.remove(&id);
        }
        self.succession.taken.remove(&round.removed);
        self.succession.held.remove(&round.removed);
        self.succession.next = self.now + YIELD_MIN + self.random.jittered(YIELD_MIN * 2);
    }

    pub(super) fn succession_reset(&mut self) {
        self.abort_round();
        self.succession.contested = RunMap::new();
        self.succession.next = self.now;
    }

    pub(super) fn succession_in_words(&self) -> Option<String> {
        let round = self.succession.round.as_ref()?;
        let what = if round.removed == self.me {
            String::from(
                "what this peer owned before it began anew, or what of its own was contested",
            )
        } else {
            self.name(round.removed)
        };
        Some(alloc::format!(
            "succession of {what}: {}",
            self.witnesses_in_words()
        ))
    }

    pub(super) fn succession_due(&self) -> Option<Instant> {
        match &self.succession.round {
            Some(round) if round.proposals.is_none() => Some(round.retry.next),
            Some(round) => Some(round.since + ROUND_MAX + Duration::from_millis(1)),
            None => {
                let is_wanted = self.to_take_over().next().is_some() || !self.is_uncontested();
                let soon = self.now + Duration::from_millis(50);
                is_wanted.then_some(self.succession.next.max(soon))
            }
        }
    }
}
