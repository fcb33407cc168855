//! Runs a whole mesh in simulated time, replayable from one seed.

use std::process::ExitCode;

use clap::Parser;
use rmesh_tests::heap::Counting;
use rmesh_tests::sim::ring::{self, RingOptions, Wires};
use rmesh_tests::sim::{self, Options, Scenario, Summary};

/// Simulates a mesh of many peers in one thread, with faults, from one seed.
///
/// Examples:
///   rmesh-sim --peers 8 --scenario churn --seed 123 --minutes 2
///   rmesh-sim --peers 50 --scenario steady --seed 1 --minutes 20 --json
///   rmesh-sim --peers 8 --scenario ring --wires direct --seed 5 --minutes 0.5 --trace
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Arguments {
    /// How many peers.
    #[arg(long, default_value_t = 8)]
    peers: usize,
    /// What happens to them; hostile comes with a later version.
    #[arg(long, value_enum, default_value = "churn")]
    scenario: Scenario,
    /// Everything random follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Simulated minutes: of faults in churn, of the whole in steady.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Use the real handshake, AEADs and signatures instead of the model.
    #[arg(long)]
    real_crypto: bool,
    /// Tell every fault and event on standard error.
    #[arg(long)]
    trace: bool,
    /// How the ring's messages travel; only for the scenario ring.
    #[arg(long, value_enum, default_value = "gossip")]
    wires: Wires,
    /// Run so many seeds, from --seed on; only for the scenario ring.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
}

/// Counts what the simulated peers hold.
#[global_allocator]
static HEAP: Counting = Counting;

/// Simulates hosts that get addresses from the ring.
fn run_ring(arguments: &Arguments) -> ExitCode {
    let mut failed = 0;
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        let seconds = arguments.minutes * 60.0;
        let mut options = RingOptions::new(arguments.peers, seed, seconds, arguments.wires);
        options.trace = arguments.trace;
        match ring::run(&options) {
            Ok(outcome) => {
                print!("{}", ring::table(&outcome));
                failed += u64::from(!outcome.violations.is_empty());
            }
            Err(message) => {
                eprintln!("rmesh-sim: {message}");
                return ExitCode::from(2);
            }
        }
    }
    println!("{failed} of {} seeds failed", arguments.seeds);
    ExitCode::from(u8::from(failed > 0))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.scenario == Scenario::Ring {
        return run_ring(&arguments);
    }
    let options = Options {
        peers: arguments.peers,
        scenario: arguments.scenario,
        seed: arguments.seed,
        minutes: arguments.minutes,
        real_crypto: arguments.real_crypto,
        trace: arguments.trace,
    };
    let outcome = match sim::run(&options) {
        Ok(outcome) => outcome,
        Err(message) => {
            eprintln!("rmesh-sim: {message}");
            return ExitCode::from(2);
        }
    };
    if arguments.json {
        match serde_json::to_string(&Summary::from(&outcome)) {
            Ok(json) => println!("{json}"),
            Err(error) => eprintln!("rmesh-sim: {error}"),
        }
    } else {
        print!("{}", sim::table(&outcome));
    }
    if outcome.violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        if arguments.json {
            eprintln!("replay: {}", options.command());
        }
        ExitCode::FAILURE
    }
}
