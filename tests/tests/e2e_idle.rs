//! What a peer costs that has nothing to do.

use std::time::Duration;

use rmesh_tests::idle;
use rmesh_tests::story;

#[test]
fn an_idle_peer_costs_next_to_nothing() {
    let mut story = story!("idle");
    let figures = idle::measure(&mut story, Duration::from_secs(10));
    println!("{figures}");
    assert!(figures.rss_bytes_max < idle::RSS_MAX, "{figures}");
    assert!(
        figures.cpu_max < idle::CPU_MAX * f64::from(story::SLACK),
        "{figures}"
    );
}
