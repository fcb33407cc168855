//! What the data plane counts.

use rmesh_router::{Plane, PlaneCounters};

use super::text::Text;
use crate::daemon::Snapshot;

/// Counters without labels: name, meaning, and where it stands.
type Row = (&'static str, &'static str, fn(&PlaneCounters) -> u64);

const COUNTERS: [Row; 17] = [
    (
        "rmesh_bridge_received_frames_total",
        "Frames read from the bridge.",
        |c| c.frames_from_bridge,
    ),
    ("rmesh_bridge_received_bytes_total", "Their bytes.", |c| {
        c.bytes_from_bridge
    }),
    (
        "rmesh_bridge_sent_frames_total",
        "Frames written to the bridge.",
        |c| c.frames_to_bridge,
    ),
    ("rmesh_bridge_sent_bytes_total", "Their bytes.", |c| {
        c.bytes_to_bridge
    }),
    (
        "rmesh_bridge_reads_total",
        "Reads from the bridge, each of a frame or of many in one.",
        |c| c.reads_from_bridge,
    ),
    (
        "rmesh_bridge_writes_total",
        "Writes to the bridge, each of a frame or of many in one.",
        |c| c.writes_to_bridge,
    ),
    (
        "rmesh_sent_datagrams_total",
        "Datagrams sent by the workers.",
        |c| c.datagrams_sent,
    ),
    (
        "rmesh_sent_datagram_bytes_total",
        "Their bytes, UDP payload.",
        |c| c.datagram_bytes_sent,
    ),
    (
        "rmesh_received_datagrams_total",
        "Datagrams received, whatever became of them.",
        |c| c.datagrams_received,
    ),
    (
        "rmesh_received_datagram_bytes_total",
        "Their bytes, UDP payload.",
        |c| c.datagram_bytes_received,
    ),
    (
        "rmesh_relayed_datagrams_total",
        "Datagrams of frames passed on for others.",
        |c| c.relayed,
    ),
    ("rmesh_sent_fragments_total", "Fragments sent.", |c| {
        c.fragments_sent
    }),
    (
        "rmesh_sent_bundles_total",
        "Records sent that carried several small frames.",
        |c| c.bundles_sent,
    ),
    (
        "rmesh_too_big_messages_total",
        "ICMP messages to containers that a packet is too big for its path.",
        |c| c.too_big_told,
    ),
    (
        "rmesh_clamped_connections_total",
        "TCP openings whose largest segment was lowered to what a path carries.",
        |c| c.mss_clamped,
    ),
    (
        "rmesh_reassembled_total",
        "Payloads put together from fragments.",
        |c| c.reassembled,
    ),
    (
        "rmesh_pending_sent_frames_total",
        "Frames that waited for a session and were then sent.",
        |c| c.pending_sent,
    ),
];

pub(super) fn section(text: &mut Text, snapshot: &Snapshot) {
    let frames = &snapshot.frames;
    for (name, help, count) in COUNTERS {
        text.counter(name, help).sample(&[], count(frames));
    }
    text.counter(
        "rmesh_floods_total",
        "Flooded frames, by what was done with them.",
    )
    .sample(&[("what", "originated")], frames.floods_originated)
    .sample(&[("what", "forwarded")], frames.floods_forwarded)
    .sample(&[("what", "delivered")], frames.floods_delivered);
    text.gauge("rmesh_learned_macs", "MACs learned from traffic.")
        .sample(&[], frames.learned_macs);
    let help = "Sessions whose cipher is not spoken here.";
    text.gauge("rmesh_sessions_unusable", help)
        .sample(&[], frames.unusable_sessions);
    let help = "Frames and datagrams dropped by the data plane, by reason.";
    let mut family = text.counter("rmesh_drops_total", help);
    for reason in Plane::drop_reasons() {
        let count = frames.drops.get(reason).copied();
        family.sample(&[("reason", reason)], count.unwrap_or_default());
    }
}
