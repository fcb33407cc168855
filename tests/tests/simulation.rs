//! All connected peers end with the same view, whatever happened before: many seeds, 5 % loss,
//! random cuts, restarts, moves.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rmesh_tests::sim::{self, Options, Outcome, Scenario, quantile};

/// Runs all seeds on all processors and prints what came of it.
fn all_hold(name: &str, runs: &[Options]) {
    let start = Instant::now();
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::<Outcome>::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(options) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = sim::run(options).expect("a scenario that exists");
                    outcomes.lock().expect("no panic elsewhere").push(outcome);
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().expect("no panic elsewhere");
    print_figures(name, &outcomes, start.elapsed());
    let failed: Vec<&Outcome> = outcomes
        .iter()
        .filter(|outcome| !outcome.violations.is_empty())
        .collect();
    for outcome in failed.iter().take(5) {
        println!(
            "{}\n  {}",
            outcome.options.command(),
            outcome.violations.join("\n  ")
        );
    }
    let count = failed.len();
    assert_eq!(outcomes.len(), runs.len());
    assert!(
        count == 0,
        "{count} of {} seeds failed; the commands above replay them",
        runs.len()
    );
}

fn print_figures(name: &str, outcomes: &[Outcome], wall: Duration) {
    let heal: Vec<Duration> = outcomes.iter().filter_map(|outcome| outcome.heal).collect();
    let events: u64 = outcomes.iter().map(|outcome| outcome.events).sum();
    let refused: u64 = outcomes
        .iter()
        .map(|outcome| outcome.handshakes_refused)
        .sum();
    let worst = outcomes.iter().map(|o| o.transmits_per_turn_max).max();
    println!(
        "{name}: {} seeds, {events} events in {wall:.1?}; at rest after {:?} (median), {:?} (99 %), \
         {:?} (worst); {refused} handshakes refused; at most {} datagrams an input",
        outcomes.len(),
        quantile(&heal, 0.5).unwrap_or_default(),
        quantile(&heal, 0.99).unwrap_or_default(),
        quantile(&heal, 1.0).unwrap_or_default(),
        worst.unwrap_or_default(),
    );
}

fn churn(peers: usize, minutes: f64, seed: u64, real_crypto: bool) -> Options {
    Options {
        peers,
        scenario: Scenario::Churn,
        seed,
        minutes,
        real_crypto,
        trace: false,
    }
}

#[test]
fn eight_peers_end_with_the_same_view_under_a_thousand_seeds() {
    let runs: Vec<Options> = (1..=1000).map(|seed| churn(8, 0.5, seed, false)).collect();
    all_hold("8 peers, churn", &runs);
}

/// Seeds of the large simulation that CI runs; one takes about 15 s of a core.
const FIFTY_PEER_SEEDS: u64 = 50;

#[test]
fn fifty_peers_end_with_the_same_view_under_many_seeds() {
    let runs: Vec<Options> = (1..=FIFTY_PEER_SEEDS)
        .map(|seed| churn(50, 0.5, seed, seed % 5 == 0))
        .collect();
    all_hold(
        "50 peers, churn, every fifth with the real handshake",
        &runs,
    );
}

#[test]
fn a_seed_gives_the_same_run_each_time() {
    let options = churn(8, 0.25, 7, false);
    let [first, second] = [(); 2].map(|()| sim::run(&options).expect("a scenario that exists"));
    assert_eq!(
        (first.events, first.heal, first.peak_bytes_per_s),
        (second.events, second.heal, second.peak_bytes_per_s)
    );
}

#[test]
fn a_quiet_mesh_spreads_each_change_and_costs_little() {
    let outcome = sim::run(&Options {
        scenario: Scenario::Steady,
        ..churn(50, 10.0, 1, false)
    })
    .expect("a scenario that exists");
    println!("{}", sim::table(&outcome));
    assert_eq!(outcome.violations, Vec::<String>::new());
    let slow = quantile(&outcome.converged, 0.99).expect("some changes");
    assert!(slow < Duration::from_millis(250), "a change took {slow:?}");
    let idle = outcome.idle_bytes_per_s.expect("a mesh at rest");
    assert!(idle < 1_000.0, "{idle:.0} B/s while nothing changes");
}

/// All start in one second, or some are gone in one instant: one mesh again.
fn at_once(scenario: Scenario, within: Duration) {
    let outcome = sim::run(&Options {
        scenario,
        ..churn(60, 1.0, 1, false)
    })
    .expect("a scenario that exists");
    println!("{}", sim::table(&outcome));
    assert_eq!(outcome.violations, Vec::<String>::new());
    let heal = outcome.heal.expect("a mesh at rest");
    assert!(heal < within, "one mesh after {heal:?} only");
}

#[test]
fn peers_that_all_start_within_a_second_are_one_mesh_within_half_a_minute() {
    at_once(Scenario::Restart, Duration::from_secs(30));
}

#[test]
fn when_half_of_the_peers_die_at_once_the_others_are_one_mesh_within_twelve_seconds() {
    at_once(Scenario::Halve, Duration::from_secs(12));
}
