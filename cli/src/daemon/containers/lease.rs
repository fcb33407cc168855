//! Addresses for whatever a client of the API calls a container, attached or not: kept until it is released.

use std::net::IpAddr;

use ipnet::IpNet;
use rmesh_ipam::{Answer, Range, Request};
use tokio::time::{Instant, timeout_at};

use super::super::addresses::refused;
use super::{Call, Containers, busy};
use crate::api::{AllocateBody, AllocateReply};
use crate::failure::{Failure, FailureKind};
use crate::subnet::check_subnets;

/// How the ring's names for such containers begin; those of interfaces begin with a digit.
const PREFIX: &str = "client/";

/// The ring's name for it.
fn key(container: &str) -> String {
    format!("{PREFIX}{container}")
}

/// Whether the ring's name is that of a client's container, of which no interface here tells.
pub(crate) fn is_lease(key: &str) -> bool {
    key.starts_with(PREFIX)
}

impl Containers {
    /// An address for a client's container: the same again if it has one there.
    pub(crate) async fn allocate(
        &self,
        body: AllocateBody,
        deadline: Instant,
    ) -> Result<AllocateReply, Failure> {
        let what = format!("cannot allocate an address for {}", body.container);
        let usage = |why: String| Failure::new(FailureKind::Usage, what.as_str(), why);
        check_subnets(body.subnet.as_slice()).map_err(usage)?;
        if body.container.is_empty() {
            return Err(usage("the container has no name".into()));
        }
        // While it is looked what there is, nothing may come that is not looked at.
        let _assigning = timeout_at(deadline, self.assigning.read())
            .await
            .map_err(|_| busy(&what))?;
        let request = Request::Allocate {
            container: key(&body.container),
            subnet: body.subnet.map(Range::from),
            wants_v6: body.ipv6,
        };
        let ip = match self.addresses.ask(request, deadline).await? {
            Ok(Answer::Address(ip)) => ip,
            Ok(other) => return Err(Failure::failed(what, format!("{other:?}"))),
            Err(refusal) => return Err(refused(&what, &refusal)),
        };
        let prefix_len = match body.subnet {
            Some(subnet) => subnet.prefix_len(),
            None => self.pool_len_of(ip).await?,
        };
        let address = IpNet::new(ip, prefix_len).map_err(|why| Failure::failed(what, why))?;
        let container = body.container;
        Ok(AllocateReply { address, container })
    }

    /// Everything that was allocated for a client's container is free again.
    pub(super) async fn release_lease(
        &self,
        container: &str,
        deadline: Instant,
    ) -> Result<Vec<IpAddr>, Failure> {
        let what = format!("cannot release the addresses of {container}");
        let _assigning = timeout_at(deadline, self.assigning.read())
            .await
            .map_err(|_| busy(&what))?;
        let container = key(container);
        match self
            .addresses
            .ask(Request::Release { container }, deadline)
            .await?
        {
            Ok(Answer::Released(addresses)) => Ok(addresses),
            Ok(_) => Ok(Vec::new()),
            Err(refusal) => Err(refused(&what, &refusal)),
        }
    }

    /// Prefix length of the pool an address is in.
    async fn pool_len_of(&self, ip: IpAddr) -> Result<u8, Failure> {
        let pools: Vec<Range> = self.handle.ask(Call::Pools).await?;
        let range = Range::from(IpNet::from(ip));
        let pool = pools.iter().find(|pool| pool.covers(&range));
        let host_bits = pool.and_then(Range::block_bits).unwrap_or(0);
        let bits: u8 = if ip.is_ipv4() { 32 } else { 128 };
        Ok(bits.saturating_sub(u8::try_from(host_bits).unwrap_or(bits)))
    }
}
