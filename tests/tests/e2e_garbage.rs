//! Datagrams from strangers move counters and nothing else.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rmesh_lab::probe::Pinger;
use rmesh_tests::story;

/// Small, fast and the same each time.
fn dice(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Garbage of every kind: noise, rmesh headers with noise behind them, replays of real datagrams
/// cannot be had here; lengths from nothing to the largest.
fn garbage(seed: &mut u64) -> Vec<u8> {
    let length = match dice(seed) % 4 {
        0 => dice(seed) % 64,
        1 => dice(seed) % 1500,
        2 => 16 + dice(seed) % 200,
        _ => 9000,
    };
    let mut bytes: Vec<u8> = (0..length).map(|_| dice(seed) as u8).collect();
    if !dice(seed).is_multiple_of(4) {
        let kind = (dice(seed) % 6) as u8;
        if let Some(first) = bytes.first_mut() {
            *first = 0x10 | kind;
        }
        // A receiver index and lane that may well exist.
        let small = dice(seed).is_multiple_of(3);
        bytes
            .iter_mut()
            .skip(1)
            .take(12)
            .filter(|_| small)
            .for_each(|byte| *byte &= 1);
    }
    bytes
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
fn a_flood_of_garbage_moves_only_counters() {
    let mut story = story!("garbage");
    let [a, b, stranger] = story.hosts(["a", "b", "s"]);
    let ab = story.link(&a, &b);
    let wire = story.link(&a, &stranger);
    let routers = [
        story.launch(&a, &[ab.address(&b, false)]),
        story.launch(&b, &[]),
    ];
    story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
    let one = story.container(&a, "one", "10.32.0.1/24");
    let _two = story.container(&b, "two", "10.32.0.2/24");
    let far: IpAddr = "10.32.0.2".parse().expect("an address");
    story.expect_ping(Duration::from_secs(2), &one, far);
    let before = story.status(&a);
    let pinger = Pinger::start(&one, far, Duration::from_millis(20)).expect("pings");

    let start = Instant::now();
    let targets = [wire.address(&a, false), wire.address(&a, true)];
    let sent = stranger.enter(|| {
        let sockets = [UdpSocket::bind("0.0.0.0:0"), UdpSocket::bind("[::]:0")];
        let sockets = sockets.map(|socket| socket.expect("a socket"));
        let (mut seed, mut sent) = (0x9e37_79b9_7f4a_7c15, 0u64);
        while start.elapsed() < Duration::from_secs(5) {
            let at = (dice(&mut seed) % 2) as usize;
            let target = SocketAddr::new(targets[at], 6783);
            sent += u64::from(sockets[at].send_to(&garbage(&mut seed), target).is_ok());
            if sent % 64 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        sent
    });
    let pings = pinger.stop().expect("pings");
    println!(
        "{sent} datagrams of garbage in {:.1?}; pings meanwhile: {} of {}, longest gap {:?}",
        start.elapsed(),
        pings.received,
        pings.sent,
        pings.longest_gap
    );
    assert!(sent > 10_000);
    assert!(pings.received * 10 >= pings.sent * 9, "traffic suffers");
    let after = story.status(&a);
    println!("before {}\nafter {}", before["control"], after["control"]);
    for same in [
        "peers_total",
        "peers_reachable",
        "peers_direct",
        "attached",
        "boot",
        "pid",
    ] {
        assert_eq!(before[same], after[same], "{same}");
    }
    for counter in ["records_accepted", "records_refused"] {
        let [before, after] = [&before, &after].map(|status| status["control"][counter].as_u64());
        assert!(
            after <= before.map(|count| count + 10),
            "{counter}: {before:?} to {after:?}"
        );
    }
    assert!(routers.iter().all(|router| router.process.is_running()));
    let moved = [
        "datagrams_ignored",
        "datagrams_forged",
        "handshakes_refused",
    ]
    .iter()
    .any(|name| after["control"][name].as_u64() > before["control"][name].as_u64());
    assert!(
        moved || after["frames"] != before["frames"],
        "garbage must be counted"
    );
}
