//! Giving free space to a peer that asks.

use super::Node;
use super::proposal::Purpose;
use crate::address::Range;
use crate::cell::OwnerId;
use crate::entry::Entry;
use crate::limits::GRANTED_RUNS_MAX;
use crate::message::{Body, Denial, Text, Wish};
use crate::packed::Runs;
use crate::ring::Run;
use crate::space::{NoBlock, Use};

impl Node {
    pub(super) fn on_ask(&mut self, from: OwnerId, id: u64, within: Range, wish: Wish) {
        let range = match wish {
            Wish::Exact(at) => Range::one(at),
            Wish::Block(_) | Wish::Spare(_) => within,
        };
        let is_on_its_way = self
            .proposals
            .values()
            .any(|given| given.gives(from.peer, range));
        if is_on_its_way {
            self.send(from.peer, Body::Granting { id });
            return;
        }
        if let Wish::Exact(at) = wish
            && self.tell_owner(from, at)
        {
            self.send(from.peer, Body::Granting { id });
            return;
        }
        let answer = match self.pick_for(from, within, wish) {
            Ok(block) => {
                self.grant(from, block);
                Body::Granting { id }
            }
            Err(why) => Body::Denied { id, why },
        };
        self.send(from.peer, answer);
    }

    /// Whether the address is the asking peer's already; then it is told so.
    fn tell_owner(&mut self, from: OwnerId, at: u128) -> bool {
        let run = self.ledger.ring.within(Range::one(at)).next();
        match run.filter(|run| run.cell.owner == from) {
            Some(run) => {
                self.send(from.peer, Body::Push(Runs::take_from([run], usize::MAX)));
                true
            }
            None => false,
        }
    }

    fn pick_for(&self, from: OwnerId, within: Range, wish: Wish) -> Result<Range, Denial> {
        if !self.may_use() {
            return Err(Denial::Fenced);
        }
        if self.ledger.granted.len() >= GRANTED_RUNS_MAX {
            return Err(Denial::Busy);
        }
        match wish {
            Wish::Exact(at) => self.pick_exact(from, at),
            Wish::Spare(_) if self.is_short_of(within) => Err(Denial::NoFree),
            Wish::Block(count) | Wish::Spare(count) => self.pick_block(within, count),
        }
    }

    fn pick_exact(&self, from: OwnerId, at: u128) -> Result<Range, Denial> {
        // Whom it is held for announces it too.
        if let Use::Held(hold) = self.ledger.space.state(at, self.now)
            && hold.peer != from.peer
        {
            return Err(Denial::Held(hold.peer));
        }
        if let Some(peer) = self.announcer(at, from.peer) {
            return Err(Denial::Used(Text::new(&self.name(peer))));
        }
        if !self.ledger.space.is_owned(at) || self.disputes.contains(at) {
            return Err(Denial::NotMine);
        }
        match self.ledger.space.state(at, self.now) {
            Use::Allocated(container) => Err(Denial::Used(Text::new(&container))),
            Use::Granting | Use::NotOwned => Err(Denial::NotMine),
            // Who wants exactly this address does not mind that somebody else had it just now.
            Use::Held(_) | Use::Resting(_) | Use::Rested | Use::Fresh => Ok(Range::one(at)),
        }
    }

    fn pick_block(&self, within: Range, count: u128) -> Result<Range, Denial> {
        let bits = u128::BITS - count.max(1).saturating_sub(1).leading_zeros();
        let runs = |range: Range| {
            let is_taken =
                self.disputes.overlaps(range) || self.announcers.within(range).next().is_some();
            // Too many on purpose: such a block is not to be given.
            if is_taken {
                usize::MAX
            } else {
                self.ledger.ring.within(range).count()
            }
        };
        let picked = self.ledger.space.pick_block(within, bits, self.now, runs);
        picked.map_err(|why| match why {
            NoBlock::Resting => Denial::Resting,
            NoBlock::NoFree if self.ledger.granted.within(within).next().is_some() => Denial::Busy,
            NoBlock::NoFree => Denial::NoFree,
        })
    }

    /// Gives a block away: from now on it is not this owner's to use.
    pub(super) fn grant(&mut self, to: OwnerId, block: Range) {
        let own = self.ledger.ring.within(block).filter_map(|run| {
            let cell = run.cell.granted(to)?;
            (run.cell.owner == self.owner()).then_some(Run { cell, ..run })
        });
        let Some(runs) = Runs::new(own.collect()) else {
            return;
        };
        if runs.as_slice().is_empty() {
            return;
        }
        self.log(&Entry::Granted(runs.clone()));
        if self
            .ledger
            .space
            .held()
            .any(|(held, _)| held.overlaps(&block))
        {
            self.log(&Entry::HeldEnded(block));
        }
        self.propose(runs, Purpose::Grant);
    }

    /// Who keeps an address from being given to `container` here, in words.
    pub(super) fn user_of(&self, at: u128, container: &str) -> Option<alloc::string::String> {
        if let Some(other) = self.ledger.space.container_of(at)
            && other.as_ref() != container
        {
            return Some(alloc::format!("container {other} of this peer"));
        }
        let peer = self.announcer(at, self.me)?;
        let name = self.name(peer);
        Some(match self.is_reachable(peer) {
            true => alloc::format!("a container of {name}"),
            false => alloc::format!("a container of {name}, which does not answer"),
        })
    }
}
