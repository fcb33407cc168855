//! What a peer costs that has nothing to do.

use std::time::Duration;

use super::{Bound, Figure};
use crate::idle::{self, CPU_MAX, RSS_MAX, SETTLED, WAKEUPS_PER_S_MAX};
use crate::story::Story;

/// For how long the idle mesh is watched.
const WATCHED: Duration = Duration::from_secs(20);

pub(super) fn measure(program: &str) -> Vec<Figure> {
    let figures = idle::measure(&mut Story::new("bench-idle", program), SETTLED, WATCHED);
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    vec![
        Figure::new(
            "idle: memory in RAM",
            "MB",
            megabytes(figures.rss_bytes_max),
        )
        .bound(Bound::Below(megabytes(RSS_MAX))),
        Figure::new("idle: share of a core", "%", figures.cpu_max * 100.0)
            .bound(Bound::Below(CPU_MAX * 100.0)),
        Figure::new("idle: wake-ups", "a second", figures.wakeups_per_s_max)
            .bound(Bound::Below(WAKEUPS_PER_S_MAX)),
    ]
}
