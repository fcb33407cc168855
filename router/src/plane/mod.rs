//! The data plane: frames from the bridge go out sealed, datagrams come in and become frames.
//!
//! [`Plane`] is the control side's handle; behind it plain threads run to completion on batches.
//! What they read of the mesh is one immutable snapshot, swapped whole by [`Plane::publish`].
//!
//! ```text
//!  TAP -> port -> forward: decide -> engine -> session: seal -> transmit -> outbox -> UDP
//!  UDP -> worker -> receive -> session: open -> reassembly, floods -> port -> TAP
//!                           \-> inbox -> control side (wants, failures)
//!  UDP -> control: screen -> control side (handshakes, lane 0)
//! ```

mod aead;
mod api;
mod bucket;
pub mod buffer;
mod bundle;
mod carried;
mod control;
#[cfg(feature = "counting")]
pub mod counting;
mod crowd;
mod delivery;
mod engine;
mod fdb;
mod floods;
mod forward;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
mod handle;
mod inbox;
mod lane;
mod look;
mod outbox;
mod oversize;
mod pending;
mod reassembly;
mod receive;
mod replay;
mod screen;
mod second_way;
mod session;
mod shared;
mod sockets;
mod stats;
mod tables;
mod too_big;
mod transmit;
mod worker;

pub use aead::has_aes_instructions;
pub use api::{
    FrameCounters, Inbound, LearnedMac, PathKind, PeerCounters, PlaneCapabilities, PlaneCounters,
    PlaneError, PlaneOptions, Without,
};
pub use control::Control;
pub use handle::Plane;
