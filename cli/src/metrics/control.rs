//! What the mesh counts: sessions, handshakes, control datagrams and records.

use rmesh_gossip::api::Counters;

use super::text::Text;
use crate::daemon::Snapshot;

/// Counters without labels: name, meaning, and where it stands.
type Row = (&'static str, &'static str, fn(&Counters) -> u64);

const COUNTERS: [Row; 11] = [
    (
        "rmesh_cookies_sent_total",
        "Senders of first messages asked to show that their address is theirs.",
        |c| c.cookies_sent,
    ),
    (
        "rmesh_control_sent_datagrams_total",
        "Datagrams of the control side sent.",
        |c| c.control_datagrams_sent,
    ),
    (
        "rmesh_control_sent_bytes_total",
        "Their bytes, UDP payload.",
        |c| c.control_bytes_sent,
    ),
    (
        "rmesh_control_received_datagrams_total",
        "Datagrams that reached the control side, whatever became of them.",
        |c| c.control_datagrams_received,
    ),
    (
        "rmesh_control_received_bytes_total",
        "Their bytes, UDP payload.",
        |c| c.control_bytes_received,
    ),
    (
        "rmesh_control_relayed_datagrams_total",
        "Control datagrams passed on for others.",
        |c| c.datagrams_relayed,
    ),
    (
        "rmesh_control_dropped_datagrams_total",
        "Control datagrams dropped before they were sent.",
        |c| c.transmits_dropped,
    ),
    (
        "rmesh_path_mtu_lost_total",
        "Times that datagrams of the length in use stopped to pass on a path.",
        |c| c.path_mtu_lost,
    ),
    (
        "rmesh_control_inside_datagrams_total",
        "Control datagrams not sent because their way out of this host led into the mesh itself.",
        |c| c.sends_inside,
    ),
    (
        "rmesh_gossip_sent_records_total",
        "Signed records sent, each as often as it was.",
        |c| c.records_sent,
    ),
    (
        "rmesh_gossip_repairs_total",
        "Repairs begun with a neighbour whose digest differed.",
        |c| c.repairs_started,
    ),
];

pub(super) fn section(text: &mut Text, snapshot: &Snapshot) {
    let counters = &snapshot.report.counters;
    for (name, help, count) in COUNTERS {
        text.counter(name, help).sample(&[], count(counters));
    }
    sessions(text, snapshot);
    let help = "Datagrams the control side did not take, by reason.";
    text.counter("rmesh_control_refused_datagrams_total", help)
        .sample(&[("reason", "useless")], counters.datagrams_ignored)
        .sample(&[("reason", "forged")], counters.datagrams_forged)
        .sample(&[("reason", "replayed")], counters.datagrams_replayed);
    text.gauge(
        "rmesh_gossip_records",
        "Signed records held, the own ones included.",
    )
    .sample(&[], snapshot.report.records);
    text.counter(
        "rmesh_gossip_received_records_total",
        "Signed records received, by what became of them.",
    )
    .sample(&[("result", "accepted")], counters.records_accepted)
    .sample(&[("result", "known")], counters.records_known)
    .sample(&[("result", "limited")], counters.records_limited)
    .sample(&[("result", "refused")], counters.records_refused);
    text.counter(
        "rmesh_gossip_fetched_records_total",
        "Signed records that were announced, did not come and were asked for.",
    )
    .sample(&[], counters.records_fetched);
    text.counter(
        "rmesh_gossip_dropped_answers_total",
        "Messages with signed records that were asked for and not sent, for too many were.",
    )
    .sample(&[], counters.answers_dropped);
}

fn sessions(text: &mut Text, snapshot: &Snapshot) {
    let (report, counters) = (&snapshot.report, &snapshot.report.counters);
    let opened = counters.handshakes_completed;
    text.gauge(
        "rmesh_sessions_open",
        "Sessions open, replaced ones that still receive included.",
    )
    .sample(&[], report.sessions);
    text.counter(
        "rmesh_sessions_opened_total",
        "Sessions opened, renewals included.",
    )
    .sample(&[], opened);
    text.counter(
        "rmesh_sessions_ended_total",
        "Sessions ended, replaced ones included.",
    )
    .sample(&[], opened.saturating_sub(report.sessions));
    text.gauge("rmesh_handshakes_half_open", "Handshakes under way.")
        .sample(&[], report.half_open);
    let mut family = text.counter(
        "rmesh_handshakes_refused_total",
        "Handshakes refused, by reason.",
    );
    for (reason, count) in counters.handshakes_refused_by.iter() {
        family.sample(&[("reason", reason)], count);
    }
    family
        .sample(&[("reason", "replayed")], counters.handshakes_replayed)
        .sample(&[("reason", "limited")], counters.handshakes_limited);
}
