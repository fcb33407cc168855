//! Who owns which address.
//!
//! [`Node`] is one owner's part of the ring: it hands out what it owns, asks others for more,
//! grants, bears witness, and keeps a log of all that in its [`Ledger`]. It does no IO. The
//! [`AddressBook`] is for addresses outside every pool, which operators give.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod address;
mod addresses;
mod announcers;
mod api;
mod book;
mod cell;
mod entry;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
mod ledger;
pub mod limits;
pub mod log;
mod message;
mod node;
mod outlook;
mod packed;
mod random;
mod resting;
mod ring;
mod runs;
mod setup;
mod space;
pub mod sync;

pub use address::Range;
pub use api::{
    Answer, Event, Found, Founding, Identity, Member, Recovered, Refusal, Report, Request,
    RequestId, Timeout,
};
pub use book::{
    ANNOUNCED_PER_PEER_MAX, AddressBook, CLAIMS_MAX, ClaimError, Conflict, Holder, PEERS_MAX,
};
pub use cell::{Cell, OwnerId, Term};
pub use ledger::Ledger;
pub use node::{Node, describe};
pub use outlook::{Held, OtherRing, Outlook, PoolUse, RESTING_SHOWN_MAX};
pub use packed::{RUNS_MAX, Runs};
pub use resting::{REST, RESTING_MAX};
pub use ring::{Ring, Run};
pub use runs::{Piece, RunMap};
pub use setup::{Ballot, Generation, Pool, RingId, Setup, Stamp};
pub use space::{
    ALLOCATED_MAX, Container, Counts, GRANT_RUNS_MAX, Hold, NoBlock, Space, SpaceFull, Use, usable,
};
