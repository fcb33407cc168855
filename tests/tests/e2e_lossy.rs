//! A wire that loses, doubles and holds back frames: no byte is changed, and containers carry hardly
//! less than their hosts.

use std::net::IpAddr;
use std::time::Duration;

use rmesh_lab::probe::tcp_transfer;
use rmesh_tests::lossy::{KEPT_MIN, LossyScene, measure};
use rmesh_tests::story;
use rmesh_tests::story::Story;

/// A busy machine is not a defect, half of what is asked for is.
const KEPT_ALARM: f64 = KEPT_MIN / 2.0;
const TRANSFER_LEN: u64 = 4 << 20;
const PLAIN: [&str; 2] = ["--without", "super-frames"];

/// Transfers both ways at once.
fn expect_intact(story: &Story, scene: &LossyScene) {
    let [one, two] = &scene.containers;
    let limit = Duration::from_secs(30);
    std::thread::scope(|scope| {
        for (from, to, last) in [(one, two, 2), (two, one, 1)] {
            scope.spawn(move || {
                let address = IpAddr::from([10, 32, 0, last]);
                let report = tcp_transfer(from, to, address, TRANSFER_LEN, limit * story::SLACK);
                let report = report.expect("a connection");
                println!("to {address}: {report:?}");
                assert!(report.intact, "{report:?}");
                story.expect_took(limit, "4 MiB over a bad wire", report.elapsed);
            });
        }
    });
    for host in &scene.hosts {
        let drops = &story.status(host)["frames"]["drops"];
        println!("{}: {}", host.short_name(), drops);
        for reason in ["forged", "bad_super_frame", "bad_payload", "port_write"] {
            assert_eq!(drops[reason], serde_json::Value::Null, "{drops}");
        }
        // What the wire doubled.
        assert!(drops["replayed"].as_u64() > Some(0), "{drops}");
    }
}

#[test]
fn containers_keep_most_of_what_their_hosts_carry_over_a_bad_wire() {
    let mut story = story!("lossy");
    let scene = LossyScene::start(&mut story, [&[], &[]]);
    let kept = measure(&story, &scene).kept();
    println!("containers keep {kept:.3} of what hosts carry (bound {KEPT_MIN})");
    assert!(kept > KEPT_ALARM);
    expect_intact(&story, &scene);
}

#[test]
fn no_byte_is_changed_between_a_fast_and_a_plain_port_over_a_bad_wire() {
    let mut story = story!("lossymix");
    let scene = LossyScene::start(&mut story, [&[], &PLAIN]);
    expect_intact(&story, &scene);
}
