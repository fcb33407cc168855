//! Frames by which peers try the kernel's own way: opaque payloads that the VXLAN device carries
//! like any container's frame, and that end at the host.
//!
//! Each is a UDP datagram over IPv4, whose checksum is left to the network card as containers leave
//! theirs: some cards get it wrong where there are other headers before (VXLAN's), and what they
//! damage would not arrive in any container. Its addresses and ports mean nothing.

use std::io;

use rmesh_wire::ethernet::ETHERNET_HEADER_LEN;
use rmesh_wire::payload::PartialChecksum;
use rmesh_wire::{Mac, PeerId};
use sha2::{Digest, Sha256};

use crate::attach::locally_administered;
use crate::port::checksum;

/// IPv4.
pub(super) const ETHERTYPE: u16 = 0x0800;
/// Separates these hashes from all others, those of containers' MACs too; never to change.
const DOMAIN: &[u8] = b"rmesh heartbeat mac v1";
const IPV4_LEN: usize = 20;
const UDP_LEN: usize = 8;
/// Where the payload is in the frame.
const PAYLOAD: usize = ETHERNET_HEADER_LEN + IPV4_LEN + UDP_LEN;
const UDP: u8 = 17;
/// 192.0.0.8, the address of nobody (RFC 7600).
const ADDRESS: [u8; 4] = [192, 0, 0, 8];
/// The port for whatever is thrown away (RFC 863).
const PORT: [u8; 2] = [0, 9];
/// Where the sums begin and where they go.
const CHECKSUM: PartialChecksum = PartialChecksum {
    start: (ETHERNET_HEADER_LEN + IPV4_LEN) as u16,
    offset: 6,
};
/// What virtio calls a checksum that is to be completed (VIRTIO_NET_HDR_F_NEEDS_CSUM).
const NEEDS_CHECKSUM: u8 = 1;
/// Length of a virtio header, which comes before the frame (packet(7), `PACKET_VNET_HDR`).
const VIRTIO_LEN: usize = 10;

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

/// A payload and how it travels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heartbeat<'a> {
    pub(super) to: Mac,
    pub(super) from: Mac,
    pub(super) payload: &'a [u8],
    /// Whether the kernel or the network card is to complete the checksum.
    pub(super) leaves_checksum: bool,
}

impl Heartbeat<'_> {
    /// The frame that carries it, after a virtio header that says what is left to do.
    pub(super) fn encode(&self, mtu_bytes: u16) -> io::Result<Vec<u8>> {
        let (udp_len, len) = (UDP_LEN + self.payload.len(), PAYLOAD + self.payload.len());
        let packet_len = len - ETHERNET_HEADER_LEN;
        let reason = || {
            let reason = format!("{} bytes do not fit {mtu_bytes}", self.payload.len());
            io::Error::new(io::ErrorKind::InvalidInput, reason)
        };
        if packet_len > mtu_bytes.into() {
            return Err(reason());
        }
        let packet_len = u16::try_from(packet_len).map_err(|_| reason())?;
        let udp_len = u16::try_from(udp_len).map_err(|_| reason())?;
        let mut frame = Vec::with_capacity(len);
        frame.extend(self.to.0);
        frame.extend(self.from.0);
        frame.extend(ETHERTYPE.to_be_bytes());
        frame.extend(ip_header(packet_len));
        frame.extend([PORT, PORT].concat());
        frame.extend(udp_len.to_be_bytes());
        frame.extend(pseudo_header(udp_len).to_be_bytes());
        frame.extend(self.payload);
        let mut all = vec![0; VIRTIO_LEN];
        if self.leaves_checksum {
            all[0] = NEEDS_CHECKSUM;
            all[6..8].copy_from_slice(&CHECKSUM.start.to_ne_bytes());
            all[8..10].copy_from_slice(&CHECKSUM.offset.to_ne_bytes());
        } else if !checksum::complete(&mut frame, CHECKSUM) {
            return Err(reason());
        }
        all.extend(frame);
        Ok(all)
    }
}

/// The payload of a frame that came in, and whether its checksum is right.
pub(super) fn decode(frame: &[u8]) -> Option<(&[u8], bool)> {
    let packet = frame.get(ETHERNET_HEADER_LEN..)?;
    let (ip, _) = packet.split_at_checked(IPV4_LEN)?;
    let packet_len = u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?]);
    let is_ours = *ip == ip_header(packet_len);
    // Short frames are padded.
    let udp = packet
        .get(IPV4_LEN..packet_len.into())
        .filter(|_| is_ours)?;
    let udp_len = u16::try_from(udp.len()).ok()?;
    let total = checksum::add(checksum::sum(udp), pseudo_header(udp_len));
    Some((udp.get(UDP_LEN..)?, checksum::is_equal(total, 0)))
}

/// The header of a packet of this length (RFC 791), not to be cut.
fn ip_header(packet_len: u16) -> [u8; IPV4_LEN] {
    let [high, low] = packet_len.to_be_bytes();
    let [a, b, c, d] = ADDRESS;
    let mut header = [
        0x45, 0, high, low, 0, 0, 0x40, 0, 64, UDP, 0, 0, a, b, c, d, a, b, c, d,
    ];
    let sum = !checksum::sum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

/// What the checksum of UDP covers of other headers (RFC 768).
fn pseudo_header(udp_len: u16) -> u16 {
    let address = checksum::sum(&ADDRESS);
    let addresses = checksum::add(address, address);
    checksum::add(addresses, checksum::add(UDP.into(), udp_len))
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

    fn heartbeat(payload: &[u8], leaves_checksum: bool) -> Heartbeat<'_> {
        Heartbeat {
            to: Mac([2; 6]),
            from: Mac([4; 6]),
            payload,
            leaves_checksum,
        }
    }

    #[test]
    fn a_payload_of_the_mtu_fits_and_no_longer_one() {
        let whole = heartbeat(&[7; 1300], false).encode(1328).unwrap();
        let frame = &whole[VIRTIO_LEN..];
        assert_eq!(frame.len(), 1342);
        assert_eq!(decode(frame), Some((&[7; 1300][..], true)));
        assert!(heartbeat(&[7; 1301], false).encode(1328).is_err());
        assert!((0..PAYLOAD).all(|len| decode(&frame[..len]).is_none()));
    }

    #[test]
    fn a_checksum_is_left_as_the_kernel_leaves_it_and_a_wrong_one_is_seen() {
        for payload in [&b"odd"[..], b"even"] {
            let mut left = heartbeat(payload, true).encode(1328).unwrap();
            assert_eq!((left[0], &left[6..10]), (1, &[34, 0, 6, 0][..]));
            let frame = &mut left[VIRTIO_LEN..];
            assert_eq!(decode(frame), Some((payload, false)));
            assert!(checksum::complete(frame, CHECKSUM));
            let done = heartbeat(payload, false).encode(1328).unwrap();
            assert_eq!((done[0], &done[VIRTIO_LEN..]), (0, &*frame));
            assert_eq!(decode(frame), Some((payload, true)));
            // As it is padded on its way.
            let padded = [&*frame, &[0; 18]].concat();
            assert_eq!(decode(&padded), Some((payload, true)));
            frame[PAYLOAD] ^= 1;
            assert_eq!(decode(frame), Some((&frame[PAYLOAD..], false)));
        }
    }
}
