//! Subnets as operators write them.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::args::check_ip;

/// The smallest subnet has four addresses, two of which containers can have.
const SUBNET_BITS_MIN: u8 = 2;

/// What no container can have any of: this host, loopback, groups, links, and IPv4 in disguise.
const RESERVED: [(&str, &str); 7] = [
    ("0.0.0.0/8", "this network (RFC 1122)"),
    ("127.0.0.0/8", "loopback"),
    ("224.0.0.0/4", "multicast"),
    ("::1/128", "loopback"),
    ("::ffff:0:0/96", "IPv4 written as IPv6"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"),
];

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

/// Reads a network of hosts.
pub(crate) fn parse_network(text: &str) -> Result<IpNet, String> {
    let alone = |_| text.parse::<IpAddr>().map(IpNet::from);
    let net: IpNet = text
        .parse()
        .or_else(alone)
        .map_err(|_| format!("{text:?} is not like 192.0.2.0/24, 192.0.2.7 or 2001:db8::/32"))?;
    match net == net.trunc() {
        true => Ok(net),
        false => Err(format!(
            "{net} is not a whole network; did you mean {}?",
            net.trunc()
        )),
    }
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
        if let Some(why) = reserved(net) {
            return Err(format!(
                "{net} has addresses that no container can have: {why}"
            ));
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

fn reserved(net: &IpNet) -> Option<String> {
    RESERVED.iter().find_map(|(text, what)| {
        let other: IpNet = text.parse().ok()?;
        let overlaps = net.contains(&other) || other.contains(net);
        overlaps.then(|| format!("{other} is {what}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_container_can_have_is_in_no_subnet() {
        for text in [
            "126.0.0.0/7",
            "127.0.0.0/16",
            "192.0.0.0/2",
            "224.0.0.0/8",
            "::ffff:10.0.0.0/104",
            "::fffe:0:0/95",
            "fe80::/64",
            "ff00::/8",
            "8000::/1",
        ] {
            let refusal = parse_subnet(text).unwrap_err();
            let is_named = ["cannot", "no container can have"];
            assert!(
                is_named.iter().any(|words| refusal.contains(words)),
                "{text}: {refusal}"
            );
        }
        for text in [
            "10.0.0.0/8",
            "172.16.0.0/12",
            "198.18.0.0/15",
            "fd00::/8",
            "2001:db8::/32",
        ] {
            assert!(parse_subnet(text).is_ok(), "{text}");
        }
    }
}
