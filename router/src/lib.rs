//! Frames in, frames out, and the kernel.
//!
//! [`plane`] carries frames between the host's bridge and other peers; [`port`] is how it reads
//! and writes them.

pub mod plane;
pub mod port;
pub(crate) mod sys;

pub use plane::{
    Inbound, LearnedMac, PeerCounters, Plane, PlaneCounters, PlaneError, PlaneOptions,
};
