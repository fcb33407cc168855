//! Durable state: the fold of the entries written so far.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use rmesh_wire::codec::{Bounded, CodecError};
use rmesh_wire::{Instant, PeerId};

use crate::address::Range;
use crate::addresses::Addresses;
use crate::cell::{Cell, OwnerId, Term};
use crate::entry::{Entry, Foundation, Promises};
use crate::limits::{ANNOUNCED_PER_PEER_MAX, PEERS_MAX, REMOVED_MAX};
use crate::packed::{RUNS_MAX, Runs};
use crate::ring::{Ring, Run};
use crate::runs::RunMap;
use crate::setup::{Ballot, RingId, Setup, Stamp};
use crate::space::{Hold, Space};

/// What this peer has written to its disk, as state.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Whose it is.
    pub(crate) peer: PeerId,
    pub(crate) incarnation: u64,
    pub(crate) ring_id: Option<RingId>,
    /// The newest setup known to be chosen.
    pub(crate) setup: Option<Setup>,
    /// Whether this peer holds the state to be a witness of [`Ledger::setup`].
    pub(crate) installed: bool,
    /// In which this peer bears witness; with a new incarnation, the same number.
    pub(crate) life: u64,
    pub(crate) setup_promised: Option<(Stamp, Ballot)>,
    /// Forced reforms that were answered and may have led to a setup: until it is known, or known
    /// that there will be none, this peer is in no generation.
    pub(crate) left: BTreeSet<Stamp>,
    /// This owner's own reform that has neither ended nor led to a setup.
    pub(crate) reforming: Option<Stamp>,
    /// This peer's last reform that led to no setup, and never will.
    pub(crate) reform_ended: Option<Stamp>,
    pub(crate) setup_accepted: Option<(Ballot, Setup)>,
    /// Chosen cells.
    pub(crate) ring: Ring,
    /// Where it is above the ring's term.
    pub(crate) promised: RunMap<Term>,
    /// Where it is above the ring's cell.
    pub(crate) accepted: RunMap<Cell>,
    /// Own grants, where the ring does not know them yet.
    pub(crate) granted: RunMap<Cell>,
    pub(crate) term_used: u32,
    /// Whether others have to confirm that this is current, and if so, whether it was found without
    /// a token.
    pub(crate) unsure: Option<bool>,
    /// What becomes of the addresses this owner owns. Its times are this process's.
    pub(crate) space: Space,
    /// Removed owners: the name, and the highest term's number then.
    pub(crate) removed: BTreeMap<OwnerId, (String, u32)>,
    pub(crate) founding_promised: Ballot,
    pub(crate) founding_accepted: Option<(Ballot, Foundation)>,
    pub(crate) announced: BTreeMap<PeerId, Addresses>,
}

/// Equal if the same snapshot describes them.
impl PartialEq for Ledger {
    fn eq(&self, other: &Self) -> bool {
        self.entries() == other.entries()
    }
}

impl Ledger {
    /// The state that log entries lead to, in the order they were written. Freed addresses rest
    /// from `now` on, since the log knows no time.
    ///
    /// # Errors
    /// An entry is none of this version's: the log is damaged or from a newer version.
    pub fn fold<'a>(
        entries: impl IntoIterator<Item = &'a [u8]>,
        now: Instant,
    ) -> Result<Self, CodecError> {
        let mut ledger = Ledger::default();
        for bytes in entries {
            ledger.apply(&Entry::decode(bytes)?, now);
        }
        Ok(ledger)
    }

    /// Entries that lead to this state, encoded as they are written to a new log.
    pub fn snapshot(&self) -> Vec<Vec<u8>> {
        let entries = self.entries();
        entries
            .iter()
            .filter_map(|entry| entry.encode().ok())
            .collect()
    }

    /// The incarnation of the owner whose ledger this is; 0 if it has not begun.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Free addresses that may have been handed out without a word in this ledger of who has them.
    pub fn reserved(&self) -> Vec<Range> {
        self.space.reserved(Range::ALL).collect()
    }

    /// The owner whose ledger this is.
    pub(crate) fn owner(&self) -> OwnerId {
        OwnerId {
            peer: self.peer,
            incarnation: self.incarnation,
        }
    }

    pub(crate) fn apply(&mut self, entry: &Entry, now: Instant) {
        match entry {
            Entry::Began { peer, incarnation } => {
                if self.peer != *peer {
                    self.reform_ended = None;
                }
                self.peer = *peer;
                self.begin(*incarnation);
                self.life = *incarnation;
            }
            Entry::Joined {
                ring,
                setup,
                installed,
            } => self.join(*ring, setup, *installed),
            Entry::SetupChosen { setup, installed } => self.choose(setup, *installed),
            Entry::SetupPromised { target, ballot } => {
                self.setup_promised = Some((*target, *ballot));
            }
            Entry::SetupAccepted { ballot, setup } => {
                self.setup_accepted = Some((*ballot, setup.clone()));
            }
            Entry::Left(target) => {
                self.left.insert(*target);
            }
            Entry::ReformBegan(target) => self.reforming = Some(*target),
            Entry::ReformEnded(target) => self.end_reform(*target),
            Entry::Life(life) => {
                self.life = *life;
                self.installed = false;
            }
            Entry::Unsure { unproven } => self.unsure = Some(*unproven),
            Entry::Sure => self.unsure = None,
            Entry::Carried { accepted, promised } => {
                self.accept(accepted.as_slice());
                for (range, term) in promised.as_slice() {
                    self.promise(*range, *term);
                }
            }
            Entry::Merged(runs) => self.merge(runs.as_slice()),
            Entry::Promised { term, ranges } => {
                for range in ranges.as_slice() {
                    self.promise(*range, *term);
                }
            }
            Entry::Accepted(runs) => self.accept(runs.as_slice()),
            Entry::Granted(runs) => self.grant(runs.as_slice()),
            Entry::TermUsed(n) => self.term_used = self.term_used.max(*n),
            other => self.apply_use(other, now),
        }
    }

    /// Entries that are about addresses in use and about other peers.
    fn apply_use(&mut self, entry: &Entry, now: Instant) {
        match entry {
            Entry::Allocated { address, container } => {
                // The caller minds the bound; a log has no more than it let pass.
                let _ = self.space.allocate(*address, container);
            }
            Entry::Freed { address } => self.space.rest(*address, now),
            Entry::Reserved(ranges) => {
                for range in ranges.as_slice() {
                    self.space.reserve(*range);
                }
            }
            Entry::Unreserved(range) => self.space.unreserve(*range),
            Entry::Held { peer, ranges } => {
                for range in ranges.as_slice() {
                    let (peer, since) = (*peer, now);
                    self.space.hold(*range, Hold { peer, since });
                }
            }
            Entry::HeldEnded(range) => self.space.end_hold(*range),
            Entry::Removed { owner, name, n } => {
                if self.removed.len() >= REMOVED_MAX {
                    self.removed.pop_first();
                }
                self.removed.insert(*owner, (name.clone(), *n));
            }
            Entry::FoundingPromised(ballot) => self.founding_promised = *ballot,
            Entry::FoundingAccepted { ballot, foundation } => {
                self.founding_promised = *ballot;
                self.founding_accepted = Some((*ballot, foundation.clone()));
            }
            Entry::Announced {
                peer,
                addresses,
                gone,
            } => {
                self.announce(*peer, addresses.as_slice(), *gone);
            }
            _ => {}
        }
    }

    fn begin(&mut self, incarnation: u64) {
        self.incarnation = incarnation;
        self.space.disown(Range::ALL);
        self.space.end_grant(Range::ALL);
        for run in self.ring.owned_by(self.owner()) {
            self.space.own(run.range);
        }
        self.installed = false;
        // A generation that was left stays left, whoever this peer is; but how a reform of the owner
        // before ended cannot be told any more.
        self.reforming = None;
        self.setup_promised = None;
        self.setup_accepted = None;
        self.unsure = None;
        self.promised = RunMap::new();
        self.accepted = RunMap::new();
        self.granted = RunMap::new();
    }

    /// Whether a forced reform was answered whose setup is not known yet: in the generation before
    /// nothing is acknowledged and nothing counts any more.
    pub(crate) fn has_left_generation(&self) -> bool {
        let generation = self.setup.as_ref().map(|setup| setup.stamp.generation);
        let last = self.left.last();
        last.is_some_and(|left| Some(left.generation) > generation)
    }

    fn end_reform(&mut self, target: Stamp) {
        self.left.remove(&target);
        if target.generation.by == self.peer {
            self.reforming = self.reforming.filter(|own| *own != target);
            self.reform_ended = self.reform_ended.max(Some(target));
        }
    }

    fn join(&mut self, ring: RingId, setup: &Setup, installed: bool) {
        self.begin(self.incarnation);
        self.left = BTreeSet::new();
        self.reform_ended = None;
        self.ring_id = Some(ring);
        self.ring = Ring::new();
        self.space.disown(Range::ALL);
        self.space.end_hold(Range::ALL);
        self.removed = BTreeMap::new();
        self.choose(setup, installed);
    }

    fn choose(&mut self, setup: &Setup, installed: bool) {
        self.installed = installed;
        let pools: Vec<Run> = setup
            .pools
            .as_slice()
            .iter()
            .map(|pool| pool.run())
            .collect();
        self.merge(&pools);
        let generation = setup.stamp.generation;
        self.reforming = self.reforming.filter(|own| own.generation > generation);
        self.left.retain(|left| left.generation > generation);
        self.setup = Some(setup.clone());
    }

    fn merge(&mut self, runs: &[Run]) {
        for news in self.ring.merge(runs.iter().copied()) {
            for map in [&mut self.accepted, &mut self.granted] {
                map.update(news.range, |_, old| {
                    old.copied().filter(|old| *old > news.cell)
                });
            }
            let kept = |old: &Term| *old > news.cell.term;
            self.promised
                .update(news.range, |_, old| old.copied().filter(kept));
            self.follow(news);
        }
    }

    /// Follows in [`Ledger::space`] what the ring learned.
    fn follow(&mut self, news: Run) {
        if news.cell.owner == self.owner() {
            self.space.own(news.range);
        } else {
            self.space.disown(news.range);
            self.end_holds_for(news.cell.owner, news.range);
        }
        let done: Vec<Range> = self.granted.gaps(news.range).collect();
        for range in done {
            self.space.end_grant(range);
        }
    }

    /// A removed peer that came back as a new owner has its addresses again: whoever held them, as two
    /// that removed it at once both did, holds them no longer.
    fn end_holds_for(&mut self, owner: OwnerId, range: Range) {
        if self.removed.contains_key(&owner) {
            return;
        }
        let held = self
            .space
            .held()
            .filter(|(_, hold)| hold.peer == owner.peer);
        let ended: Vec<Range> = held
            .filter_map(|(held, _)| held.intersect(&range))
            .collect();
        for range in ended {
            self.space.end_hold(range);
        }
    }

    fn grant(&mut self, runs: &[Run]) {
        raise(&mut self.granted, &self.ring, runs);
        for run in runs {
            for (range, _) in self.granted.within(run.range) {
                self.space.begin_grant(range);
            }
        }
    }

    fn accept(&mut self, runs: &[Run]) {
        raise(&mut self.accepted, &self.ring, runs);
    }

    fn promise(&mut self, range: Range, term: Term) {
        let pieces: Vec<(Range, Option<Term>)> = self
            .ring
            .pieces(range)
            .map(|(piece, cell)| (piece, cell.map(|cell| cell.term)))
            .collect();
        for (piece, known) in pieces {
            if known.is_none_or(|known| known < term) {
                let promised = &mut self.promised;
                promised.update(piece, |_, old| old.copied().max(Some(term)));
            }
        }
    }

    fn announce(&mut self, peer: PeerId, addresses: &[u128], gone: bool) {
        if !self.announced.contains_key(&peer) && self.announced.len() >= PEERS_MAX {
            return;
        }
        let announced = self.announced.entry(peer).or_default();
        match gone {
            true => announced.remove(addresses),
            false => announced.add(addresses, ANNOUNCED_PER_PEER_MAX),
        }
    }

    /// The state as a list of entries.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::from([Entry::Began {
            peer: self.peer,
            incarnation: self.incarnation,
        }]);
        entries.push(Entry::Life(self.life));
        if let (Some(ring), Some(setup)) = (self.ring_id, self.setup.clone()) {
            let installed = self.installed;
            entries.push(Entry::Joined {
                ring,
                setup,
                installed,
            });
        }
        entries.extend(lists(self.ring.iter()).map(Entry::Merged));
        self.acceptor_entries(&mut entries);
        self.use_entries(&mut entries);
        entries
    }

    fn acceptor_entries(&self, entries: &mut Vec<Entry>) {
        let none = || Promises::take_from([]);
        entries.extend(lists(cells(&self.accepted)).map(|accepted| Entry::Carried {
            accepted,
            promised: none(),
        }));
        let promises: Vec<(Range, Term)> = self
            .promised
            .iter()
            .map(|(range, term)| (range, *term))
            .collect();
        entries.extend(promises.chunks(RUNS_MAX).map(|chunk| Entry::Carried {
            accepted: Runs::default(),
            promised: Promises::take_from(chunk.iter().copied()),
        }));
        entries.extend(lists(cells(&self.granted)).map(Entry::Granted));
        if let Some((target, ballot)) = self.setup_promised {
            entries.push(Entry::SetupPromised { target, ballot });
        }
        if let Some((ballot, setup)) = self.setup_accepted.clone() {
            entries.push(Entry::SetupAccepted { ballot, setup });
        }
        entries.extend(self.reform_ended.map(Entry::ReformEnded));
        entries.extend(self.left.iter().copied().map(Entry::Left));
        entries.extend(self.reforming.map(Entry::ReformBegan));
        entries.push(Entry::TermUsed(self.term_used));
        entries.extend(self.unsure.map(|unproven| Entry::Unsure { unproven }));
        if let Some((ballot, foundation)) = self.founding_accepted.clone() {
            entries.push(Entry::FoundingAccepted { ballot, foundation });
        }
        entries.push(Entry::FoundingPromised(self.founding_promised));
    }

    fn use_entries(&self, entries: &mut Vec<Entry>) {
        let removed = self.removed.iter();
        entries.extend(removed.map(|(owner, (name, n))| Entry::Removed {
            owner: *owner,
            name: name.clone(),
            n: *n,
        }));
        entries.extend(self.space.held().map(|(range, hold)| Entry::Held {
            peer: hold.peer,
            ranges: Bounded::take_from([range]),
        }));
        entries.extend(self.space.resting().map(|address| Entry::Freed { address }));
        let allocated = self.space.allocated();
        entries.extend(allocated.map(|(address, container)| Entry::Allocated {
            address,
            container: String::from(container.as_ref()),
        }));
        let reserved: Vec<Range> = self.space.reserved(Range::ALL).collect();
        let chunks = reserved.chunks(RUNS_MAX);
        entries
            .extend(chunks.map(|chunk| Entry::Reserved(Bounded::take_from(chunk.iter().copied()))));
        for (peer, addresses) in &self.announced {
            // One more than the chunks, so that "announced nothing" is told from "unknown".
            let chunks = addresses.as_slice().chunks(RUNS_MAX).chain([[].as_slice()]);
            entries.extend(chunks.map(|chunk| Entry::Announced {
                peer: *peer,
                addresses: Bounded::take_from(chunk.iter().copied()),
                gone: false,
            }));
        }
    }
}

/// Raises a map of cells to `runs` where they are above what the ring knows.
fn raise(map: &mut RunMap<Cell>, ring: &Ring, runs: &[Run]) {
    for run in runs {
        for news in ring.news(run) {
            map.update(news.range, |_, old| old.copied().max(Some(news.cell)));
        }
    }
}

/// The runs of a map of cells.
pub(crate) fn cells(map: &RunMap<Cell>) -> impl Iterator<Item = Run> {
    map.iter().map(|(range, cell)| Run { range, cell: *cell })
}

/// In lists of the length an entry may have.
fn lists(runs: impl Iterator<Item = Run>) -> impl Iterator<Item = Runs> {
    Runs::lists(runs, usize::MAX).into_iter()
}

#[cfg(test)]
mod tests;
