//! What a flood of handshakes costs a session, beside what it costs to give the flood's core away.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rmesh_lab::Host;
use rmesh_lab::probe::Capture;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::fuzz::Mutator;
use crate::hostile::{Attacker, Datagram};
use crate::story::{Router, Story};
use crate::throughput::Connection;

/// Lives of a host whose first messages are recorded.
const LIVES: usize = 3;
/// The session is renewed in every measurement, under the flood too.
const REKEY: [&str; 2] = ["--rekey-after", "1s"];
/// What a connection carries in one measurement depends on the cores its ends happen to run on, by a fifth and
/// more: many short ones tell more than a few long ones.
const MEASURED: Duration = Duration::from_millis(125);
/// What a flood may cost beyond the time of the core it is sent from.
pub const LOSS_MAX: f64 = 0.05;
/// Length of a first message, in bytes (docs/wire.md).
const FIRST_MESSAGE_LEN: usize = 368;

/// How much a session carried under each load, the median of all rounds, in Mbit/s.
#[derive(Debug, Clone, Copy)]
pub struct FloodFigures {
    /// Under none.
    pub quiet: f64,
    /// Beside a core that spins: the time that sending a flood takes from everybody else.
    pub busy_core: f64,
    /// Under first messages of a wrong secret.
    pub spoofed: f64,
    /// Under first messages that were recorded.
    pub replayed: f64,
    /// Renewals of the session meanwhile.
    pub renewed: u64,
}

impl FloodFigures {
    /// What it carries under floods, spoofed and replayed, beside what it carries next to a busy core.
    pub fn by_busy_core(&self) -> [f64; 2] {
        [self.spoofed, self.replayed].map(|flooded| flooded / self.busy_core)
    }
}

impl fmt::Display for FloodFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [spoofed, replayed] = self.by_busy_core();
        write!(
            f,
            "medians: quiet {:.0}, a core busy {:.0}, spoofed flood {:.0} ({spoofed:.3}), replayed flood \
             {:.0} ({replayed:.3}) Mbit/s; {} renewals meanwhile",
            self.quiet, self.busy_core, self.spoofed, self.replayed, self.renewed
        )
    }
}

/// What one core does while a connection is measured.
enum Load<'a> {
    Quiet,
    /// Nothing useful.
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

/// Which of four loads is the `step`-th of a round: forwards and backwards from another one each time.
fn turn(round: usize, step: usize) -> usize {
    let step = if round.is_multiple_of(2) {
        step
    } else {
        3 - step
    };
    (round / 2 + step) % 4
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
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

/// First messages of both ends that were recorded, each once.
fn first_messages(recording: Capture) -> Vec<Vec<u8>> {
    let frames = recording.stop();
    let datagrams = frames.iter().filter_map(|frame| Datagram::parse(frame));
    let first = datagrams.filter(Datagram::is_first_message);
    let distinct: BTreeSet<_> = first.map(|datagram| datagram.payload).collect();
    distinct.into_iter().collect()
}

/// Launches two hosts, the second of them several times: what renews a session crosses sealed, so that only the first
/// messages of new lives can be recorded.
fn launch([a, b]: [&Host; 2], target: &str, story: &mut Story) -> [Router; 2] {
    let first = story.launch_with(a, &[target], &REKEY);
    for _ in 1..LIVES {
        let second = story.launch_with(b, &[], &REKEY);
        story.expect_mesh(Duration::from_secs(5), &[&first, &second]);
        second.kill();
    }
    let second = story.launch_with(b, &[], &REKEY);
    let both = [first, second];
    story.expect_mesh(Duration::from_secs(5), &both.each_ref());
    both
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

/// Measures a session of two hosts under floods that a third one sends: all four loads in each of `rounds`. With 48 the
/// ratios are known to about 5 %.
///
/// # Panics
/// If the flood misses the daemon, or ends the session.
pub fn measure(story: &mut Story, rounds: usize) -> FloodFigures {
    let [a, b, stranger] = story.hosts(["a", "b", "s"]);
    let (ab, wire) = (story.link(&a, &b), story.link(&a, &stranger));
    let target = ab.address(&b, false).to_string();
    let recording = Capture::start(&a, &ab.interface(&a)).expect("a capture");
    let routers = launch([&a, &b], &target, story);
    let one = story.container(&a, "one", "10.32.0.1/24");
    let two = story.container(&b, "two", "10.32.0.2/24");
    let far: IpAddr = "10.32.0.2".parse().expect("an address");
    story.expect_ping(Duration::from_secs(2), &one, far);
    let recorded = first_messages(recording);
    eprintln!("{} first messages recorded", recorded.len());
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
    // Former lives of the second host have ended, which the first may have said.
    let logged = routers.each_ref().map(|router| router.logged().len());
    let before = story.status(&a);
    let mut measured: [Vec<f64>; 4] = Default::default();
    let mut sent = [0; 4];
    for round in 0..rounds {
        for step in 0..loads.len() {
            // None has the same one before it every time.
            let at = turn(round, step);
            let (_, load) = &loads[at];
            let measure = || connection.measure(MEASURED).expect("the connection lives");
            let (rate, count) = under(load, &mut attacker, measure);
            measured[at].push(rate);
            sent[at] += count;
        }
    }
    let after = story.status(&a);
    for (at, (name, _)) in loads.iter().enumerate() {
        eprintln!(
            "{name}: {:.0?} Mbit/s; {} datagrams sent",
            measured[at], sent[at]
        );
    }
    let [renewed, came] = [renewals, arrivals].map(|count| count(&after) - count(&before));
    let [quiet, busy_core, spoofed, replayed] = measured.map(median);
    for side in ["control", "frames"] {
        eprintln!("{side} before {}\nafter {}", before[side], after[side]);
    }
    let floods = sent.iter().sum::<u64>();
    assert!(came >= floods * 99 / 100, "the flood missed the socket");
    for (router, before) in routers.iter().zip(logged) {
        let said = router.logged();
        let since = said.get(before..).unwrap_or(&said);
        assert!(!since.contains("is down"), "{since}");
    }
    // Some 25 s of traffic or more, a renewal about every second.
    assert!(renewed >= 5, "only {renewed} renewals");
    FloodFigures {
        quiet,
        busy_core,
        spoofed,
        replayed,
        renewed,
    }
}
