//! What all members of a ring agree on besides the cells: witnesses and pools.

use core::fmt;

use rmesh_wire::PeerId;
use rmesh_wire::codec::Bounded;
use serde::{Deserialize, Serialize};

use crate::address::Range;
use crate::cell::{Cell, OwnerId};
use crate::limits::{POOLS_MAX, WITNESSES_MAX};
use crate::ring::Run;

/// Names a ring: random bits from its founding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RingId(pub [u8; 16]);

impl RingId {
    /// The part that travels with every message.
    pub(crate) fn short(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Display for RingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.short() >> 16)
    }
}

impl fmt::Debug for RingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Begins with a forced reform. Who forced it is part of it, so that two that are forced on two
/// sides of a cut are not taken for one.
///
/// The derived order is the protocol's, as that of terms.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, Default,
)]
pub struct Generation {
    /// Above every number the reformer had seen.
    pub n: u32,
    /// The reformer.
    pub by: PeerId,
}

/// Orders the setups of one ring.
///
/// The derived order is the protocol's: a generation outweighs every epoch before it. No two
/// chosen setups have one stamp.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, Default,
)]
pub struct Stamp {
    /// Raised by each forced reform.
    pub generation: Generation,
    /// Raised by each ordinary change.
    pub epoch: u32,
}

impl Stamp {
    /// The stamp of the next ordinary change.
    #[must_use]
    pub fn next(self) -> Self {
        Stamp {
            epoch: self.epoch.saturating_add(1),
            ..self
        }
    }

    /// The first stamp of a generation.
    #[must_use]
    pub fn first_of(generation: Generation) -> Self {
        Stamp {
            generation,
            epoch: 0,
        }
    }
}

/// Addresses that a ring hands out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Pool {
    /// The addresses; a prefix.
    pub range: Range,
    /// Who owned them first.
    pub founder: OwnerId,
}

impl Pool {
    /// The cells all addresses of the pool begin with.
    pub fn run(&self) -> Run {
        Run {
            range: self.range,
            cell: Cell::founded(self.founder),
        }
    }
}

/// Witnesses and pools of a ring.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// Which of the ring's setups this is.
    pub stamp: Stamp,
    /// Whose majority decides: an odd number of them.
    pub witnesses: Bounded<OwnerId, WITNESSES_MAX>,
    /// In which life each of them bears witness: one that may have forgotten what it acknowledged
    /// begins another life, and is none until a setup names that.
    pub lives: Bounded<u64, WITNESSES_MAX>,
    /// The pools; they share no address.
    pub pools: Bounded<Pool, POOLS_MAX>,
}

impl Setup {
    /// How many witnesses are a majority.
    pub fn majority(&self) -> usize {
        self.witnesses.as_slice().len() / 2 + 1
    }

    /// Whether `owner` is a witness.
    pub fn has_witness(&self, owner: OwnerId) -> bool {
        self.witnesses.as_slice().contains(&owner)
    }

    /// In which life `owner` bears witness.
    pub fn life_of(&self, owner: OwnerId) -> Option<u64> {
        let mut pairs = self.witnesses.as_slice().iter().zip(self.lives.as_slice());
        pairs
            .find(|(witness, _)| **witness == owner)
            .map(|(_, life)| *life)
    }

    /// Whether `owner` is a witness in this life.
    pub fn names(&self, owner: OwnerId, life: u64) -> bool {
        self.life_of(owner) == Some(life)
    }

    /// How many witnesses, in whatever lives, know as much as a majority: whatever a majority has
    /// acknowledged two of them have, one more than the one whose disk may be an older one.
    pub fn revival(&self) -> usize {
        (self.majority() + 1).min(self.witnesses.as_slice().len())
    }

    /// Whether so many witnesses, in whatever lives, are enough. One that is known to have begun anew,
    /// if any has, is the one that forgot: it speaks by saying so.
    pub fn revives(&self, count: usize, begun_anew: usize) -> bool {
        count >= self.majority() && count + begun_anew.min(1) >= self.revival()
    }

    /// Whether `acknowledged` is true of a majority of the witnesses.
    pub fn is_majority(&self, acknowledged: impl Fn(&OwnerId) -> bool) -> bool {
        let count = self
            .witnesses
            .as_slice()
            .iter()
            .filter(|w| acknowledged(w))
            .count();
        count >= self.majority()
    }

    /// The pool an address is in.
    pub fn pool_of(&self, number: u128) -> Option<&Pool> {
        let mut pools = self.pools.as_slice().iter();
        pools.find(|pool| pool.range.contains(number))
    }

    /// Whether all of `range` is in one pool.
    pub fn covers(&self, range: &Range) -> bool {
        let mut pools = self.pools.as_slice().iter();
        pools.any(|pool| pool.range.covers(range))
    }

    /// Whether it is one: witnesses in an odd number and named once, pools that share nothing.
    pub fn is_sound(&self) -> bool {
        let witnesses = self.witnesses.as_slice();
        let pools = self.pools.as_slice();
        let named_once = witnesses.iter().enumerate().all(|(at, witness)| {
            witnesses
                .iter()
                .skip(at + 1)
                .all(|other| other.peer != witness.peer)
        });
        let apart = pools.iter().enumerate().all(|(at, pool)| {
            let mut others = pools.iter().skip(at + 1);
            others.all(|other| !other.range.overlaps(&pool.range))
        });
        let has_lives = self.lives.as_slice().len() == witnesses.len();
        witnesses.len() % 2 == 1 && has_lives && named_once && apart
    }
}

/// Orders the attempts to decide one thing.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, Default,
)]
pub struct Ballot {
    /// Above every number seen.
    pub n: u32,
    /// Who leads the attempt.
    pub leader: PeerId,
    /// In which life: the next one may have forgotten which numbers it used.
    pub life: u64,
}

impl Ballot {
    /// A number that tells the attempts of one leader apart.
    pub(crate) fn id(&self) -> u64 {
        self.life.wrapping_add(u64::from(self.n))
    }
}
