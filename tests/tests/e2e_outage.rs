//! A wire is cut without a sound under load: traffic goes another way within a second, and comes back
//! without a loss.

use rmesh_tests::outage::{OUTAGE_MAX, Triangle};
use rmesh_tests::story;

const CUTS: usize = 5;

fn expect_short_outages(name: &str, flags: &[&str], kind: &str) {
    let mut story = story!(name);
    let triangle = Triangle::start(&mut story, flags);
    for cut in 0..CUTS {
        let outage = triangle.cut_once(&story, kind);
        println!("cut {cut}: {outage:?}");
        story.expect_took(OUTAGE_MAX, "outage", outage.cut);
        assert_eq!(outage.lost_coming_back, 0, "datagrams lost coming back");
    }
}

#[test]
fn a_silent_cut_stops_encrypted_traffic_for_less_than_a_second() {
    expect_short_outages("outage", &[], "direct");
}

#[test]
fn a_silent_cut_moves_plaintext_traffic_to_a_relay() {
    expect_short_outages("vxoutage", &["--no-encryption"], "vxlan");
}
