//! The addresses a ring is founded with.

use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rmesh_gossip::crypto::Key;
use rmesh_ipam::{Range, Request};
use rmesh_router::kernel::{HostLink, HostRoute, KernelError, host_links, host_routes};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::addresses::{ANSWER_MARGIN, refused};
use super::call::{Handle, Snapshot};
use super::ring::RingView;
use crate::failure::{Failure, FailureKind};
use crate::subnet::check_subnets;

const WHAT: &str = "cannot start the router";
/// Routes in the way of pools that are named.
pub(super) const OVERLAPS_MAX: usize = 8;

/// The pools to propose: those of the operator, or 10.32.0.0/12 and a prefix of the mesh.
pub(super) fn proposed(v4: Ipv4Net, v6: Option<Ipv6Net>, secret: &Key) -> Vec<IpNet> {
    let v6 = v6.unwrap_or_else(|| of_mesh(secret));
    vec![v4.into(), v6.into()]
}

/// A unique local prefix (RFC 4193) that all members of a mesh agree on without a word: its global id is
/// a hash of the mesh secret, so that two meshes hardly ever have the same, and two halves of one that
/// were founded apart do.
fn of_mesh(secret: &Key) -> Ipv6Net {
    let hash = Sha256::new()
        .chain_update(b"rmesh ipv6 pool v1")
        .chain_update(secret.bytes())
        .finalize();
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&hash[..5]);
    Ipv6Net::new_assert(Ipv6Addr::from(octets), 48)
}

/// Refuses pools that a route of this host leads elsewhere: containers there would not be reached.
///
/// # Errors
/// Names the pool, the route and its interface.
pub(super) fn check_routes(pools: &[IpNet], bridge: &str) -> Result<(), Failure> {
    let found = overlaps_here(pools, bridge).map_err(|cause| Failure::failed(WHAT, cause))?;
    match found.into_iter().next() {
        None => Ok(()),
        Some(why) => Err(Failure::new(FailureKind::Conflict, WHAT, why).todo(
            "choose other addresses for containers with --cidr or --cidr6, the same on all hosts",
        )),
    }
}

/// The pools that routes of this host lead elsewhere, in words, [`OVERLAPS_MAX`] at most.
pub(super) fn overlaps_here(pools: &[IpNet], bridge: &str) -> Result<Vec<String>, KernelError> {
    let (routes, links) = (host_routes()?, host_links()?);
    Ok(all_overlaps(pools, &routes, &links, bridge)
        .take(OVERLAPS_MAX)
        .collect())
}

/// Adds a pool to the ring; whether it was not there before.
///
/// # Errors
/// It is no subnet for containers, overlaps what is there, or most witnesses did not agree in time.
pub(crate) async fn add(handle: &Handle, pool: IpNet, deadline: Instant) -> Result<bool, Failure> {
    let what = format!("cannot add the pool {pool}");
    let usage = |why| Failure::new(FailureKind::Usage, &what, why).todo("choose another subnet");
    check_subnets(&[pool]).map_err(usage)?;
    let snapshot = handle.snapshot().await?;
    let others = in_force(&snapshot.ring);
    if others.contains(&pool) {
        return Ok(false);
    }
    let other = others.iter().find(|other| overlaps(other, &pool));
    let other = other.map(|other| format!("it overlaps the pool {other}"));
    if let Some(why) = other.or_else(|| way_to_peer(&snapshot, &pool)) {
        return Err(conflict(&what, why));
    }
    let bridge = snapshot.bridge;
    let looked = tokio::task::spawn_blocking(move || overlaps_here(&[pool], &bridge)).await;
    let looked = looked.map_err(|cause| Failure::failed("an internal task failed", cause))?;
    let found = looked.map_err(|cause| Failure::failed(&what, cause))?;
    if let Some(why) = found.into_iter().next() {
        return Err(conflict(&what, why));
    }
    let left = deadline.saturating_duration_since(Instant::now());
    let range = Range::from(pool);
    let asked = handle.ring(
        Request::AddPool { range },
        left.saturating_sub(ANSWER_MARGIN),
    );
    match asked.await? {
        Ok(_) => Ok(true),
        Err(refusal) => Err(refused(&what, &refusal)),
    }
}

fn conflict(what: &str, why: String) -> Failure {
    Failure::new(FailureKind::Conflict, what, why)
        .todo("choose addresses that are used nowhere else: rmesh ipam pool add CIDR")
}

/// The pools of the ring, or if there is none yet those that are proposed.
pub(super) fn in_force(ring: &RingView) -> Vec<IpNet> {
    let setup = ring
        .report
        .as_ref()
        .and_then(|report| report.setup.as_ref());
    let Some(setup) = setup else {
        return ring.pools.clone();
    };
    let pools = setup.pools.as_slice().iter();
    pools
        .filter_map(|pool| pool.range.to_string().parse().ok())
        .collect()
}

/// An address in the pool at which a peer is reached, in words: it would not be any more.
fn way_to_peer(snapshot: &Snapshot, pool: &IpNet) -> Option<String> {
    let own = snapshot.addresses.iter().find(|ip| pool.contains(*ip));
    if let Some(ip) = own {
        return Some(format!("{ip} in it is an address of this host"));
    }
    snapshot.report.peers.iter().find_map(|peer| {
        let mut addresses = peer.candidates.iter().map(|known| known.address.ip());
        let ip = addresses.find(|ip| pool.contains(ip))?;
        Some(format!(
            "{ip} in it is an address of the host {}",
            peer.name
        ))
    })
}

/// Pools that routes lead elsewhere, in words.
fn all_overlaps<'a>(
    pools: &'a [IpNet],
    routes: &'a [HostRoute],
    links: &'a [HostLink],
    bridge: &'a str,
) -> impl Iterator<Item = String> + 'a {
    routes.iter().filter_map(move |route| {
        let net: IpNet = route.destination.parse().ok()?;
        let pool = pools.iter().find(|pool| overlaps(pool, &net))?;
        let named = |index: u32| links.iter().find(|link| link.index == index);
        let hops = route.next_hops.iter().filter_map(|hop| named(hop.link?));
        let names: Vec<&str> = hops.map(|link| link.name.as_str()).collect();
        // The default route leads everything elsewhere that nobody else takes.
        if net.prefix_len() == 0 || names == [bridge] {
            return None;
        }
        let through = match names.join(" and ") {
            names if names.is_empty() => String::new(),
            names => format!(" through {names}"),
        };
        Some(format!(
            "the addresses for containers {pool} overlap this host's route to {net}{through}"
        ))
    })
}

fn overlaps(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

#[cfg(test)]
mod tests {
    use rmesh_router::kernel::HostNextHop;

    use super::*;

    #[test]
    fn a_mesh_has_one_prefix_and_another_mesh_another() {
        let (one, other) = (of_mesh(&Key::new([1; 32])), of_mesh(&Key::new([2; 32])));
        assert_eq!(one, of_mesh(&Key::new([1; 32])));
        assert_ne!(one, other);
        assert!(one.addr().is_unique_local() && one.prefix_len() == 48);
    }

    fn host(destination: &str, name: &str) -> (Vec<HostRoute>, Vec<HostLink>) {
        let hop = |link| HostNextHop {
            gateway: None,
            link: Some(link),
        };
        let route = |destination: &str, link| HostRoute {
            destination: destination.into(),
            kind: "unicast".into(),
            table: 254,
            protocol: "kernel".into(),
            metric: None,
            source: None,
            next_hops: vec![hop(link)],
        };
        let default = route("0.0.0.0/0", 1);
        let link = |index, name: &str| HostLink {
            index,
            name: name.into(),
            kind: None,
            mac: None,
            mtu_bytes: 1_500,
            controller: None,
            up: true,
            operational: true,
        };
        let routes = vec![default, route(destination, 2)];
        (routes, vec![link(1, "eth0"), link(2, name)])
    }

    #[test]
    fn a_pool_that_a_route_leads_elsewhere_is_named_with_the_route() {
        let pools: Vec<IpNet> = vec![
            "10.32.0.0/12".parse().unwrap(),
            "fd32::/48".parse().unwrap(),
        ];
        for destination in ["10.0.0.0/8", "10.40.1.0/24", "fd32::/64"] {
            let (routes, links) = host(destination, "lan0");
            let overlap = |bridge| all_overlaps(&pools, &routes, &links, bridge).next();
            let why = overlap("rmesh").unwrap();
            assert!(why.contains(destination) && why.contains("lan0"), "{why}");
            // The containers' own bridge is where they are.
            let (routes, links) = host(destination, "rmesh");
            let found = all_overlaps(&pools, &routes, &links, "rmesh").next();
            assert_eq!(found, None);
        }
        let (routes, links) = host("10.48.0.0/12", "lan0");
        let found = all_overlaps(&pools, &routes, &links, "rmesh").next();
        assert_eq!(found, None);
    }
}
