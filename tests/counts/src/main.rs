//! How many instructions a frame takes on its way through a worker, compared with what is kept in
//! `baseline.txt`.
//!
//! Valgrind counts them; of these, the ones in Rust, since the ciphers and copies in assembly differ from
//! processor to processor. Time does not matter, nor does what else the machine does, so 5 % more is
//! a change of the code and not an accident.

mod baseline;
mod callgrind;
mod frames;
mod mesh;
mod scenes;

use std::process::ExitCode;

use anyhow::{Context as _, bail};

use baseline::{Baseline, RENEW, Verdict};
use callgrind::Functions;
use scenes::BENCHMARKS;

const USAGE: &str = "\
How many instructions a frame takes on its way through a worker, by valgrind.

Usage: rmesh-counts [NAME…]         counts these, or all, and compares with what is kept
       rmesh-counts --functions NAME…  says in which functions they are
       rmesh-counts --renew         keeps what is counted
       rmesh-counts --list          says what there is

Exits with 1 if a count has grown by more than 5 %, and says if one has shrunk by as much.";

/// Worlds a benchmark is run in. The hash maps of each are keyed at random, and by chance two names
/// look alike to one of them for a moment; the least count is that of a world without.
const WORLDS: usize = 5;
/// Functions that are named, and what they have to take.
const FUNCTIONS: usize = 20;

/// One turn of a benchmark: only what happens here is counted.
#[inline(never)]
fn counted_turn(turn: &mut dyn FnMut()) {
    turn();
}

/// Tells valgrind that what was counted belongs together.
#[inline(never)]
fn world_has_ended(frames: u64) -> u64 {
    std::hint::black_box(frames)
}

fn main() -> ExitCode {
    match act() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("rmesh-counts: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn act() -> anyhow::Result<bool> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (flags, names): (Vec<&str>, Vec<&str>) = arguments
        .iter()
        .map(String::as_str)
        .partition(|argument| argument.starts_with('-'));
    match (&flags[..], &names[..]) {
        ([], ["run", name]) => run(name),
        ([], names) => compare(names),
        (["--renew"], []) => renew(),
        (["--functions"], names) => functions(names),
        (["--list"], []) => {
            for benchmark in BENCHMARKS {
                println!("{:<16} {}", benchmark.name, benchmark.about);
            }
            Ok(true)
        }
        (["--help" | "-h"], _) => {
            println!("{USAGE}");
            Ok(true)
        }
        _ => bail!("cannot be understood\n{USAGE}"),
    }
}

/// What valgrind watches.
fn run(name: &str) -> anyhow::Result<bool> {
    let benchmark = scenes::find(name).with_context(|| format!("no benchmark is called {name}"))?;
    let mut frames = 0;
    for _ in 0..WORLDS {
        frames = world_has_ended(benchmark.run(counted_turn));
    }
    println!("{frames}");
    Ok(true)
}

/// The names of the benchmarks that are meant.
fn chosen<'a>(names: &[&'a str]) -> anyhow::Result<Vec<&'a str>> {
    if let Some(name) = names.iter().find(|name| scenes::find(name).is_none()) {
        bail!("no benchmark is called {name}; --list says which there are");
    }
    Ok(match names {
        [] => BENCHMARKS.iter().map(|benchmark| benchmark.name).collect(),
        names => names.to_vec(),
    })
}

/// Instructions a frame of those functions that count.
fn own(functions: &Functions, frames: u64) -> f64 {
    let own = functions.iter().filter(|(name, _)| callgrind::is_own(name));
    own.map(|(_, cost)| cost).sum::<u64>() as f64 / frames as f64
}

/// What a benchmark takes: the least of its worlds, and how far the others are from that.
struct Counted {
    frames: u64,
    functions: Functions,
    count: f64,
    spread: f64,
}

fn count(name: &str) -> anyhow::Result<Counted> {
    let (frames, worlds) = callgrind::count(name)?;
    let counts: Vec<f64> = worlds.iter().map(|world| own(world, frames)).collect();
    let most = counts.iter().copied().fold(0.0, f64::max);
    let least = worlds
        .into_iter()
        .zip(counts)
        .min_by(|(_, one), (_, other)| one.total_cmp(other));
    let (functions, count) = least.with_context(|| format!("{name}: nothing was counted"))?;
    Ok(Counted {
        frames,
        functions,
        count,
        spread: most / count - 1.0,
    })
}

fn renew() -> anyhow::Result<bool> {
    let mut counts = Vec::new();
    for benchmark in BENCHMARKS {
        let counted = count(benchmark.name)?;
        println!("{:<16} {:>8.1}", benchmark.name, counted.count);
        counts.push((benchmark.name.to_owned(), counted.count));
    }
    Baseline::of(counts).write()?;
    Ok(true)
}

fn compare(names: &[&str]) -> anyhow::Result<bool> {
    let kept = Baseline::read()?;
    let (tolerance, why) = kept.tolerance();
    if let Some(why) = why {
        println!("{why}");
    }
    let mut verdicts = Vec::new();
    println!(
        "{:<16} {:>8} {:>8} {:>8}",
        "instructions", "a frame", "kept", ""
    );
    for name in chosen(names)? {
        let Counted { count, spread, .. } = count(name)?;
        let (before, verdict) = kept.judge(name, count, tolerance.unwrap_or(f64::INFINITY));
        let (before, change) = before.map_or_else(Default::default, |before| {
            let change = format!("{:+.1} %", (count / before - 1.0) * 100.0);
            (format!("{before:.1}"), change)
        });
        let says = match verdict {
            Verdict::Holds => "",
            Verdict::Worse => "MORE THAN ALLOWED",
            Verdict::Better => "better than what is kept",
            Verdict::New => "not kept yet",
        };
        println!(
            "{name:<16} {count:>8.1} {before:>8} {change:>8}  (spread {:.2} %) {says}",
            spread * 100.0
        );
        verdicts.push(verdict);
    }
    if names.is_empty() {
        let all: Vec<&str> = BENCHMARKS.iter().map(|benchmark| benchmark.name).collect();
        for name in kept.gone(&all) {
            println!("{name:<16} is kept and no more there");
            verdicts.push(Verdict::New);
        }
    }
    if verdicts.iter().any(|verdict| *verdict != Verdict::Holds) {
        println!(
            "`--functions NAME` says where they are. If that is as it should be, keep it: {RENEW}"
        );
    }
    let is_fine = |verdict: &Verdict| matches!(verdict, Verdict::Holds | Verdict::Better);
    Ok(verdicts.iter().all(is_fine))
}

fn functions(names: &[&str]) -> anyhow::Result<bool> {
    for name in chosen(names)? {
        let counted = count(name)?;
        let a_frame = |cost: u64| cost as f64 / counted.frames as f64;
        println!("{name}: {:.1} instructions a frame", counted.count);
        let mut functions: Vec<(&String, u64)> = counted
            .functions
            .iter()
            .map(|(name, cost)| (name, *cost))
            .collect();
        functions.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
        for (function, cost) in functions.into_iter().take(FUNCTIONS) {
            let mark = if callgrind::is_own(function) {
                ' '
            } else {
                '-'
            };
            println!("{:>10.1} {mark} {function}", a_frame(cost));
        }
    }
    println!("- is not counted");
    Ok(true)
}
