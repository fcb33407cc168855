//! What goes into a [`Node`] and comes out of it.
//!
//! [`Node`]: crate::Node

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use rmesh_wire::{Instant, PeerId};

use crate::address::Range;
use crate::cell::OwnerId;
use crate::ledger::Ledger;
use crate::limits::{REMOVAL_MARGIN, REMOVAL_SILENCE};
use crate::setup::{Pool, RingId, Setup};
use crate::space::Counts;

/// Names a request of a local client; the caller chooses it and gets it back with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Who a node is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The peer's id.
    pub me: PeerId,
    /// Random. The incarnation to take if the ledger is new or cannot be trusted.
    pub incarnation: u64,
    /// Of all randomness inside.
    pub seed: [u8; 32],
}

/// How a ledger was found at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// There was none, or it was damaged: the state is empty.
    Nothing,
    /// It is not older than the token in the run folder says.
    Current {
        /// Since the last sign of life of the daemon before, by a clock that goes on while the host
        /// sleeps (`CLOCK_BOOTTIME`); never less than it really was.
        down_for: Duration,
    },
    /// There is no token: it may have been rolled back.
    Unproven,
    /// The token is ahead of it: it was rolled back.
    RolledBack,
}

/// The ledger as it was found at start.
#[derive(Debug)]
pub struct Recovered {
    /// The fold of its entries.
    pub ledger: Ledger,
    /// Entries ever written by this incarnation, those a snapshot replaced included. The numbers of
    /// [`Node::poll_write`](crate::Node::poll_write) go on from it.
    pub written: u64,
    /// Whether it can be trusted.
    pub found: Found,
}

/// What to do if the ledger knows no ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Founding {
    /// Found one at once, with these pools.
    Found {
        /// At most [`POOLS_MAX`](crate::limits::POOLS_MAX) prefixes that share no address.
        pools: Vec<Range>,
    },
    /// Join the ring of the listed members, or found one with them if none of them has one.
    Join {
        /// The pools to propose.
        pools: Vec<Range>,
        /// How many others were named at launch; later [`Node::handle_targets`] tells.
        ///
        /// [`Node::handle_targets`]: crate::Node::handle_targets
        targets: usize,
        /// How many peers are to take part, this one included; the majority of them decides.
        /// `None`: the listed members and this peer, and only their answers count.
        init_peers: Option<usize>,
    },
}

/// Another peer, as the mesh knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub peer: PeerId,
    /// Its name.
    pub name: String,
    /// Whether messages to it are likely to arrive.
    pub reachable: bool,
    /// Whether it is a neighbour in the gossip overlay.
    pub neighbour: bool,
    /// Whether it was named at launch.
    pub listed: bool,
}

/// What a local client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A free address of the subnet for a container. One that the container has there already is
    /// given again.
    Allocate {
        /// The container's key.
        container: String,
        /// A prefix inside a pool; `None`: the whole first pool of the family.
        subnet: Option<Range>,
        /// Without a subnet: IPv6 instead of IPv4.
        wants_v6: bool,
    },
    /// This address for a container.
    Claim {
        /// The container's key.
        container: String,
        /// The address.
        address: IpAddr,
    },
    /// Every address of a container is free again.
    Release {
        /// The container's key.
        container: String,
    },
    /// One address of a container is free again.
    ReleaseAddress {
        /// The container's key.
        container: String,
        /// The address.
        address: IpAddr,
    },
    /// An address that is held for a removed peer may be handed out.
    ReleaseHeld {
        /// The address.
        address: IpAddr,
    },
    /// Takes over what a peer owns that will not come back. It waits until the peer has been silent
    /// for [`REMOVAL_SILENCE`] and [`REMOVAL_MARGIN`], and is refused if that is after the deadline.
    RemovePeer {
        /// The peer.
        peer: PeerId,
        /// Its name, to be remembered.
        name: String,
        /// Although it answers, or although the witnesses' majority is lost.
        is_forced: bool,
    },
    /// Gives up the own ring and joins the one a peer is in.
    Adopt {
        /// A peer of the other ring.
        peer: PeerId,
    },
    /// Hands everything over to the others.
    Leave,
    /// One more pool, owned by this peer.
    AddPool {
        /// A prefix that shares no address with another pool.
        range: Range,
    },
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The container has this address.
    Address(IpAddr),
    /// The address lies outside every pool: the ring has no say in it.
    OutsidePools,
    /// These addresses are free again.
    Released(Vec<IpAddr>),
    /// The peer owns nothing any more.
    Removed {
        /// Ranges taken over.
        taken: Vec<Range>,
        /// Addresses among them that are held for the removed peer.
        held: u128,
    },
    /// This ring was joined.
    Adopted(RingId),
    /// Nothing is owned any more.
    Left,
    /// The pool is there.
    PoolAdded,
}

/// Why a request was refused. The text says what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No subnet or pool of that kind.
    #[error(
        "{0} is not inside a pool of this ring ({1}); choose a subnet inside one, or add a pool first: rmesh ipam pool add CIDR"
    )]
    NoPool(String, String),
    /// An address in use.
    #[error("{address} is used by {by}; choose another address, or detach it there first")]
    Used {
        /// The address.
        address: IpAddr,
        /// Who uses it.
        by: String,
    },
    /// An address held for a removed peer.
    #[error(
        "{address} is held for the removed peer {peer}, whose container may still carry it; run \
         rmesh ipam release {address} if it does not"
    )]
    Held {
        /// The address.
        address: IpAddr,
        /// The removed peer.
        peer: String,
    },
    /// No container is to have the address of a network, a broadcast or an anycast group.
    #[error("{0} is the network's own address or its broadcast address; choose another address")]
    Reserved(IpAddr),
    /// Nothing free could be had in time.
    #[error(
        "no free address in {of}: {why} (tried {:.1} s); {}", tried.as_secs_f64(), more(*has_silent)
    )]
    NoFree {
        /// Where.
        of: Range,
        /// Whether somebody who owns some of it does not answer.
        has_silent: bool,
        /// Who was asked and what they answered.
        why: String,
        /// For how long.
        tried: Duration,
    },
    /// The owner of an exact address could not be won over in time.
    #[error(
        "{address} cannot be had: {why} (tried {:.1} s); choose another address, or run rmesh rmpeer if the owner is gone", tried.as_secs_f64()
    )]
    NotGranted {
        /// The address.
        address: IpAddr,
        /// Who was asked and what they answered.
        why: String,
        /// For how long.
        tried: Duration,
    },
    /// There is no ring yet.
    #[error("no ring yet: {0}")]
    NoRing(String),
    /// The own ledger may be out of date.
    #[error("{0}")]
    Fenced(String),
    /// A peer that answers is not removed.
    #[error("{0} answers; stop it first, or run rmesh rmpeer --force {0}")]
    Alive(String),
    /// A peer that was there a moment ago may be back in a moment.
    #[error(
        "{peer} was heard {:.0} s ago; a peer can be removed when it has been silent for {:.1} s: wait, \
         or run rmesh rmpeer --force {peer}, which may give addresses twice if it still runs",
        heard.as_secs_f64(), (REMOVAL_SILENCE + REMOVAL_MARGIN).as_secs_f64()
    )]
    Recent {
        /// The peer.
        peer: String,
        /// How long ago it was heard, or this daemon started.
        heard: Duration,
    },
    /// The witnesses' majority does not answer.
    #[error(
        "{why}; rmesh rmpeer --force {peer} forms the witness set anew from the peers that answer: an address that only the others know of may then be given twice"
    )]
    NoMajority {
        /// Who the witnesses are and which of them answer.
        why: String,
        /// The peer that was to be removed.
        peer: String,
    },
    /// Something took too long.
    #[error("{0}")]
    TimedOut(String),
    /// The disk refused a write.
    #[error(
        "the disk refused a write ({0}), and until it takes writes addresses are neither handed out nor freed; make room or mend it: it is tried again every 10 s"
    )]
    Disk(String),
    /// The request cannot be carried out as it is.
    #[error("{0}")]
    Invalid(String),
    /// A bound is reached.
    #[error("{0}")]
    TooMany(String),
}

/// Something the caller has to know or do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A request is done.
    Answer {
        /// Which.
        id: RequestId,
        /// What became of it.
        result: Result<Answer, Refusal>,
    },
    /// A container that was running at start has its address now.
    Claimed {
        /// The container's key.
        container: String,
        /// The address.
        address: IpAddr,
    },
    /// Something to tell the operator.
    Notice(String),
}

/// When to call [`Node::handle_timeout`](crate::Node::handle_timeout) next, and why.
pub type Timeout = (Instant, &'static str);

/// What can be said about the ring from here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The ring; `None` before one is founded or joined.
    pub ring: Option<RingId>,
    /// Who this node is.
    pub owner: Option<OwnerId>,
    /// The witnesses and pools.
    pub setup: Option<Setup>,
    /// Witnesses that may be lost before the majority is.
    pub spare_witnesses: usize,
    /// Whether a majority of the witnesses is there and acts, as far as they have said.
    pub has_majority: bool,
    /// Witnesses that are reachable, this peer included.
    pub reachable_witnesses: usize,
    /// Whether this peer acts as a witness.
    pub is_witness: bool,
    /// How many addresses each owner has.
    pub owners: BTreeMap<OwnerId, u128>,
    /// Runs of the ring.
    pub runs: usize,
    /// A hash of the ring: equal rings have equal ones.
    pub hash: u64,
    /// Addresses this peer's containers have, and the container of each.
    pub allocated: Vec<(IpAddr, String)>,
    /// Among them those that this peer does not own: it goes on asking for them.
    pub pending: Vec<IpAddr>,
    /// Addresses held for removed peers.
    pub held: Vec<(Range, PeerId)>,
    /// Whether a change of the witnesses can neither end nor be given up: those whose word it needs
    /// are gone or have forgotten it. Only a forced reform helps.
    pub is_stuck: bool,
    /// Own grants that wait for a majority of witnesses.
    pub granted: Vec<(Range, OwnerId)>,
    /// What the IPv4 addresses of this peer are.
    pub v4: Counts,
    /// What its IPv6 addresses are: so many more that a sum would hide that the others run out.
    pub v6: Counts,
    /// Why nothing is handed out, if that is so.
    pub fence: Option<String>,
    /// What is going on: succession, setup change, founding, adoption.
    pub waiting: Vec<String>,
    /// Witnesses that began anew since, as other owners: they bear no witness ever again.
    pub former_witnesses: Vec<PeerId>,
    /// Peers that began a forced reform, which this peer answered, and did not end it: until they do,
    /// or another one ends, this peer bears no witness.
    pub reformers: Vec<PeerId>,
    /// Messages refused, by sender and reason.
    pub refused: BTreeMap<(PeerId, &'static str), u64>,
    /// Messages dropped because a queue was full.
    pub dropped: u64,
    /// Why the node is halted, if it is.
    pub halted: Option<String>,
}

/// How there would be more free addresses.
fn more(has_silent: bool) -> &'static str {
    match has_silent {
        true => {
            "add a pool (rmesh ipam pool add) and name it with --subnet, or run rmesh rmpeer if they are gone"
        }
        false => {
            "detach what is not needed, or add a pool (rmesh ipam pool add) and name it with --subnet"
        }
    }
}

/// Ranges of the pools in one line.
pub(crate) fn pools_in_words(pools: &[Pool]) -> String {
    let words: Vec<String> = pools
        .iter()
        .map(|pool| alloc::format!("{}", pool.range))
        .collect();
    if words.is_empty() {
        return String::from("it has no pools");
    }
    alloc::format!("its pools: {}", words.join(", "))
}
