//! What an operator looks at when something is wrong with the ring.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use rmesh_wire::PeerId;

use crate::address::Range;
use crate::cell::OwnerId;
use crate::setup::RingId;
use crate::space::Counts;

/// More than a [`Report`](crate::Report), and made only when somebody asks: it counts every use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outlook {
    /// Each pool.
    pub pools: Vec<PoolUse>,
    /// Addresses held for removed peers.
    pub holds: Vec<Held>,
    /// How long ago an address was given to a container; not of those given before the start.
    pub given: BTreeMap<IpAddr, Duration>,
    /// How long ago an address was freed, of those that have not rested yet;
    /// [`RESTING_SHOWN_MAX`] at most.
    pub resting: Vec<(IpAddr, Duration)>,
    /// Names of removed peers, which the mesh may have forgotten.
    pub removed: BTreeMap<PeerId, String>,
    /// Other rings that reachable peers are in.
    pub others: Vec<OtherRing>,
    /// Own space that somebody else says is another's; not used until the witnesses have answered.
    pub disputed: Vec<Range>,
    /// Owners of the addresses asked for, in their order; `None`: outside every pool.
    pub owners: Vec<Option<OwnerId>>,
}

/// Resting addresses that are named; the others are counted.
pub const RESTING_SHOWN_MAX: usize = 1_024;

/// Addresses held for a removed peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The addresses.
    pub range: Range,
    /// For whom.
    pub peer: PeerId,
    /// For how long yet.
    pub left: Duration,
    /// For how long already, if the hold began after the start.
    pub since: Option<Duration>,
}

/// One pool and whose its addresses are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolUse {
    /// The pool.
    pub range: Range,
    /// How many of its addresses are what to this peer.
    pub counts: Counts,
    /// How many of its addresses each owner has.
    pub owners: BTreeMap<OwnerId, u128>,
}

/// Another ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherRing {
    /// Which.
    pub ring: RingId,
    /// Reachable peers that are in it.
    pub members: Vec<PeerId>,
    /// Addresses that containers in this ring carry, as far as is known here.
    pub live_here: u32,
    /// The same of the other ring.
    pub live_there: u32,
    /// Addresses that a container of this host and one of the other ring's peer carry, with both.
    pub conflicts: Vec<(IpAddr, String, PeerId)>,
}
