//! Many hosts with containers that get addresses from the ring: the real [`rmesh_ipam::Node`] on
//! a model disk, over the real [`rmesh_gossip::Mesh`] or over wires that deliver its messages
//! directly, with partitions, crashes at writes, lost, damaged and restored disks, clock jumps and
//! an operator who removes peers.
//!
//! What must hold is looked at after every step (`check.rs`): no two live containers have one
//! address, no two peers may use one, an answer follows from what is durable, and the cells a peer
//! knows only rise. Once it is quiet all rings must be equal within 10 s, and every address that is
//! neither used nor held can be had.
//!
//! The operator follows the rules of `docs/ring.md`: a peer is removed while its host is off, or
//! while its daemon is dead and the taker knows what its containers carry; `--force` is used only
//! while every other peer that runs answers; a removed peer comes back when its removal was answered
//! and not within 10 s.

mod board;
mod check;
mod daemon;
mod disk;
mod fault;
mod host;
mod operator;
mod quiet;
mod report;
mod story;
mod trace;
mod wires;
mod work;
mod world;

pub use disk::Remains;
pub use report::{Meter, RingOutcome, table};
pub use story::{DiskKind, Operator, RingOptions, Wires, run};
