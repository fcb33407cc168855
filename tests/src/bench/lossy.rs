//! What containers keep of their hosts' goodput on a bad wire.

use super::{Bound, Figure};
use crate::lossy::{KEPT_MIN, LossyScene, measure as measure_both};
use crate::story::Story;

pub(super) fn measure(program: &str) -> Vec<Figure> {
    let mut story = Story::new("bench-lossy", program);
    let scene = LossyScene::start(&mut story, [&[], &[]]);
    let figures = measure_both(&story, &scene);
    let [hosts, containers] = figures.medians();
    let kept = Figure::new(
        "1 % loss, TCP, containers by hosts",
        "times",
        figures.kept(),
    );
    vec![
        Figure::new("1 % loss, TCP, host to host", "Mbit/s", hosts),
        Figure::new(
            "1 % loss, TCP, container to container",
            "Mbit/s",
            containers,
        ),
        kept.bound(Bound::Above(KEPT_MIN)),
    ]
}
