//! The stories a simulated mesh lives through.

use std::fmt;
use std::time::{Duration, Instant as WallClock};

use rmesh_gossip::crypto::Key;
use rmesh_wire::Instant;

use super::check;
use super::fault::{Fault, Season, churn};
use super::layout::Layout;
use super::network::Network;
use super::node::Node;
use super::random::Random;
use super::report::Outcome;
use super::world::World;
use crate::heap;

/// All peers are started within this time.
pub(super) const LAUNCH: Duration = Duration::from_secs(3);
/// A quiet mesh must be at rest within this time: a peer that was away for long is dialled again
/// only when its back-off has run out.
const CONVERGE_MAX: Duration = Duration::from_secs(60);
/// After the launch it goes on for this long before the cost of quiet is measured: sessions that
/// nobody wants any more have ended by then.
pub(super) const SETTLE: Duration = Duration::from_secs(200);
/// How often it is looked whether a change is known everywhere.
const AGREEMENT_LOOK: Duration = Duration::from_millis(2);
/// How often the world is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A mesh at rest is watched this long for peers that are given up without reason.
const WATCH: Duration = Duration::from_secs(5);
/// Loss that never ends in `churn`.
const LOSS: f64 = 0.05;
/// In `steady`, each peer changes something once in this time.
const CHANGE_EVERY: Duration = Duration::from_secs(600);

/// Which story.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// No faults; each peer changes something every 10 minutes.
    Steady,
    /// Loss, cuts, crashes, restarts, moves; then quiet.
    Churn,
    /// Addresses from the ring: see [`super::ring`], which runs it.
    Ring,
    /// Comes with a later version.
    Restart,
    /// Comes with a later version.
    Halve,
    /// Comes with a later version.
    Hostile,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scenario::Steady => "steady",
            Scenario::Churn => "churn",
            Scenario::Ring => "ring",
            Scenario::Restart => "restart",
            Scenario::Halve => "halve",
            Scenario::Hostile => "hostile",
        })
    }
}

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many peers, at least two.
    pub peers: usize,
    /// Which story.
    pub scenario: Scenario,
    /// Everything random follows from it.
    pub seed: u64,
    /// Simulated minutes: of faults in `churn`, of the whole in `steady`.
    pub minutes: f64,
    /// Real handshakes, AEADs and signatures instead of the model.
    pub real_crypto: bool,
    /// Tells every fault and event on standard error.
    pub trace: bool,
}

impl Options {
    /// The one command that replays this run.
    pub fn command(&self) -> String {
        let real = if self.real_crypto {
            " --real-crypto"
        } else {
            ""
        };
        format!(
            "cargo run --release --bin rmesh-sim -- --peers {} --scenario {} --seed {} --minutes {}{real}",
            self.peers, self.scenario, self.seed, self.minutes
        )
    }

    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0)
    }
}

/// Runs one scenario.
///
/// # Errors
/// Says that the scenario does not exist yet, or that there are too few peers or too many.
pub fn run(options: &Options) -> Result<Outcome, String> {
    if !(2..=60_000).contains(&options.peers) {
        return Err("--peers must be from 2 to 60000".to_owned());
    }
    if !(0.01..=10_000.0).contains(&options.minutes) {
        return Err("--minutes must be from 0.01 to 10000".to_owned());
    }
    let start = WallClock::now();
    let mut outcome = match options.scenario {
        Scenario::Steady => steady(options),
        Scenario::Churn => rough(options),
        later => {
            return Err(format!(
                "scenario {later} comes with a later version; use steady or churn"
            ));
        }
    };
    outcome.wall = start.elapsed();
    Ok(outcome)
}

pub(super) fn world(options: &Options, layout: &Layout, loss: f64, random: &mut Random) -> World {
    let secret = Key::new(random.bytes());
    let nodes = (0..layout.size()).map(|index| {
        let targets = layout.targets[index].clone();
        let own = Random::new(random.next());
        Node::new(index, targets, secret.clone(), options.real_crypto, own)
    });
    let nodes = nodes.collect();
    let network = Network::new(layout, loss, Random::new(random.next()));
    let mut world = World::new(nodes, network);
    world.is_traced = options.trace;
    for node in 0..layout.size() {
        let at = Instant::ZERO + random.between(Duration::ZERO, LAUNCH);
        world.schedule_fault(at, Fault::Start(node));
        let number = node as u32;
        world.schedule_fault(at, Fault::Attach { number, node });
    }
    world
}

/// Runs until the mesh is at rest; `None` if it is not within the bound.
pub(super) fn await_rest(world: &mut World, sides: &[bool]) -> Option<Duration> {
    let start = world.now;
    loop {
        let difference = match check::at_rest(world, sides) {
            Ok(()) => return Some(world.now.since(start)),
            Err(difference) => difference,
        };
        if world.now.since(start) >= CONVERGE_MAX || !world.violations.is_empty() {
            let portrait = check::portrait(world, sides);
            world.violate(format!(
                "no rest within {CONVERGE_MAX:?}: {difference}\n{portrait}"
            ));
            return None;
        }
        world.trace(|| format!("not at rest: {difference}"));
        keep_wanting(world);
        world.run_for(LOOK_EVERY);
    }
}

/// Frames go on coming for pairs without a session, as they would from real containers.
fn keep_wanting(world: &mut World) {
    for at in 0..world.wanted.len() {
        let (from, to) = world.wanted[at];
        Fault::Want(from, to).strike(world);
    }
}

/// Faults, then quiet: all connected peers end with the same view, and everything works.
fn rough(options: &Options) -> Outcome {
    let mut random = Random::new(options.seed);
    let layout = Layout::rough(options.peers, &mut random);
    let mut world = world(options, &layout, LOSS, &mut random);
    let season = Season {
        from: Instant::ZERO + LAUNCH / 2,
        until: Instant::ZERO + LAUNCH + options.time(),
        loss: LOSS,
    };
    let sides = churn(&mut world, &layout, season, &mut random);
    world.run_for(season.until.since(Instant::ZERO));
    want_sessions(&mut world, &sides, &mut random);
    let heal = await_rest(&mut world, &sides);
    if heal.is_some() {
        stay_at_rest(&mut world, &sides);
    }
    outcome(options, world, heal.into_iter().collect(), heal, None)
}

/// Some pairs of running peers ask for data sessions, however they reach each other.
fn want_sessions(world: &mut World, sides: &[bool], random: &mut Random) {
    for _ in 0..world.nodes.len() {
        let (a, b) = random.pair(world.nodes.len());
        let both_run = world.nodes[a].mesh.is_some() && world.nodes[b].mesh.is_some();
        if both_run && sides[a] == sides[b] {
            Fault::Want(a, b).strike(world);
            world.wanted.push((a, b));
        }
    }
}

/// Loss alone makes nobody give up a peer, and the mesh is found at rest again.
fn stay_at_rest(world: &mut World, sides: &[bool]) {
    let downs = world.meter.peer_downs;
    world.run_for(WATCH);
    if world.meter.peer_downs != downs {
        let count = world.meter.peer_downs - downs;
        world.violate(format!(
            "{count} times a live peer was given up while quiet"
        ));
    }
    // A record may be under way at the very moment.
    await_rest(world, sides);
    for index in 0..world.nodes.len() {
        let Some(mesh) = world.nodes[index].mesh.as_ref() else {
            continue;
        };
        let counters = mesh.report(world.now).counters;
        if counters.transmits_dropped > 0 {
            let dropped = counters.transmits_dropped;
            world.violate(format!("peer{index} dropped {dropped} outgoing datagrams"));
        }
    }
}

/// No faults: what quiet costs, and how fast changes spread.
fn steady(options: &Options) -> Outcome {
    let mut random = Random::new(options.seed);
    let layout = Layout::open(options.peers, &mut random);
    let mut world = world(options, &layout, 0.0, &mut random);
    let sides = vec![false; layout.size()];
    let held = heap::held();
    world.run_for(LAUNCH);
    let heal = await_rest(&mut world, &sides);
    let end = Instant::ZERO + options.time();
    // What was begun at the launch settles before the cost of quiet is measured.
    world.run_for(SETTLE.min(end.since(world.now) / 2));
    let quiet_from = (world.now, world.meter.bytes);
    world.run_for(end.since(world.now) / 4);
    let quiet_s = world.now.since(quiet_from.0).as_secs_f64();
    let idle = (world.meter.bytes - quiet_from.1) as f64 / quiet_s.max(1e-9);
    let state = heap::held().saturating_sub(held) / options.peers;
    let converged = match heal {
        Some(_) => changes(&mut world, options, end, &mut random),
        None => Vec::new(),
    };
    if heal.is_some() {
        await_rest(&mut world, &sides);
    }
    let idle = heal.map(|_| idle / options.peers as f64);
    let mut outcome = outcome(options, world, converged, heal, idle);
    outcome.state_bytes = u64::try_from(state).ok().filter(|bytes| *bytes > 0);
    outcome
}

/// Attaches containers, here and there, until `end`; how long each took to be known everywhere.
fn changes(
    world: &mut World,
    options: &Options,
    end: Instant,
    random: &mut Random,
) -> Vec<Duration> {
    let every = CHANGE_EVERY.div_f64(options.peers as f64);
    let mut number = options.peers as u32;
    let mut converged: Vec<Duration> = Vec::new();
    let mut next = world.now;
    loop {
        next = next + every.mul_f64(-(1.0 - random.unit()).ln());
        if next > end {
            world.run_for(end.since(world.now));
            return converged;
        }
        world.run_for(next.since(world.now));
        let node = random.below(options.peers);
        Fault::Attach { number, node }.strike(world);
        number += 1;
        converged.extend(await_agreement(world));
    }
}

/// Time until all hold the same records again, looked at often.
fn await_agreement(world: &mut World) -> Option<Duration> {
    let start = world.now;
    while !check::digests_agree(world) {
        if world.now.since(start) >= CONVERGE_MAX {
            world.violate(format!("a change did not spread within {CONVERGE_MAX:?}"));
            return None;
        }
        world.run_for(AGREEMENT_LOOK);
    }
    Some(world.now.since(start))
}

fn outcome(
    options: &Options,
    world: World,
    converged: Vec<Duration>,
    heal: Option<Duration>,
    idle_bytes_per_s: Option<f64>,
) -> Outcome {
    world.trace(|| world.totals());
    Outcome {
        options: *options,
        converged,
        heal,
        idle_bytes_per_s,
        peak_bytes_per_s: world.meter.peak_bytes as f64,
        state_bytes: None,
        events: world.meter.events,
        handshakes_refused: world.meter.handshakes_refused,
        transmits_per_turn_max: world.meter.transmits_per_turn_max,
        simulated: world.now.since(Instant::ZERO),
        violations: world.violations,
        wall: Duration::ZERO,
    }
}
