//! All connected peers end with the same view, whatever happened before: many seeds, 5 % loss,
//! random cuts, restarts, moves.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rmesh_tests::sim::behind::{self, Setting};
use rmesh_tests::sim::{self, Options, Outcome, Scenario, Traffic, quantile};

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

/// What a host behind a translator of addresses may send and get, both together, in an idle mesh of 50, a second.
const TRANSLATED_BYTES_MAX: f64 = 200.0;
const TRANSLATED_PACKETS_MAX: f64 = 1.0;
/// Links it keeps.
const TRANSLATED_LINKS: usize = 2;
/// Where there is a ring of addresses as well, the packets that are got are only counted if mappings live so long.
const COUNTED_WITH_RING_S: u64 = 8;
/// Links of such a mesh are asked every 8 s; who does not answer has died a second later.
const NOTICED_WITHIN: Duration = Duration::from_secs(10);

/// Translators that keep mappings for minutes, for as long as many do, hardly longer than a link is silent, and not as long.
#[test]
fn a_host_behind_a_translator_costs_little_among_fifty_and_stays_reachable() {
    for (translated, lifetime_s, seed, has_ring) in [
        (1, 120, 1, false),
        (20, 30, 2, false),
        (30, 30, 3, false),
        (30, 30, 3, true),
        (10, 12, 4, false),
        (20, 8, 9, true),
        (10, 5, 5, false),
        (10, 5, 7, false),
        (30, 5, 6, false),
        (30, 5, 8, false),
        (30, 5, 6, true),
    ] {
        let setting = Setting {
            peers: 50,
            translated,
            lifetime: Duration::from_secs(lifetime_s),
            has_ring,
            seed,
        };
        let quiet = behind::run(setting);
        let both_ways = |t: &Traffic| t.sent_bytes + t.received_bytes;
        let (sent, all) = (quiet.most(|t| t.sent_bytes), quiet.most(both_ways));
        let (packets, of_all) = (quiet.most(|t| t.sent), quiet.most(|t| t.sent + t.received));
        let links = quiet.links.iter().max().copied().unwrap_or_default();
        println!(
            "{translated} of 50 translated, mappings of {lifetime_s} s, ring: {has_ring}: at most {packets:.2} packets and {sent:.0} B/s \
             sent, {of_all:.2} and {all:.0} both ways; {links} links; given up {} times; gone after {:?}",
            quiet.downs, quiet.noticed
        );
        assert_eq!(quiet.violations, Vec::<String>::new());
        assert_eq!(quiet.traffic.len(), translated);
        assert_eq!(quiet.downs, 0, "times somebody who lives was given up");
        let noticed = quiet.noticed.expect("somebody who is gone");
        assert!(noticed <= NOTICED_WITHIN, "{noticed:?}");
        assert!(all < TRANSLATED_BYTES_MAX, "{all:.0} B/s both ways");
        let counted = match has_ring && lifetime_s < COUNTED_WITH_RING_S {
            true => packets,
            false => of_all,
        };
        assert!(counted <= TRANSLATED_PACKETS_MAX, "{counted:.2} a second");
        assert_eq!(links, TRANSLATED_LINKS);
    }
}
