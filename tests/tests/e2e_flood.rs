//! A flood of handshakes costs a session little more than the core it is sent from.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rmesh_lab::probe::Capture;
use rmesh_lab::{Host, Link};
use rmesh_tests::fuzz::Mutator;
use rmesh_tests::hostile::{Attacker, Datagram};
use rmesh_tests::story;
use rmesh_tests::story::SLACK;
use rmesh_tests::throughput::Connection;
use rustix::thread::{CpuSet, sched_setaffinity};

/// The session is renewed in every measurement, under the flood too.
const REKEY: [&str; 2] = ["--rekey-after", "1s"];
/// Rounds of all four measurements, one after another.
const ROUNDS: usize = 5;
const MEASURED: Duration = Duration::from_secs(1);
/// What a flood may cost beyond the time of the core it is sent from.
const LOSS_MAX: f64 = 0.05;
/// Length of a first message, in bytes (docs/wire.md).
const FIRST_MESSAGE_LEN: usize = 368;

/// What one core does while a connection is measured.
enum Load<'a> {
    Quiet,
    /// Nothing useful: the time that sending a flood takes from everybody else.
    Hog,
    Flood(&'a [Vec<u8>]),
}

/// Runs `measure` under a load that has the last core of this machine for itself as far as it can.
fn under(load: &Load, attacker: &mut Attacker, measure: impl FnOnce() -> f64) -> (f64, u64) {
    let running = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let loader = scope.spawn(|| {
            let last = std::thread::available_parallelism().map_or(0, |cores| cores.get() - 1);
            let mut cores = CpuSet::new();
            cores.set(last);
            sched_setaffinity(None, &cores).expect("a core of this machine");
            match load {
                Load::Quiet => 0,
                Load::Hog => {
                    while running.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                    0
                }
                Load::Flood(payloads) => attacker.flood(payloads, &running),
            }
        });
        let measured = measure();
        running.store(false, Ordering::Relaxed);
        let sent = loader
            .join()
            .unwrap_or_else(|p| std::panic::resume_unwind(p));
        (measured, sent)
    })
}

/// What a machine can do while nothing else disturbs it: others only ever take away.
fn best(values: Vec<f64>) -> f64 {
    values.into_iter().fold(0.0, f64::max)
}

/// First messages of a wrong secret: nothing but noise behind the header.
fn spoofed() -> Vec<Vec<u8>> {
    let mut dice = Mutator::new(4);
    let mut message = || {
        let mut bytes: Vec<u8> = (0..FIRST_MESSAGE_LEN)
            .map(|_| dice.below(256) as u8)
            .collect();
        bytes[..4].copy_from_slice(&[0x11, 0, 0, 0]);
        bytes
    };
    (0..256).map(|_| message()).collect()
}

/// First messages of both ends, recorded while they renewed their session.
fn recorded(link: &Link, at: &Host) -> Vec<Vec<u8>> {
    let capture = Capture::start(at, &link.interface(at)).expect("a capture");
    std::thread::sleep(Duration::from_secs(5));
    let frames = capture.stop();
    let datagrams = frames.iter().filter_map(|frame| Datagram::parse(frame));
    let first = datagrams.filter(Datagram::is_first_message);
    first.map(|datagram| datagram.payload).collect()
}

fn renewals(status: &serde_json::Value) -> u64 {
    let count = &status["control"]["handshakes_completed"];
    count.as_u64().unwrap_or_default()
}

/// Datagrams that came to the daemon's sockets, read or not.
fn arrivals(status: &serde_json::Value) -> u64 {
    let frames = &status["frames"];
    let counts = [
        &frames["drops"]["strangers_buffer_full"],
        &frames["datagrams_received"],
    ];
    counts.iter().filter_map(|count| count.as_u64()).sum()
}

#[test]
fn a_flood_of_handshakes_costs_a_session_little() {
    let mut story = story!("flood");
    let [a, b, stranger] = story.hosts(["a", "b", "s"]);
    let (ab, wire) = (story.link(&a, &b), story.link(&a, &stranger));
    let target = ab.address(&b, false).to_string();
    let routers = [
        story.launch_with(&a, &[&target], &REKEY),
        story.launch_with(&b, &[], &REKEY),
    ];
    story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
    let one = story.container(&a, "one", "10.32.0.1/24");
    let two = story.container(&b, "two", "10.32.0.2/24");
    let far: IpAddr = "10.32.0.2".parse().expect("an address");
    story.expect_ping(Duration::from_secs(2), &one, far);
    let recorded = recorded(&ab, &a);
    println!("{} first messages recorded", recorded.len());
    assert!(recorded.len() >= 3);
    let spoofed = spoofed();

    let pid = routers[0].process.pid();
    let mut attacker = Attacker::new(&stranger, &wire, &a, pid).expect("a wire");
    let mut connection = Connection::open(&one, &two, far).expect("a connection");
    let loads = [
        ("quiet", Load::Quiet),
        ("a core busy", Load::Hog),
        ("spoofed flood", Load::Flood(&spoofed)),
        ("replayed flood", Load::Flood(&recorded)),
    ];
    let before = story.status(&a);
    let mut measured: [Vec<f64>; 4] = Default::default();
    let mut sent = [0; 4];
    for _ in 0..ROUNDS {
        for (at, (_, load)) in loads.iter().enumerate() {
            let measure = || connection.measure(MEASURED).expect("the connection lives");
            let (rate, count) = under(load, &mut attacker, measure);
            measured[at].push(rate);
            sent[at] += count;
        }
    }
    let after = story.status(&a);
    for (at, (name, _)) in loads.iter().enumerate() {
        println!(
            "{name}: {:.0?} Mbit/s; {} datagrams sent",
            measured[at], sent[at]
        );
    }
    let [renewed, came] = [renewals, arrivals].map(|count| count(&after) - count(&before));
    let [quiet, hog, by_spoofed, by_replayed] = measured.map(best);
    println!(
        "the best: quiet {quiet:.0}, a core busy {hog:.0}, spoofed flood {by_spoofed:.0} ({:.3}), \
         replayed flood {by_replayed:.0} ({:.3}) Mbit/s; {renewed} renewals meanwhile",
        by_spoofed / hog,
        by_replayed / hog
    );
    for side in ["control", "frames"] {
        println!("{side} before {}\nafter {}", before[side], after[side]);
    }
    let floods = sent.iter().sum::<u64>();
    assert!(came >= floods * 99 / 100, "the flood missed the socket");
    for router in routers {
        assert!(!router.logged().contains("is down"), "{}", router.logged());
    }
    // 5 x 4 x 1 s of traffic, a renewal about every second.
    assert!(renewed >= 5, "only {renewed} renewals");
    for flooded in [by_spoofed, by_replayed] {
        let bound = hog * (1.0 - LOSS_MAX * f64::from(SLACK));
        assert!(flooded >= bound, "{flooded:.0} is below {bound:.0} Mbit/s");
    }
}
