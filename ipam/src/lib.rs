//! Who owns which address.
//!
//! For now every address is given by an operator, and what there is to decide is whether it is
//! free: the [`AddressBook`] knows what this peer's containers hold and what the other peers
//! announced. It is plain state without IO.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod address;
mod book;
mod cell;
pub mod log;
mod packed;
mod resting;
mod ring;
mod runs;
mod space;
pub mod sync;

pub use address::Range;
pub use book::{
    ANNOUNCED_PER_PEER_MAX, AddressBook, CLAIMS_MAX, ClaimError, Conflict, Holder, PEERS_MAX,
};
pub use cell::{Cell, OwnerId, Term};
pub use packed::{RUNS_MAX, Runs};
pub use resting::{REST, RESTING_MAX};
pub use ring::{Ring, Run};
pub use runs::{Piece, RunMap};
pub use space::{
    ALLOCATED_MAX, Container, Counts, GRANT_RUNS_MAX, Hold, NoBlock, Space, SpaceFull, Use, usable,
};
