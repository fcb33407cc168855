//! Breadth-first search over every state a model can reach.
//!
//! States are remembered by a 64-bit hash only (hash compaction): among 20 million states two
//! share one with a chance of about 1 in 100,000, which could hide a state, never invent a violation.
//! A violation found is the shallowest there is; its steps are found again by replay.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// States a search may visit before it gives up; at about 40 bytes each, with those in the queue, under 4 GB.
pub const STATES_MAX: usize = 40_000_000;

/// A protocol as states and the steps between them.
pub trait Model {
    /// Everything that can influence what happens next.
    type State: Copy + Eq + Hash;
    /// What happened, for the trace.
    type Step: Copy + Debug;
    /// Where it begins.
    fn start(&self) -> Self::State;
    /// Hands every step possible in `state`, with the state after it, to `emit`.
    fn steps(&self, state: &Self::State, emit: &mut dyn FnMut(Self::Step, Self::State));
    /// The promise broken in this state, if any.
    fn broken(&self, state: &Self::State) -> Option<String>;
    /// Whether this state is one the scene is about, so that a search that never gets there is noticed.
    fn reached_goal(&self, state: &Self::State) -> bool;
}

/// What a search found.
#[derive(Debug)]
pub struct Verdict {
    /// Distinct states visited.
    pub states: usize,
    /// Steps to the deepest state visited.
    pub depth: usize,
    /// States in which the scene's goal was reached.
    pub goals: usize,
    /// Whether every reachable state was visited (or a violation ended the search).
    pub complete: bool,
    /// The broken promise and the steps to it.
    pub violation: Option<(String, Vec<String>)>,
}

/// Visits the states of `model`, nearest first, until one is broken or none is left.
pub fn search<M: Model>(model: &M, states_max: usize) -> Verdict {
    let mut seen = Seen::default();
    let mut queue = VecDeque::new();
    let start = model.start();
    seen.add(&start, 0);
    queue.push_back((start, 0_u32, 0_usize));
    let mut verdict = Verdict {
        states: 0,
        depth: 0,
        goals: 0,
        complete: true,
        violation: None,
    };
    while let Some((state, number, depth)) = queue.pop_front() {
        verdict.depth = depth;
        verdict.goals += usize::from(model.reached_goal(&state));
        if let Some(what) = model.broken(&state) {
            verdict.violation = Some((what, replay(model, &seen.way_to(number))));
            break;
        }
        if seen.parents.len() >= states_max {
            verdict.complete = false;
            break;
        }
        model.steps(&state, &mut |_, next| {
            if let Some(new) = seen.add(&next, number) {
                queue.push_back((next, new, depth + 1));
            }
        });
    }
    verdict.states = seen.parents.len();
    verdict
}

/// The hashes of the states visited, each with the number of the state it was first reached from.
#[derive(Default)]
struct Seen {
    numbers: HashMap<u64, u32, BuildHasherDefault<Ready>>,
    parents: Vec<(u64, u32)>,
}

impl Seen {
    fn add<S: Hash>(&mut self, state: &S, parent: u32) -> Option<u32> {
        let hash = fingerprint(state);
        let number = u32::try_from(self.parents.len()).ok()?;
        match self.numbers.entry(hash) {
            Entry::Occupied(_) => None,
            Entry::Vacant(place) => {
                place.insert(number);
                self.parents.push((hash, parent));
                Some(number)
            }
        }
    }

    /// The hashes from the first state to this one.
    fn way_to(&self, mut number: u32) -> Vec<u64> {
        let mut way = Vec::new();
        while number != 0 {
            let (hash, parent) = self.parents[number as usize];
            way.push(hash);
            number = parent;
        }
        way.reverse();
        way
    }
}

/// Walks the way again and tells its steps.
fn replay<M: Model>(model: &M, way: &[u64]) -> Vec<String> {
    let mut state = model.start();
    let mut told = Vec::new();
    for hash in way {
        let mut found = None;
        model.steps(&state, &mut |step, next| {
            if found.is_none() && fingerprint(&next) == *hash {
                found = Some((step, next));
            }
        });
        let Some((step, next)) = found else { break };
        told.push(format!("{step:?}"));
        state = next;
    }
    told
}

fn fingerprint<S: Hash>(state: &S) -> u64 {
    let mut hasher = Mixer(0x9e37_79b9_7f4a_7c15);
    state.hash(&mut hasher);
    hasher.finish()
}

/// A fast hash for small integers: 128-bit multiplication, folded.
struct Mixer(u64);

impl Mixer {
    fn mix(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value ^ 0xe703_7ed1_a0b4_28db) * 0xa076_1d64_78bd_642f;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }
    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }
    fn finish(&self) -> u64 {
        let mut last = Self(self.0);
        last.mix(0x1234_5678_9abc_def1);
        last.0
    }
}

/// The keys are hashes already.
#[derive(Default)]
struct Ready(u64);

impl Hasher for Ready {
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}
