//! Subnets as operators write them.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::args::check_ip;

/// The smallest subnet has four addresses, two of which containers can have.
const SUBNET_BITS_MIN: u8 = 2;

/// Reads addresses for `--cidr`.
pub(crate) fn parse_cidr(text: &str) -> Result<Ipv4Net, String> {
    match parse_subnet(text)? {
        IpNet::V4(net) => Ok(net),
        IpNet::V6(_) => Err("it is IPv6: give it to --cidr6".into()),
    }
}

/// Reads addresses for `--cidr6`.
pub(crate) fn parse_cidr6(text: &str) -> Result<Ipv6Net, String> {
    match parse_subnet(text)? {
        IpNet::V6(net) => Ok(net),
        IpNet::V4(_) => Err("it is IPv4: give it to --cidr".into()),
    }
}

/// Reads a subnet that containers can get addresses of.
pub(crate) fn parse_subnet(text: &str) -> Result<IpNet, String> {
    let net: IpNet = text
        .parse()
        .map_err(|_| format!("{text:?} is not like 10.32.0.0/12 or fd32::/48"))?;
    check_subnets(&[net])?;
    Ok(net)
}

/// Refuses what is no subnet for containers, and more than one of a family.
pub(crate) fn check_subnets(nets: &[IpNet]) -> Result<(), String> {
    for net in nets {
        check_ip(net)?;
        if net.addr() != net.network() {
            return Err(format!(
                "{net} is not a whole subnet; did you mean {}?",
                net.trunc()
            ));
        }
        if net.max_prefix_len() - net.prefix_len() < SUBNET_BITS_MIN {
            return Err(format!("{net} is too small for a container"));
        }
    }
    let count = |is_v6| {
        nets.iter()
            .filter(|net| net.addr().is_ipv6() == is_v6)
            .count()
    };
    if count(false) > 1 || count(true) > 1 {
        return Err("give one subnet for IPv4 and one for IPv6".into());
    }
    Ok(())
}
