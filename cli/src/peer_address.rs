//! How operators name a peer to connect to: `host`, `host:port`, an IPv4 or IPv6 address with or
//! without port.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The port rmesh listens on unless told otherwise (UDP).
pub(crate) const PORT_DEFAULT: u16 = 6783;
/// Longest host name, in bytes (RFC 1035 section 2.3.4).
const HOST_LEN_MAX: usize = 253;

/// Host and port of a configured peer. Shown, stored and compared as `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct PeerAddress {
    /// Lower-case name or address.
    host: String,
    port: u16,
}

impl PeerAddress {
    /// The socket address, if the host is an address and needs no name service.
    pub(crate) fn literal(&self) -> Option<SocketAddr> {
        let address: IpAddr = self.host.parse().ok()?;
        Some(SocketAddr::new(address.to_canonical(), self.port))
    }

    /// Name or address to look up.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// UDP port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl From<PeerAddress> for String {
    fn from(address: PeerAddress) -> String {
        address.to_string()
    }
}

impl TryFrom<String> for PeerAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for PeerAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Ok(from_socket_address(SocketAddr::new(
                address.into(),
                PORT_DEFAULT,
            )));
        }
        if let Some(rest) = text.strip_prefix('[') {
            return bracketed(rest).ok_or_else(|| wrong(text));
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, parse_port(port).ok_or_else(|| wrong(text))?),
            None => (text, PORT_DEFAULT),
        };
        if !is_host(host) {
            return Err(wrong(text));
        }
        let host = host.to_ascii_lowercase();
        Ok(PeerAddress { host, port })
    }
}

fn from_socket_address(address: SocketAddr) -> PeerAddress {
    PeerAddress {
        host: address.ip().to_canonical().to_string(),
        port: address.port(),
    }
}

/// `address]` or `address]:port`.
fn bracketed(rest: &str) -> Option<PeerAddress> {
    let (address, port) = rest.split_once(']')?;
    let address: Ipv6Addr = address.parse().ok()?;
    let port = match port.strip_prefix(':') {
        Some(port) => parse_port(port)?,
        None if port.is_empty() => PORT_DEFAULT,
        None => return None,
    };
    Some(from_socket_address(SocketAddr::new(address.into(), port)))
}

fn parse_port(text: &str) -> Option<u16> {
    // Numbers are also read with a sign before them.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

/// An IPv4 address or a host name (RFC 1123 section 2.1, and the underscore that people use).
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let numeric = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    name.len() <= HOST_LEN_MAX
        && name.split('.').all(label)
        && (!numeric || text.parse::<std::net::Ipv4Addr>().is_ok())
}

fn wrong(text: &str) -> String {
    format!(
        "{text:?} names no peer; write host, host:port, 192.0.2.1, 192.0.2.1:6783, 2001:db8::1 or \
         [2001:db8::1]:6783"
    )
}

/// Reads an address with or without port, for `--advertise`.
pub(crate) fn parse_socket_address(text: &str) -> Result<SocketAddr, String> {
    let address: PeerAddress = text.parse()?;
    address.literal().ok_or_else(|| {
        format!("{text:?} is no address; write 192.0.2.1, 192.0.2.1:6783 or [2001:db8::1]:6783")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<PeerAddress>().unwrap().to_string()
    }

    #[test]
    fn every_usual_form_is_understood() {
        assert_eq!(shown("host1"), "host1:6783");
        assert_eq!(shown("Host1.Example.org:7000"), "host1.example.org:7000");
        assert_eq!(shown("192.0.2.1"), "192.0.2.1:6783");
        assert_eq!(shown("192.0.2.1:1"), "192.0.2.1:1");
        assert_eq!(shown("2001:db8::1"), "[2001:db8::1]:6783");
        assert_eq!(shown("[2001:db8::1]"), "[2001:db8::1]:6783");
        assert_eq!(shown("[2001:db8::1]:99"), "[2001:db8::1]:99");
        assert_eq!(shown("::ffff:192.0.2.1"), "192.0.2.1:6783");
        for text in ["host1", "[2001:db8::1]:99", "192.0.2.1"] {
            assert_eq!(shown(&shown(text)), shown(text));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let long = "a".repeat(64);
        let wrong = [
            "",
            ":",
            "host:",
            "host:0",
            "host:+1",
            "host:70000",
            "a b",
            "-x",
            "1.2.3",
            "1.2.3.4.5",
            "[::1",
            "[::1]x",
            "[host]:1",
            "a..b",
            "a/b",
            "1:2:3",
            "host:1:2",
            long.as_str(),
        ];
        for text in wrong {
            assert!(text.parse::<PeerAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_addresses_can_be_advertised() {
        assert_eq!(
            parse_socket_address("192.0.2.1"),
            Ok("192.0.2.1:6783".parse().unwrap())
        );
        assert!(parse_socket_address("host1").is_err());
    }
}
