//! The fuzz targets on stable: the kept inputs, and a bounded run of changed ones. Every input is
//! taken without a panic, and with memory in proportion to its length.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use rmesh_tests::fuzz::{Mutator, Target, corpus, folder, made, run, targets};

/// Time a target gets in the random run; `RMESH_FUZZ_SECONDS` sets another.
const RUN_SECONDS: f64 = 1.0;
/// Seed of the random run; `RMESH_FUZZ_SEED` sets another.
const RUN_SEED: u64 = 1;
/// Inputs a target gets at most, so that a cheap one does not get more than it can use.
const INPUTS_MAX: u64 = 200_000;
/// Bytes a target may hold at once beyond what it holds for the empty input: lists begin with some
/// room, a text of a short message may claim 32 KiB (`wire::codec`), and an answer of several full
/// datagrams may be made of a request of a few bytes.
const HELD_BASE: u64 = 64 << 10;
/// Bytes a target may hold at once for each byte of its input: a short request on a connection is
/// answered with some hundred bytes, which the other end keeps.
const HELD_PER_BYTE: u64 = 16;
/// Length of a long input in bytes: more than any datagram has.
const LONG: usize = 1 << 16;

/// The system's allocator, counting what each thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<i64> = const { Cell::new(0) };
    static HELD_MOST: Cell<i64> = const { Cell::new(0) };
}

fn count(more: usize, less: usize) {
    // A thread that ends may allocate after its counters have gone.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + more as i64 - less as i64);
        let _ = HELD_MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: every call is passed on to the system's allocator as it is.
#[allow(unsafe_code, reason = "an allocator has no safe form")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs a target on one input; a panic is told with what it takes to see it again. Returns the most
/// bytes held at once meanwhile.
fn take(target: &Target, input: &[u8]) -> u64 {
    let before = HELD.get();
    HELD_MOST.set(before);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
        let path = std::env::temp_dir().join(format!("rmesh-fuzz-{}", target.name));
        let kept = std::fs::write(&path, input);
        eprintln!(
            "target {} fails on {} bytes, kept in {} ({kept:?}); once mended, keep them in {}",
            target.name,
            input.len(),
            path.display(),
            folder().join("corpus").join(target.name).display(),
        );
        resume_unwind(panic);
    }
    u64::try_from(HELD_MOST.get() - before).unwrap_or_default()
}

/// What was held for some inputs.
#[derive(Debug, Default)]
struct Used {
    inputs: u64,
    /// What the empty input costs.
    base: u64,
    /// Most beyond that, and by how long an input.
    most: u64,
    by: usize,
}

impl Used {
    /// Begins with the empty input, twice: the first may make what lasts.
    fn start(target: &Target) -> Used {
        take(target, &[]);
        Used {
            base: take(target, &[]),
            ..Used::default()
        }
    }

    fn take(&mut self, target: &Target, input: &[u8]) {
        let used = take(target, input).saturating_sub(self.base);
        self.inputs += 1;
        if used > self.most {
            (self.most, self.by) = (used, input.len());
        }
        let allowed = HELD_BASE + HELD_PER_BYTE * input.len() as u64;
        if used > allowed {
            let path = std::env::temp_dir().join(format!("rmesh-fuzz-{}", target.name));
            let kept = std::fs::write(&path, input);
            let (name, len, path) = (target.name, input.len(), path.display());
            panic!(
                "{name} holds {used} bytes more for {len} than for none; kept in {path} ({kept:?})"
            );
        }
    }

    fn print(&self, target: &Target) {
        let Used {
            inputs,
            base,
            most,
            by,
        } = self;
        let name = target.name;
        println!("{name:>16}: {inputs:>7} inputs; {base} bytes for none, {most} more for {by}");
    }
}

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn every_kept_input_is_taken() {
    for target in targets() {
        let inputs = corpus(target.name);
        assert!(!inputs.is_empty(), "{} has no corpus", target.name);
        let mut used = Used::start(&target);
        inputs.iter().for_each(|input| used.take(&target, input));
        used.print(&target);
    }
}

/// What is made changes with the encoding and with what members do; with `RMESH_FUZZ_KEEP=1` it is
/// kept anew.
#[test]
fn every_made_input_is_taken_and_kept() {
    for target in targets() {
        let mut used = Used::start(&target);
        for (name, input) in made(target.name) {
            let path = folder().join("corpus").join(target.name).join(name);
            if setting("RMESH_FUZZ_KEEP", 0) == 1 {
                std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
                std::fs::write(&path, &input).expect("kept");
            }
            assert!(path.is_file(), "{} is not kept", path.display());
            used.take(&target, &input);
        }
        used.print(&target);
    }
}

#[test]
fn every_long_input_is_taken() {
    for target in targets() {
        let mut used = Used::start(&target);
        for input in corpus(target.name).iter().filter(|input| !input.is_empty()) {
            let mut long = input.repeat(LONG.div_ceil(input.len()));
            long.truncate(LONG);
            used.take(&target, &long);
        }
        used.print(&target);
    }
}

#[test]
fn every_changed_input_is_taken() {
    let seed = setting("RMESH_FUZZ_SEED", RUN_SEED);
    let limit = Duration::from_secs_f64(setting("RMESH_FUZZ_SECONDS", RUN_SECONDS));
    println!(
        "RMESH_FUZZ_SEED={seed} RMESH_FUZZ_SECONDS={}",
        limit.as_secs_f64()
    );
    for target in targets() {
        let (inputs, mut mutator) = (corpus(target.name), Mutator::new(seed));
        let (start, mut used) = (Instant::now(), Used::start(&target));
        while start.elapsed() < limit && used.inputs < INPUTS_MAX {
            used.take(&target, &mutator.next(&inputs));
        }
        used.print(&target);
    }
}

#[test]
fn cargo_fuzz_knows_every_target() {
    let names = |folder: &str, ending: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(self::folder().join(folder)).expect("a folder");
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names
            .filter_map(|name| Some(name.strip_suffix(ending)?.to_owned()))
            .collect()
    };
    let listed: BTreeSet<String> = targets().map(|target| target.name.to_owned()).collect();
    assert_eq!(listed.len(), targets().count(), "two targets have one name");
    assert_eq!(names("fuzz_targets", ".rs"), listed);
    assert_eq!(names("corpus", ""), listed);
    let manifest = std::fs::read_to_string(folder().join("Cargo.toml")).expect("a manifest");
    for name in listed {
        assert!(
            manifest.contains(&format!("name = \"{name}\"")),
            "{name} is not built"
        );
    }
}

#[test]
#[should_panic(expected = "no fuzz target")]
fn an_unknown_target_is_named() {
    run("nonsense", &[]);
}
