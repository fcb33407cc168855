//! Requests about the ring of addresses.

mod body;
mod convert;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use body::{
    AdoptBody, AdoptReply, AllocateBody, AllocateReply, ClaimBody, ClaimReply, PoolBody, PoolReply,
    ReleaseBody, ReleaseReply, RemoveBody, RemoveReply,
};
#[cfg(test)]
pub(crate) use view::OwnerView;
pub(crate) use view::{
    AddressState, AddressView, CheckView, ConflictView, Count, Difference, HoldView, IpamView,
    OtherRingView, PendingView, PoolView, RefusedView, WitnessView,
};

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, State};
use axum::routing::{get, post};

use super::find;
use super::server::{Answer, Body, Deadline, Service, Shared, read, whole};
use crate::daemon::{self, Snapshot};
use crate::failure::Failure;
use axum::Json;
use rmesh_ipam::Outlook;
use rmesh_wire::PeerId;

pub(super) fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/v1/ipam", get(status))
        .route("/v1/ipam/addresses", get(addresses))
        .route("/v1/ipam/check", get(check))
        .route("/v1/ipam/allocate", post(allocate))
        .route("/v1/ipam/claim", post(claim))
        .route("/v1/ipam/release", post(release))
        .route("/v1/ipam/adopt", post(adopt))
        .route("/v1/ipam/pools", post(add_pool))
        .route("/v1/peers/remove", post(remove))
}

/// A snapshot, and what there is to know of the ring beyond it.
async fn all(service: &Service) -> Result<(Snapshot, Outlook), Failure> {
    let outlook = service.handle.outlook(Vec::new()).await?;
    let snapshot = service.handle.snapshot().await?;
    Ok((snapshot, outlook.unwrap_or_default()))
}

async fn status(State(service): Shared) -> Answer<IpamView> {
    let (snapshot, outlook) = all(&service).await?;
    Ok(Json(convert::status(&snapshot, &outlook)))
}

async fn addresses(State(service): Shared) -> Answer<Vec<AddressView>> {
    let (snapshot, outlook) = all(&service).await?;
    Ok(Json(convert::addresses(&snapshot, &outlook)))
}

async fn check(State(service): Shared) -> Answer<CheckView> {
    Ok(Json(service.containers.check().await?))
}

async fn allocate(
    State(service): Shared,
    Extension(Deadline(deadline)): Extension<Deadline>,
    body: Body,
) -> Answer<AllocateReply> {
    let body: AllocateBody = read(body)?;
    let containers = Arc::clone(&service.containers);
    let allocated = whole(async move { containers.allocate(body, deadline).await });
    Ok(Json(allocated.await?))
}

async fn claim(
    State(service): Shared,
    Extension(Deadline(deadline)): Extension<Deadline>,
    body: Body,
) -> Answer<ClaimReply> {
    let body: ClaimBody = read(body)?;
    let containers = Arc::clone(&service.containers);
    let claimed = whole(async move { containers.claim(body, deadline).await });
    Ok(Json(claimed.await?))
}

async fn release(
    State(service): Shared,
    Extension(Deadline(deadline)): Extension<Deadline>,
    body: Body,
) -> Answer<ReleaseReply> {
    let body: ReleaseBody = read(body)?;
    let containers = Arc::clone(&service.containers);
    let released = whole(async move { containers.release(body, deadline).await });
    let released = released.await?;
    Ok(Json(ReleaseReply { released }))
}

async fn remove(
    State(service): Shared,
    Extension(Deadline(deadline)): Extension<Deadline>,
    body: Body,
) -> Answer<RemoveReply> {
    let body: RemoveBody = read(body)?;
    let (snapshot, outlook) = all(&service).await?;
    let found = find::owner(&snapshot, &outlook, &body.peer)?;
    let removed = daemon::remove(&service.handle, found, body.force, deadline);
    Ok(Json(removed.await?))
}

async fn adopt(
    State(service): Shared,
    Extension(Deadline(deadline)): Extension<Deadline>,
    body: Body,
) -> Answer<AdoptReply> {
    let body: AdoptBody = read(body)?;
    let (snapshot, outlook) = all(&service).await?;
    let found = in_ring(&snapshot, &outlook, &body.to);
    let found: (PeerId, String) = match found {
        Some(found) => found,
        None => find::owner(&snapshot, &outlook, &body.to)?,
    };
    let ring = daemon::adopt(&service.handle, found, deadline).await?;
    Ok(Json(AdoptReply { ring }))
}

async fn add_pool(
    State(service): Shared,
    Extension(Deadline(deadline)): Extension<Deadline>,
    body: Body,
) -> Answer<PoolReply> {
    let body: PoolBody = read(body)?;
    let added = daemon::add_pool(&service.handle, body.pool, deadline).await?;
    let pool = body.pool;
    Ok(Json(PoolReply { pool, added }))
}

/// A peer of the other ring with these digits.
fn in_ring(snapshot: &Snapshot, outlook: &Outlook, text: &str) -> Option<(PeerId, String)> {
    let mut others = outlook.others.iter();
    let other = others.find(|other| other.ring.to_string() == text)?;
    let member = other.members.first()?;
    Some((*member, snapshot.name_of(*member)))
}
