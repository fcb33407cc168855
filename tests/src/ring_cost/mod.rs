//! What the ring costs each peer of a large mesh, in memory and on the wire: real
//! [`rmesh_ipam::Node`]s in virtual time, over wires that deliver their messages directly.
//!
//! Each peer owns a block of each pool and has two containers, and knows what all others announce.
//! Announcements travel in the mesh's records, not on the ring's channel, and are told without a
//! message here. The change each peer makes is the dearest ordinary one: a container claims one
//! address that another peer owns, so that peer asks, the owner has the grant accepted by the
//! witnesses, everybody is told, and the owner's run is cut in three.

mod overlay;
mod scene;
mod world;

use std::time::Duration;

/// How large and how long.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    /// Peers, at least ten.
    pub peers: usize,
    /// Simulated time that is measured.
    pub watched: Duration,
    /// Each peer makes one change of the ring in this time.
    pub change_every: Duration,
    /// Everything random follows from it.
    pub seed: u64,
}

/// What it cost.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Heap of the nodes by peer, in bytes, once all is settled.
    pub heap_settled: f64,
    /// And after all changes.
    pub heap_after: f64,
    /// Of that, the ring alone: who owns what.
    pub heap_ring: f64,
    /// Bytes sent a second by peer, with IP and UDP heads.
    pub mean_bytes_per_s: f64,
    /// Of the peer that sends most.
    pub worst_bytes_per_s: f64,
    /// The most that one peer sends in one second, in bytes.
    pub worst_second: f64,
    /// Bytes a second by peer while nothing changes.
    pub quiet_bytes_per_s: f64,
    /// Ring messages caused by one allocation of each peer from its own space.
    pub allocation_messages: u64,
    /// Changes made.
    pub changes: usize,
    /// Neighbours of a peer, on average.
    pub neighbours: f64,
}

/// Plays the scene.
///
/// # Panics
/// If the mesh does not settle, a change fails, or the rings are not equal afterwards.
pub fn measure(scene: &Scene) -> Cost {
    scene::measure(scene)
}
