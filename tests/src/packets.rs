//! Packets that routers and DHCP servers and clients send, as whole Ethernet frames.

use std::net::{Ipv4Addr, Ipv6Addr};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// EtherType of IPv4.
const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
const IPV6: u16 = 0x86dd;
const ICMPV6: u8 = 58;
const UDP: u8 = 17;
/// Cookie before the options of a DHCP message (RFC 2131 section 3).
const DHCP_COOKIE: [u8; 4] = [99, 130, 83, 99];
/// UDP ports of DHCP: of the server, of the client.
const DHCP_PORTS: [u16; 2] = [67, 68];

/// The multicast address of all nodes, and its Ethernet address.
pub const ALL_NODES: (Ipv6Addr, Mac) = (
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    [0x33, 0x33, 0, 0, 0, 1],
);
/// The multicast address of all routers.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// The Ethernet broadcast address.
pub const BROADCAST: Mac = [0xff; 6];

/// The bytes by which a router solicitation (RFC 4861 section 4.1) is known: its destination and the
/// type and code after it.
pub fn solicitation() -> Vec<u8> {
    [&ALL_ROUTERS.octets()[..], &[133, 0]].concat()
}

/// A router advertisement (RFC 4861 section 4.2).
#[derive(Debug, Clone, Copy)]
pub struct Advertisement {
    /// MAC of the router.
    pub mac: Mac,
    /// Its link-local address.
    pub source: Ipv6Addr,
    /// A prefix of 64 bits, on the link and for autoconfiguration.
    pub prefix: Ipv6Addr,
    /// For how many seconds it is a default router; 0 for not at all.
    pub lifetime_s: u16,
    /// MTU of the link in bytes.
    pub mtu_bytes: u32,
    /// Hop limit that hosts are to use.
    pub hop_limit: u8,
}

impl Advertisement {
    /// The frame, to that address and MAC.
    pub fn frame(&self, to: (Ipv6Addr, Mac)) -> Vec<u8> {
        let valid = 3600_u32.to_be_bytes();
        let message = [
            &[134, 0, 0, 0, self.hop_limit, 0][..],
            &self.lifetime_s.to_be_bytes(),
            // Reachable time and retransmission timer, in milliseconds.
            &30_000_u32.to_be_bytes(),
            &2_000_u32.to_be_bytes(),
            // Source link-layer address.
            &[1, 1],
            &self.mac,
            // MTU.
            &[5, 1, 0, 0],
            &self.mtu_bytes.to_be_bytes(),
            // Prefix information, on-link and autonomous.
            &[3, 4, 64, 0xc0],
            &valid,
            &valid,
            &[0; 4],
            &self.prefix.octets(),
        ]
        .concat();
        let packet = icmpv6(self.source, to.0, message);
        ethernet(to.1, self.mac, IPV6, &packet)
    }
}

/// What a DHCP message is (option 53, RFC 2132 section 9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DhcpKind {
    /// Who is there?
    Discover = 1,
    /// Have this.
    Offer = 2,
    /// I take it.
    Request = 3,
    /// It is yours.
    Acknowledge = 5,
}

/// A DHCP message (RFC 2131 section 2).
#[derive(Debug, Clone, Copy)]
pub struct Dhcp {
    /// What it is.
    pub kind: DhcpKind,
    /// MAC of the client.
    pub client: Mac,
    /// Number of the transaction.
    pub transaction: u32,
    /// The address that is given; unspecified where there is none yet.
    pub given: Ipv4Addr,
    /// The server; unspecified where it is not known yet.
    pub server: Ipv4Addr,
}

impl Dhcp {
    /// The message alone, the payload of a UDP datagram.
    pub fn message(&self) -> Vec<u8> {
        let from_server = matches!(self.kind, DhcpKind::Offer | DhcpKind::Acknowledge);
        let mut options = vec![53, 1, self.kind as u8];
        let mut option = |code: u8, address: Ipv4Addr| {
            if !address.is_unspecified() {
                options.extend([code, 4]);
                options.extend(address.octets());
            }
        };
        option(54, self.server);
        let your = if from_server {
            self.given
        } else {
            Ipv4Addr::UNSPECIFIED
        };
        if !from_server {
            option(50, self.given);
        }
        options.push(255);
        [
            &[if from_server { 2 } else { 1 }, 1, 6, 0][..],
            &self.transaction.to_be_bytes(),
            // Seconds, and the flag that asks for broadcast answers.
            &[0, 0, 0x80, 0],
            &[0; 4],
            &your.octets(),
            &[0; 8],
            &self.client,
            // The rest of the hardware address, server name, file.
            &[0; 10 + 64 + 128],
            &DHCP_COOKIE,
            &options,
        ]
        .concat()
    }

    /// The frame: from a client without an address to everybody, or from the server to `to`.
    pub fn frame(&self, source: Mac, to: (Ipv4Addr, Mac)) -> Vec<u8> {
        let [server, client] = DHCP_PORTS;
        let (ports, from) = match self.kind {
            DhcpKind::Discover | DhcpKind::Request => ([client, server], Ipv4Addr::UNSPECIFIED),
            DhcpKind::Offer | DhcpKind::Acknowledge => ([server, client], self.server),
        };
        let packet = udp_in_ipv4(from, to.0, ports, &self.message());
        ethernet(to.1, source, IPV4, &packet)
    }
}

fn ethernet(to: Mac, from: Mac, ethertype: u16, packet: &[u8]) -> Vec<u8> {
    [&to[..], &from, &ethertype.to_be_bytes(), packet].concat()
}

/// An ICMPv6 message with its checksum in an IPv6 packet of hop limit 255.
fn icmpv6(source: Ipv6Addr, destination: Ipv6Addr, mut message: Vec<u8>) -> Vec<u8> {
    let len = message.len() as u16;
    let addresses = [source.octets(), destination.octets()].concat();
    let pseudo = [
        &addresses[..],
        &u32::from(len).to_be_bytes(),
        &[0, 0, 0, ICMPV6],
    ]
    .concat();
    let sum = checksum(&[&pseudo[..], &message].concat());
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let [high, low] = len.to_be_bytes();
    [
        &[0x60, 0, 0, 0, high, low, ICMPV6, 255][..],
        &addresses,
        &message,
    ]
    .concat()
}

/// A UDP datagram with its checksum in an IPv4 packet.
fn udp_in_ipv4(source: Ipv4Addr, to: Ipv4Addr, ports: [u16; 2], payload: &[u8]) -> Vec<u8> {
    let len = (8 + payload.len()) as u16;
    let addresses = [source.octets(), to.octets()].concat();
    let ports = ports.map(u16::to_be_bytes).concat();
    let mut datagram = [&ports[..], &len.to_be_bytes(), &[0, 0], payload].concat();
    let pseudo = [&addresses[..], &[0, UDP], &len.to_be_bytes()].concat();
    let sum = checksum(&[&pseudo[..], &datagram].concat());
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    let total = (20 + len).to_be_bytes();
    let mut header = [
        &[0x45, 0][..],
        &total,
        &[0, 0, 0, 0, 64, UDP, 0, 0],
        &addresses,
    ]
    .concat();
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [header, datagram].concat()
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        u64::from(u16::from_be_bytes([pair[0], low]))
    });
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_known_packets() {
        // RFC 1071 section 3, its example.
        let example = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&example), !0xddf2);
        assert_eq!(checksum(&[0x01]), !0x0100);
    }

    #[test]
    fn a_packet_checks_against_its_own_checksum() {
        let (one, two) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::BROADCAST);
        let packet = udp_in_ipv4(one, two, DHCP_PORTS, b"odd");
        assert_eq!(checksum(&packet[..20]), 0);
        let len = (packet.len() - 20) as u16;
        let pseudo = [&packet[12..20], &[0, UDP], &len.to_be_bytes()[..]].concat();
        assert_eq!(checksum(&[&pseudo[..], &packet[20..]].concat()), 0);
    }
}
