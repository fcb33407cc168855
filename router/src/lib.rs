//! Frames in, frames out, and the kernel.
//!
//! [`plane`] carries frames between the host's bridge and other peers; [`port`] is how it reads
//! and writes them. [`kernel`] keeps the host's side in order (bridge, addresses), [`attach`]
//! joins containers to the bridge, [`fast`] lets the kernel carry plaintext; all speak netlink, no
//! other program is called.

pub mod attach;
pub mod error;
pub mod fast;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
pub mod kernel;
pub mod plane;
pub mod port;
pub(crate) mod sys;

pub use plane::{
    Control, FrameCounters, Inbound, LearnedMac, PathKind, PeerCounters, Plane, PlaneCapabilities,
    PlaneCounters, PlaneError, PlaneOptions, Without, has_aes_instructions,
};
pub use sys::udp::dropped as datagrams_dropped;
