//! The ring: who owns which addresses, and its ledger on the disk.

use rmesh_ipam::{Range, Report};

use super::text::Text;
use crate::daemon::Snapshot;

pub(super) fn section(text: &mut Text, snapshot: &Snapshot) {
    let ring = &snapshot.ring;
    text.counter(
        "rmesh_ledger_entries_total",
        "Entries of the ledger made durable.",
    )
    .sample(&[], ring.entries_written);
    text.counter(
        "rmesh_ledger_commits_total",
        "Syncs of the disk that took; entries that wait share one.",
    )
    .sample(&[], ring.commits);
    text.counter(
        "rmesh_ledger_failed_writes_total",
        "Writes of the ledger that the disk refused.",
    )
    .sample(&[], ring.writes_failed);
    let is_refused = u64::from(ring.refused.is_some());
    text.gauge(
        "rmesh_ledger_refused",
        "1 while the disk refuses the ledger: no address is handed out or freed.",
    )
    .sample(&[], is_refused);
    if let Some(report) = &ring.report {
        addresses(text, report);
        witnesses(text, report);
        refused(text, snapshot, report);
    }
}

fn addresses(text: &mut Text, report: &Report) {
    let mut family = text.gauge(
        "rmesh_ring_addresses",
        "Addresses of this peer: owned; free among them, resting ones included; used by containers; \
         pending, which containers carry and others own; held for removed peers.",
    );
    for (name, is_v4, counts) in [("v4", true, report.v4), ("v6", false, report.v6)] {
        let pending = report.pending.iter().filter(|at| at.is_ipv4() == is_v4);
        let held = report.held.iter().map(|(range, _)| range);
        let held = held.filter(|range| range.is_v4() == is_v4);
        let states = [
            ("owned", counts.owned),
            ("free", counts.free()),
            ("used", counts.allocated),
            ("pending", pending.count() as u128),
            ("held", held.map(Range::count).sum()),
        ];
        for (state, count) in states {
            family.sample(&[("family", name), ("state", state)], count);
        }
    }
    text.gauge("rmesh_ring_owners", "Owners of addresses.")
        .sample(&[], report.owners.len());
    text.gauge("rmesh_ring_runs", "Runs of addresses with one owner.")
        .sample(&[], report.runs);
    text.gauge(
        "rmesh_ring_grants",
        "Grants of this peer that wait for a majority of the witnesses.",
    )
    .sample(&[], report.granted.len());
}

fn witnesses(text: &mut Text, report: &Report) {
    let all = report.setup.as_ref();
    let all = all.map_or(0, |setup| setup.witnesses.as_slice().len());
    text.gauge("rmesh_ring_witnesses", "Witnesses of the ring.")
        .sample(&[], all);
    text.gauge(
        "rmesh_ring_witnesses_reachable",
        "Those of them that answer, this peer included.",
    )
    .sample(&[], report.reachable_witnesses);
    text.gauge(
        "rmesh_ring_majority",
        "1 if most witnesses answer; without them nobody gets more addresses.",
    )
    .sample(&[], u64::from(report.has_majority));
    text.gauge(
        "rmesh_ring_fenced",
        "1 while it is not sure that the ledger is the newest: no address is handed out.",
    )
    .sample(&[], u64::from(report.fence.is_some()));
}

fn refused(text: &mut Text, snapshot: &Snapshot, report: &Report) {
    let mut family = text.counter(
        "rmesh_ring_refused_messages_total",
        "Messages that claim what their sender cannot own, by sender and reason.",
    );
    for ((peer, reason), count) in &report.refused {
        let (name, id) = (snapshot.name_of(*peer), peer.to_string());
        family.sample(
            &[("peer", &name), ("peer_id", &id), ("reason", reason)],
            *count,
        );
    }
    text.counter(
        "rmesh_ring_dropped_messages_total",
        "Messages of the ring dropped because a queue was full.",
    )
    .sample(&[], report.dropped);
}
