//! How long a silent cut stops traffic.

use super::{Bound, Figure};
use crate::outage::{OUTAGE_MAX, Triangle};
use crate::story::Story;

const CUTS: usize = 50;
const PERCENTILE: usize = 99;

pub(super) fn measure(program: &str) -> Vec<Figure> {
    let mut story = Story::new("bench-outage", program);
    let triangle = Triangle::start(&mut story, &[]);
    let outages: Vec<_> = (0..CUTS)
        .map(|_| triangle.cut_once(&story, "direct"))
        .collect();
    let mut cuts: Vec<f64> = outages.iter().map(|of| of.cut.as_secs_f64()).collect();
    cuts.sort_by(f64::total_cmp);
    let at = |percent: usize| cuts[(CUTS * percent).div_ceil(100).max(1) - 1];
    let lost: u64 = outages.iter().map(|of| of.lost_coming_back).sum();
    let worst = Figure::new("outage by a silent cut, p99", "s", at(PERCENTILE));
    let lost = Figure::new("datagrams lost coming back, of all cuts", "", lost as f64);
    vec![
        Figure::new("outage by a silent cut, p50", "s", at(50)),
        worst.bound(Bound::Below(OUTAGE_MAX.as_secs_f64())),
        lost.bound(Bound::Below(0.0)),
    ]
}
