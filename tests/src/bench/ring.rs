//! What the ring costs a peer of a mesh of a thousand.

use std::time::Duration;

use super::{Bound, Figure};
use crate::ring_cost::{self, Scene};

/// The scene issue 4 names: one change a peer in ten minutes, of which one minute takes a minute and a
/// half to simulate.
const SCENE: Scene = Scene {
    peers: 1_000,
    watched: Duration::from_secs(60),
    change_every: Duration::from_secs(600),
    seed: 1,
};
/// Megabytes of memory a peer, and kilobytes a second on the wire.
const MEMORY_MAX: f64 = 1.0;
const WIRE_MAX: f64 = 2.0;

pub(super) fn measure(_: &str) -> Vec<Figure> {
    let cost = ring_cost::measure(&SCENE);
    let kb = |name: &str, bytes: f64| Figure::new(format!("ring: {name}"), "kB/s", bytes / 1e3);
    let mb = |name: &str, bytes: f64| Figure::new(format!("ring: {name}"), "MB", bytes / 1e6);
    let count = |name: &str, value: f64| Figure::new(format!("ring: {name}"), "", value);
    vec![
        count("peers", SCENE.peers as f64),
        count("neighbours of a peer", cost.neighbours),
        count("changes (grants of one address)", cost.changes as f64),
        mb("memory of the ring", cost.heap_ring).bound(Bound::Below(MEMORY_MAX)),
        mb("memory of a peer's whole node, settled", cost.heap_settled),
        mb("and after the changes", cost.heap_after),
        kb("sent by a peer, mean", cost.mean_bytes_per_s).bound(Bound::Below(WIRE_MAX)),
        kb("sent by the busiest peer", cost.worst_bytes_per_s),
        kb("sent by a peer, most in one second", cost.worst_second),
        kb(
            "sent by a peer while nothing changes",
            cost.quiet_bytes_per_s,
        ),
        count(
            "messages of plain allocations",
            cost.allocation_messages as f64,
        )
        .bound(Bound::Below(0.0)),
    ]
}
