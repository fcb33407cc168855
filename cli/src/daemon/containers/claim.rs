//! One address more for a container, by the operator's will.

use std::sync::Arc;

use ipnet::IpNet;
use rmesh_gossip::limits::ENDPOINT_ADDRESSES_MAX;
use rmesh_ipam::{Answer, Request as RingRequest};
use rmesh_router::attach::{Attachment, Request, TargetSpec, mac_for};
use tokio::time::{Instant, timeout_at};

use super::super::addresses::{container_key, pool_len, refused};
use super::{Call, Containers, Wish, busy, check, durable, failure};
use crate::api::{AttachBody, ClaimBody, ClaimReply};
use crate::failure::{Failure, FailureKind};

impl Containers {
    /// Claims an address for a container. An attached one carries and announces it at once; for
    /// another it is kept until that is attached.
    pub(crate) async fn claim(
        &self,
        body: ClaimBody,
        deadline: Instant,
    ) -> Result<ClaimReply, Failure> {
        let wish = self.claim_wish(body, deadline).await?;
        let _assigning = timeout_at(deadline, self.assigning.read())
            .await
            .map_err(|_| busy(&wish.what))?;
        self.wait_until_joined(deadline).await?;
        let snapshot = self.handle.snapshot().await?;
        let known = wish.known(&snapshot).cloned();
        let net = wish.body.ip.first().copied();
        let net = net.ok_or_else(|| busy(&wish.what))?;
        let request = with_address(&wish, known.as_ref(), net, snapshot.mtu_bytes)?;
        self.wait_until_free(&wish, &request).await?;
        let had = snapshot.ring.report.as_ref().is_some_and(|report| {
            let mut allocated = report.allocated.iter();
            allocated.any(|(ip, key)| *ip == net.addr() && *key == wish.key())
        });
        let is_of_ring = self.claim_of_ring(&wish, net).await?;
        let report = self.handle.snapshot().await?.ring.report;
        let net = match wish.is_len_given {
            true => net,
            false => with_len(net, known.as_ref(), pool_len(report.as_ref(), net.addr())),
        };
        let Some(known) = known else {
            return kept(&wish, net, is_of_ring);
        };
        let request = with_address(&wish, Some(&known), net, snapshot.mtu_bytes)?;
        let given = self.give(&wish, net, request).await;
        if given.is_err() && !had {
            self.addresses.release_one(&wish.key(), net.addr()).await;
        }
        Ok(ClaimReply {
            address: net,
            target: wish.body.target.clone(),
            interface: given?.interface,
            attached: true,
        })
    }

    async fn claim_wish(&self, body: ClaimBody, deadline: Instant) -> Result<Wish, Failure> {
        let what = format!("cannot claim {} for {}", body.address, body.target);
        let max_len = if body.address.is_ipv4() { 32 } else { 128 };
        let net = IpNet::new(body.address, body.prefix_len.unwrap_or(max_len));
        let net = net.map_err(|why| Failure::new(FailureKind::Usage, what.as_str(), why))?;
        let attach = AttachBody {
            target: body.target,
            ip: vec![net],
            subnet: Vec::new(),
            no_ip: false,
            ifname: body.ifname,
            name: String::new(),
        };
        check(&attach).map_err(|why| Failure::new(FailureKind::Usage, what.as_str(), why))?;
        let target: TargetSpec = attach
            .target
            .parse()
            .map_err(|e| failure(what.clone(), &e))?;
        let inode = self.inode(&what, &target).await?;
        Ok(Wish {
            what,
            target,
            inode,
            body: attach,
            deadline,
            is_len_given: body.prefix_len.is_some(),
        })
    }

    /// Whether the ring has a say in the address; then it is the container's now.
    async fn claim_of_ring(&self, wish: &Wish, net: IpNet) -> Result<bool, Failure> {
        let request = RingRequest::Claim {
            container: wish.key(),
            address: net.addr(),
        };
        match self.addresses.ask(request, wish.deadline).await? {
            Ok(Answer::OutsidePools) => Ok(false),
            Ok(_) => Ok(true),
            Err(refusal) => Err(refused(&wish.what, &refusal)),
        }
    }

    /// An attached container carries one address more; one that it has lost is not given back by that.
    async fn give(
        &self,
        wish: &Wish,
        net: IpNet,
        mut request: Request,
    ) -> Result<Attachment, Failure> {
        let _one = timeout_at(wish.deadline, self.one.lock())
            .await
            .map_err(|_| busy(&wish.what))?;
        if wish.known(&self.handle.snapshot().await?).is_none() {
            let why = "it was detached meanwhile";
            return Err(Failure::new(FailureKind::Conflict, wish.what.as_str(), why));
        }
        let all = std::mem::replace(&mut request.addresses, vec![net]);
        let mut attachment = self.make(&wish.what, request).await?;
        attachment.addresses = all;
        self.remember(attachment.clone()).await?;
        Ok(attachment)
    }

    /// Another set of addresses of an attached container is kept and announced.
    pub(super) async fn remember(&self, attachment: Attachment) -> Result<(), Failure> {
        let keep = Box::new(attachment);
        let saved = self.handle.ask(|reply| Call::Attached(keep, reply)).await?;
        durable("the attached containers", saved).await
    }

    /// The ring's name for the interface of an attached container.
    pub(super) fn key(attachment: &Attachment) -> String {
        container_key(attachment.netns_inode, &attachment.interface)
    }

    /// The kernel, for work that may block.
    pub(super) fn kernel(&self) -> Arc<dyn super::Ports> {
        Arc::clone(&self.ports)
    }
}

/// What the container is to have: what it has and the address.
fn with_address(
    wish: &Wish,
    known: Option<&Attachment>,
    net: IpNet,
    mtu_bytes: u16,
) -> Result<Request, Failure> {
    let mut addresses = known.map(|a| a.addresses.clone()).unwrap_or_default();
    if addresses.iter().all(|known| known.addr() != net.addr()) {
        addresses.push(net);
    }
    if addresses.len() > ENDPOINT_ADDRESSES_MAX {
        let why = format!("a container has at most {ENDPOINT_ADDRESSES_MAX} addresses");
        return Err(Failure::new(FailureKind::Conflict, wish.what.as_str(), why));
    }
    Ok(Request {
        target: wish.target.clone(),
        interface: wish.body.ifname.clone(),
        mac: known.map_or_else(|| mac_for(&[net], wish.key().as_bytes()), |a| a.mac),
        addresses,
        mtu_bytes,
        name: known.map(|a| a.name.clone()).unwrap_or_default(),
    })
}

/// The prefix length of the container's other address in the same network, else the given one.
fn with_len(net: IpNet, known: Option<&Attachment>, pool_len: u8) -> IpNet {
    let mut others = known.into_iter().flat_map(|a| a.addresses.iter());
    let other = others.find(|other| other.contains(&net.addr()));
    let len = other.map_or(pool_len, IpNet::prefix_len);
    IpNet::new(net.addr(), len).unwrap_or(net)
}

/// For a container that is not attached yet.
fn kept(wish: &Wish, net: IpNet, is_of_ring: bool) -> Result<ClaimReply, Failure> {
    let target = &wish.body.target;
    if !is_of_ring {
        let why = format!("it is outside every pool, and {target} is not attached");
        let todo = format!(
            "rmesh attach {target} --ip {}/LEN takes it as it is",
            net.addr()
        );
        return Err(Failure::new(FailureKind::Missing, wish.what.as_str(), why).todo(todo));
    }
    Ok(ClaimReply {
        address: net,
        target: target.clone(),
        interface: wish.body.ifname.clone(),
        attached: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_length_is_that_of_the_network_the_container_is_in() {
        let attachment = Attachment {
            target: "web".into(),
            netns_inode: 1,
            interface: "rmesh0".into(),
            host_interface: String::new(),
            mac: rmesh_wire::Mac([2; 6]),
            addresses: vec!["10.32.0.1/24".parse().unwrap()],
            name: String::new(),
        };
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let near = with_len(net("10.32.0.9/32"), Some(&attachment), 12);
        assert_eq!(near, net("10.32.0.9/24"));
        let far = with_len(net("10.33.0.9/32"), Some(&attachment), 12);
        assert_eq!(far, net("10.33.0.9/12"));
        assert_eq!(with_len(net("fd32::9/128"), None, 48), net("fd32::9/48"));
    }
}
