//! Addresses that are reached by TCP (DESIGN D1).
//!
//! To the mesh a TCP connection is one more address that datagrams go to and come from: the remote end's, with
//! a mark. The mark is in a field of IPv6 addresses that no peer can put on the wire and no text can hold. The
//! shell carries what goes to such an address length-prefixed, and gives what comes by a connection a marked source.

use core::net::{IpAddr, SocketAddr, SocketAddrV6};

/// What a marked address has for a flow label.
const MARK: u32 = u32::from_be_bytes(*b"\0TCP");

/// The marked form of an address.
pub fn over_tcp(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let scope = match address {
        SocketAddr::V6(address) => address.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    SocketAddrV6::new(ip, address.port(), MARK, scope).into()
}

/// The address that a marked one stands for; nothing if it is not marked.
pub fn tcp_remote(address: SocketAddr) -> Option<SocketAddr> {
    match address {
        SocketAddr::V6(marked) if marked.flowinfo() == MARK => {
            Some(match marked.ip().to_ipv4_mapped() {
                Some(ip) => SocketAddr::new(ip.into(), marked.port()),
                None => SocketAddrV6::new(*marked.ip(), marked.port(), 0, marked.scope_id()).into(),
            })
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => None,
    }
}

/// Whether an address is marked.
pub fn is_tcp(address: SocketAddr) -> bool {
    tcp_remote(address).is_some()
}

/// The address of the host, marked or not.
pub fn unmarked(address: SocketAddr) -> SocketAddr {
    tcp_remote(address).unwrap_or(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_address_is_another_one_and_can_be_told_and_undone() {
        for text in ["192.0.2.1:6783", "[2001:db8::1]:443"] {
            let address: SocketAddr = text.parse().unwrap();
            let marked = over_tcp(address);
            assert_ne!(marked, address);
            assert_eq!(tcp_remote(marked), Some(address));
            assert_eq!((unmarked(marked), unmarked(address)), (address, address));
            assert!(is_tcp(marked) && !is_tcp(address));
        }
    }
}
