//! What a peer costs that has nothing to do.

use std::time::Duration;

use rmesh_tests::idle;
use rmesh_tests::story;

#[test]
fn an_idle_peer_costs_next_to_nothing() {
    let mut story = story!("idle");
    let figures = idle::measure(&mut story, idle::JOINED, Duration::from_secs(10));
    println!("{figures}");
    // The bound is for a release, and `rmesh-bench` judges it; the code of a development build alone
    // takes several megabytes more.
    assert!(figures.rss_bytes_max < idle::RSS_MAX * 3 / 2, "{figures}");
    assert!(
        figures.cpu_max < idle::CPU_MAX * f64::from(story::SLACK),
        "{figures}"
    );
    // A count, which no clock and no compiler changes.
    assert!(
        figures.wakeups_per_s_max < idle::WAKEUPS_PER_S_MAX,
        "{figures}"
    );
}
