//! An explicit-state model of the ring's protocol: who may own an address when anything that can
//! happen happens in any order.
//!
//! Small scenes instead of one large one: each has up to four peers and one or two addresses, and is
//! searched whole. What the model leaves out: how ranges are coded, time, the reasons of refusals,
//! addresses that are held, and founding. A witness that is behind learns chosen cells by gossip.
//! Off is off: a peer that is switched off has no containers, which is what `rmpeer` asks of its caller.
//!
//! The search is our own. Stateright 0.31.0 would serve, but its last commit is of July 2025,
//! it brings a web server (`tiny_http`) and a second generation of `rand` that no feature switches off
//! (43 crates), and its breadth-first queue keeps the whole way with every state.

pub mod checker;
mod faults;
mod hashing;
mod reform;
mod ring;
pub mod scene;
pub mod scenes;
mod setup;
mod succession;
pub mod world;
