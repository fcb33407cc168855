//! The tables of `status` and `ps`.

use std::time::Duration;

use comfy_table::{Table, presets};
use ipnet::IpNet;

use super::{bytes, short};
use crate::api::{AttachmentView, CandidateView, EndpointsView, FastView, PathView, PeerView};
use crate::duration;

pub(super) fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head);
    table
}

pub(super) fn text(table: &Table, none: &str) -> String {
    if table.is_empty() {
        return format!("{none}\n");
    }
    let lines: Vec<String> = table
        .lines()
        .map(|line| {
            line.strip_prefix(' ')
                .unwrap_or(&line)
                .trim_end()
                .to_owned()
        })
        .collect();
    lines.join("\n") + "\n"
}

fn micros(time: Option<u64>) -> String {
    time.map_or_else(
        || "-".into(),
        |us| duration::short(Duration::from_micros(us)),
    )
}

fn joined(addresses: &[IpNet]) -> String {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    or_dash(&addresses.join(" ")).into()
}

pub(super) fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

pub(crate) fn path(path: Option<&PathView>) -> String {
    match path {
        Some(PathView::Vxlan { address }) => format!("VXLAN {address}, not encrypted"),
        Some(PathView::Direct { address }) => format!("direct {address}"),
        Some(PathView::Relay { name, .. }) => format!("through {name}"),
        Some(PathView::Tcp { address }) => format!("TCP {address}"),
        None => "none".into(),
    }
}

/// Other peers, the path to each, and why not a better one.
pub(crate) fn peers(peers: &[PeerView]) -> String {
    let head = [
        "NAME", "ID", "PATH", "MTU", "RTT", "SENT", "RECEIVED", "AGE", "REASON",
    ];
    let mut table = table(&head);
    for peer in peers {
        table.add_row([
            peer.name.clone(),
            short(&peer.id).into(),
            path(peer.path.as_ref()),
            mtu(Some(peer.path_mtu_bytes), peer.path_mtu_found),
            micros(peer.round_trip_us),
            bytes(peer.bytes_sent),
            bytes(peer.bytes_received),
            duration::age(Duration::from_millis(peer.path_age_ms)),
            or_dash(&peer.reason).into(),
        ]);
    }
    text(&table, "no other peers are known")
}

/// Every address tried for each peer, and its way through others.
pub(crate) fn paths(peers: &[PeerView]) -> String {
    let head = [
        "PEER", "PATH", "IN USE", "STATE", "MTU", "RTT", "LOSS", "REASON",
    ];
    let mut table = table(&head);
    for peer in peers {
        if let Some(fast) = &peer.fast {
            table.add_row(fast_row(peer, fast));
        }
        for candidate in &peer.candidates {
            let address = candidate.address;
            let direct = match candidate.tcp {
                true => PathView::Tcp { address },
                false => PathView::Direct { address },
            };
            table.add_row([
                peer.name.clone(),
                path(Some(&direct)),
                sealed(peer, &direct),
                state(candidate),
                mtu(candidate.mtu_bytes, candidate.mtu_found),
                micros(candidate.round_trip_us),
                percent(candidate.loss_percent),
                or_dash(&candidate.reason).into(),
            ]);
        }
        if let Some(relay @ PathView::Relay { .. }) = &peer.sealed_path {
            let time = micros(peer.round_trip_us);
            table.add_row([
                peer.name.clone(),
                path(Some(relay)),
                sealed(peer, relay),
                "alive".into(),
                mtu(Some(peer.path_mtu_bytes), peer.path_mtu_found),
                time,
                percent(peer.loss_percent),
                or_dash(&peer.reason).into(),
            ]);
        }
    }
    text(&table, "no paths to other peers are known")
}

/// A path MTU, and whether more may pass.
fn mtu(bytes: Option<u16>, is_found: bool) -> String {
    match bytes {
        None | Some(0) => "-".into(),
        Some(bytes) if is_found => bytes.to_string(),
        Some(bytes) => format!("{bytes} so far"),
    }
}

/// What an encrypted path is used for: all, or what the kernel's VXLAN does not carry.
fn sealed(peer: &PeerView, path: &PathView) -> String {
    let is_used = peer.sealed_path.as_ref() == Some(path);
    match &peer.path {
        _ if !is_used => "-".into(),
        Some(PathView::Vxlan { .. }) => "broadcasts".into(),
        Some(_) | None if peer.source_ports > 1 => format!("from {} ports", peer.source_ports),
        Some(_) | None => "yes".into(),
    }
}

fn fast_row(peer: &PeerView, fast: &FastView) -> [String; 8] {
    let to = fast
        .address
        .map_or("VXLAN".into(), |to| format!("VXLAN {to}"));
    let age = duration::age(Duration::from_millis(fast.age_ms));
    let state = match (fast.in_use, fast.address) {
        (true, _) => format!("alive for {age}"),
        (false, Some(_)) => format!("no answer for {age}"),
        (false, None) => "not allowed".into(),
    };
    [
        peer.name.clone(),
        to,
        if fast.in_use { "unicast" } else { "-" }.into(),
        state,
        "-".into(),
        micros(fast.round_trip_us),
        percent(fast.loss_percent),
        or_dash(&fast.reason).into(),
    ]
}

fn state(candidate: &CandidateView) -> String {
    match candidate.state.as_str() {
        "alive" => format!(
            "alive for {}",
            duration::age(Duration::from_millis(candidate.age_ms))
        ),
        other => other.into(),
    }
}

fn percent(loss: Option<u8>) -> String {
    loss.map_or("-".into(), |loss| format!("{loss} %"))
}

/// Shortest routes through the mesh.
pub(crate) fn routes(peers: &[PeerView]) -> String {
    let mut table = table(&["TO", "ID", "FIRST HOP", "HOPS", "COST", "ITS LINKS"]);
    for peer in peers {
        let (hop, hops, cost) = match &peer.route {
            Some(route) => (
                route.name.clone(),
                route.hops.to_string(),
                micros(Some(u64::from(route.cost_us))),
            ),
            None => ("none".into(), "-".into(), "-".into()),
        };
        let links: Vec<&str> = peer.links.iter().map(|link| link.name.as_str()).collect();
        let links = or_dash(&links.join(" ")).to_owned();
        table.add_row([
            peer.name.clone(),
            short(&peer.id).into(),
            hop,
            hops,
            cost,
            links,
        ]);
    }
    text(&table, "no other peers are known")
}

/// Containers of all peers.
pub(crate) fn endpoints(view: &EndpointsView) -> String {
    let mut table = table(&["PEER", "MAC", "ADDRESSES", "NAME", "STATE"]);
    for endpoint in &view.endpoints {
        let state = match (endpoint.reachable, endpoint.in_force) {
            (true, true) => "reachable",
            (true, false) => "overruled by another peer's announcement",
            (false, _) => "peer unreachable",
        };
        table.add_row([
            endpoint.peer_name.as_str(),
            &endpoint.mac,
            &joined(&endpoint.addresses),
            or_dash(&endpoint.name),
            state,
        ]);
    }
    for learned in &view.learned {
        let peer = learned.peer.as_deref().map_or("this host", short);
        let age = duration::age(Duration::from_millis(learned.age_ms));
        table.add_row([peer, &learned.mac, "-", "-", &format!("learned {age} ago")]);
    }
    text(&table, "no containers are attached anywhere")
}

/// Containers of this host.
pub(crate) fn attachments(attachments: &[AttachmentView]) -> String {
    let mut table = table(&["CONTAINER", "INTERFACE", "MAC", "ADDRESSES", "NAME"]);
    for attachment in attachments {
        table.add_row([
            attachment.target.as_str(),
            &attachment.interface,
            &attachment.mac,
            &joined(&attachment.addresses),
            or_dash(&attachment.name),
        ]);
    }
    text(&table, "no containers are attached on this host")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::api::{EndpointView, LearnedView, LinkView, RouteView};

    /// Columns are told apart by two or more spaces.
    fn cells(text: &str) -> Vec<Vec<&str>> {
        text.lines()
            .map(|line| {
                line.split("  ")
                    .map(str::trim)
                    .filter(|c| !c.is_empty())
                    .collect()
            })
            .collect()
    }

    pub(crate) fn peer() -> PeerView {
        PeerView {
            id: "c".repeat(32),
            name: "c".into(),
            reachable: true,
            session: true,
            path: Some(PathView::Relay {
                peer: "b".repeat(32),
                name: "b".into(),
            }),
            sealed_path: Some(PathView::Relay {
                peer: "b".repeat(32),
                name: "b".into(),
            }),
            fast: None,
            loss_percent: Some(2),
            path_age_ms: 5_000,
            round_trip_us: Some(1_200),
            path_mtu_bytes: 1500,
            no_relay: false,
            path_mtu_found: true,
            source_ports: 1,
            mtu_bytes: 1328,
            reason: "no direct address answers".into(),
            bytes_sent: 2048,
            bytes_received: 0,
            candidates: vec![CandidateView {
                tcp: false,
                seen_as: None,
                address: "192.0.2.3:6783".parse().unwrap(),
                state: "no answer".into(),
                round_trip_us: None,
                mtu_bytes: None,
                mtu_found: false,
                loss_percent: Some(100),
                age_ms: 9_000,
                reason: String::new(),
            }],
            links: vec![LinkView {
                peer: "b".repeat(32),
                name: "b".into(),
                cost_us: 9,
            }],
            route: Some(RouteView {
                next_hop: "b".repeat(32),
                name: "b".into(),
                cost_us: 900,
                hops: 2,
            }),
        }
    }

    #[test]
    fn a_relayed_peer_says_why() {
        let text = peers(&[peer()]);
        let reason = "no direct address answers";
        let row = [
            "c",
            "cccccccccccc",
            "through b",
            "1500",
            "1.2ms",
            "2.0 KiB",
            "0 B",
            "5s",
            reason,
        ];
        assert_eq!(cells(&text)[1], row);
    }

    #[test]
    fn every_path_is_listed_with_its_state() {
        let text = paths(&[peer()]);
        let rows = cells(&text);
        assert_eq!(
            rows[1],
            [
                "c",
                "direct 192.0.2.3:6783",
                "-",
                "no answer",
                "-",
                "-",
                "100 %",
                "-"
            ]
        );
        let reason = "no direct address answers";
        let relayed = [
            "c",
            "through b",
            "yes",
            "alive",
            "1500",
            "1.2ms",
            "2 %",
            reason,
        ];
        assert_eq!(rows[2], relayed);
        let mut straight = peer();
        let address = "192.0.2.3:6783".parse().unwrap();
        let way = PathView::Direct { address };
        straight.sealed_path = Some(way.clone());
        straight.path = Some(way.clone());
        assert_eq!(sealed(&straight, &way), "yes");
        straight.source_ports = 4;
        assert_eq!(sealed(&straight, &way), "from 4 ports");
        assert_eq!(mtu(Some(1_280), false), "1280 so far");
    }

    #[test]
    fn one_on_the_kernels_vxlan_says_what_else_is_encrypted() {
        let mut peer = peer();
        let address = "192.0.2.3".parse().unwrap();
        peer.path = Some(PathView::Vxlan { address });
        peer.fast = Some(FastView {
            address: Some(address),
            in_use: true,
            age_ms: 3_000,
            reason: String::new(),
            round_trip_us: Some(80),
            loss_percent: Some(0),
            bytes_sent: 1,
        });
        let text = paths(&[peer]);
        let rows = cells(&text);
        let vxlan = [
            "c",
            "VXLAN 192.0.2.3",
            "unicast",
            "alive for 3s",
            "-",
            "80us",
            "0 %",
            "-",
        ];
        assert_eq!(rows[1], vxlan);
        assert_eq!(rows[3][2], "broadcasts");
    }

    #[test]
    fn routes_name_the_first_hop() {
        let text = routes(&[peer()]);
        assert_eq!(
            cells(&text)[1],
            ["c", "cccccccccccc", "b", "2", "900us", "b"]
        );
    }

    #[test]
    fn endpoints_and_learned_macs_share_a_table() {
        let endpoint = EndpointView {
            peer: "c".repeat(32),
            peer_name: "c".into(),
            reachable: true,
            mac: "02:00:00:00:00:03".into(),
            addresses: vec![
                "10.32.0.3/24".parse().unwrap(),
                "fd32::3/64".parse().unwrap(),
            ],
            name: String::new(),
            moves: 1,
            in_force: true,
        };
        let learned = LearnedView {
            mac: "02:00:00:00:00:09".into(),
            peer: None,
            age_ms: 2_000,
        };
        let view = EndpointsView {
            endpoints: vec![endpoint],
            learned: vec![learned],
        };
        let text = endpoints(&view);
        let rows = cells(&text);
        let announced = [
            "c",
            "02:00:00:00:00:03",
            "10.32.0.3/24 fd32::3/64",
            "-",
            "reachable",
        ];
        assert_eq!(rows[1], announced);
        assert_eq!(
            rows[2],
            ["this host", "02:00:00:00:00:09", "-", "-", "learned 2s ago"]
        );
    }

    #[test]
    fn nothing_is_said_in_words() {
        assert_eq!(
            attachments(&[]),
            "no containers are attached on this host\n"
        );
        assert_eq!(peers(&[]), "no other peers are known\n");
    }
}
