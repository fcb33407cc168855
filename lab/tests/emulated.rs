//! Emulated wires between real hosts.
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::time::Duration;

use rmesh_lab::probe::{self, PingOptions, PingReport, tcp_transfer};
use rmesh_lab::{Family, Host, Lab, Link, WireProfile};

fn two_hosts(name: &str) -> (Lab, Host, Host, Link) {
    let mut lab = Lab::new(name).unwrap();
    let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
    let link = lab.emulated_link(&a, &b, Family::Both, 1).unwrap();
    (lab, a, b, link)
}

fn ping(from: &Host, to: &Host, link: &Link, count: u64, payload: usize) -> PingReport {
    let options = PingOptions {
        count,
        interval: Duration::from_millis(5),
        timeout: Duration::from_millis(300),
    };
    probe::ping_with_payload(from, link.address(to, false), options, payload).unwrap()
}

#[test]
fn an_emulated_wire_is_a_wire() {
    let (_lab, a, b, link) = two_hosts("emulated");
    assert_eq!(ping(&a, &b, &link, 20, 1_400).received, 20);
    let limit = Duration::from_secs(10);
    let report = tcp_transfer(&a, &b, link.address(&b, true), 10 << 20, limit).unwrap();
    let counters = link.counters_towards(&b);
    println!("10 MiB in {:?}; {counters:?}", report.elapsed);
    assert!(report.intact, "{report:?}");
    // Frames are whole: no segmentation offload hides them.
    assert!(counters.carried > (10 << 20) / 1_500, "{counters:?}");
    link.cut_towards(&b).unwrap();
    assert_eq!(ping(&a, &b, &link, 3, 8).received, 0);
    link.restore().unwrap();
    assert_eq!(ping(&a, &b, &link, 3, 8).received, 3);
}

#[test]
fn a_profile_does_what_it_says_and_can_change() {
    let (_lab, a, b, link) = two_hosts("profile");
    link.shape(WireProfile {
        latency: Duration::from_millis(20),
        loss: 0.1,
        duplication: 0.1,
        ..WireProfile::default()
    });
    let report = ping(&a, &b, &link, 300, 8);
    let fastest = report.round_trips.iter().min().unwrap();
    println!(
        "{} of {}, {} twice, fastest {fastest:?}",
        report.received, report.sent, report.duplicates
    );
    assert!((220..265).contains(&report.received), "{}", report.received);
    assert!(report.duplicates > 20, "{}", report.duplicates);
    assert!(*fastest >= Duration::from_millis(40) && *fastest < Duration::from_millis(60));
    let towards = link.counters_towards(&b);
    assert!(towards.lost > 10 && towards.duplicated > 10, "{towards:?}");
    // One direction swallows what is long, and nobody is told.
    link.shape(WireProfile::default());
    link.shape_towards(
        &b,
        WireProfile {
            packet_len_max: Some(1_300),
            ..WireProfile::default()
        },
    );
    assert_eq!(ping(&a, &b, &link, 5, 1_200).received, 5);
    assert_eq!(ping(&a, &b, &link, 5, 1_300).received, 0);
    assert_eq!(ping(&b, &a, &link, 5, 1_272).received, 5);
    assert!(link.counters_towards(&b).too_long >= 5);
}

#[test]
fn a_rate_holds_for_what_is_sent_without_care() {
    let (_lab, a, b, link) = two_hosts("rate");
    link.shape_towards(
        &b,
        WireProfile {
            rate_bits: Some(8_000_000),
            ..WireProfile::default()
        },
    );
    let limit = Duration::from_secs(20);
    let report = tcp_transfer(&a, &b, link.address(&b, false), 2 << 20, limit).unwrap();
    println!("2 MiB at 8 Mbit/s in {:?}", report.elapsed);
    assert!(report.intact);
    assert!(report.elapsed > Duration::from_millis(1_800), "{report:?}");
}
