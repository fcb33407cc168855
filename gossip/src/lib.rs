//! Who is there and how to reach them: identity, handshake, sessions, records, liveness, routes
//! and paths, as one state machine without IO.
//!
//! [`Mesh`] is the whole of it; the contract of its `handle_*` and `poll_*` functions is stated in
//! [`rmesh_wire`]. Everything random comes from [`Config::seed`], everything cryptographic from
//! the [`crypto::Crypto`] provider, so a simulator can run a thousand of them in one thread.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod api;
pub mod crypto;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
pub mod limits;
mod mesh;
pub mod plaintext;
mod random;
pub mod replay;
mod second_way;
pub mod tcp;
mod topology;

pub use api::{
    Config, Event, FastForwarding, FastTransmit, Forwarding, Member, Path, PeerForwarding,
    PortTransmit, Report, SOURCE_PORTS_MAX, SendFailure, SessionKeys, SourcePorts, Target,
    TrafficSample, Transmit,
};
pub use mesh::Mesh;
pub use plaintext::PlaintextPolicy;
pub use second_way::ProbeMarks;
