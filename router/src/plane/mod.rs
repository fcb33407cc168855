//! The data plane: frames from the bridge go out sealed, datagrams come in and become frames.
//!
//! [`Plane`] is the control side's handle; behind it plain threads run to completion on batches.
//! What they read of the mesh is one immutable snapshot, swapped whole by [`Plane::publish`].

mod api;
mod handle;

pub use api::{Inbound, LearnedMac, PeerCounters, PlaneCounters, PlaneError, PlaneOptions};
pub use handle::Plane;
