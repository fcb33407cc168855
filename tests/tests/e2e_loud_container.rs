//! A container that sends as fast as it can, small datagrams and broadcasts, takes no path, no session and no
//! neighbour's last word.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rmesh_lab::probe::Pinger;
use rmesh_tests::story;

/// Long enough for eight probes in a row to go missing, which end a path, and for five renewals.
const LOUD_FOR: Duration = Duration::from_secs(6);
/// As many threads as this flood has, it has sockets and flows, so that each worker gets some.
const SENDERS: usize = 4;
const REKEY: [&str; 2] = ["--rekey-after", "1s"];
/// Part of its neighbour's pings that come through at least.
const PINGS_MIN: f64 = 0.25;

/// Sends as fast as it can while `running`, and counts in `sent`.
fn send(socket: &UdpSocket, to: SocketAddr, running: &AtomicBool, sent: &AtomicU64) {
    while running.load(Ordering::Relaxed) {
        let taken = socket.send_to(&[7; 64], to).is_ok();
        sent.fetch_add(u64::from(taken), Ordering::Relaxed);
    }
}

#[test]
fn a_loud_container_ends_no_path_and_no_session() {
    let mut story = story!("loud");
    let [a, b] = story.hosts(["a", "b"]);
    let ab = story.link(&a, &b);
    let target = ab.address(&b, false).to_string();
    let routers = [
        story.launch_with(&a, &[&target], &REKEY),
        story.launch_with(&b, &[], &REKEY),
    ];
    story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
    let loud = story.container(&a, "loud", "10.32.0.1/24");
    let calm = story.container(&a, "calm", "10.32.0.2/24");
    let far = story.container(&b, "far", "10.32.0.3/24");
    let address: IpAddr = "10.32.0.3".parse().expect("an address");
    for from in [&loud, &calm] {
        story.expect_ping(Duration::from_secs(2), from, address);
    }
    let sink = far
        .enter(|| UdpSocket::bind(SocketAddr::new(address, 9_000)))
        .expect("a socket");
    let sockets: Vec<UdpSocket> = (0..SENDERS)
        .map(|_| {
            loud.enter(|| UdpSocket::bind("0.0.0.0:0"))
                .expect("a socket")
        })
        .collect();
    let completed = || {
        let count = &story.status(&a)["control"]["handshakes_completed"];
        count.as_u64().unwrap_or_default()
    };
    let before = completed();
    let (running, sent) = (AtomicBool::new(true), AtomicU64::new(0));
    let pinger = Pinger::start(&calm, address, Duration::from_millis(20)).expect("pings");
    std::thread::scope(|scope| {
        for (number, socket) in sockets.iter().enumerate() {
            // One of them to everybody.
            let to = match number {
                0 => "10.32.0.255:9000".parse().expect("an address"),
                _ => SocketAddr::new(address, 9_000),
            };
            socket.set_broadcast(true).expect("an option");
            let (running, sent) = (&running, &sent);
            scope.spawn(move || send(socket, to, running, sent));
        }
        std::thread::sleep(LOUD_FOR);
        running.store(false, Ordering::Relaxed);
    });
    let pings = pinger.stop().expect("pings");
    let renewed = completed() - before;
    println!(
        "{} datagrams in {LOUD_FOR:?}; {renewed} renewals; the neighbour's pings: {} of {}, longest gap {:?}",
        sent.load(Ordering::Relaxed),
        pings.received,
        pings.sent,
        pings.longest_gap
    );
    println!("drops {}", story.status(&a)["frames"]["drops"]);
    drop(sink);
    assert!(sent.load(Ordering::Relaxed) > 100_000);
    for router in &routers {
        assert!(!router.logged().contains("is down"), "{}", router.logged());
    }
    assert!(renewed >= 3, "{renewed} renewals");
    let part = f64::from(pings.received as u32) / f64::from(pings.sent as u32);
    assert!(part >= PINGS_MIN, "{part} of the pings came through");
    // Afterwards everything is as before at once.
    story.expect_ping(Duration::from_secs(2), &calm, address);
}
