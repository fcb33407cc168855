//! What a flood of handshakes costs an established session.

use super::{Bound, Figure};
use crate::flood::{self, LOSS_MAX};
use crate::story::Story;

/// Three times as many as this are known to about 2 %.
const ROUNDS: usize = 96;

pub(super) fn measure(program: &str) -> Vec<Figure> {
    let figures = flood::measure(&mut Story::new("bench-flood", program), ROUNDS);
    let [spoofed, replayed] = figures.by_busy_core();
    let part = |what: &str, part: f64| {
        let name = format!("established session under a {what} flood by one beside a busy core");
        Figure::new(name, "times", part).bound(Bound::Above(1.0 - LOSS_MAX))
    };
    vec![
        Figure::new(
            "session beside a busy core",
            "Gbit/s",
            figures.busy_core / 1e3,
        ),
        part("spoofed", spoofed),
        part("replayed", replayed),
    ]
}
