//! Datagrams from strangers move counters and nothing else.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use rmesh_lab::probe::{Capture, Pinger};
use rmesh_lab::{Host, Link};
use rmesh_tests::fuzz::Mutator;
use rmesh_tests::hostile::{Attacker, Datagram, PORT, Vitals, lines_per_second_max};
use rmesh_tests::story;
use rmesh_tests::story::{OTHER_SECRET, Router, Story};

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
        let (mut dice, mut sent) = (Mutator::new(1), 0u64);
        while start.elapsed() < Duration::from_secs(5) {
            let at = dice.below(2);
            let target = SocketAddr::new(targets[at], 6783);
            sent += u64::from(sockets[at].send_to(&dice.noise(), target).is_ok());
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

/// Hostile datagrams of the long test.
const MILLION: u64 = 1_000_000;
/// Memory that a daemon under attack may take for its full queues and buffers, in bytes.
const GROWTH_MAX: u64 = 24 << 20;
/// Lines a second that strangers may make a daemon write.
const LINES_MAX: usize = 10;

fn v4(link: &Link, host: &Host) -> Ipv4Addr {
    match link.address(host, false) {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => unreachable!("asked for IPv4"),
    }
}

/// A daemon before or after an attack.
struct Look {
    /// What must not change, whatever strangers send.
    standing: Vec<serde_json::Value>,
    vitals: Vitals,
    status: serde_json::Value,
}

impl Look {
    fn at(story: &Story, host: &Host, pid: u32) -> Look {
        let status = story.status(host);
        let mut standing = vec![status["control"]["handshakes_completed"].clone()];
        let names = [
            "peers_total",
            "peers_reachable",
            "peers_direct",
            "attached",
            "boot",
            "pid",
        ];
        standing.extend(names.map(|name| status[name].clone()));
        for peer in story.peers(host) {
            standing.extend(["name", "session", "path"].map(|name| peer[name].clone()));
        }
        let vitals = Vitals::settled(pid).expect("a running daemon");
        Look {
            standing,
            vitals,
            status,
        }
    }

    fn control(&self, counter: &str) -> u64 {
        self.status["control"][counter].as_u64().unwrap_or_default()
    }

    fn expect_only_counters_moved(&self, after: &Look) {
        println!("{:?}\n{:?}", self.vitals, after.vitals);
        for side in ["control", "frames"] {
            println!(
                "{side} before {}\nafter {}",
                self.status[side], after.status[side]
            );
        }
        assert_eq!(self.standing, after.standing);
        let received = |look: &Look| look.status["frames"]["datagrams_received"].as_u64();
        assert!(received(after) >= received(self).map(|count| count + MILLION * 99 / 100));
        assert!(
            after.vitals.rss_bytes <= self.vitals.rss_bytes + GROWTH_MAX,
            "memory grows"
        );
        assert_eq!(after.vitals.descriptors, self.vitals.descriptors);
        for counter in ["datagrams_ignored", "handshakes_refused"] {
            assert!(after.control(counter) > self.control(counter), "{counter}");
        }
        for reason in ["forged", "replayed", "unknown_session", "unknown_version"] {
            let drops = |look: &Look| look.status["frames"]["drops"][reason].as_u64();
            assert!(drops(after) > drops(self), "{reason}");
        }
    }
}

/// Sends a million datagrams made of real ones, under true and false addresses; returns the most
/// memory the victim was seen to hold.
fn attack(attackers: &mut [(Attacker, Ipv4Addr); 2], real: &[Datagram], victim: u32) -> u64 {
    let mut dice = Mutator::new(3);
    let mut most = 0;
    for number in 0..MILLION {
        let (attacker, own) = &mut attackers[dice.below(2)];
        let [x, y, z, last] = own.octets();
        let ip = match dice.below(2) {
            0 => *own,
            _ => Ipv4Addr::new(x, y, z, last.wrapping_add(dice.below(200) as u8)),
        };
        let port = match dice.below(2) {
            0 => PORT,
            _ => 1_024 + dice.below(60_000) as u16,
        };
        let source = SocketAddrV4::new(ip, port);
        // Every fourth is as it was recorded, but out of its order.
        match dice.below(4) {
            0 => attacker.send(source, &real[dice.below(real.len())].payload),
            _ => attacker.send(source, &dice.next(real)),
        }
        if number.is_multiple_of(100_000) {
            most = most.max(Vitals::of(victim).expect("a running daemon").rss_bytes);
        }
    }
    attackers
        .iter()
        .for_each(|(attacker, _)| attacker.wait_below(0));
    most
}

/// A peer with a wrong secret, which never stops calling.
fn launch_outsider(story: &mut Story, host: &Host, target: IpAddr) -> Router {
    let secret = story
        .file("wrong", OTHER_SECRET, 0o600)
        .display()
        .to_string();
    let target = target.to_string();
    story.launch_bare(
        host,
        &["--name", "s", "--secret-file", &secret, &target],
        &[],
    )
}

#[test]
fn a_million_hostile_datagrams_change_nothing() {
    let mut story = story!("million");
    let [a, b, c, stranger] = story.hosts(["a", "b", "c", "s"]);
    let (ab, wire) = (story.link(&a, &b), story.link(&a, &stranger));
    let bc = story.link(&b, &c);
    let captures = [&ab, &wire].map(|link| Capture::start(&a, &link.interface(&a)));
    let routers = [
        story.launch(&a, &[ab.address(&b, false)]),
        story.launch(&b, &[]),
        story.launch(&c, &[bc.address(&b, false)]),
    ];
    story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
    let one = story.container(&a, "one", "10.32.0.1/24");
    let _two = story.container(&b, "two", "10.32.0.2/24");
    // Through a relay, so that every kind of datagram is there to be recorded.
    let _three = story.container(&c, "three", "10.32.0.3/24");
    let [near, far] =
        ["10.32.0.2", "10.32.0.3"].map(|ip| ip.parse::<IpAddr>().expect("an address"));
    for address in [near, far] {
        story.expect_ping(Duration::from_secs(2), &one, address);
    }
    assert_eq!(story.path_kind(&a, &c), "relay");
    let _wrong = launch_outsider(&mut story, &stranger, wire.address(&a, false));
    let pinger = Pinger::start(&one, far, Duration::from_millis(20)).expect("pings");
    std::thread::sleep(Duration::from_secs(2));
    let frames = captures
        .map(|capture| capture.expect("a capture").stop())
        .concat();
    let real: Vec<_> = frames
        .iter()
        .filter_map(|frame| Datagram::parse(frame))
        .collect();

    let pid = routers[0].process.pid();
    let before = Look::at(&story, &a, pid);
    // What a start says is not what strangers make it say.
    let said = std::fs::metadata(&routers[0].log).expect("the log").len();
    let mut attackers = [(&b, &ab), (&stranger, &wire)].map(|(from, link)| {
        (
            Attacker::new(from, link, &a, pid).expect("a wire"),
            v4(link, from),
        )
    });
    let start = Instant::now();
    let most = attack(&mut attackers, &real, pid);
    let took = start.elapsed();
    let pings = pinger.stop().expect("pings");
    let lines = lines_per_second_max(&routers[0].log, said);
    println!(
        "{MILLION} datagrams, made of {} real ones, in {took:.1?}; pings meanwhile: {} of {}, \
         longest gap {:?}; at most {most} bytes in RAM; {lines} lines a second",
        real.len(),
        pings.received,
        pings.sent,
        pings.longest_gap
    );
    before.expect_only_counters_moved(&Look::at(&story, &a, pid));
    assert!(most <= before.vitals.rss_bytes + GROWTH_MAX, "memory grows");
    assert!(lines <= LINES_MAX, "{lines}: {}", routers[0].logged());
    assert!(pings.received * 10 >= pings.sent * 9, "traffic suffers");
    assert_eq!(
        story.status(&stranger)["peers_total"],
        0,
        "a wrong secret opens nothing"
    );
    for address in [near, far] {
        story.expect_ping(Duration::from_secs(1), &one, address);
    }
}
