//! Addresses are given back by the operator's will, but never under a running container.

use std::net::IpAddr;

use ipnet::IpNet;
use rmesh_ipam::{Answer, Refusal, Request as RingRequest};
use rmesh_router::attach::{Attachment, TargetSpec};
use tokio::time::{Instant, timeout_at};

use super::super::addresses::refused;
use super::{Containers, Snapshot, blocking, busy, failure, is_there};
use crate::api::ReleaseBody;
use crate::failure::{Failure, FailureKind};

/// What is to be released.
struct Wanted {
    what: String,
    /// Address and the ring's name for the container that has it.
    allocated: Vec<(IpAddr, String)>,
}

impl Containers {
    /// Frees an address, ends the hold on one, or frees all that a container has which is not attached.
    ///
    /// An address that a container still carries is not freed: somebody else would get it, and
    /// there would be two of it. There is no flag against that, since `detach` does both in order.
    pub(crate) async fn release(
        &self,
        body: ReleaseBody,
        deadline: Instant,
    ) -> Result<Vec<IpAddr>, Failure> {
        let what = match (&body.address, &body.target, &body.container) {
            (Some(address), None, None) => format!("cannot release {address}"),
            (None, Some(target), None) => format!("cannot release the addresses of {target}"),
            (None, None, Some(container)) => return self.release_lease(container, deadline).await,
            _ => {
                let why = "one of an address, a target and a container has to be named";
                return Err(Failure::new(FailureKind::Usage, "cannot release", why));
            }
        };
        // Nothing is being attached meanwhile.
        let _assigning = timeout_at(deadline, self.assigning.write())
            .await
            .map_err(|_| busy(&what))?;
        let _one = timeout_at(deadline, self.one.lock())
            .await
            .map_err(|_| busy(&what))?;
        let snapshot = self.handle.snapshot().await?;
        let allocated = self.allocated(&what, &body, &snapshot).await?;
        if let (Some(address), []) = (body.address, allocated.as_slice()) {
            return self.release_held(&what, address, deadline).await;
        }
        let wanted = Wanted { what, allocated };
        self.release_allocated(&wanted, &snapshot, deadline).await
    }

    /// Which addresses of the ledger are meant.
    async fn allocated(
        &self,
        what: &str,
        body: &ReleaseBody,
        snapshot: &Snapshot,
    ) -> Result<Vec<(IpAddr, String)>, Failure> {
        let report = snapshot.ring.report.as_ref();
        let all = report.map(|report| report.allocated.clone());
        let mut all = all.unwrap_or_default();
        if let Some(address) = body.address {
            all.retain(|(ip, _)| *ip == address);
            return Ok(all);
        }
        let target = body.target.as_deref().unwrap_or_default();
        let spec: TargetSpec = target.parse().map_err(|e| failure(what.into(), &e))?;
        let inode = self.inode(what, &spec).await?;
        let prefix = format!("{inode}/");
        all.retain(|(_, key)| key.starts_with(&prefix));
        if all.is_empty() {
            let why = "it has no address of the ring";
            return Err(Failure::new(FailureKind::Missing, what, why)
                .todo("rmesh ipam ls shows which addresses are whose"));
        }
        Ok(all)
    }

    async fn release_held(
        &self,
        what: &str,
        address: IpAddr,
        deadline: Instant,
    ) -> Result<Vec<IpAddr>, Failure> {
        let request = RingRequest::ReleaseHeld { address };
        match self.addresses.ask(request, deadline).await? {
            Ok(Answer::Released(addresses)) => Ok(addresses),
            Ok(_) => Ok(Vec::new()),
            Err(refusal) => {
                let mut failure = refused(what, &refusal);
                if matches!(refusal, Refusal::Invalid(_)) {
                    // The words make sense; the address is not held.
                    failure.kind = FailureKind::Missing;
                }
                Err(failure)
            }
        }
    }

    async fn release_allocated(
        &self,
        wanted: &Wanted,
        snapshot: &Snapshot,
        deadline: Instant,
    ) -> Result<Vec<IpAddr>, Failure> {
        for (address, key) in &wanted.allocated {
            let mut attached = snapshot.attachments.iter();
            let attached = attached.find(|a| Self::key(a) == *key).cloned();
            self.refuse_if_carried(&wanted.what, *address, key, attached)
                .await?;
        }
        let mut released = Vec::new();
        for (address, key) in &wanted.allocated {
            let (container, address) = (key.clone(), *address);
            self.forget_address(key, address).await?;
            let request = RingRequest::ReleaseAddress { container, address };
            released.extend(self.released(&wanted.what, request, deadline).await?);
        }
        Ok(released)
    }

    /// An error if a container carries the address.
    async fn refuse_if_carried(
        &self,
        what: &str,
        address: IpAddr,
        key: &str,
        attached: Option<Attachment>,
    ) -> Result<(), Failure> {
        let (ports, key) = (self.kernel(), key.to_owned());
        let looked_for = attached.clone();
        let carried = blocking(move || match &looked_for {
            Some(attachment) => ports.carried(attachment),
            None if is_there(ports.as_ref(), &key) => Ok(Some(vec![IpNet::from(address)])),
            None => Ok(None),
        });
        let carried = carried
            .await?
            .map_err(|error| failure(what.into(), &error))?;
        let is_carried = |nets: Vec<IpNet>| nets.iter().any(|net| net.addr() == address);
        if !carried.is_some_and(is_carried) {
            return Ok(());
        }
        let who = attached.map_or_else(|| "CONTAINER".into(), |a| a.target);
        let why =
            format!("{address} is carried by {who} on this host: somebody else would get it too");
        Err(Failure::new(FailureKind::Conflict, what, why)
            .todo(format!("rmesh detach {who} takes it away and frees it")))
    }

    /// An attached container that has lost an address is not announced with it any more.
    async fn forget_address(&self, key: &str, address: IpAddr) -> Result<(), Failure> {
        let attached = self.handle.snapshot().await?.attachments.into_iter();
        let Some(mut attachment) = attached.into_iter().find(|a| Self::key(a) == key) else {
            return Ok(());
        };
        attachment.addresses.retain(|net| net.addr() != address);
        self.remember(attachment).await
    }

    async fn released(
        &self,
        what: &str,
        request: RingRequest,
        deadline: Instant,
    ) -> Result<Vec<IpAddr>, Failure> {
        match self.addresses.ask(request, deadline).await? {
            Ok(Answer::Released(addresses)) => Ok(addresses),
            Ok(_) => Ok(Vec::new()),
            Err(refusal) => Err(refused(what, &refusal)),
        }
    }
}
