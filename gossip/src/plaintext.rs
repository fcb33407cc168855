//! Which pairs of hosts may talk without encryption, and the number of their network.

use alloc::vec::Vec;
use core::net::IpAddr;

use ipnet::IpNet;
use sha2::{Digest, Sha256};

use crate::crypto::Key;

/// This side's say in which frames may cross by the kernel's VXLAN, which does not encrypt. The other side
/// has to say the same (DESIGN D11). By default none may.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlaintextPolicy {
    /// With every peer that says so too.
    pub everywhere: bool,
    /// With peers that say so too, where the addresses of both ends are in one or another of these.
    pub trusted: Vec<IpNet>,
}

impl PlaintextPolicy {
    /// Whether everything is always encrypted.
    pub fn is_never(&self) -> bool {
        !self.everywhere && self.trusted.is_empty()
    }

    /// Whether plaintext may cross between these two addresses.
    pub fn allows(&self, here: IpAddr, there: IpAddr) -> bool {
        let is_trusted = |ip: IpAddr| self.trusted.iter().any(|net| net.contains(&ip));
        self.everywhere || (is_trusted(here.to_canonical()) && is_trusted(there.to_canonical()))
    }
}

/// The VXLAN network identifier (RFC 7348, 24 bits) of the mesh with this secret, about which it tells
/// nothing: meshes that share an underlay do not meet by accident. It keeps nobody out.
pub fn vxlan_network(secret: &Key) -> u32 {
    let hash = Sha256::new()
        .chain_update(b"rmesh vxlan network v1")
        .chain_update(secret.bytes());
    let hash: [u8; 32] = hash.finalize().into();
    let [a, b, c, ..] = hash;
    // 0 is what devices have that were told none.
    u32::from_be_bytes([0, a, b, c]).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn both_addresses_have_to_be_trusted() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let policy = PlaintextPolicy {
            everywhere: false,
            trusted: vec![
                "192.0.2.0/24".parse().unwrap(),
                "2001:db8::/32".parse().unwrap(),
            ],
        };
        assert!(policy.allows(ip("192.0.2.1"), ip("192.0.2.2")));
        assert!(policy.allows(ip("::ffff:192.0.2.1"), ip("192.0.2.2")));
        assert!(policy.allows(ip("2001:db8::1"), ip("2001:db8:1::1")));
        assert!(!policy.allows(ip("192.0.2.1"), ip("198.51.100.2")));
        assert!(!policy.allows(ip("198.51.100.2"), ip("192.0.2.1")));
        assert!(!PlaintextPolicy::default().allows(ip("192.0.2.1"), ip("192.0.2.2")));
        assert!(PlaintextPolicy::default().is_never() && !policy.is_never());
    }

    #[test]
    fn networks_have_24_bits_and_differ() {
        let [one, other] = [1, 2].map(|byte| vxlan_network(&Key::new([byte; 32])));
        assert!(one != other && one < 1 << 24 && other < 1 << 24);
    }
}
