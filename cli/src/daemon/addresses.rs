//! Which addresses a container gets: those the operator names, or free ones of the ring.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use rmesh_ipam::{Answer, Range, Refusal, Report, Request};
use tokio::time::Instant;

use super::call::Handle;
use super::containers::Wish;
use crate::api::AttachBody;
use crate::failure::{Failure, FailureKind};

/// What the ring is left for its answer to travel back before the client's time is up.
pub(super) const ANSWER_MARGIN: Duration = Duration::from_millis(300);
/// How long a release may take; after that it is done when the daemon starts anew.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);

/// The ring's name for the interface of a container: two interfaces of one are two containers to it.
pub(super) fn container_key(netns_inode: u64, interface: &str) -> String {
    format!("{netns_inode}/{interface}")
}

/// The other way round.
pub(super) fn of_key(key: &str) -> Option<(u64, &str)> {
    let (inode, interface) = key.split_once('/')?;
    Some((inode.parse().ok()?, interface))
}

/// Gets addresses for containers, and gives them back.
pub(super) struct Addresses {
    handle: Handle,
    /// Where addresses come from unless the client says: at most one subnet a family.
    subnets: Vec<IpNet>,
}

impl Addresses {
    pub(super) fn new(handle: Handle, subnets: Vec<IpNet>) -> Self {
        Addresses { handle, subnets }
    }

    /// Makes sure that a container still has what it was assigned: it may have been detached meanwhile.
    pub(super) async fn confirm(&self, wish: &Wish, assigned: &[IpNet]) -> Result<(), Failure> {
        let key = wish.key();
        for ip in assigned {
            self.claim(&wish.what, &key, *ip, wish.deadline).await?;
        }
        Ok(())
    }

    /// The addresses of a container that has none yet. After an error it may have some of them:
    /// release them.
    pub(super) async fn assign(
        &self,
        what: &str,
        key: &str,
        body: &AttachBody,
        deadline: Instant,
    ) -> Result<Vec<IpNet>, Failure> {
        let mut addresses = Vec::new();
        for ip in &body.ip {
            self.claim(what, key, *ip, deadline).await?;
            addresses.push(*ip);
        }
        let wanted = |is_v6: bool| {
            let named = body.subnet.iter().find(|net| is_family(net, is_v6));
            let default = self.subnets.iter().find(|net| is_family(net, is_v6));
            let is_wanted = (body.ip.is_empty() && !body.no_ip) || named.is_some();
            is_wanted.then(|| named.or(default).copied())
        };
        let allocate = async |is_v6: bool| match wanted(is_v6) {
            Some(subnet) => self.allocate(key, subnet, is_v6, deadline).await.map(Some),
            None => Ok(None),
        };
        let (v4, v6) = tokio::join!(allocate(false), allocate(true));
        let (v4, v6) = (v4?, v6?);
        let is_only_missing = |found: &Option<_>| matches!(found, Some(Err(Refusal::NoPool(..))));
        // A ring of one family has no addresses of the other.
        let others = !addresses.is_empty() || [&v4, &v6].iter().any(|f| matches!(f, Some(Ok(_))));
        for (found, is_v6) in [(v4, false), (v6, true)] {
            // Also by the launch: no address is not what was asked for.
            let mut named = body.subnet.iter().chain(&self.subnets);
            let named = named.any(|net| is_family(net, is_v6));
            match found {
                None => {}
                Some(Ok(address)) => addresses.push(address),
                missing if is_only_missing(&missing) && others && !named => {}
                Some(Err(refusal)) => return Err(refused(what, &refusal)),
            }
        }
        Ok(addresses)
    }

    /// An address that the operator names.
    async fn claim(
        &self,
        what: &str,
        key: &str,
        ip: IpNet,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let ring = self.handle.snapshot().await?.ring;
        let has_ring = ring.report.is_some_and(|report| report.ring.is_some());
        if !has_ring && !ring.pools.iter().any(|pool| pool.contains(&ip.addr())) {
            // If the ring has it after all, it is claimed as soon as there is one.
            return Ok(());
        }
        let request = Request::Claim {
            container: key.into(),
            address: ip.addr(),
        };
        match self.ask(request, deadline).await? {
            Ok(_) => Ok(()),
            Err(refusal) => Err(refused(what, &refusal)),
        }
    }

    /// A free address, with the prefix length of the subnet or pool it is from.
    async fn allocate(
        &self,
        key: &str,
        subnet: Option<IpNet>,
        wants_v6: bool,
        deadline: Instant,
    ) -> Result<Result<IpNet, Refusal>, Failure> {
        let request = Request::Allocate {
            container: key.into(),
            subnet: subnet.map(Range::from),
            wants_v6,
        };
        let address = match self.ask(request, deadline).await? {
            Ok(Answer::Address(address)) => address,
            Ok(other) => {
                return Err(Failure::failed(
                    "an internal task failed",
                    format!("{other:?}"),
                ));
            }
            Err(refusal) => return Ok(Err(refusal)),
        };
        let prefix_len = match subnet {
            Some(subnet) => subnet.prefix_len(),
            None => {
                let report = self.handle.snapshot().await?.ring.report;
                pool_len(report.as_ref(), address)
            }
        };
        let net = IpNet::new(address, prefix_len);
        net.map(Ok)
            .map_err(|error| Failure::failed("an internal task failed", error))
    }

    /// The addresses of a container are free again. If the disk does not take that now, they are when it
    /// does.
    pub(super) async fn release(&self, key: &str) {
        let container = key.into();
        let asked = self
            .handle
            .ring(Request::Release { container }, RELEASE_LIMIT);
        match asked.await {
            Ok(Ok(_)) => {}
            Ok(Err(refusal)) => tracing::warn!("cannot free the addresses of {key} yet: {refusal}"),
            // The daemon stops; it looks again when it starts.
            Err(failure) => tracing::debug!("{failure}"),
        }
    }

    /// All addresses of this host become others'.
    pub(super) async fn leave(&self, deadline: Instant) -> Result<(), Failure> {
        let what = "cannot hand over the addresses of this host";
        match self.ask(Request::Leave, deadline).await? {
            Ok(_) => Ok(()),
            Err(refusal) => Err(refused(what, &refusal)),
        }
    }

    /// The same for one address.
    pub(super) async fn release_one(&self, key: &str, address: IpAddr) {
        let container = key.into();
        let request = Request::ReleaseAddress { container, address };
        let asked = self.handle.ring(request, RELEASE_LIMIT).await;
        if let Ok(Err(refusal)) = asked {
            tracing::warn!("cannot free {address} of {key} yet: {refusal}");
        }
    }

    /// Asks the ring, and leaves time for its answer to travel back.
    pub(super) async fn ask(
        &self,
        request: Request,
        deadline: Instant,
    ) -> Result<Result<Answer, Refusal>, Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.handle
            .ring(request, left.saturating_sub(ANSWER_MARGIN))
            .await
    }
}

fn is_family(net: &IpNet, is_v6: bool) -> bool {
    matches!(net, IpNet::V6(_)) == is_v6
}

/// Prefix length of the pool an address is in.
pub(super) fn pool_len(report: Option<&Report>, address: IpAddr) -> u8 {
    let bits_max: u8 = if address.is_ipv4() { 32 } else { 128 };
    let setup = report.and_then(|report| report.setup.as_ref());
    let range = Range::from(IpNet::from(address));
    let pools = setup
        .map(|setup| setup.pools.as_slice())
        .unwrap_or_default();
    let pool = pools.iter().find(|pool| pool.range.covers(&range));
    let bits = pool.and_then(|pool| pool.range.block_bits());
    let bits = bits.and_then(|bits| u8::try_from(bits).ok());
    bits_max.saturating_sub(bits.unwrap_or(0))
}

/// A refusal of the ring in the API's words.
pub(crate) fn refused(what: &str, refusal: &Refusal) -> Failure {
    let kind = match refusal {
        Refusal::Used { .. }
        | Refusal::Held { .. }
        | Refusal::Alive(_)
        | Refusal::Recent { .. }
        | Refusal::NoMajority { .. } => FailureKind::Conflict,
        Refusal::NoPool(..) | Refusal::Reserved(_) | Refusal::Invalid(_) => FailureKind::Usage,
        Refusal::NoFree { .. }
        | Refusal::NotGranted { .. }
        | Refusal::NoRing(_)
        | Refusal::Fenced(_)
        | Refusal::TooMany(_) => FailureKind::Unavailable,
        Refusal::TimedOut(_) => FailureKind::Timeout,
        Refusal::Disk(_) => FailureKind::Failed,
    };
    let text = refusal.to_string();
    // Refusals say what to do after a semicolon.
    match text.rsplit_once("; ") {
        Some((why, todo)) => Failure::new(kind, what, why).todo(todo),
        None => Failure::new(kind, what, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_which_interface_of_which_namespace() {
        let key = container_key(4_026_532_281, "eth/0");
        assert_eq!(of_key(&key), Some((4_026_532_281, "eth/0")));
        assert_eq!(of_key("4026532281"), None);
        assert_eq!(of_key("web/rmesh0"), None);
    }

    #[test]
    fn a_refusal_keeps_its_advice_apart() {
        let refusal = Refusal::Reserved("10.32.0.0".parse().unwrap());
        let failure = refused("cannot attach web", &refusal);
        assert_eq!(failure.kind, FailureKind::Usage);
        assert_eq!(failure.todo, "choose another address");
        assert!(!failure.why.contains(';'), "{}", failure.why);
    }
}
