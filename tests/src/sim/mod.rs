//! A whole mesh in one thread: many [`rmesh_gossip::Mesh`] cores, a network and a clock, all
//! driven by one seed, so that every run can be replayed.
//!
//! [`run`] plays one scenario with one seed and returns an [`Outcome`]; what is wrong, if
//! anything, is in [`Outcome::violations`].

pub mod behind;
pub(crate) mod calendar;
mod check;
mod fault;
mod flow;
mod layout;
mod network;
mod node;
pub(crate) mod random;
mod report;
pub mod ring;
mod scenario;
mod world;

pub use report::{Outcome, Summary, Traffic, quantile, table};
pub use scenario::{Options, Scenario, run};
