//! From what the daemon knows to what the API shows.

use std::time::Duration;

use rmesh_gossip::Path;
use rmesh_gossip::api::{
    CandidateReport, EndpointReport, FastReport, PeerReport, Report, TargetReport,
};
use rmesh_wire::PeerId;

use super::ring;
use super::view::{
    AttachmentView, CandidateView, EndpointView, EndpointsView, FastView, LearnedView, LinkView,
    PathView, PeerView, RouteView, StatusView, TargetView,
};
use crate::daemon::Snapshot;
use crate::duration::{micros, millis};
use crate::rate::Rate;
use crate::state::aside_warning;

/// A refused handshake is worth a warning for this long.
const REFUSED_RECENT: Duration = Duration::from_secs(600);

/// The first page.
pub(super) fn status(snapshot: &Snapshot) -> StatusView {
    let report = &snapshot.report;
    let reachable = || report.peers.iter().filter(|peer| peer.reachable);
    let by = |wanted: fn(&Path) -> bool| {
        reachable()
            .filter(|peer| peer.path.as_ref().is_some_and(wanted))
            .count()
    };
    StatusView {
        version: crate::VERSION.into(),
        id: report.id.to_string(),
        name: report.name.clone(),
        pid: std::process::id(),
        boot: report.boot.counter,
        uptime_ms: millis(snapshot.uptime),
        state: state(snapshot).into(),
        encryption: encryption(report),
        port: snapshot.port,
        tcp_port: snapshot.tcp_port,
        no_relay: report.no_relay,
        relay_limit_bits_per_s: snapshot.relay_limit.map(Rate::bits_per_s),
        addresses: snapshot.addresses.clone(),
        bridge: snapshot.bridge.clone(),
        mtu_bytes: snapshot.mtu_bytes,
        capabilities: snapshot.capabilities,
        peers_total: report.peers.len(),
        peers_reachable: reachable().count(),
        peers_plaintext: reachable().filter(|peer| is_plaintext(peer)).count(),
        vxlan_dropped_in: snapshot.fast.counters.dropped_in,
        peers_direct: by(|path| matches!(path, Path::Direct(_))),
        peers_relayed: by(|path| matches!(path, Path::Relay(_))),
        peers_tcp: by(|path| matches!(path, Path::Tcp(_))),
        targets: report.targets.iter().map(target).collect(),
        warnings: warnings(snapshot),
        attached: snapshot.attachments.len(),
        ring: ring::line(&snapshot.ring),
        control: report.counters,
        frames: serde_json::to_value(&snapshot.frames).unwrap_or_default(),
    }
}

fn is_plaintext(peer: &PeerReport) -> bool {
    peer.fast.as_ref().is_some_and(|fast| fast.in_use)
}

/// Names everybody with whom anything crosses in plaintext.
fn encryption(report: &Report) -> String {
    let plaintext = report.peers.iter().filter(|peer| is_plaintext(peer));
    let named: Vec<String> = plaintext
        .map(|peer| {
            let to = peer.fast.as_ref().and_then(|fast| fast.address);
            let at = to.map(|to| format!(" ({to})")).unwrap_or_default();
            format!("{}{at}", peer.name)
        })
        .collect();
    match named.as_slice() {
        [] => "all encrypted".into(),
        named => format!(
            "not encrypted: containers' unicast with {}",
            named.join(", ")
        ),
    }
}

fn state(snapshot: &Snapshot) -> &'static str {
    let report = &snapshot.report;
    if report.peers.iter().any(|peer| peer.reachable) {
        "connected"
    } else if snapshot.joining {
        "joining"
    } else if report.peers.is_empty() && report.targets.is_empty() {
        "alone"
    } else {
        "disconnected"
    }
}

fn target(report: &TargetReport) -> TargetView {
    TargetView {
        name: report.name.clone(),
        addresses: report.addresses.clone(),
        peer: report.peer.map(|id| id.to_string()),
        state: report.state.clone(),
        retry_in_ms: report.retry_in.map(millis),
    }
}

/// Everything an operator should look at.
fn warnings(snapshot: &Snapshot) -> Vec<String> {
    let report = &snapshot.report;
    let mut warnings = report.warnings.clone();
    for (peer, suppressed) in &snapshot.second_ways {
        let name = snapshot.name_of(*peer);
        let done = match suppressed {
            true => "this peer sends it no broadcasts until that ends",
            false => "the other peer sends no broadcasts until that ends",
        };
        warnings.push(format!(
            "the bridges of this host and of {name} are also connected outside the mesh; {done}"
        ));
    }
    warnings.extend(snapshot.fast.trouble.clone());
    let completing = snapshot.fast.completing.iter();
    warnings.extend(completing.map(|device| {
        format!(
            "the network card gets checksums inside VXLAN wrong: the kernel completes those of {device}, which \
             takes more of the processor"
        )
    }));
    warnings.extend(snapshot.exposed.iter().cloned());
    let moved = snapshot.moved_aside.iter();
    warnings.extend(moved.map(|path| aside_warning(path)));
    warnings.extend(ring::warnings(snapshot));
    let refused = report.counters.handshakes_refused;
    warnings.extend(
        report
            .refused_ago
            .and_then(|ago| refused_warning(refused, ago)),
    );
    warnings
}

/// What is over for some time needs nobody's attention; the metrics count it all the same.
fn refused_warning(refused: u64, ago: Duration) -> Option<String> {
    (ago < REFUSED_RECENT).then(|| {
        format!(
            "{refused} handshakes were refused since the start, the last {} s ago: a different secret, or \
             not a peer",
            ago.as_secs()
        )
    })
}

fn is_me(snapshot: &Snapshot, peer: PeerId) -> bool {
    peer == snapshot.report.id
}

/// All other peers, by name.
pub(super) fn peers(snapshot: &Snapshot) -> Vec<PeerView> {
    let mut views: Vec<PeerView> = snapshot
        .report
        .peers
        .iter()
        .map(|report| peer(snapshot, report))
        .collect();
    views.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    views
}

fn peer(snapshot: &Snapshot, report: &PeerReport) -> PeerView {
    let frames = snapshot.peer_frames.get(&report.id).copied();
    let frames = frames.unwrap_or_default().total();
    let link = |(peer, cost_us): &(PeerId, u32)| LinkView {
        peer: peer.to_string(),
        name: snapshot.name_of(*peer),
        cost_us: *cost_us,
    };
    PeerView {
        id: report.id.to_string(),
        name: report.name.clone(),
        reachable: report.reachable,
        session: report.session,
        path: in_use(snapshot, report),
        sealed_path: report.path.map(|used| path(snapshot, used)),
        fast: report.fast.as_ref().map(|report| fast(snapshot, report)),
        loss_percent: report.loss_percent,
        path_age_ms: millis(report.path_age),
        round_trip_us: report.round_trip.map(micros),
        path_mtu_bytes: report.path_mtu_bytes,
        path_mtu_found: report.path_mtu_found,
        source_ports: report.source_ports,
        mtu_bytes: report.mtu_bytes,
        no_relay: report.no_relay,
        reason: report.reason.clone(),
        bytes_sent: frames.bytes_sent,
        bytes_received: frames.bytes_received,
        candidates: report.candidates.iter().map(candidate).collect(),
        links: report.links.iter().map(link).collect(),
        route: report.route.map(|(cost_us, next_hop)| RouteView {
            next_hop: next_hop.to_string(),
            name: snapshot.name_of(next_hop),
            cost_us,
            hops: report.hops,
        }),
    }
}

/// The path of containers' unicast frames.
fn in_use(snapshot: &Snapshot, report: &PeerReport) -> Option<PathView> {
    let fast = report.fast.as_ref().filter(|fast| fast.in_use);
    let vxlan = fast.and_then(|fast| fast.address);
    let vxlan = vxlan.map(|address| PathView::Vxlan { address });
    vxlan.or_else(|| report.path.map(|used| path(snapshot, used)))
}

fn fast(snapshot: &Snapshot, report: &FastReport) -> FastView {
    let counted = |to| snapshot.fast.counters.sent.get(&to).copied();
    let bytes_sent = report.address.and_then(counted).unwrap_or_default();
    FastView {
        address: report.address,
        in_use: report.in_use,
        age_ms: millis(report.age),
        reason: report.reason.clone(),
        round_trip_us: report.round_trip.map(micros),
        loss_percent: report.loss_percent,
        bytes_sent,
    }
}

fn path(snapshot: &Snapshot, path: Path) -> PathView {
    match path {
        Path::Direct(address) => PathView::Direct { address },
        Path::Relay(peer) => PathView::Relay {
            peer: peer.to_string(),
            name: snapshot.name_of(peer),
        },
        Path::Tcp(address) => PathView::Tcp { address },
    }
}

fn candidate(report: &CandidateReport) -> CandidateView {
    CandidateView {
        address: report.address,
        tcp: report.tcp,
        state: report.state.clone(),
        round_trip_us: report.round_trip.map(micros),
        mtu_bytes: report.mtu_bytes,
        mtu_found: report.mtu_found,
        loss_percent: report.loss_percent,
        seen_as: report.seen_as,
        age_ms: millis(report.age),
        reason: report.reason.clone(),
    }
}

/// Endpoints of all peers.
pub(super) fn endpoints(snapshot: &Snapshot) -> EndpointsView {
    let endpoint = |report: &EndpointReport| EndpointView {
        peer: report.peer.to_string(),
        peer_name: snapshot.name_of(report.peer),
        reachable: report.reachable || is_me(snapshot, report.peer),
        mac: report.endpoint.mac.to_string(),
        addresses: report.endpoint.addresses.clone(),
        name: report.endpoint.name.clone(),
        moves: report.moves,
        in_force: report.in_force,
    };
    let learned = snapshot.learned.iter().map(|learned| LearnedView {
        mac: learned.mac.to_string(),
        peer: learned.peer.map(|peer| peer.to_string()),
        age_ms: millis(learned.age),
    });
    EndpointsView {
        endpoints: snapshot.report.endpoints.iter().map(endpoint).collect(),
        learned: learned.collect(),
    }
}

/// Containers of this host.
pub(super) fn attachments(snapshot: &Snapshot) -> Vec<AttachmentView> {
    snapshot
        .attachments
        .iter()
        .map(AttachmentView::from)
        .collect()
}

#[cfg(test)]
pub(crate) mod samples {
    //! One mesh that several tests look at: me = a, b direct, c through b.

    use super::*;
    use std::collections::BTreeMap;

    use rmesh_gossip::Report;
    use rmesh_gossip::api::{Counters, Endpoint};
    use rmesh_ipam::{Counts, OwnerId, RingId};
    use rmesh_router::{FrameCounters, PeerCounters, PlaneCounters};
    use rmesh_wire::{Boot, Mac};
    use std::time::Duration;

    use crate::daemon::RingView;

    pub(crate) const A: PeerId = PeerId([0xaa; 16]);
    pub(crate) const B: PeerId = PeerId([0xbb; 16]);
    pub(crate) const C: PeerId = PeerId([0xcc; 16]);

    fn peer(id: PeerId, name: &str, path: Path, reason: &str) -> PeerReport {
        PeerReport {
            id,
            name: name.into(),
            reachable: true,
            session: true,
            path: Some(path),
            path_age: Duration::from_secs(75),
            round_trip: Some(Duration::from_micros(430)),
            heard_ago: Some(Duration::ZERO),
            path_mtu_bytes: 1500,
            no_relay: false,
            path_mtu_found: true,
            source_ports: 1,
            mtu_bytes: 1328,
            reason: reason.into(),
            candidates: vec![CandidateReport {
                tcp: false,
                seen_as: None,
                address: "192.0.2.2:6783".parse().unwrap(),
                state: "alive".into(),
                round_trip: Some(Duration::from_micros(430)),
                mtu_bytes: None,
                mtu_found: false,
                loss_percent: Some(0),
                age: Duration::from_secs(75),
                reason: String::new(),
            }],
            fast: None,
            loss_percent: Some(0),
            links: vec![(B, 400)],
            route: Some((400, B)),
            hops: 1,
        }
    }

    fn exchanged() -> PeerCounters {
        let direct = FrameCounters {
            frames_sent: 1,
            bytes_sent: 1_500,
            frames_received: 1_400,
            bytes_received: 2_000_000,
        };
        PeerCounters([direct, FrameCounters::default()])
    }

    pub(crate) fn snapshot() -> Snapshot {
        let direct = Path::Direct("192.0.2.2:6783".parse().unwrap());
        let target = TargetReport {
            name: "hostb:6783".into(),
            addresses: vec!["192.0.2.2:6783".parse().unwrap()],
            peer: Some(B),
            state: "connected".into(),
            retry_in: None,
        };
        let endpoint = EndpointReport {
            peer: C,
            reachable: true,
            endpoint: Endpoint {
                mac: Mac([2, 0, 0, 0, 0, 3]),
                addresses: vec!["10.32.0.3/24".parse().unwrap()],
                name: "db".into(),
                labels: vec![],
            },
            moves: 1,
            in_force: true,
        };
        let report = Report {
            id: A,
            name: "a".into(),
            no_relay: false,
            boot: Boot {
                counter: 4,
                random: 9,
            },
            peers: vec![
                peer(B, "b", direct, ""),
                peer(C, "c", Path::Relay(B), "no direct address answers"),
            ],
            targets: vec![target],
            endpoints: vec![endpoint],
            warnings: vec![],
            sessions: 2,
            half_open: 0,
            records: 3,
            refused_ago: None,
            counters: Counters::default(),
        };
        Snapshot {
            report,
            attachments: vec![],
            moved_aside: vec![],
            exposed: vec![],
            tcp_port: Some(6783),
            tcp: Default::default(),
            port: 6783,
            bridge: "rmesh".into(),
            mtu_bytes: 1328,
            relay_limit: None,
            capabilities: Default::default(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            uptime: Duration::from_secs(90),
            joining: false,
            second_ways: vec![],
            frames: PlaneCounters::default(),
            fast: Default::default(),
            peer_frames: BTreeMap::from([(B, exchanged())]),
            log_lines_suppressed: 0,
            learned: vec![],
            ring: ring(),
        }
    }

    /// A ring of two peers, and five messages that were refused.
    fn ring() -> RingView {
        let owner = |peer, incarnation| OwnerId { peer, incarnation };
        let report = rmesh_ipam::Report {
            ring: Some(RingId([7; 16])),
            owner: Some(owner(A, 1)),
            has_majority: true,
            spare_witnesses: 1,
            is_stuck: false,
            reachable_witnesses: 3,
            is_witness: true,
            owners: BTreeMap::from([(owner(A, 1), 1 << 20), (owner(B, 2), 4_096)]),
            runs: 2,
            v4: Counts {
                owned: 1 << 20,
                ..Default::default()
            },
            v6: Counts {
                owned: 1 << 63,
                fresh: 1 << 62,
                ..Default::default()
            },
            refused: BTreeMap::from([((B, "malformed"), 5)]),
            ..Default::default()
        };
        RingView {
            report: Some(report),
            entries_written: 12,
            commits: 4,
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_page_counts_peers_by_path() {
        let view = status(&samples::snapshot());
        assert_eq!((view.peers_total, view.peers_reachable), (2, 2));
        assert_eq!((view.peers_direct, view.peers_relayed), (1, 1));
        assert_eq!((view.state.as_str(), view.boot), ("connected", 4));
        assert_eq!(view.ring, "no ring yet: ");
        assert_eq!(
            view.warnings,
            ["peer b said 5 times what it cannot about addresses (malformed); nothing was changed"]
        );
    }

    #[test]
    fn states_are_told_apart() {
        let mut snapshot = samples::snapshot();
        for peer in &mut snapshot.report.peers {
            peer.reachable = false;
        }
        assert_eq!(status(&snapshot).state, "disconnected");
        snapshot.report.peers.clear();
        snapshot.joining = true;
        assert_eq!(status(&snapshot).state, "joining");
        snapshot.joining = false;
        snapshot.report.targets.clear();
        assert_eq!(status(&snapshot).state, "alone");
    }

    #[test]
    fn what_an_operator_should_look_at_is_named() {
        let mut snapshot = samples::snapshot();
        snapshot.report.counters.handshakes_refused = 3;
        snapshot.report.refused_ago = Some(Duration::from_secs(5));
        snapshot.second_ways = vec![(samples::B, true)];
        snapshot.report.warnings.push("from the mesh".into());
        snapshot.exposed.push("others could write".into());
        let warnings = status(&snapshot).warnings.join("\n");
        for words in [
            "outside the mesh",
            "from the mesh",
            "3 handshakes were refused since the start, the last 5 s ago",
            "others could write",
        ] {
            assert!(warnings.contains(words), "{words}: {warnings}");
        }
    }

    #[test]
    fn refused_handshakes_are_no_news_for_ever() {
        assert!(refused_warning(3, REFUSED_RECENT).is_none());
        assert!(refused_warning(3, REFUSED_RECENT - Duration::from_secs(1)).is_some());
    }

    #[test]
    fn a_relay_is_shown_by_name() {
        let views = peers(&samples::snapshot());
        let json = serde_json::to_value(&views[1]).unwrap();
        assert_eq!(json["path"]["kind"], "relay");
        assert_eq!(json["path"]["name"], "b");
        assert_eq!(json["id"], "c".repeat(32));
        assert_eq!(views[0].bytes_received, 2_000_000);
    }
}
