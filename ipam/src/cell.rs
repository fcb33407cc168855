//! The register that every address has: who owns it, by which term and sequence number (D10).

use core::fmt;

use rmesh_wire::PeerId;
use serde::{Deserialize, Serialize};

/// Who can own addresses and bear witness: one ledger of one peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OwnerId {
    /// The peer.
    pub peer: PeerId,
    /// Chosen at random with the ledger's file: a peer that lost its ledger is another owner.
    pub incarnation: u64,
}

impl fmt::Debug for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{:x}", self.peer.short(), self.incarnation)
    }
}

/// Raised by every succession. The taker is part of it, so that no two takers share a term.
///
/// The derived order is the protocol's: the number first, then the taker.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct Term {
    /// Above every number the taker had seen.
    pub n: u32,
    /// Who began the succession.
    pub taker: PeerId,
}

impl Term {
    /// The term of what was never succeeded.
    pub const FIRST: Term = Term {
        n: 0,
        taker: PeerId([0; 16]),
    };
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Term::FIRST {
            return write!(f, "0");
        }
        write!(f, "{}@{}", self.n, self.taker.short())
    }
}

/// What is known of the owner of one address. Of two cells of one address the greater is newer.
///
/// The derived order is the protocol's: term, sequence number, owner. Two cells that differ in
/// the owner alone contradict each other; [`Ring::contradiction`] finds them.
///
/// [`Ring::contradiction`]: crate::Ring::contradiction
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cell {
    /// The term.
    pub term: Term,
    /// Grants since the term began.
    pub seq: u32,
    /// The owner.
    pub owner: OwnerId,
}

impl Cell {
    /// The cell of an address that nobody has granted or succeeded yet.
    pub const fn founded(owner: OwnerId) -> Self {
        Cell {
            term: Term::FIRST,
            seq: 0,
            owner,
        }
    }

    /// The cell that grants the address to `owner`; `None` after 2^32 grants in one term.
    pub fn granted(&self, owner: OwnerId) -> Option<Self> {
        Some(Cell {
            term: self.term,
            seq: self.seq.checked_add(1)?,
            owner,
        })
    }

    /// Whether both cannot be chosen: one term and sequence number, two owners.
    pub fn contradicts(&self, other: &Cell) -> bool {
        (self.term, self.seq) == (other.term, other.seq) && self.owner != other.owner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_outweighs_sequence_numbers_and_those_outweigh_owners() {
        let owner = |peer| OwnerId {
            peer: PeerId([peer; 16]),
            incarnation: 1,
        };
        let term = |n, taker| Term {
            n,
            taker: PeerId([taker; 16]),
        };
        let cell = |term, seq, peer| Cell {
            term,
            seq,
            owner: owner(peer),
        };
        let ascending = [
            Cell::founded(owner(9)),
            cell(Term::FIRST, 1, 1),
            cell(Term::FIRST, 1, 2),
            cell(Term::FIRST, u32::MAX, 1),
            cell(term(1, 1), 0, 1),
            cell(term(1, 2), 0, 1),
            cell(term(2, 1), 0, 1),
        ];
        assert!(ascending.is_sorted());
        assert!(ascending[1].contradicts(&ascending[2]));
        assert_eq!(ascending[0].granted(owner(1)), Some(ascending[1]));
        assert_eq!(ascending[3].granted(owner(1)), None);
    }
}
