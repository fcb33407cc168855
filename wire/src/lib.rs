//! The words rmesh peers share: ids, time, datagram layouts and the one codec.
//!
//! Everything here is plain data: no socket, thread, clock, file or random source.
//!
//! # The contract of every core
//!
//! `gossip` and `ipam` are state machines without IO. Each of them offers
//!
//! * `handle_*(…, now)`: something happened. Never blocks; bad input moves a counter and changes
//!   nothing else.
//! * `handle_timeout(now)`: the instant asked for by `poll_timeout` has come (calling early or
//!   late is allowed).
//! * then, after *every* change, the caller drains in this order until each returns `None`:
//!   `poll_event()`, `poll_transmit()`, and finally asks `poll_timeout()`, which returns when to
//!   call `handle_timeout` next and why. Events come first: what they announce must be in force
//!   before the datagrams leave that let others rely on it.
//!
//! Instants given to one core never go backwards. The seed of all randomness is an argument of the
//! constructor; what is visible on the wire and what is secret come from two separate streams.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod bundle;
pub mod codec;
pub mod cookie;
pub mod datagram;
pub mod ethernet;
pub mod flood;
pub mod fragment;
pub mod handshake;
pub mod id;
pub mod payload;
pub mod port_probe;
pub mod probe;
pub mod relay;
pub mod time;

pub use id::{Boot, Mac, PeerId, ShortId};
pub use time::Instant;
