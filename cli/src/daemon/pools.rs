//! The addresses a ring is founded with.

use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rmesh_gossip::crypto::Key;
use rmesh_router::kernel::{HostLink, HostRoute, host_links, host_routes};
use sha2::{Digest as _, Sha256};

use crate::failure::{Failure, FailureKind};

const WHAT: &str = "cannot start the router";

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
        .chain_update(secret.0)
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
    let cannot = |cause| Failure::failed(WHAT, cause);
    let (routes, links) = (
        host_routes().map_err(cannot)?,
        host_links().map_err(cannot)?,
    );
    match overlap(pools, &routes, &links, bridge) {
        None => Ok(()),
        Some(why) => Err(Failure::new(FailureKind::Conflict, WHAT, why).todo(
            "choose other addresses for containers with --cidr or --cidr6, the same on all hosts",
        )),
    }
}

/// The first pool that a route leads elsewhere, in words.
fn overlap(
    pools: &[IpNet],
    routes: &[HostRoute],
    links: &[HostLink],
    bridge: &str,
) -> Option<String> {
    for route in routes {
        // The default route leads everything elsewhere that nobody else takes.
        let net: IpNet = route.destination.parse().ok()?;
        let Some(pool) = pools.iter().find(|pool| overlaps(pool, &net)) else {
            continue;
        };
        let named = |index: u32| links.iter().find(|link| link.index == index);
        let hops = route.next_hops.iter().filter_map(|hop| named(hop.link?));
        let names: Vec<&str> = hops.map(|link| link.name.as_str()).collect();
        if net.prefix_len() == 0 || names == [bridge] {
            continue;
        }
        let through = match names.join(" and ") {
            names if names.is_empty() => String::new(),
            names => format!(" through {names}"),
        };
        return Some(format!(
            "the addresses for containers {pool} overlap this host's route to {net}{through}"
        ));
    }
    None
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
        let (one, other) = (of_mesh(&Key([1; 32])), of_mesh(&Key([2; 32])));
        assert_eq!(one, of_mesh(&Key([1; 32])));
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
            let why = overlap(&pools, &routes, &links, "rmesh").unwrap();
            assert!(why.contains(destination) && why.contains("lan0"), "{why}");
            // The containers' own bridge is where they are.
            let (routes, links) = host(destination, "rmesh");
            assert_eq!(overlap(&pools, &routes, &links, "rmesh"), None);
        }
        let (routes, links) = host("10.48.0.0/12", "lan0");
        assert_eq!(overlap(&pools, &routes, &links, "rmesh"), None);
    }
}
