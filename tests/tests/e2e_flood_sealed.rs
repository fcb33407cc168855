//! A flood of what looks like a session's own control records ends no session and takes no path.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rmesh_lab::probe::{Capture, Pinger};
use rmesh_tests::fuzz::Mutator;
use rmesh_tests::hostile::{Attacker, Datagram};
use rmesh_tests::story;

/// Long enough for eight probes in a row to go missing, which end a path.
const FLOOD_TIME: Duration = Duration::from_secs(5);

/// Records of lane 0 that came to the victim, each as `change` leaves it, some times over.
fn payloads(real: &[Datagram], mut change: impl FnMut(&mut Vec<u8>)) -> Vec<Vec<u8>> {
    let records = real.iter().cycle().take(256).map(|datagram| {
        let mut payload = datagram.payload.clone();
        change(&mut payload);
        payload
    });
    records.collect()
}

#[test]
fn a_flood_of_forged_control_records_ends_no_session() {
    let mut story = story!("floodsealed");
    let [a, b, stranger] = story.hosts(["a", "b", "s"]);
    let (ab, wire) = (story.link(&a, &b), story.link(&a, &stranger));
    let routers = [
        story.launch(&a, &[ab.address(&b, false)]),
        story.launch(&b, &[]),
    ];
    story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
    let one = story.container(&a, "one", "10.32.0.1/24");
    let _two = story.container(&b, "two", "10.32.0.2/24");
    let far: IpAddr = "10.32.0.2".parse().expect("an address");
    story.expect_ping(Duration::from_secs(2), &one, far);
    let capture = Capture::start(&a, &ab.interface(&a)).expect("a capture");
    std::thread::sleep(Duration::from_secs(3));
    let frames = capture.stop();
    let to = ab.address(&a, false);
    let datagrams = frames.iter().filter_map(|frame| Datagram::parse(frame));
    let real: Vec<Datagram> = datagrams
        .filter(|d| IpAddr::V4(*d.destination.ip()) == to && d.is_record() && d.lane() == Some(0))
        .collect();
    assert!(!real.is_empty());

    let mut dice = Mutator::new(8);
    let floods = [
        ("forged", payloads(&real, |bytes| bytes[20] ^= 0x55)),
        ("replayed", payloads(&real, |_| ())),
        (
            "of unknown sessions",
            payloads(&real, |bytes| {
                bytes[4..8].fill_with(|| dice.below(256) as u8)
            }),
        ),
    ];
    let completed = |status: &serde_json::Value| status["control"]["handshakes_completed"].clone();
    let before = story.status(&a);
    let pid = routers[0].process.pid();
    let mut attacker = Attacker::new(&stranger, &wire, &a, pid).expect("a wire");
    for (name, payloads) in &floods {
        let pinger = Pinger::start(&one, far, Duration::from_millis(20)).expect("pings");
        let running = AtomicBool::new(true);
        let sent = std::thread::scope(|scope| {
            let flood = scope.spawn(|| attacker.flood(payloads, &running));
            std::thread::sleep(FLOOD_TIME);
            running.store(false, Ordering::Relaxed);
            flood
                .join()
                .unwrap_or_else(|p| std::panic::resume_unwind(p))
        });
        let pings = pinger.stop().expect("pings");
        println!(
            "{sent} {name} in {FLOOD_TIME:?}; pings meanwhile: {} of {}, longest gap {:?}",
            pings.received, pings.sent, pings.longest_gap
        );
        let drops = &story.status(&a)["frames"]["drops"];
        println!("drops {drops}");
        assert!(sent > 100_000);
        assert_eq!(drops["inbox_full"], serde_json::Value::Null, "{name}");
        for router in &routers {
            assert!(!router.logged().contains("is down"), "{}", router.logged());
        }
    }
    let after = story.status(&a);
    assert_eq!(completed(&before), completed(&after), "no session is new");
    for drop in ["forged", "replayed", "unknown_session"] {
        assert!(
            after["frames"]["drops"][drop].as_u64() > Some(10_000),
            "{drop}"
        );
    }
}
