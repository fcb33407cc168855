//! Frames by which peers try the kernel's own way: opaque payloads that the VXLAN device carries
//! like any container's frame, and that end at the host.

use std::io;

use rmesh_wire::ethernet::ETHERNET_HEADER_LEN;
use rmesh_wire::{Mac, PeerId};
use sha2::{Digest, Sha256};

use crate::attach::locally_administered;

/// Local experimental 1 (IEEE 802 section 9.2.3); the second-way probe has the other one.
pub(super) const ETHERTYPE: u16 = 0x88b5;
/// Separates these hashes from all others, those of containers' MACs too; never to change.
const DOMAIN: &[u8] = b"rmesh heartbeat mac v1";

/// The MAC by which a peer's host is reached through VXLAN: the first six bytes of SHA-256 over the
/// ASCII text `rmesh heartbeat mac v1` and the peer's id, as an individual, locally administered
/// MAC.
pub fn heartbeat_mac(peer: &PeerId) -> Mac {
    let mut hash = Sha256::new();
    hash.update(DOMAIN);
    hash.update(peer.0);
    let digest: [u8; 32] = hash.finalize().into();
    let [a, b, c, d, e, f, ..] = digest;
    locally_administered([a, b, c, d, e, f])
}

/// The frame that carries a payload.
pub(super) fn frame(to: Mac, from: Mac, payload: &[u8], mtu_bytes: u16) -> io::Result<Vec<u8>> {
    if payload.len() > mtu_bytes.into() {
        let reason = format!("{} bytes do not fit {mtu_bytes}", payload.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    let mut frame = Vec::with_capacity(ETHERNET_HEADER_LEN + payload.len());
    frame.extend(to.0);
    frame.extend(from.0);
    frame.extend(ETHERTYPE.to_be_bytes());
    frame.extend(payload);
    Ok(frame)
}

/// The payload of a frame that came in.
pub(super) fn payload(frame: &[u8]) -> Option<&[u8]> {
    frame.get(ETHERNET_HEADER_LEN..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeat_macs_are_individual_and_each_peers_own() {
        let macs: Vec<Mac> = (0..=255u8)
            .map(|n| heartbeat_mac(&PeerId([n; 16])))
            .collect();
        for (at, mac) in macs.iter().enumerate() {
            assert_eq!(mac.0[0] & 3, 2);
            assert!(!macs[..at].contains(mac));
        }
        // On every host and in every version.
        assert_eq!(macs[0].to_string(), "46:91:3f:80:a8:84");
    }

    #[test]
    fn a_payload_of_the_mtu_fits_and_no_longer_one() {
        let (to, from) = (Mac([2; 6]), Mac([4; 6]));
        let whole = frame(to, from, &[7; 1328], 1328).unwrap();
        assert_eq!(whole.len(), 1342);
        assert_eq!(payload(&whole), Some(&[7; 1328][..]));
        assert!(frame(to, from, &[7; 1329], 1328).is_err());
        assert_eq!(payload(&whole[..13]), None);
    }
}
