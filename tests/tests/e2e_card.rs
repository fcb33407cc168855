//! Network cards that get the checksums inside VXLAN wrong, as some do, and the kernel's own way.

use std::time::Duration;

use rmesh_lab::Card;
use rmesh_lab::probe::tcp_transfer;
use rmesh_tests::pair::{Pair, address};
use rmesh_tests::story;

const PLAIN: &[&str] = &["--no-encryption"];
const BYTES: u64 = 8 << 20;
const WARNING: &str = "the network card gets checksums inside VXLAN wrong";

/// A pair on such a wire, once it is on VXLAN.
fn pair(name: &str, card: Card, limit: Duration) -> Pair {
    let mut story = story!(name);
    let hosts = story.hosts(["a", "b"]);
    let link = story.link_with_cards(&hosts[0], &hosts[1], card);
    let pair = Pair::on(story, hosts, link, [PLAIN, PLAIN]);
    pair.expect_ping();
    pair.expect_both(limit, "vxlan");
    pair
}

fn damaged(pair: &Pair) -> [u64; 2] {
    let counters = |host| pair.link.counters_towards(host).damaged;
    pair.hosts.each_ref().map(counters)
}

/// Both ways at full size; whether all of it came by VXLAN.
fn transfer(pair: &Pair) {
    let [one, two] = &pair.containers;
    for (from, to, last) in [(one, two, 2), (two, one, 1)] {
        let limit = Duration::from_secs(30);
        let report = tcp_transfer(from, to, address(last), BYTES, limit).expect("a connection");
        println!("{BYTES} bytes in {:?}", report.elapsed);
        assert!(report.intact, "{report:?}");
    }
    assert!(pair.are("vxlan"));
}

fn warnings(pair: &Pair) -> [String; 2] {
    let text = |host| pair.story.succeed(host, &["status"]);
    pair.hosts.each_ref().map(text)
}

#[test]
fn a_card_that_breaks_checksums_is_found_at_start_and_done_without() {
    let pair = pair("card", Card::DamagesVxlan, Duration::from_secs(5));
    let found = damaged(&pair);
    assert!(found.iter().all(|count| *count > 0), "{found:?}");
    transfer(&pair);
    // Nothing was left to the cards once it was known.
    assert_eq!(damaged(&pair), found);
    for (text, router) in warnings(&pair).iter().zip(&pair.routers) {
        assert!(text.contains(WARNING), "{text}");
        assert!(router.logged().contains(WARNING), "{}", router.logged());
    }
    // A router that starts again knows it from the device.
    let Pair {
        mut story,
        hosts,
        link,
        containers,
        routers,
    } = pair;
    let [a, b] = &hosts;
    routers[0].kill();
    let peer = link.address(b, false).to_string();
    let again = story.launch_with(a, &[&peer], PLAIN);
    let [_, other] = routers;
    let pair = Pair {
        story,
        hosts,
        link,
        containers,
        routers: [again, other],
    };
    pair.expect_both(Duration::from_secs(5), "vxlan");
    transfer(&pair);
    assert_eq!(damaged(&pair), found);
    assert!(warnings(&pair).iter().all(|text| text.contains(WARNING)));
}

#[test]
fn a_card_that_loses_what_it_should_complete_is_found_too() {
    let pair = pair("loses", Card::LosesVxlan, Duration::from_secs(30));
    let found = damaged(&pair);
    transfer(&pair);
    assert_eq!(damaged(&pair), found);
    assert!(warnings(&pair).iter().all(|text| text.contains(WARNING)));
}

#[test]
fn nothing_is_taken_from_a_card_that_works() {
    let pair = pair("sound", Card::Completes, Duration::from_secs(5));
    transfer(&pair);
    assert_eq!(damaged(&pair), [0, 0]);
    assert!(!warnings(&pair).iter().any(|text| text.contains(WARNING)));
}
