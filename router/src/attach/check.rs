//! What is refused before anything is touched.

use std::net::Ipv4Addr;

use ipnet::IpNet;
use rmesh_gossip::limits::ENDPOINT_ADDRESSES_MAX;
use rmesh_wire::Mac;

use super::Request;
use crate::error::AttachError;
use crate::kernel::link::check_name;

/// Refuses a request that no container can have.
pub(super) fn check(request: &Request) -> Result<(), AttachError> {
    check_name(&request.interface)?;
    let mac = request.mac;
    if mac.is_group() || mac == Mac::default() {
        return Err(AttachError::Mac { mac });
    }
    let count = request.addresses.len();
    if count > ENDPOINT_ADDRESSES_MAX {
        let limit = ENDPOINT_ADDRESSES_MAX;
        return Err(AttachError::TooManyAddresses { count, limit });
    }
    for &address in &request.addresses {
        if let Some(reason) = wrong_with(address) {
            return Err(AttachError::Address { address, reason });
        }
    }
    Ok(())
}

fn wrong_with(net: IpNet) -> Option<&'static str> {
    let ip = net.addr();
    if ip.is_unspecified() {
        return Some("it means no address at all");
    }
    if ip.is_multicast() {
        return Some("it names a group, not a container");
    }
    if ip.is_loopback() {
        return Some("it never leaves the container");
    }
    if net.prefix_len() == 0 {
        return Some("a prefix of length 0 would take all of the container's traffic");
    }
    match net {
        IpNet::V4(net) if net.addr() == Ipv4Addr::BROADCAST => Some("it means every container"),
        IpNet::V4(net) if net.prefix_len() < 31 && net.addr() == net.broadcast() => {
            Some("it is the broadcast address of its network")
        }
        IpNet::V4(net) if net.prefix_len() < 31 && net.addr() == net.network() => {
            Some("it is the network itself; give an address inside it")
        }
        IpNet::V6(net) if net.addr().is_unicast_link_local() => {
            Some("the container makes its link-local addresses itself")
        }
        IpNet::V6(net) if net.addr().to_ipv4_mapped().is_some() => {
            Some("it is an IPv4 address in disguise; write it as one")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_no_container_can_have_are_refused_with_a_reason() {
        let wrong = [
            "0.0.0.0/8",
            "127.0.0.1/8",
            "224.0.0.5/24",
            "255.255.255.255/32",
            "10.0.0.0/24",
            "10.0.0.255/24",
            "10.0.0.1/0",
            "::/64",
            "::1/128",
            "ff02::1/64",
            "fe80::1/64",
            "::ffff:10.0.0.1/96",
        ];
        for text in wrong {
            assert!(wrong_with(text.parse().unwrap()).is_some(), "{text}");
        }
        for text in [
            "10.0.0.1/24",
            "10.0.0.0/31",
            "10.0.0.255/16",
            "10.0.0.0/32",
            "fd00::/64",
        ] {
            assert_eq!(wrong_with(text.parse().unwrap()), None, "{text}");
        }
    }
}
