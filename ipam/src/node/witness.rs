//! Bearing witness: accepting cells, promising terms, telling what was accepted.

use alloc::vec::Vec;

use rmesh_wire::PeerId;
use rmesh_wire::codec::Bounded;

use super::Node;
use crate::address::Range;
use crate::cell::{Cell, OwnerId, Term};
use crate::entry::Entry;
use crate::limits::{ADDRESSES_MAX, RANGES_MAX, RUNS_LEN_MAX};
use crate::message::{Body, Decline, Newer};
use crate::packed::{RUNS_MAX, Runs};
use crate::ring::Run;
use crate::setup::Stamp;

/// What a witness has to go by for some addresses.
pub(super) struct Known {
    pub(super) range: Range,
    /// The greater of what is chosen and what was accepted; `None` outside every pool.
    pub(super) cell: Option<Cell>,
    pub(super) promised: Option<Term>,
}

impl Node {
    /// Whether this peer may act as a witness of exactly this setup.
    pub(super) fn may_act(&self, stamp: Stamp) -> Result<(), Decline> {
        let setup = self.ledger.setup.as_ref();
        if setup.is_none_or(|setup| setup.stamp != stamp) || !self.acts() {
            return Err(Decline::Setup);
        }
        match self.ledger.setup_promised {
            _ if self.ledger.has_left_generation() => Err(Decline::Sealed),
            Some((target, _)) if target > stamp => Err(Decline::Sealed),
            _ => Ok(()),
        }
    }

    /// Whether this peer is a witness that acts, sealed or not. Not while it asks what happened while
    /// it was away: it may have been removed with everybody it would confirm.
    pub(super) fn acts(&self) -> bool {
        self.is_installed() && !self.is_reading()
    }

    /// Whether this peer is a witness that holds the state to act.
    pub(super) fn is_installed(&self) -> bool {
        let setup = self.ledger.setup.as_ref();
        self.ledger.installed && setup.is_some_and(|setup| self.is_named(setup, self.owner()))
    }

    /// Whether this peer was a witness in a life before and has not been named in this one. What it
    /// remembers counts where so many remember that it does not matter if it forgot something.
    pub(super) fn is_dormant(&self) -> bool {
        let setup = self.ledger.setup.as_ref();
        let me = self.owner();
        !self.is_asking() && setup.is_some_and(|s| s.has_witness(me) && !self.is_named(s, me))
    }

    /// The state of `range` as a witness knows it, piece by piece.
    pub(super) fn known(&self, range: Range) -> Vec<Known> {
        let mut known = Vec::new();
        for (outer, chosen) in self.ledger.ring.pieces(range) {
            for (inner, accepted) in self.ledger.accepted.pieces(outer) {
                for (range, promised) in self.ledger.promised.pieces(inner) {
                    let cell = chosen.max(accepted).copied();
                    let promised = promised.copied();
                    known.push(Known {
                        range,
                        cell,
                        promised,
                    });
                }
            }
        }
        known
    }

    pub(super) fn on_accept(&mut self, from: OwnerId, id: u64, stamp: Stamp, runs: &Runs) {
        let judged = self.may_act(stamp).and_then(|()| self.judge(from, runs));
        let news = match judged {
            Ok(news) => news,
            Err(why) => {
                if why == Decline::NotYours {
                    self.refuse(from.peer, "proposes what it cannot own");
                }
                self.send(from.peer, Body::Declined { id, stamp, why });
                return;
            }
        };
        for list in Runs::lists(news, usize::MAX) {
            self.log(&Entry::Accepted(list));
        }
        self.send(from.peer, Body::Accepted { id, stamp });
    }

    /// What of `runs` is new, if all of them can be accepted.
    fn judge(&self, from: OwnerId, runs: &Runs) -> Result<Vec<Run>, Decline> {
        let mut news = Vec::new();
        for run in runs.as_slice() {
            for known in self.known(run.range) {
                if judge_piece(from, &run.cell, &known)? {
                    news.push(Run {
                        range: known.range,
                        cell: run.cell,
                    });
                }
            }
        }
        Ok(news)
    }

    pub(super) fn on_prepare(
        &mut self,
        from: OwnerId,
        (id, stamp, term): (u64, Stamp, Term),
        removed: PeerId,
        ranges: &Bounded<Range, RANGES_MAX>,
    ) {
        let ranges = ranges.as_slice();
        let judged = self
            .may_act(stamp)
            .and_then(|()| self.judge_term(from, term, ranges));
        if let Err(why) = judged {
            self.send(from.peer, Body::Declined { id, stamp, why });
            return;
        }
        let (cells, mut covered_to) = self.cells_that_fit(ranges);
        let announced = self.announced_that_fit(removed, ranges, &mut covered_to);
        let Some(up_to) = Range::new(0, covered_to) else {
            return;
        };
        let kept: Vec<Range> = ranges.iter().filter_map(|r| r.intersect(&up_to)).collect();
        let mut known = kept.iter().flat_map(|range| self.known(*range));
        if known.any(|known| known.promised.is_none_or(|promised| promised < term)) {
            let ranges = Bounded::<_, RUNS_MAX>::take_from(kept);
            self.log(&Entry::Promised { term, ranges });
        }
        let cells = Runs::take_from(cut(&cells, up_to), usize::MAX);
        let promise = Body::Promise {
            id,
            stamp,
            covered_to,
            cells,
            announced,
        };
        self.send(from.peer, promise);
    }

    /// Whether the ranges are in pools and no higher term is known there.
    fn judge_term(&self, from: OwnerId, term: Term, ranges: &[Range]) -> Result<(), Decline> {
        let ascending = ranges.is_sorted_by(|a, b| a.last() < b.first());
        if term.taker != from.peer || !ascending {
            return Err(Decline::NotYours);
        }
        for known in ranges.iter().flat_map(|range| self.known(*range)) {
            let cell = known.cell.ok_or(Decline::NotYours)?;
            let highest = known.promised.unwrap_or_default().max(cell.term);
            // What was accepted in this term was proposed after its first phase: that is over.
            if highest > term || cell.term == term {
                return Err(Decline::Promised(highest.n));
            }
        }
        Ok(())
    }

    /// What this witness knows of the ranges, as much as fits a message, and up to where.
    fn cells_that_fit(&self, ranges: &[Range]) -> (Runs, u128) {
        let known = ranges.iter().flat_map(|range| self.known(*range));
        let runs = known.filter_map(|known| {
            Some(Run {
                range: known.range,
                cell: known.cell?,
            })
        });
        let all = joined(runs);
        let taken = Runs::take_from(all.iter().copied(), RUNS_LEN_MAX * 2 / 3);
        let covered = match taken.as_slice().last() {
            Some(last) if taken.as_slice().len() < all.len() => last.range.last(),
            _ => u128::MAX,
        };
        (taken, covered)
    }

    /// What a peer last announced in the ranges, as much as fits a message.
    fn announced_that_fit(
        &self,
        peer: PeerId,
        ranges: &[Range],
        covered_to: &mut u128,
    ) -> Option<Bounded<u128, ADDRESSES_MAX>> {
        let announced = self.announced.get(&peer)?;
        let inside = ranges.iter().flat_map(|range| announced.within(*range));
        let mut fitting = Vec::new();
        for address in inside.copied().take_while(|address| address <= covered_to) {
            if fitting.len() == ADDRESSES_MAX {
                *covered_to = address.saturating_sub(1);
                break;
            }
            fitting.push(address);
        }
        Some(Bounded::take_from(fitting))
    }

    pub(super) fn on_read(&mut self, from: OwnerId, id: u64, cells: &Runs) {
        let Some(setup) = &self.ledger.setup else {
            return;
        };
        let stamp = setup.stamp;
        let compared = cells.as_slice().iter().flat_map(|run| {
            let known = self.known(run.range).into_iter();
            known.map(|known| self.compare(&run.cell, &known))
        });
        let newer = compared.max().unwrap_or(Newer::Nothing);
        let seen = self.seen_of(from);
        self.send(
            from.peer,
            Body::ReadAnswer {
                id,
                stamp,
                newer,
                seen,
            },
        );
        if newer == Newer::Chosen {
            self.tell_newer(from.peer, cells.as_slice());
        }
    }

    fn compare(&self, theirs: &Cell, known: &Known) -> Newer {
        let chosen = self.ledger.ring.get(known.range.first());
        if chosen.is_some_and(|cell| cell > theirs) {
            Newer::Chosen
        } else if known.cell.is_some_and(|cell| cell > *theirs) {
            Newer::Accepted
        } else if known
            .promised
            .is_some_and(|promised| promised > theirs.term)
        {
            Newer::Promised
        } else {
            Newer::Nothing
        }
    }
}

/// The parts of runs that lie in `range`.
pub(super) fn cut(runs: &Runs, range: Range) -> Vec<Run> {
    let runs = runs.as_slice().iter();
    let inside = runs.filter_map(|run| {
        Some(Run {
            range: run.range.intersect(&range)?,
            ..*run
        })
    });
    inside.collect()
}

/// Runs with equal neighbours joined.
pub(super) fn joined(runs: impl Iterator<Item = Run>) -> Vec<Run> {
    let mut all: Vec<Run> = Vec::new();
    for run in runs {
        let before = all.last_mut().filter(|last| {
            last.cell == run.cell && last.range.last().checked_add(1) == Some(run.range.first())
        });
        let whole = before
            .as_ref()
            .and_then(|last| Range::new(last.range.first(), run.range.last()));
        match (before, whole) {
            (Some(last), Some(whole)) => last.range = whole,
            _ => all.push(run),
        }
    }
    all
}

/// Whether a proposed cell is news to a witness that knows this much; `Ok(false)`: it was accepted
/// before.
fn judge_piece(from: OwnerId, cell: &Cell, known: &Known) -> Result<bool, Decline> {
    let last = known.cell.ok_or(Decline::NotYours)?;
    let promised = known.promised.unwrap_or_default().max(last.term);
    if promised > cell.term {
        return Err(Decline::Promised(promised.n));
    }
    if *cell <= last {
        return if *cell == last {
            Ok(false)
        } else {
            Err(Decline::Newer)
        };
    }
    if last.term == cell.term {
        return judge_grant(from, cell, &last);
    }
    if cell.seq > 0 {
        return Err(Decline::Behind);
    }
    if cell.term.taker != from.peer {
        return Err(Decline::NotYours);
    }
    // A witness that was not asked to promise cannot tell whether the cell is right.
    let is_promised = known.promised == Some(cell.term);
    is_promised.then_some(true).ok_or(Decline::Behind)
}

/// A later cell of the same term: only the owner grants, one step at a time.
fn judge_grant(from: OwnerId, cell: &Cell, last: &Cell) -> Result<bool, Decline> {
    match cell.seq.checked_sub(last.seq) {
        Some(1) if last.owner == from => Ok(true),
        Some(2..) => Err(Decline::Behind),
        _ => Err(Decline::NotYours),
    }
}
