//! `GET /metrics`: everything that can be counted, in Prometheus' text format 0.0.4.
//!
//! A section is a function that writes the families of one part of the daemon; a further part is
//! one more entry of [`SECTIONS`]. What a part does not know is left out: there are no made-up
//! zeros. A family has as many samples as there are peers, kinds of path and reasons, all bounded
//! ([`rmesh_gossip::limits::PEERS_MAX`]), and they come in the same order every time.

mod control;
mod frames;
#[cfg(any(test, feature = "fuzzing"))]
#[cfg_attr(
    not(feature = "fuzzing"),
    expect(
        dead_code,
        unreachable_pub,
        reason = "end-to-end tests use the rest of it"
    )
)]
pub mod parse;
mod peers;
mod process;
mod ring;
mod tcp;
#[cfg(test)]
mod tests;
mod text;

use crate::daemon::Snapshot;
use text::Text;

/// What the answer says it is.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All sections, in the order of the answer.
const SECTIONS: [fn(&mut Text, &Snapshot); 7] = [
    this_host,
    peers::section,
    frames::section,
    tcp::section,
    control::section,
    ring::section,
    process::section,
];

/// The whole answer. Reads files of `/proc`, and may be long in a big mesh: not for the thread
/// that owns the mesh.
pub(crate) fn render(snapshot: &Snapshot) -> String {
    let mut text = Text::default();
    for section in SECTIONS {
        section(&mut text, snapshot);
    }
    text.finish()
}

fn this_host(text: &mut Text, snapshot: &Snapshot) {
    let report = &snapshot.report;
    let id = report.id.to_string();
    text.gauge("rmesh_build_info", "The program; the value is always 1.")
        .sample(&[("version", crate::VERSION)], 1);
    text.gauge("rmesh_self_info", "This peer; the value is always 1.")
        .sample(&[("peer", &report.name), ("peer_id", &id)], 1);
    text.gauge("rmesh_attachments", "Containers attached on this host.")
        .sample(&[], snapshot.attachments.len());
    text.counter(
        "rmesh_log_lines_suppressed_total",
        "Log lines left out because the same had just been logged.",
    )
    .sample(&[], snapshot.log_lines_suppressed);
}
