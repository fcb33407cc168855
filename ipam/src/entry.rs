//! What is written to the disk: every change of durable state is one entry.

use alloc::string::String;
use alloc::vec::Vec;

use rmesh_wire::PeerId;
use rmesh_wire::codec::{self, Bounded, CodecError};
use serde::{Deserialize, Serialize};

use crate::address::Range;
use crate::cell::{OwnerId, Term};
use crate::packed::{RUNS_MAX, Runs};
use crate::setup::{Ballot, RingId, Setup, Stamp};

/// Promises, by range.
pub(crate) type Promises = Bounded<(Range, Term), RUNS_MAX>;

/// What a founding decides.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct Foundation {
    pub(crate) ring: RingId,
    /// The first setup: the founder is the only witness and owns all pools.
    pub(crate) setup: Setup,
}

/// One change of durable state. The log is a list of them, and so is a snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Entry {
    /// A new owner begins, which owns nothing and promised nothing.
    Began { peer: PeerId, incarnation: u64 },
    /// The ring this peer is in from now on; what it knew of another one is forgotten.
    Joined {
        ring: RingId,
        setup: Setup,
        installed: bool,
    },
    /// A setup is known to be chosen. `installed`: this peer holds the state to act in it.
    SetupChosen { setup: Setup, installed: bool },
    /// No lower ballot for the setup `target` is answered any more; its predecessor is sealed. If
    /// it is of another generation, a forced reform was answered.
    SetupPromised { target: Stamp, ballot: Ballot },
    /// Accepted by this ballot.
    SetupAccepted { ballot: Ballot, setup: Setup },
    /// This peer may have forgotten what it acknowledged: as a witness it lives anew, and is none until
    /// a setup names this life.
    Life(u64),
    /// What witnesses of the setup before had accepted and promised.
    Carried { accepted: Runs, promised: Promises },
    /// Cells that are known to be chosen.
    Merged(Runs),
    /// As a witness: promised not to accept lower terms.
    Promised {
        term: Term,
        ranges: Bounded<Range, RUNS_MAX>,
    },
    /// As a witness: accepted, not known to be chosen.
    Accepted(Runs),
    /// Granted by this peer, not known to be chosen; not its own any more.
    Granted(Runs),
    /// The number of a term that this peer may have used.
    TermUsed(u32),
    /// A container of this peer has the address.
    Allocated { address: u128, container: String },
    /// No container of this peer has the address any more.
    Freed { address: u128 },
    /// Not handed out: containers of a removed peer may have them.
    Held {
        peer: PeerId,
        ranges: Bounded<Range, RUNS_MAX>,
    },
    /// Handed out again.
    HeldEnded(Range),
    /// The owner was removed, when terms up to the number `n` had been seen; the name is for
    /// messages. A later term that the owner took itself says that it is back.
    Removed {
        owner: OwnerId,
        name: String,
        n: u32,
    },
    /// No lower ballot of the founding is answered any more.
    FoundingPromised(Ballot),
    /// Accepted by this ballot.
    FoundingAccepted {
        ballot: Ballot,
        foundation: Foundation,
    },
    /// What another peer announced, or announces no more.
    Announced {
        peer: PeerId,
        addresses: Bounded<u128, RUNS_MAX>,
        gone: bool,
    },
    /// This life has to ask others whether the ledger is current, and the next one too if this one
    /// ends first: the token in the run folder says nothing about the time before it.
    Unsure { unproven: bool },
    /// They have confirmed it.
    Sure,
    /// A forced reform was answered: in the generation before nothing is acknowledged and nothing
    /// counts any more.
    Left(Stamp),
    /// A reform of this owner.
    ReformBegan(Stamp),
    /// It led to no setup and never will: who has left for it comes back.
    ReformEnded(Stamp),
    /// From now on these may be handed out before it is written down who has them.
    Reserved(Bounded<Range, RUNS_MAX>),
    /// They are not any more; those that were handed out have been written down.
    Unreserved(Range),
}

impl Entry {
    /// As it is written.
    ///
    /// # Errors
    /// None in practice: every list in an entry is bounded far below the codec's limit.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode(self)
    }

    /// From what was written.
    ///
    /// # Errors
    /// The bytes are no entry of this version.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes)
    }
}
