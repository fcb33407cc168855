//! What a state of the model is made of: peers with their durable state, and everything ever sent.
//!
//! A message once sent stays: it may be received at any later time, by each receiver, any number of
//! times, or never. That is loss, delay, doubling and reordering at once. What answers say is folded
//! into the round they belong to: an answer that is lost equals one that was never given, as far as
//! safety goes, because giving it only forbids its giver something.

use std::fmt;

/// Peers of a scene, at most.
pub const PEERS: usize = 4;
/// Addresses of a scene, at most.
pub const ADDRESSES: usize = 2;
/// Setups that follow one another, at most.
pub const SETUPS: usize = 3;
/// Ballots of setup changes, at most.
pub const BALLOTS: usize = 3;
/// Terms taken by succession, at most.
pub const TERMS: usize = 3;
/// Grants made in a scene, at most.
pub const GRANTS: usize = 3;
/// Accept messages: the grants, and one of each term for each address.
pub const MESSAGES: usize = GRANTS + TERMS * ADDRESSES;
/// The owner that peer 0 becomes when it lost its ledger.
pub const REBORN: u8 = 4;

/// `(term, sequence, owner)`, compared in this order. The first cell of everything is (0, 0, peer 0).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell(u16);

impl Cell {
    /// Of message places not used, and of addresses a message does not carry.
    pub const NONE: Self = Self(u16::MAX);

    /// A cell of these parts.
    pub fn new(term: u8, seq: u8, owner: u8) -> Self {
        Self(u16::from(term) << 8 | u16::from(seq) << 4 | u16::from(owner))
    }
    /// All of it, for hashing.
    pub fn bits(self) -> u16 {
        self.0
    }
    /// The term.
    pub fn term(self) -> u8 {
        (self.0 >> 8) as u8
    }
    /// The place in the term.
    pub fn seq(self) -> u8 {
        (self.0 >> 4 & 15) as u8
    }
    /// Whose the address is.
    pub fn owner(self) -> u8 {
        (self.0 & 15) as u8
    }
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return write!(f, "-");
        }
        write!(f, "({},{},{})", self.term(), self.seq(), self.owner())
    }
}

/// A set of peers, one bit each.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Set(pub u8);

impl Set {
    /// Whether the peer is in it.
    pub fn has(self, peer: usize) -> bool {
        self.0 >> peer & 1 == 1
    }
    /// With the peer added.
    pub fn with(self, peer: usize) -> Self {
        Self(self.0 | 1 << peer)
    }
    /// Those in both.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
    /// Those in either.
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// Whether it holds nobody.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// How many.
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }
    /// Whether it holds more than half of `all`; never of an empty set.
    pub fn is_majority_of(self, all: Self) -> bool {
        2 * self.and(all).len() > all.len()
    }
}

/// How a peer is.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Life {
    /// It runs and trusts its disk.
    #[default]
    Runs,
    /// It runs after a reboot and does not know whether its disk is current.
    Unsure,
    /// It is off, with its containers.
    Stopped,
}

/// One peer: its durable state, and how it is.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Peer {
    /// The owner it is: its number, or `REBORN`.
    pub id: u8,
    /// How it is.
    pub life: Life,
    /// Chosen cells it knows.
    pub ring: [Cell; ADDRESSES],
    /// Cells it accepted as a witness and does not know to be chosen; the first cell means none.
    pub accepted: [Cell; ADDRESSES],
    /// Terms it promised as a witness; 0 means none.
    pub promised: [u8; ADDRESSES],
    /// Its own grants that are under way; `NONE` means none.
    pub granted: [Cell; ADDRESSES],
    /// Addresses its containers carry.
    pub carried: [bool; ADDRESSES],
    /// The setup it knows to be chosen.
    pub setup: u8,
    /// Whether it installed exactly that setup, so that it may act as a witness of it.
    pub installed: bool,
    /// The highest ballot of the next setup that it sealed or accepted; above 0 it is sealed.
    pub sealed: u8,
    /// The ballot of the next setup that it accepted; 0 means none.
    pub accepted_ballot: u8,
}

impl Peer {
    /// The highest cell it knows of, chosen or not.
    pub fn highest(&self, x: usize) -> Cell {
        self.ring[x].max(self.accepted[x])
    }

    /// Learns a chosen cell, and drops what that makes needless.
    pub fn merge(&mut self, x: usize, cell: Cell) {
        self.ring[x] = self.ring[x].max(cell);
        if self.ring[x] >= self.accepted[x] {
            self.accepted[x] = Cell::default();
        }
        if self.ring[x].term() >= self.promised[x] {
            self.promised[x] = 0;
        }
        if self.granted[x] != Cell::NONE && self.ring[x] >= self.granted[x] {
            self.granted[x] = Cell::NONE;
        }
    }

    /// The newest cell that it has a record of, its own grants included.
    pub fn newest(&self, x: usize) -> Cell {
        let granted = if self.granted[x] == Cell::NONE {
            self.ring[x]
        } else {
            self.granted[x]
        };
        granted.max(self.highest(x))
    }

    /// Whether a container of it has the address, or may get it at any time.
    pub fn uses(&self, x: usize) -> bool {
        self.carried[x] || self.may_use(x)
    }

    /// Whether it would give the address to a container of its own.
    pub fn may_use(&self, x: usize) -> bool {
        self.life == Life::Runs && self.ring[x].owner() == self.id && self.granted[x] == Cell::NONE
    }
}

/// An `Accept` that was sent, and who acknowledged it in which setup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// The cells it carries, accepted all or none.
    pub cells: [Cell; ADDRESSES],
    /// The peer that sends it and counts.
    pub sender: u8,
    /// The setup in which its promises were given; a grant is repeated in each setup.
    pub setup: Option<u8>,
    /// Who acknowledged it, by setup.
    pub acks: [Set; SETUPS],
}

impl Message {
    /// A place not used yet.
    pub const EMPTY: Self = Self {
        cells: [Cell::NONE; ADDRESSES],
        sender: 0,
        setup: None,
        acks: [Set(0); SETUPS],
    };
}

/// A round of succession: one term of one taker.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Round {
    /// The setup it runs in, once begun.
    pub setup: Option<u8>,
    /// Who promised, by address.
    pub promises: [Set; ADDRESSES],
    /// The highest cell they told of.
    pub highest: [Cell; ADDRESSES],
}

/// A ballot of a setup change.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Ballot {
    /// Who sealed the old setup and answered.
    pub sealed: Set,
    /// The highest ballot one of them had accepted.
    pub found: u8,
    /// The union of the highest cells they told of.
    pub cells: [Cell; ADDRESSES],
    /// The union of their promises.
    pub promised: [u8; ADDRESSES],
    /// The witnesses proposed, once they are.
    pub proposed: Set,
    /// Whether they name the life that a rebooted peer began.
    pub fresh: bool,
    /// Who installed them.
    pub installs: Set,
    /// Those of them that acted in the old setup until then.
    pub old_installs: Set,
}

/// Everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct World {
    /// The peers.
    pub peers: [Peer; PEERS],
    /// Every Accept ever sent: first those of the terms, then grants.
    pub messages: [Message; MESSAGES],
    /// Rounds of succession, by term less one.
    pub rounds: [Round; TERMS],
    /// Chosen witness sets; empty means not chosen yet.
    pub setups: [Set; SETUPS],
    /// Which of them name the life that a rebooted peer began.
    pub fresh: [bool; SETUPS],
    /// Ballots, by number less one.
    pub ballots: [Ballot; BALLOTS],
    /// Two witness sets were chosen for one place.
    pub split: bool,
    /// An old disk image of peer 0.
    pub image: Option<Peer>,
    /// How often peer 0 has rebooted.
    pub reboots: u8,
    /// Who answered peer 0 since its reboot, and the highest cells they told of.
    pub read: (Set, [Cell; ADDRESSES]),
    /// Who answered the forced reform, and what they told of.
    pub reform: Ballot,
    /// Addresses that the reform may endanger: their owner did not answer.
    pub risked: [bool; ADDRESSES],
}
