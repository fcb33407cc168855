//! What the other peers' answers say of this host's network.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::api::{CandidateView, PeerView, StatusView};

/// Everything there is to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Netcheck {
    /// Other peers known.
    pub(crate) peers: usize,
    /// Those that answer by UDP.
    pub(crate) udp_answers: usize,
    /// Those that are reached by a TCP connection only.
    pub(crate) tcp_only: usize,
    /// The TCP port at which this host can be called, if others get through to it.
    pub(crate) tcp_port: Option<u16>,
    /// How others see this host over IPv4.
    pub(crate) ipv4: Family,
    /// How others see this host over IPv6.
    pub(crate) ipv6: Family,
    /// The least and the largest path MTU found, in bytes.
    pub(crate) path_mtu_bytes: Option<(u16, u16)>,
}

/// One family of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Family {
    /// Addresses of this host that others may reach.
    pub(crate) addresses: Vec<IpAddr>,
    /// Peers that answer by UDP.
    pub(crate) answers: usize,
    /// What is done to this host's addresses on the way.
    pub(crate) mapping: Mapping,
    /// Where others see this host, where that is not where it is.
    pub(crate) seen_as: Vec<SocketAddr>,
}

/// What is done to this host's addresses on the way (RFC 4787 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mapping {
    /// Nobody has said.
    Unknown,
    /// Nothing.
    None,
    /// They are translated; one peer alone cannot tell how.
    Translated,
    /// All peers see the same one: they can call it.
    EndpointIndependent,
    /// Peers see different ones ("symmetric").
    EndpointDependent,
}

impl Netcheck {
    /// What this host's status and its peers' say.
    pub(crate) fn of(status: &StatusView, peers: &[PeerView]) -> Netcheck {
        let answers = |peer: &&PeerView| alive(peer).next().is_some();
        let mtus = || {
            let candidates = peers.iter().flat_map(alive).filter(|one| one.mtu_found);
            candidates.filter_map(|one| one.mtu_bytes)
        };
        Netcheck {
            peers: peers.len(),
            udp_answers: peers.iter().filter(answers).count(),
            tcp_only: status.peers_tcp,
            tcp_port: status.tcp_port,
            ipv4: Family::of(status, peers, false),
            ipv6: Family::of(status, peers, true),
            path_mtu_bytes: mtus().min().zip(mtus().max()),
        }
    }
}

/// What answers by UDP.
fn alive(peer: &PeerView) -> impl Iterator<Item = &CandidateView> {
    let candidates = peer.candidates.iter();
    candidates.filter(|one| one.state == "alive" && !one.tcp)
}

impl Family {
    fn of(status: &StatusView, peers: &[PeerView], is_v6: bool) -> Family {
        let is_of = |ip: IpAddr| ip.to_canonical().is_ipv6() == is_v6;
        let answers = || {
            let of_peer = |peer: &PeerView| -> Vec<(IpAddr, Option<SocketAddr>)> {
                let candidates = alive(peer).filter(|one| is_of(one.address.ip()));
                candidates
                    .map(|one| (one.address.ip(), one.seen_as))
                    .collect()
            };
            peers.iter().map(of_peer).filter(|found| !found.is_empty())
        };
        let own = |ip: IpAddr| status.addresses.contains(&ip.to_canonical());
        let told = answers().flatten();
        let told: Vec<(IpAddr, SocketAddr)> =
            told.filter_map(|(by, seen)| Some((by, seen?))).collect();
        let is_translated = |seen: &SocketAddr| !own(seen.ip()) || seen.port() != status.port;
        let beyond = || told.iter().filter(|(_, seen)| is_translated(seen));
        let seen_as: BTreeSet<SocketAddr> = beyond().map(|(_, seen)| *seen).collect();
        let tellers: BTreeSet<IpAddr> = beyond().map(|(by, _)| *by).collect();
        let mapping = match (told.len(), seen_as.len(), tellers.len()) {
            (0, _, _) => Mapping::Unknown,
            (_, 0, _) => Mapping::None,
            (_, 1, 1) => Mapping::Translated,
            (_, 1, _) => Mapping::EndpointIndependent,
            _ => Mapping::EndpointDependent,
        };
        Family {
            addresses: status
                .addresses
                .iter()
                .copied()
                .filter(|ip| is_of(*ip))
                .collect(),
            answers: answers().count(),
            mapping,
            seen_as: seen_as.into_iter().collect(),
        }
    }
}

impl fmt::Display for Netcheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (answers, peers) = (self.udp_answers, self.peers);
        let udp = match (answers, peers) {
            (_, 0) => "no other peer is known, so nobody can tell".into(),
            (0, _) => format!("no peer of {peers} answers: does a firewall drop it?"),
            _ => format!("{answers} of {peers} peers answer"),
        };
        writeln!(f, "{:<8}{udp}", "UDP")?;
        let port = match self.tcp_port {
            Some(port) => format!("others can call at port {port} if nothing is in the way"),
            None => "nobody can call this host so".into(),
        };
        writeln!(
            f,
            "{:<8}{} of the peers reached by nothing else; {port}",
            "TCP", self.tcp_only
        )?;
        writeln!(f, "{:<8}{}", "IPv4", self.ipv4)?;
        writeln!(f, "{:<8}{}", "IPv6", self.ipv6)?;
        let mtu = match self.path_mtu_bytes {
            None => "not found yet".into(),
            Some((least, most)) if least == most => format!("{least} on all paths"),
            Some((least, most)) => format!("{least} to {most}: see `rmesh status peers`"),
        };
        writeln!(f, "{:<8}{mtu}", "MTU")
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.addresses.is_empty() {
            return f.write_str("this host has no address that others may reach");
        }
        let addresses: Vec<String> = self.addresses.iter().map(IpAddr::to_string).collect();
        write!(f, "{}: ", addresses.join(", "))?;
        let seen: Vec<String> = self.seen_as.iter().map(SocketAddr::to_string).collect();
        let seen = seen.join(", ");
        match self.mapping {
            Mapping::Unknown => f.write_str("no peer answers over it"),
            Mapping::None => write!(f, "not translated, {} peers answer", self.answers),
            Mapping::Translated => {
                write!(f, "translated to {seen}; it takes another peer to tell how")
            }
            Mapping::EndpointIndependent => {
                write!(
                    f,
                    "translated to {seen}, the same for all: others can reach it"
                )
            }
            Mapping::EndpointDependent => write!(
                f,
                "translated to another address for each peer ({seen}): relayed with hosts that are so too"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::{sample_peer, sample_status};

    fn answered(number: usize, address: &str, seen: Option<&str>) -> PeerView {
        let mut peer = sample_peer();
        let [candidate] = &mut peer.candidates[..] else {
            panic!("{peer:?}")
        };
        candidate.address = address.parse().unwrap();
        candidate.state = "alive".into();
        candidate.seen_as = seen.map(|seen| seen.parse().unwrap());
        (candidate.mtu_bytes, candidate.mtu_found) = (Some(1_400 + number as u16), true);
        peer
    }

    #[test]
    fn the_kind_of_translation_follows_from_what_several_peers_see() {
        let status = sample_status();
        let own = format!("192.0.2.1:{}", status.port);
        assert!(status.addresses.contains(&"192.0.2.1".parse().unwrap()));
        let found = |seen: &[&str]| {
            let peer = |(number, seen): (usize, &&str)| {
                answered(number, &format!("198.51.100.{number}:6783"), Some(seen))
            };
            let peers: Vec<PeerView> = seen.iter().enumerate().map(peer).collect();
            Netcheck::of(&status, &peers)
        };
        let mapping = |seen: &[&str]| found(seen).ipv4.mapping;
        assert_eq!(mapping(&[]), Mapping::Unknown);
        assert_eq!(mapping(&[&own, &own]), Mapping::None);
        let [one, other] = ["203.0.113.9:20000", "203.0.113.9:20001"];
        assert_eq!(mapping(&[one]), Mapping::Translated);
        assert_eq!(mapping(&[one, &own]), Mapping::Translated, "one on the LAN");
        assert_eq!(mapping(&[one, one]), Mapping::EndpointIndependent);
        assert_eq!(mapping(&[one, other]), Mapping::EndpointDependent);
        let all = found(&[one, one]);
        assert_eq!((all.udp_answers, all.ipv6.answers), (2, 0));
        assert_eq!(all.path_mtu_bytes, Some((1_400, 1_401)));
        let text = all.to_string();
        assert!(text.contains("2 of 2 peers answer"), "{text}");
        assert!(text.contains("the same for all"), "{text}");
    }
}
