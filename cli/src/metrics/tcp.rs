//! What goes by TCP.

use super::text::Text;
use crate::daemon::Snapshot;

pub(super) fn section(text: &mut Text, snapshot: &Snapshot) {
    let tcp = &snapshot.tcp;
    let help = "TCP connections, by whether they belong to a peer that is known.";
    text.gauge("rmesh_tcp_connections", help)
        .sample(&[("state", "proven")], tcp.connections - tcp.unproven)
        .sample(&[("state", "unproven")], tcp.unproven);
    let help = "TCP connections turned away because there were too many.";
    text.counter("rmesh_tcp_refused_connections_total", help)
        .sample(&[], tcp.refused);
    let help = "Datagrams sent by TCP.";
    text.counter("rmesh_tcp_sent_datagrams_total", help)
        .sample(&[], tcp.sent);
    let help = "Datagrams received by TCP.";
    text.counter("rmesh_tcp_received_datagrams_total", help)
        .sample(&[], tcp.received);
    let help = "Datagrams dropped because a TCP connection was slower than who sent.";
    text.counter("rmesh_tcp_dropped_datagrams_total", help)
        .sample(&[], tcp.dropped);
}
