//! The local API: what is asked, what is answered, and the server.

mod body;
mod convert;
pub(crate) mod find;
mod ipam;
mod ring;
mod server;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use body::{
    AttachBody, ConnectBody, DetachBody, DetachReply, ErrorReply, ForgetBody, ForgetReply,
    LeaveReply, PeersReply, SecretReply, StopReply,
};
#[cfg(test)]
pub(crate) use convert::samples;
#[cfg(test)]
pub(crate) use ipam::OwnerView;
pub(crate) use ipam::{
    AddressState, AddressView, AdoptBody, AdoptReply, AllocateBody, AllocateReply, CheckView,
    ClaimBody, ClaimReply, ConflictView, Count, Difference, HoldView, IpamView, OtherRingView,
    PendingView, PoolBody, PoolReply, PoolView, RefusedView, ReleaseBody, ReleaseReply, RemoveBody,
    RemoveReply, WitnessView,
};
pub(crate) use server::{SOCKET, Service, bind, router, socket_path};
pub(crate) use view::{
    AttachmentView, CandidateView, EndpointsView, FastView, PathView, PeerView, StatusView,
    TargetView,
};
#[cfg(test)]
pub(crate) use view::{EndpointView, LearnedView, LinkView, RouteView};

use std::time::Duration;

/// Header by which a client says how long a request may take, in milliseconds.
pub(crate) const TIMEOUT_HEADER: &str = "rmesh-timeout-ms";
/// How long a request may take if the client does not say.
pub(crate) const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// Largest request body in bytes: a list of 256 peers with the longest names fits.
pub(crate) const BODY_LEN_MAX: usize = 128 << 10;
