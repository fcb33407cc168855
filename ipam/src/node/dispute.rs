//! Somebody says that own space is another's, and this owner did not grant it: the witnesses know.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use rmesh_wire::{Instant, PeerId};

use super::Node;
use super::fence::Reading;
use super::proposal::Retry;
use crate::address::Range;
use crate::cell::{Cell, OwnerId};
use crate::ledger::cells;
use crate::limits::{DISPUTED_RUNS_MAX, RUNS_LEN_MAX};
use crate::message::{Body, Newer};
use crate::packed::Runs;
use crate::ring::Run;
use crate::runs::RunMap;

/// Pieces of own space that are not used until the witnesses have said whose they are.
#[derive(Debug, Default)]
pub(super) struct Disputes {
    pieces: RunMap<Cell>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    by: PeerId,
    reading: Reading,
    retry: Retry,
}

impl Disputes {
    pub(super) fn contains(&self, at: u128) -> bool {
        self.pieces.get(at).is_some()
    }

    pub(super) fn ranges(&self) -> impl Iterator<Item = Range> {
        cells(&self.pieces).map(|run| run.range)
    }

    pub(super) fn overlaps(&self, range: Range) -> bool {
        self.pieces.within(range).next().is_some()
    }
}

impl Node {
    /// Own cells are claimed for others.
    pub(super) fn dispute(&mut self, by: PeerId, lost: Vec<Run>) {
        let is_known = |run: &Run| self.disputes.pieces.gaps(run.range).next().is_none();
        if lost.iter().all(is_known) {
            return;
        }
        if self.disputes.pieces.len() >= DISPUTED_RUNS_MAX {
            self.refuse(by, "takes what it was not granted");
            return;
        }
        for run in lost {
            self.disputes.pieces.set(run.range, run.cell);
        }
        let id = self.random.number();
        let pieces = cells(&self.disputes.pieces);
        let reading = Reading {
            id,
            cells: Runs::take_from(pieces.collect::<Vec<Run>>(), RUNS_LEN_MAX),
            answers: BTreeMap::new(),
        };
        self.disputes.open = Some(Open {
            by,
            reading,
            retry: Retry::new(self.now),
        });
        self.drive_disputes();
    }

    pub(super) fn drive_disputes(&mut self) {
        let Some(open) = &mut self.disputes.open else {
            return;
        };
        if !open.retry.is_due(self.now, &mut self.random) {
            return;
        }
        let (id, cells) = (open.reading.id, open.reading.cells.clone());
        let setup = self.ledger.setup.as_ref();
        let witnesses = setup
            .map(|setup| setup.witnesses.as_slice())
            .unwrap_or_default();
        let peers: Vec<PeerId> = witnesses.iter().map(|witness| witness.peer).collect();
        for peer in peers {
            let cells = cells.clone();
            self.send(peer, Body::Read { id, cells });
        }
    }

    /// True if the answer was to a dispute's question.
    pub(super) fn on_dispute_answer(&mut self, from: OwnerId, id: u64, newer: Newer) -> bool {
        let is_witness = self.is_witness(from);
        let Some(open) = self
            .disputes
            .open
            .as_mut()
            .filter(|open| open.reading.id == id)
        else {
            return false;
        };
        if is_witness {
            open.reading.answers.insert(from, newer);
        }
        let (by, answers) = (open.by, &open.reading.answers);
        let Some(setup) = &self.ledger.setup else {
            return true;
        };
        let says = |witness: &OwnerId, is_lost: bool| {
            let answer = answers.get(witness);
            answer.is_some_and(|newer| (*newer >= Newer::Accepted) == is_lost)
        };
        if setup.is_majority(|witness| says(witness, true)) {
            self.new_incarnation("a majority of the witnesses gave what it owned to others");
        } else if setup.is_majority(|witness| says(witness, false)) {
            self.forget_disputes();
            self.refuse(by, "takes what it was not granted");
        }
        true
    }

    pub(super) fn forget_disputes(&mut self) {
        self.disputes = Disputes::default();
        self.is_stale = true;
    }

    pub(super) fn disputes_due(&self) -> Option<Instant> {
        self.disputes.open.as_ref().map(|open| open.retry.next)
    }
}
