//! No two live containers ever have one address, whatever goes wrong, and once it is quiet every
//! address can be had: many seeds of the real `ipam` on a model disk.
//!
//! What runs how: of the 2,000 seeds of 8 peers every tenth, and four seeds of 32 peers, run over the
//! real `gossip` with the model of its cryptography. The others, and all 100 seeds of 100 peers, have
//! wires that deliver the ring's messages directly, with loss, copies and disorder, and a model of the
//! mesh that tells who is there and what is announced: a mesh of 100 peers costs two minutes of a core
//! for each seed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rmesh_tests::sim::quantile;
use rmesh_tests::sim::ring::{
    self, DiskKind, Meter, Operator, Remains, RingOptions, RingOutcome, Wires,
};

/// Stories told if several seeds fail.
const TOLD_MAX: usize = 3;

/// Runs all on all processors.
fn play(runs: &[RingOptions]) -> Vec<RingOutcome> {
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(options) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = ring::run(options).expect("a story that exists");
                    outcomes.lock().expect("no panic elsewhere").push(outcome);
                }
            });
        }
    });
    outcomes.into_inner().expect("no panic elsewhere")
}

/// Plays all, prints what came of it, and tells the stories of those that failed.
fn all_hold(name: &str, runs: &[RingOptions]) {
    let start = Instant::now();
    let outcomes = play(runs);
    print_figures(name, &outcomes, start.elapsed());
    let failed: Vec<&RingOutcome> = outcomes
        .iter()
        .filter(|o| !o.violations.is_empty())
        .collect();
    for outcome in failed.iter().take(TOLD_MAX) {
        println!("{}", ring::table(outcome));
    }
    for outcome in failed.iter().skip(TOLD_MAX) {
        println!(
            "{}\n  {}",
            outcome.options.command(),
            outcome.violations.join("\n  ")
        );
    }
    assert_eq!(outcomes.len(), runs.len());
    assert!(
        failed.is_empty(),
        "{} of {} seeds failed",
        failed.len(),
        runs.len()
    );
}

fn print_figures(name: &str, outcomes: &[RingOutcome], wall: Duration) {
    let equal: Vec<Duration> = outcomes
        .iter()
        .filter_map(|outcome| outcome.equal)
        .collect();
    let mut sum = Meter::default();
    for outcome in outcomes {
        sum.add(&outcome.meter);
    }
    println!(
        "{name}: {} seeds in {wall:.1?}; rings equal after {:?} (median), {:?} (99 %), {:?} (worst); {sum:?}",
        outcomes.len(),
        quantile(&equal, 0.5).unwrap_or_default(),
        quantile(&equal, 0.99).unwrap_or_default(),
        quantile(&equal, 1.0).unwrap_or_default(),
    );
}

fn seeds(
    count: u64,
    peers: usize,
    seconds: f64,
    over_mesh: impl Fn(u64) -> bool,
) -> Vec<RingOptions> {
    let wires = |seed| {
        if over_mesh(seed) {
            Wires::Gossip
        } else {
            Wires::Direct
        }
    };
    (1..=count)
        .map(|seed| RingOptions::new(peers, seed, seconds, wires(seed)))
        .collect()
}

#[test]
fn eight_peers_never_give_an_address_twice_under_two_thousand_seeds() {
    let runs = seeds(2_000, 8, 20.0, |seed| seed % 10 == 0);
    all_hold("8 peers, every tenth seed over the mesh", &runs);
}

#[test]
fn a_hundred_peers_never_give_an_address_twice_under_a_hundred_seeds() {
    let runs = seeds(100, 100, 5.0, |_| false);
    all_hold("100 peers", &runs);
}

#[test]
fn thirty_two_peers_over_the_mesh_never_give_an_address_twice() {
    let runs = seeds(4, 32, 5.0, |_| true);
    all_hold("32 peers over the mesh", &runs);
}

/// Each of these failed once, for a reason of its own.
const FAILED_ONCE: [u64; 10] = [378, 1426, 1648, 1927, 2220, 2283, 2569, 4197, 4349, 6808];

#[test]
fn seeds_that_failed_once_hold() {
    let run = |seed| RingOptions::new(8, seed, 20.0, Wires::Direct);
    let runs: Vec<RingOptions> = FAILED_ONCE.map(run).into();
    all_hold("8 peers, seeds that failed once", &runs);
}

/// Writes of the whole mesh at each of which it crashes once in each way.
const CRASHES: u64 = 120;

#[test]
fn a_crash_at_any_write_loses_nothing_that_was_answered() {
    let options = |at: u64, remains: Remains| RingOptions {
        crash_at: Some((at, remains)),
        ..RingOptions::new(4, 3, 8.0, Wires::Direct)
    };
    let kinds = [Remains::Nothing, Remains::Torn, Remains::Whole];
    let runs: Vec<RingOptions> = (1..=CRASHES)
        .flat_map(|at| kinds.map(|remains| options(at, remains)))
        .collect();
    all_hold("4 peers, one crash, at each write in three ways", &runs);
}

/// Seeds within which a broken rule must be noticed.
const CONTROL_SEEDS: u64 = 60;

fn violations(change: impl Fn(RingOptions) -> RingOptions) -> Vec<String> {
    let runs: Vec<RingOptions> = seeds(CONTROL_SEEDS, 8, 20.0, |_| false)
        .into_iter()
        .map(change)
        .collect();
    let outcomes = play(&runs);
    let first = outcomes.into_iter();
    first
        .filter_map(|outcome| outcome.violations.into_iter().next())
        .collect()
}

#[test]
fn a_disk_that_confirms_too_early_is_noticed() {
    let found = violations(|run| RingOptions {
        disk: DiskKind::ConfirmsEarly,
        ..run
    });
    println!(
        "{} of {CONTROL_SEEDS} seeds: {:?}",
        found.len(),
        found.first()
    );
    assert!(
        found.iter().any(|what| what.contains("has not written it")),
        "{found:?}"
    );
}

#[test]
fn a_killed_daemon_that_leaves_nothing_of_what_it_answered_early_is_noticed() {
    let found = violations(|run| RingOptions {
        disk: DiskKind::ForgetsTail,
        ..run
    });
    println!(
        "{} of {CONTROL_SEEDS} seeds: {:?}",
        found.len(),
        found.first()
    );
    assert!(
        found.iter().any(|what| what.contains("is carried by")),
        "{found:?}"
    );
}

#[test]
fn an_operator_who_removes_living_peers_is_noticed() {
    let found = violations(|run| RingOptions {
        operator: Operator::Careless,
        ..run
    });
    println!(
        "{} of {CONTROL_SEEDS} seeds: {:?}",
        found.len(),
        found.first()
    );
    let is_double = |what: &String| what.contains("is carried by") || what.contains("may both use");
    assert!(found.iter().any(is_double), "{found:?}");
}

#[test]
fn a_seed_gives_the_same_run_each_time() {
    for wires in [Wires::Direct, Wires::Gossip] {
        let options = RingOptions::new(8, 7, 10.0, wires);
        let [first, second] = [(); 2].map(|()| ring::run(&options).expect("a story that exists"));
        assert_eq!((first.meter, first.equal), (second.meter, second.equal));
    }
}
