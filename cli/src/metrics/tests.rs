//! The whole answer, read by a strict parser.

use super::parse::{Metrics, parse};
use super::render;
use crate::api::samples;

fn parsed() -> Metrics {
    parse(&render(&samples::snapshot())).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_answer_is_strictly_right_and_the_same_every_time() {
    let [first, second] = [parsed(), parsed()];
    assert!(first.0.len() > 40, "{} families", first.0.len());
    assert!(first.0.values().all(|family| !family.help.is_empty()));
    let series = |metrics: &Metrics| -> Vec<String> {
        let families = metrics.0.iter();
        let series = families.flat_map(|(name, f)| f.samples.keys().map(move |l| (name, l)));
        series.map(|key| format!("{key:?}")).collect()
    };
    assert_eq!(series(&first), series(&second));
    let names = |text: String| -> Vec<String> {
        let lines = text.lines().map(|line| line.rsplit(' ').next_back());
        lines
            .map(|name| name.unwrap_or_default().to_owned())
            .collect()
    };
    let [first, second] = [(), ()].map(|()| names(render(&samples::snapshot())));
    assert_eq!(first, second, "the order too");
}

#[test]
fn each_peer_has_its_path_its_round_trip_and_its_bytes() {
    let metrics = parsed();
    let of =
        |name: &str, peer: &str, path: &str| metrics.sum(name, &[("peer", peer), ("path", path)]);
    assert_eq!(of("rmesh_peer_path", "b", "direct"), Some(1.0));
    assert_eq!(of("rmesh_peer_path", "b", "relay"), Some(0.0));
    assert_eq!(of("rmesh_peer_path", "c", "relay"), Some(1.0));
    let bytes = "rmesh_peer_received_bytes_total";
    assert_eq!(of(bytes, "b", "direct"), Some(2_000_000.0));
    assert_eq!(of(bytes, "c", "direct"), Some(0.0));
    let trip = metrics.sum(
        "rmesh_peer_round_trip_seconds",
        &[("peer_id", &"c".repeat(32))],
    );
    assert_eq!(trip, Some(0.000_43));
}

#[test]
fn what_is_unknown_is_left_out_and_what_may_happen_is_zero() {
    let mut snapshot = samples::snapshot();
    snapshot.report.peers[1].round_trip = None;
    snapshot.frames.drops.insert("no_path".into(), 3);
    snapshot.report.counters.handshakes_completed = 7;
    let metrics = parse(&render(&snapshot)).unwrap();
    let sum = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels);
    assert_eq!(sum("rmesh_peer_round_trip_seconds", &[("peer", "c")]), None);
    assert_eq!(
        sum("rmesh_drops_total", &[("reason", "no_path")]),
        Some(3.0)
    );
    assert_eq!(sum("rmesh_drops_total", &[("reason", "forged")]), Some(0.0));
    assert_eq!(sum("rmesh_sessions_ended_total", &[]), Some(5.0));
    assert!(sum("process_resident_memory_bytes", &[]) > Some(1e6));
    assert!(sum("process_open_fds", &[]) > Some(2.0));
    assert!(sum("process_start_time_seconds", &[]) > Some(1.5e9));
}

#[test]
fn hostile_names_stay_one_label() {
    let mut snapshot = samples::snapshot();
    let name = "a\"} 1\nrmesh_drops_total{reason=\"x\\";
    snapshot.report.peers[0].name = name.into();
    snapshot.report.peers[1].name = name.into();
    let metrics = parse(&render(&snapshot)).unwrap();
    let peers = &metrics.0["rmesh_peer_round_trip_seconds"].samples;
    assert_eq!(peers.len(), 2, "one name, two ids");
    assert!(peers.keys().all(|labels| labels["peer"] == name));
}

#[test]
fn the_parser_is_strict() {
    let head = "# HELP x X.\n# TYPE x gauge\n";
    assert!(parse(&format!("{head}x 1\nx{{a=\"b\"}} 2\n")).is_ok());
    let wrong = [
        "x 1\n".to_owned(),
        format!("{head}x 1"),
        format!("{head}y 1\n"),
        format!("{head}x 1\nx 2\n"),
        format!("{head}x  1\n"),
        format!("{head}x 1e3\n"),
        format!("{head}x{{a=\"b\"c=\"d\"}} 1\n"),
        format!("{head}x{{a=\"b\\q\"}} 1\n"),
        format!("{head}x{{a=\"b\",a=\"c\"}} 1\n"),
        format!("{head}x{{}} 1\n"),
        format!("{head}\nx 1\n"),
        format!("{head}{head}"),
        "# TYPE x gauge\nx 1\n".to_owned(),
        "# HELP x X.\n# TYPE x counter\nx 1\n".to_owned(),
        "# HELP x_total X.\n# TYPE x_total counter\nx_total -1\n".to_owned(),
        "# HELP 1x X.\n# TYPE 1x gauge\n".to_owned(),
    ];
    for text in wrong {
        assert!(parse(&text).is_err(), "{text}");
    }
}

#[test]
fn the_ring_tells_what_is_owned_and_who_said_nonsense() {
    let metrics = parsed();
    let sum = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels);
    let v4 = |state| {
        sum(
            "rmesh_ring_addresses",
            &[("family", "v4"), ("state", state)],
        )
    };
    assert_eq!(v4("owned"), Some(1_048_576.0));
    // However many IPv6 addresses there are, it shows that no IPv4 address is free.
    assert_eq!(v4("free"), Some(0.0));
    let v6 = sum(
        "rmesh_ring_addresses",
        &[("family", "v6"), ("state", "free")],
    );
    assert_eq!(v6, Some(2f64.powi(62)));
    assert_eq!(sum("rmesh_ring_owners", &[]), Some(2.0));
    let refused = "rmesh_ring_refused_messages_total";
    assert_eq!(
        sum(refused, &[("peer", "b"), ("reason", "malformed")]),
        Some(5.0)
    );
    assert_eq!(sum("rmesh_ledger_refused", &[]), Some(0.0));
    let mut without = samples::snapshot();
    without.ring.report = None;
    without.ring.refused = Some("no room".into());
    let metrics = parse(&render(&without)).unwrap();
    assert_eq!(metrics.sum("rmesh_ledger_refused", &[]), Some(1.0));
    assert_eq!(metrics.sum("rmesh_ring_addresses", &[]), None);
}
