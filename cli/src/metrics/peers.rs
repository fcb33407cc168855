//! One sample a peer, or one a peer and kind of path.

use rmesh_gossip::Path;
use rmesh_gossip::api::PeerReport;
use rmesh_router::{FrameCounters, PathKind};

use super::text::{Family, Text};
use crate::daemon::Snapshot;

pub(super) fn section(text: &mut Text, snapshot: &Snapshot) {
    let peers: Vec<Labelled<'_>> = snapshot.report.peers.iter().map(Labelled::new).collect();
    let reachable = peers.iter().filter(|peer| peer.report.reachable).count();
    text.gauge(
        "rmesh_peers",
        "Other peers known, by whether a path leads to them.",
    )
    .sample(&[("state", "reachable")], reachable)
    .sample(&[("state", "unreachable")], peers.len() - reachable);
    paths(text, &peers);
    vxlan(text, snapshot, &peers);
    traffic(text, snapshot, &peers);
}

/// What came of an address, and the first words of that in a report.
const STATES: [(&str, &str); 5] = [
    ("alive", "alive"),
    ("unanswered", "no answer"),
    ("unreachable", "unreachable"),
    ("inside", "this host's route"),
    ("untried", "not tried"),
];

/// A peer and the labels that name it: names may be shared, ids are not.
struct Labelled<'a> {
    report: &'a PeerReport,
    id: String,
}

impl<'a> Labelled<'a> {
    fn new(report: &'a PeerReport) -> Self {
        Labelled {
            report,
            id: report.id.to_string(),
        }
    }

    fn labels(&self) -> [(&str, &str); 2] {
        [("peer", &self.report.name), ("peer_id", &self.id)]
    }

    fn labels_of(&self, path: PathKind) -> [(&str, &str); 3] {
        let [peer, id] = self.labels();
        [peer, id, ("path", path.name())]
    }
}

/// The word for a path; by TCP the data plane's kind is "direct".
fn kind(path: Path) -> &'static str {
    match path {
        Path::Direct(_) => PathKind::Direct.name(),
        Path::Relay(_) => PathKind::Relay.name(),
        Path::Tcp(_) => TCP,
    }
}

const TCP: &str = "tcp";

fn paths(text: &mut Text, peers: &[Labelled<'_>]) {
    let mut family = text.gauge("rmesh_peer_path", "1 for the kind of path in use, else 0.");
    for peer in peers {
        let used = peer.report.path.map(kind);
        let [name, id] = peer.labels();
        for path in PathKind::ALL.map(PathKind::name).into_iter().chain([TCP]) {
            let labels = [name, id, ("path", path)];
            family.sample(&labels, u8::from(used == Some(path)));
        }
    }
    let help = "Addresses tried for a direct path to the peer, by what came of them; those that are none are left out.";
    let mut family = text.gauge("rmesh_peer_candidates", help);
    for peer in peers {
        for (state, words) in STATES {
            let candidates = peer.report.candidates.iter();
            let count = candidates
                .filter(|one| one.state.starts_with(words))
                .count();
            if count > 0 {
                let [name, id] = peer.labels();
                family.sample(&[name, id, ("state", state)], count);
            }
        }
    }
    let help = "Smoothed round trip time of the path in use.";
    let mut family = text.gauge("rmesh_peer_round_trip_seconds", help);
    for peer in peers {
        if let Some(trip) = peer.report.round_trip {
            family.sample(&peer.labels(), trip.as_secs_f64());
        }
    }
    let help = "Largest IP packet sent on the path in use.";
    let mut family = text.gauge("rmesh_peer_path_mtu_bytes", help);
    for peer in peers.iter().filter(|peer| peer.report.path.is_some()) {
        family.sample(&peer.labels(), peer.report.path_mtu_bytes);
    }
    let help = "1 if a search found that; 0 while it is assumed or searched.";
    let mut family = text.gauge("rmesh_peer_path_mtu_found", help);
    for peer in peers.iter().filter(|peer| peer.report.path.is_some()) {
        family.sample(&peer.labels(), u8::from(peer.report.path_mtu_found));
    }
    let help =
        "Source ports that frames leave from on the path in use, the one listened at included.";
    let mut family = text.gauge("rmesh_peer_source_ports", help);
    for peer in peers.iter().filter(|peer| peer.report.path.is_some()) {
        family.sample(&peer.labels(), peer.report.source_ports);
    }
}

/// The kernel's VXLAN, where the policy allows it.
fn vxlan(text: &mut Text, snapshot: &Snapshot, peers: &[Labelled<'_>]) {
    let fast = || {
        let of = |peer: &&Labelled<'_>| peer.report.fast.is_some();
        peers.iter().filter(of)
    };
    let help = "How many of the last 64 probes of the path in use were not answered.";
    let mut family = text.gauge("rmesh_peer_path_loss_ratio", help);
    for peer in peers {
        if let Some(percent) = peer.report.loss_percent {
            family.sample(&peer.labels(), f64::from(percent) / 100.0);
        }
    }
    let help = "1 if unicast frames to the peer go by the kernel's VXLAN, not encrypted.";
    let mut family = text.gauge("rmesh_peer_vxlan_in_use", help);
    for peer in fast() {
        let in_use = peer.report.fast.as_ref().is_some_and(|fast| fast.in_use);
        family.sample(&peer.labels(), u8::from(in_use));
    }
    let help = "1 for the reason why they do not, or for what is the matter although they do.";
    let mut family = text.gauge("rmesh_peer_vxlan_trouble", help);
    for peer in fast() {
        let cause = peer.report.fast.as_ref().map(|fast| fast.cause.as_str());
        if let Some(cause) = cause.filter(|cause| !cause.is_empty()) {
            let [name, id] = peer.labels();
            family.sample(&[name, id, ("reason", cause)], 1);
        }
    }
    let counted = |peer: &Labelled<'_>| {
        let to = peer.report.fast.as_ref()?.address?;
        snapshot.fast.counters.sent.get(&to).copied()
    };
    let help = "Bytes sent to the peer's address by VXLAN, heartbeats and headers included.";
    let mut family = text.counter("rmesh_peer_vxlan_sent_bytes_total", help);
    for (peer, bytes) in fast().filter_map(|peer| Some((peer, counted(peer)?))) {
        family.sample(&peer.labels(), bytes);
    }
    let counters = &snapshot.fast.counters;
    let help = "Bytes of frames received by VXLAN, from all peers together: to count each peer's takes longer than to let it through.";
    text.counter("rmesh_vxlan_received_bytes_total", help)
        .sample(&[], counters.received);
    let help = "VXLAN datagrams from and to addresses that are not a plaintext peer's.";
    text.counter("rmesh_vxlan_dropped_datagrams_total", help)
        .sample(&[("direction", "in")], counters.dropped_in)
        .sample(&[("direction", "out")], counters.dropped_out);
}

fn traffic(text: &mut Text, snapshot: &Snapshot, peers: &[Labelled<'_>]) {
    let write = |family: &mut Family<'_>, count: fn(&FrameCounters) -> u64| {
        for peer in peers {
            let frames = snapshot.peer_frames.get(&peer.report.id).copied();
            for (path, frames) in frames.unwrap_or_default().by_path() {
                family.sample(&peer.labels_of(path), count(&frames));
            }
        }
    };
    let help = "Frames sent to the peer, floods included.";
    let mut family = text.counter("rmesh_peer_sent_frames_total", help);
    write(&mut family, |frames| frames.frames_sent);
    let help = "Bytes of the frames sent to the peer.";
    let mut family = text.counter("rmesh_peer_sent_bytes_total", help);
    write(&mut family, |frames| frames.bytes_sent);
    let help = "Frames received from the peer, floods included.";
    let mut family = text.counter("rmesh_peer_received_frames_total", help);
    write(&mut family, |frames| frames.frames_received);
    let help = "Bytes of the frames received from the peer.";
    let mut family = text.counter("rmesh_peer_received_bytes_total", help);
    write(&mut family, |frames| frames.bytes_received);
}
