//! Bad wires: what is lost is lost, but nothing is corrupted and nothing comes twice.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use rmesh_lab::probe::{EtherListener, PingOptions, Pinger, TcpStreamProbe, ping, tcp_transfer};
use rmesh_lab::{Container, Namespace, WireProfile};
use rmesh_tests::story;
use rmesh_tests::story::{INTERFACE, Story};
use rmesh_tests::stream::Stream;

/// IEEE Std 802: for local experiments.
const ETHERTYPE: u16 = 0x88b5;
const BROADCASTS: u64 = 1_000;

/// What the issue asks for: 1 % loss and 20 ms, with frames that come late or twice.
fn bad() -> WireProfile {
    WireProfile {
        latency: Duration::from_millis(20),
        jitter: Duration::from_millis(2),
        loss: 0.01,
        duplication: 0.01,
        reordering: 0.02,
        ..WireProfile::default()
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Pings and transfers both ways are right, as often as two crossings of `hops` bad wires let them.
fn expect_right(story: &Story, from: &Container, to: &Container, to_address: IpAddr, hops: u32) {
    let options = PingOptions {
        count: 300,
        interval: Duration::from_millis(10),
        timeout: Duration::from_secs(1),
    };
    let pings = ping(from, to_address, options).expect("pings");
    println!(
        "{hops} hops: {} of {} pings, {} twice, median {:?}",
        pings.received,
        pings.sent,
        pings.duplicates,
        pings.round_trips.get(pings.round_trips.len() / 2)
    );
    assert_eq!(pings.duplicates, 0, "a record was taken twice");
    // 1 % each way and hop; a healthy mesh adds nothing to it.
    assert!(pings.received * 100 >= pings.sent * u64::from(100 - 6 * hops));
    let stream =
        Stream::start(from, to, to_address, Duration::from_millis(2), 900).expect("sockets");
    let limit = Duration::from_secs(60);
    let transfer = tcp_transfer(from, to, to_address, 1 << 20, limit).expect("a connection");
    let report = stream.stop();
    println!(
        "{hops} hops: 1 MiB by TCP in {:?}; UDP meanwhile {report:?}",
        transfer.elapsed
    );
    assert!(transfer.intact, "{transfer:?}");
    assert_eq!(report.duplicated, 0);
    assert!(
        report.lost * 100 <= report.sent * u64::from(3 * hops),
        "{report:?}"
    );
    story.expect_took(limit, "1 MiB over bad wires", transfer.elapsed);
}

/// Numbered broadcasts: none comes twice, and hardly more are lost than the wires lose.
fn expect_broadcasts_once(from: &Namespace, to: &[(&Container, u32)]) {
    let listeners: Vec<EtherListener> = to
        .iter()
        .map(|(at, _)| EtherListener::start(at, INTERFACE, ETHERTYPE).expect("a listener"))
        .collect();
    for number in 0..BROADCASTS {
        let payload = [&number.to_be_bytes()[..], &[0x5a; 56]].concat();
        EtherListener::send(from, INTERFACE, [0xff; 6], ETHERTYPE, &payload).expect("a frame");
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(Duration::from_millis(500));
    for (listener, (at, hops)) in listeners.into_iter().zip(to) {
        let mut seen: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        for frame in listener.stop() {
            assert_eq!(frame[22..], [0x5a; 56], "a corrupted broadcast");
            *seen.entry(frame[14..22].to_vec()).or_default() += 1;
        }
        let twice = seen.values().filter(|count| **count > 1).count();
        println!(
            "{}: {} of {BROADCASTS} broadcasts, {twice} twice",
            at.name(),
            seen.len()
        );
        assert_eq!(twice, 0, "a broadcast was delivered twice");
        let least = BROADCASTS * u64::from(100 - 4 * hops) / 100;
        assert!(seen.len() as u64 >= least, "too many broadcasts lost");
    }
}

#[test]
fn over_bad_wires_everything_is_right_and_comes_once() {
    let mut story = story!("badwires");
    let [a, b, c] = story.hosts(["a", "b", "c"]);
    let links = [
        story.emulated_link(&a, &b, 1),
        story.emulated_link(&b, &c, 2),
    ];
    links.iter().for_each(|link| link.shape(bad()));
    let routers = [
        story.launch(&a, &[links[0].address(&b, false)]),
        story.launch(&b, &[]),
        story.launch(&c, &[links[1].address(&b, true)]),
    ];
    story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
    let one = story.container(&a, "one", "10.32.0.1/24");
    let two = story.container(&b, "two", "10.32.0.2/24");
    let three = story.container(&c, "three", "10.32.0.3/24");
    for far in ["10.32.0.2", "10.32.0.3"] {
        story.expect_ping(Duration::from_secs(2), &one, address(far));
    }
    assert_eq!(story.path_kind(&a, &c), "relay");
    expect_right(&story, &one, &two, address("10.32.0.2"), 1);
    expect_right(&story, &three, &one, address("10.32.0.1"), 2);
    expect_broadcasts_once(&one, &[(&two, 1), (&three, 2)]);
    for link in &links {
        println!("towards b {:?}", link.counters_towards(&b));
    }
    for router in &routers {
        let drops = &story.status(&router.host)["frames"]["drops"];
        println!("{} dropped {drops}", router.host.short_name());
        assert_eq!(drops["forged"], serde_json::Value::Null, "{drops}");
        assert!(!router.logged().contains("is down"), "{}", router.logged());
    }
}

#[test]
fn a_silent_size_limit_in_mid_transfer_is_left_within_seconds() {
    let mut story = story!("blackhole");
    let [a, b] = story.hosts(["a", "b"]);
    let link = story.emulated_link(&a, &b, 3);
    let routers = [
        story.launch(&a, &[link.address(&b, false)]),
        story.launch(&b, &[]),
    ];
    story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
    let one = story.container(&a, "one", "10.32.0.1/24");
    let two = story.container(&b, "two", "10.32.0.2/24");
    story.expect_ping(Duration::from_secs(2), &one, address("10.32.0.2"));
    let is_full = || story.peer(&a, &b)["path_mtu_bytes"] == 1_500;
    story.expect_within(Duration::from_secs(3), "the full size is found", is_full);
    link.shape(WireProfile {
        packet_len_max: Some(1_350),
        latency: Duration::from_millis(5),
        ..WireProfile::default()
    });
    let transfer = tcp_transfer(
        &one,
        &two,
        address("10.32.0.2"),
        4 << 20,
        Duration::from_secs(60),
    );
    let transfer = transfer.expect("a connection");
    println!(
        "{:?} of 4 MiB in {:?}; {:?}",
        transfer.received,
        transfer.elapsed,
        link.counters_towards(&b)
    );
    assert!(transfer.intact && link.counters_towards(&b).too_long > 0);
    story.expect_took(
        Duration::from_secs(10),
        "4 MiB into a black hole",
        transfer.elapsed,
    );
    let is_found = || story.peer(&a, &b)["path_mtu_found"] == true;
    story.expect_within(Duration::from_secs(5), "the size is found", is_found);
    assert_eq!(story.peer(&a, &b)["path_mtu_bytes"], 1_350);
    assert_eq!(story.path_kind(&a, &b), "direct");
}

#[test]
fn a_wire_that_carries_one_way_only_is_left_and_taken_again() {
    let mut story = story!("oneway");
    let [a, b, c] = story.hosts(["a", "b", "c"]);
    let ab = story.emulated_link(&a, &b, 4);
    let (bc, ac) = (story.link(&b, &c), story.link(&a, &c));
    ab.shape(WireProfile {
        latency: Duration::from_millis(5),
        ..WireProfile::default()
    });
    let routers = [
        story.launch(&a, &[ab.address(&b, false), ac.address(&c, false)]),
        story.launch(&b, &[bc.address(&c, false)]),
        story.launch(&c, &[]),
    ];
    story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
    let one = story.container(&a, "one", "10.32.0.1/24");
    let two = story.container(&b, "two", "10.32.0.2/24");
    let is_direct = || story.path_kind(&a, &b) == "direct" && story.path_kind(&b, &a) == "direct";
    story.expect_within(Duration::from_secs(5), "a direct path", is_direct);
    let pinger =
        Pinger::start(&one, address("10.32.0.2"), Duration::from_millis(10)).expect("pings");
    let stream = TcpStreamProbe::start(&one, &two, address("10.32.0.2")).expect("a connection");
    ab.shape_towards(
        &b,
        WireProfile {
            loss: 1.0,
            ..WireProfile::default()
        },
    );
    let is_relayed = || story.path_kind(&a, &b) == "relay" && story.path_kind(&b, &a) == "relay";
    story.expect_within(Duration::from_secs(3), "both take the relay", is_relayed);
    ab.shape(WireProfile::default());
    story.expect_within(Duration::from_secs(5), "the direct path again", is_direct);
    let (pings, report) = (pinger.stop().expect("pings"), stream.stop());
    println!(
        "pings {} of {}, longest gap {:?}; {report:?}",
        pings.received, pings.sent, pings.longest_gap
    );
    assert_eq!(report.error, None);
    // What still arrives hides the loss from the data plane: probes alone, one a second, tell.
    story.expect_took(Duration::from_secs(3), "the outage", pings.longest_gap);
}
