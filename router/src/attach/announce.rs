//! Frames that tell the neighbours where an address is now.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rmesh_wire::Mac;

use crate::error::AttachError;
use crate::sys::packet::PacketSocket;

/// All nodes of the link, ff02::1, as address and as MAC (RFC 2464 section 7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ICMPV6: u8 = 58;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
/// The override flag: replace what the neighbour cache says (RFC 4861 section 4.4).
const OVERRIDE: u8 = 0x20;
/// Length of a neighbour advertisement with its one option, in bytes.
const ADVERTISEMENT_LEN: u8 = 32;

/// Sends the announcement of `address` out of the interface with this index.
pub(super) fn send(
    socket: &PacketSocket,
    index: u32,
    mac: Mac,
    address: IpAddr,
) -> Result<(), AttachError> {
    let frame = match address {
        IpAddr::V4(address) => arp_announcement(mac, address),
        IpAddr::V6(address) => neighbor_advertisement(mac, address),
    };
    let sent = socket.send(index, &frame);
    sent.map_err(|cause| AttachError::Announce { address, cause })
}

fn ethernet(destination: Mac, source: Mac, ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(86);
    frame.extend(destination.0);
    frame.extend(source.0);
    frame.extend(ethertype.to_be_bytes());
    frame
}

/// An ARP request for the sender's own address (RFC 5227 section 3).
fn arp_announcement(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(Mac::BROADCAST, mac, ETHERTYPE_ARP);
    // Ethernet, IPv4, lengths 6 and 4, request.
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac.0);
    frame.extend(address.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}

/// An unsolicited neighbour advertisement (RFC 4861 section 7.2.6).
fn neighbor_advertisement(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    let mut icmp = vec![NEIGHBOR_ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    icmp.extend(address.octets());
    icmp.extend([TARGET_LINK_LAYER_ADDRESS, 1]);
    icmp.extend(mac.0);
    let checksum = icmp_checksum(address, ALL_NODES, &icmp).to_be_bytes();
    icmp.splice(2..4, checksum);

    let mut frame = ethernet(ALL_NODES_MAC, mac, ETHERTYPE_IPV6);
    // Version 6; hop limit 255 proves that no router forwarded it.
    frame.extend([0x60, 0, 0, 0, 0, ADVERTISEMENT_LEN, ICMPV6, 255]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(icmp);
    frame
}

/// The Internet checksum over the IPv6 pseudo-header and the message (RFC 4443 section 2.3).
fn icmp_checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let mut bytes = Vec::with_capacity(72);
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes.extend([0, 0, 0, ADVERTISEMENT_LEN, 0, 0, 0, ICMPV6]);
    bytes.extend(message);
    let pairs = bytes.as_chunks::<2>().0.iter();
    let mut sum: u32 = pairs.map(|pair| u32::from(u16::from_be_bytes(*pair))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

    #[test]
    fn an_arp_announcement_names_its_sender_twice() {
        let frame = arp_announcement(MAC, Ipv4Addr::new(10, 1, 2, 3));
        assert_eq!(frame.len(), 42);
        assert_eq!(frame[28..32], [10, 1, 2, 3]);
        assert_eq!(frame[38..42], [10, 1, 2, 3]);
        assert_eq!(frame[22..28], MAC.0);
    }

    #[test]
    fn the_checksum_of_an_advertisement_verifies() {
        let address: Ipv6Addr = "fd00:1::7".parse().unwrap();
        let frame = neighbor_advertisement(MAC, address);
        assert_eq!(frame.len(), 14 + 40 + usize::from(ADVERTISEMENT_LEN));
        // Over a message with its checksum in place the sum comes out as zero.
        assert_eq!(icmp_checksum(address, ALL_NODES, &frame[54..]), 0);
    }
}
