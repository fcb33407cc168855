//! MAC addresses of containers.

use std::net::IpAddr;

use ipnet::IpNet;
use rmesh_wire::Mac;
use sha2::{Digest, Sha256};

/// Separates these hashes from all others; part of the formula, never to change.
const DOMAIN: &[u8] = b"rmesh container mac v1";

/// The MAC of a container: derived from its first address, so that it moves with the address,
/// else from `seed`. The same on every host and in every version.
///
/// Formula: the first six bytes of SHA-256 over the ASCII text `rmesh container mac v1`, one byte
/// saying what follows (4: IPv4 address, 6: IPv6 address, 0: seed), and the address in network
/// order or the seed. Then the group bit is cleared and the local bit set (IEEE 802 section 8.2).
pub fn mac_for(addresses: &[IpNet], seed: &[u8]) -> Mac {
    let mut hash = Sha256::new();
    hash.update(DOMAIN);
    match addresses.first().map(IpNet::addr) {
        Some(IpAddr::V4(address)) => {
            hash.update([4]);
            hash.update(address.octets());
        }
        Some(IpAddr::V6(address)) => {
            hash.update([6]);
            hash.update(address.octets());
        }
        None => {
            hash.update([0]);
            hash.update(seed);
        }
    }
    let digest: [u8; 32] = hash.finalize().into();
    let [a, b, c, d, e, f, ..] = digest;
    locally_administered([a, b, c, d, e, f])
}

/// The bytes as an individual, locally administered MAC.
pub(crate) fn locally_administered([first, rest @ ..]: [u8; 6]) -> Mac {
    let [b, c, d, e, f] = rest;
    Mac([first & 0xfc | 0x02, b, c, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn a_mac_follows_the_first_address_and_nothing_else() {
        let mac = mac_for(&[net("10.0.0.1/24"), net("fd00::1/64")], b"a");
        assert_eq!(mac, mac_for(&[net("10.0.0.1/8")], b"b"));
        assert_ne!(mac, mac_for(&[net("10.0.0.2/24")], b"a"));
        assert_ne!(mac_for(&[], b"a"), mac_for(&[], b"b"));
    }

    #[test]
    fn every_mac_is_individual_and_local() {
        for last in 0..=255u8 {
            let Mac([first, ..]) = mac_for(&[], &[last]);
            assert_eq!(first & 3, 2);
        }
    }
}
