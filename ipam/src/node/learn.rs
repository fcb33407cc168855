//! Chosen cells: taken in, checked, passed on.

use alloc::vec::Vec;

use rmesh_wire::PeerId;

use super::Node;
use crate::address::Range;
use crate::cell::OwnerId;
use crate::entry::Entry;
use crate::limits::{PUSHED_TO_MAX, RUNS_LEN_MAX};
use crate::message::Body;
use crate::packed::Runs;
use crate::ring::Run;

impl Node {
    /// Takes in cells that are known to be chosen and passes on what of them was news.
    pub(super) fn learn(&mut self, runs: &[Run], from: Option<PeerId>) {
        let news: Vec<Run> = runs
            .iter()
            .flat_map(|run| self.ledger.ring.news(run))
            .collect();
        if news.is_empty() {
            return;
        }
        for list in Runs::lists(news.iter().copied(), usize::MAX) {
            self.log(&Entry::Merged(list));
        }
        for run in &news {
            self.follow_pending(run.range);
        }
        let neighbours = self.peers.iter().filter(|(peer, known)| {
            known.is_neighbour && known.is_reachable && Some(**peer) != from
        });
        let mut neighbours: Vec<PeerId> = neighbours.map(|(peer, _)| *peer).collect();
        while neighbours.len() > PUSHED_TO_MAX {
            neighbours.swap_remove(self.random.below(neighbours.len()));
        }
        for list in Runs::lists(news, RUNS_LEN_MAX) {
            for peer in &neighbours {
                self.send(*peer, Body::Push(list.clone()));
            }
        }
        self.is_stale = true;
    }

    /// Keeps [`Node::pending`] right where ownership has changed.
    pub(super) fn follow_pending(&mut self, range: Range) {
        let allocated: Vec<u128> = self.ledger.space.allocated_in(range).collect();
        for at in allocated {
            if self.ledger.space.is_owned(at) {
                if self.pending.remove(&at) {
                    self.claimed(at);
                }
            } else {
                self.pending.insert(at);
            }
        }
    }

    pub(super) fn on_push(&mut self, from: OwnerId, runs: &Runs) {
        self.take_in(from, runs.as_slice());
    }

    /// Takes in what a peer says is chosen; false if it was refused or doubted as a whole.
    pub(super) fn take_in(&mut self, from: OwnerId, runs: &[Run]) -> bool {
        if let Err(why) = self.check(runs) {
            self.refuse(from.peer, why);
            return false;
        }
        let lost = self.lost_to(runs);
        if !lost.is_empty() {
            self.dispute(from.peer, lost);
            return false;
        }
        self.learn(runs, Some(from.peer));
        true
    }

    /// Whether cells can be true together with what is known.
    fn check(&self, runs: &[Run]) -> Result<(), &'static str> {
        let Some(setup) = &self.ledger.setup else {
            return Err("no ring is known");
        };
        if !runs.iter().all(|run| setup.covers(&run.range)) {
            return Err("claims addresses outside every pool");
        }
        match self.ledger.ring.contradiction(runs) {
            Some(_) => Err("contradicts what is known of an address"),
            None => Ok(()),
        }
    }

    /// Pieces that this owner has and did not grant, and that `runs` give to others.
    fn lost_to(&self, runs: &[Run]) -> Vec<Run> {
        let me = self.owner();
        let news = runs.iter().filter(|run| run.cell.owner != me);
        let news = news.flat_map(|run| self.ledger.ring.news(run));
        let mine = news.flat_map(|news| {
            let pieces = self.ledger.ring.within(news.range);
            pieces.filter(|piece| piece.cell.owner == me)
        });
        let lost = mine.flat_map(|piece| {
            let granted = self.ledger.granted.pieces(piece.range);
            granted.filter_map(move |(range, granted)| {
                // A grant of this term that is on its way explains every later cell of the term.
                granted.is_none().then_some(Run { range, ..piece })
            })
        });
        lost.collect()
    }

    /// Sends what is newer here than the given cells.
    pub(super) fn tell_newer(&mut self, peer: PeerId, theirs: &[Run]) {
        let ours = theirs.iter().flat_map(|run| {
            let ours = self.ledger.ring.within(run.range);
            ours.filter(move |ours| ours.cell > run.cell)
        });
        let lists = Runs::lists(ours.collect::<Vec<Run>>(), RUNS_LEN_MAX);
        for list in lists.into_iter().take(crate::limits::ANSWERS_MAX) {
            self.send(peer, Body::Push(list));
        }
    }
}
