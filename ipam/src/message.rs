//! What peers say to each other on the ring's channel. Every message is idempotent, may be lost,
//! and takes at most [`MESSAGE_LEN_MAX`] bytes.

use alloc::string::String;
use alloc::vec::Vec;

use rmesh_wire::PeerId;
use rmesh_wire::codec::{self, Bounded, Bytes};
use serde::{Deserialize, Serialize};

use crate::address::Range;
use crate::cell::Term;
use crate::entry::Foundation;
use crate::limits::{
    ADDRESSES_MAX, GONE_MAX, MESSAGE_LEN_MAX, NAME_LEN_MAX, PROMISES_MAX, RANGES_MAX,
};
use crate::packed::Runs;
use crate::setup::{Ballot, RingId, Setup, Stamp};
use crate::sync::Sync;

/// A message and what its sender says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Message {
    /// The ring the sender is in; 0 for none.
    pub(crate) ring: u64,
    /// Which owner the sender is.
    pub(crate) incarnation: u64,
    /// In which life the sender bears witness.
    pub(crate) life: u64,
    /// The sender's last write that the message may depend on.
    pub(crate) written: u64,
    pub(crate) body: Body,
}

/// Text of bounded length; what is not UTF-8 reads as replacement characters.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Text(Bytes<NAME_LEN_MAX>);

impl Text {
    /// The beginning of `text` that fits.
    pub(crate) fn new(text: &str) -> Self {
        let end = text.floor_char_boundary(NAME_LEN_MAX);
        let kept = text.get(..end).unwrap_or_default();
        Text(Bytes::new(Vec::from(kept)).unwrap_or_default())
    }

    pub(crate) fn read(&self) -> String {
        String::from_utf8_lossy(self.0.as_slice()).into_owned()
    }
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) enum Wish {
    /// About so many addresses: somebody waits for one.
    Block(u128),
    /// About so many addresses, if the owner has plenty.
    Spare(u128),
    /// This one.
    Exact(u128),
}

/// Why an owner gives nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Denial {
    /// A container of the owner has it.
    Used(Text),
    /// It is held for a removed peer.
    Held(PeerId),
    /// Nothing is free in the range.
    NoFree,
    /// All that is free was freed less than a minute ago.
    Resting,
    /// The owner does not know whether its ledger is up to date.
    Fenced,
    /// The owner does not own it, or not any more.
    NotMine,
    /// Too many grants wait for the witnesses.
    Busy,
}

/// Why a witness does not do what it is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Decline {
    /// Another setup is in force, or this witness may not act in it.
    Setup,
    /// The setup is being changed.
    Sealed,
    /// A higher term or ballot, of this number, was promised.
    Promised(u32),
    /// A newer cell is known.
    Newer,
    /// The witness lacks the cell before; it has to be told first.
    Behind,
    /// The sender cannot own that.
    NotYours,
}

/// How much newer what a witness knows is than what a reader knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) enum Newer {
    Nothing,
    Promised,
    Accepted,
    Chosen,
}

/// State of a witness between `from` of the question and `covered_to`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Page {
    pub(crate) covered_to: u128,
    pub(crate) accepted: Runs,
    pub(crate) promised: Bounded<(Range, Term), PROMISES_MAX>,
}

/// The regular sign of life on the ring's channel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Digest {
    pub(crate) stamp: Stamp,
    /// Of the ring.
    pub(crate) hash: u64,
    /// The highest write the receiver was seen to depend on, and as which incarnation.
    pub(crate) seen: u64,
    pub(crate) seen_as: u64,
    /// Whether the sender acts as a witness of the setup it knows.
    pub(crate) acts: bool,
    /// Whether the sender has free addresses to give.
    pub(crate) has_free: bool,
    /// Addresses of reachable peers of the sender's ring, in its pools.
    pub(crate) live: u32,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Body {
    Digest(Digest),
    /// Please send a digest: is anybody there?
    Probe,
    /// Which ring are you in, and with which setup?
    AskSetup,
    Setup {
        ring: RingId,
        setup: Setup,
    },
    /// Chosen cells.
    Push(Runs),
    /// A step towards equal rings.
    Sync(Sync),

    Ask {
        id: u64,
        within: Range,
        wish: Wish,
    },
    /// A grant is under way.
    Granting {
        id: u64,
    },
    Denied {
        id: u64,
        why: Denial,
    },

    Accept {
        id: u64,
        stamp: Stamp,
        runs: Runs,
    },
    Accepted {
        id: u64,
        stamp: Stamp,
    },
    Declined {
        id: u64,
        stamp: Stamp,
        why: Decline,
    },
    Prepare {
        id: u64,
        stamp: Stamp,
        term: Term,
        removed: PeerId,
        ranges: Bounded<Range, RANGES_MAX>,
    },
    Promise {
        id: u64,
        stamp: Stamp,
        /// The ranges are answered up to here.
        covered_to: u128,
        cells: Runs,
        /// What the removed peer last announced there; `None`: it is not known.
        announced: Option<Bounded<u128, ADDRESSES_MAX>>,
    },
    /// What did that peer last announce, from that address on?
    AskAnnounced {
        peer: PeerId,
        from: u128,
    },
    /// It announced these, and more from `next` on.
    Announced {
        peer: PeerId,
        addresses: Bounded<u128, ADDRESSES_MAX>,
        next: Option<u128>,
    },
    /// Whose announcements do you remember that are not there?
    AskGone,
    /// These.
    Gone(Bounded<PeerId, GONE_MAX>),
    Read {
        id: u64,
        cells: Runs,
    },
    ReadAnswer {
        id: u64,
        stamp: Stamp,
        newer: Newer,
        /// The highest write the receiver was seen to depend on.
        seen: u64,
    },

    Seal {
        target: Stamp,
        ballot: Ballot,
    },
    Sealed {
        target: Stamp,
        ballot: Ballot,
        hash: u64,
        accepted: Option<(Ballot, Setup)>,
    },
    AskState {
        id: u64,
        from: u128,
    },
    /// As [`Body::AskState`], for the reform that makes `target` out of `after`: who answers leaves
    /// the generation of `after`.
    AskReform {
        id: u64,
        after: Stamp,
        target: Stamp,
        from: u128,
    },
    /// To a reformer, from one who answered: what became of it?
    AskReformEnd(Stamp),
    /// The sender's reform led to no setup and never will.
    ReformEnded(Stamp),
    State {
        id: u64,
        from: u128,
        hash: u64,
        page: Page,
    },
    Carry {
        target: Stamp,
        ballot: Ballot,
        part: u32,
        page: Page,
    },
    Carried {
        target: Stamp,
        ballot: Ballot,
        part: u32,
    },
    Install {
        target: Stamp,
        ballot: Ballot,
        hash: u64,
        setup: Setup,
    },
    Installed {
        target: Stamp,
        ballot: Ballot,
    },
    /// A higher ballot was promised.
    Outvoted {
        target: Stamp,
        n: u32,
    },

    FoundPrepare {
        ballot: Ballot,
    },
    FoundPromise {
        ballot: Ballot,
        promised: Ballot,
        accepted: Option<(Ballot, Foundation)>,
    },
    FoundAccept {
        ballot: Ballot,
        foundation: Foundation,
    },
    FoundAccepted {
        ballot: Ballot,
        promised: Ballot,
    },
}

impl Body {
    /// Whether it is heeded whatever ring its sender is in.
    pub(crate) fn is_between_rings(&self) -> bool {
        matches!(
            self,
            Body::Digest(_)
                | Body::Probe
                | Body::AskSetup
                | Body::Setup { .. }
                | Body::FoundPrepare { .. }
                | Body::FoundPromise { .. }
                | Body::FoundAccept { .. }
                | Body::FoundAccepted { .. }
        )
    }
}

impl Message {
    /// As it is sent; `None`, and a bug, if it does not fit.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let bytes = codec::encode(self).ok()?;
        (bytes.len() <= MESSAGE_LEN_MAX).then_some(bytes)
    }

    /// `None` for whatever no peer of this version would send.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MESSAGE_LEN_MAX {
            return None;
        }
        codec::decode(bytes).ok()
    }
}

#[cfg(test)]
mod tests;
