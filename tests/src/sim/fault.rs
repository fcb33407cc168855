//! What goes wrong, and when.

use std::time::Duration;

use rmesh_wire::Instant;

use super::layout::Layout;
use super::node::container;
use super::random::Random;
use super::world::World;

/// One thing that happens to the world.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The process starts, if it is not running.
    Start(usize),
    /// kill -9.
    Crash { node: usize, with_hints: bool },
    /// An orderly stop: it says good-bye.
    Stop(usize),
    /// The state disk is restored from an old backup while the process is down.
    LoseBootCounter(usize),
    /// The process stands still.
    Pause(usize),
    /// And goes on.
    Resume(usize),
    /// Nothing gets from the first to the second.
    Cut(usize, usize),
    /// One cut less.
    Mend(usize, usize),
    /// Nothing crosses between the two sides.
    Split(Vec<bool>),
    /// The sides are joined again.
    Join(Vec<bool>),
    /// The share of datagrams that get lost.
    Loss(f64),
    /// The host gets new addresses.
    Roam(usize),
    /// Container `number` is attached to `node`, and detached wherever it was.
    Attach { number: u32, node: usize },
    /// A frame for the second waits at the first.
    Want(usize, usize),
    /// The first asks the second for a sign of life.
    Suspect(usize, usize),
}

impl Fault {
    /// Makes it happen now.
    pub(crate) fn strike(self, world: &mut World) {
        match self {
            Fault::Start(node) => start(world, node),
            Fault::Crash { node, with_hints } => world.nodes[node].crash(with_hints),
            Fault::Stop(node) => stop(world, node),
            Fault::LoseBootCounter(node) => world.nodes[node].lose_boot_counter(),
            Fault::Pause(node) => world.nodes[node].is_paused = true,
            Fault::Resume(node) => resume(world, node),
            Fault::Cut(from, to) => world.network.cut(from, to),
            Fault::Mend(from, to) => world.network.mend(from, to),
            Fault::Split(sides) => across(&sides, |a, b| world.network.cut(a, b)),
            Fault::Join(sides) => across(&sides, |a, b| world.network.mend(a, b)),
            Fault::Loss(share) => world.network.set_loss(share),
            Fault::Roam(node) => roam(world, node),
            Fault::Attach { number, node } => attach(world, number, node),
            Fault::Want(from, to) => want(world, from, to),
            Fault::Suspect(from, to) => suspect(world, from, to),
        }
    }
}

fn start(world: &mut World, node: usize) {
    if world.nodes[node].mesh.is_none() {
        world.nodes[node].start(&world.network, world.now);
        world.settle(node);
    }
}

fn stop(world: &mut World, node: usize) {
    let now = world.now;
    if let Some(mesh) = world.nodes[node].mesh.as_mut() {
        mesh.handle_shutdown(now);
        world.settle(node);
        world.nodes[node].crash(true);
    }
}

fn resume(world: &mut World, node: usize) {
    let now = world.now;
    world.nodes[node].is_paused = false;
    if let Some(mesh) = world.nodes[node].mesh.as_mut() {
        mesh.handle_timeout(now);
        world.nodes[node].resolve_targets(&world.network, now);
        world.settle(node);
    }
}

fn across(sides: &[bool], mut each: impl FnMut(usize, usize)) {
    for a in 0..sides.len() {
        for b in 0..sides.len() {
            if sides[a] != sides[b] {
                each(a, b);
            }
        }
    }
}

/// New addresses: the host sees them at once, and everybody's names resolve to them at once.
fn roam(world: &mut World, node: usize) {
    world.network.roam(node);
    let now = world.now;
    let addresses = world.network.addresses(node);
    if let Some(mesh) = world.nodes[node].mesh.as_mut() {
        mesh.handle_local_addresses(addresses, now);
    }
    for index in 0..world.nodes.len() {
        if !world.nodes[index].is_paused {
            world.nodes[index].resolve_targets(&world.network, now);
            world.settle(index);
        }
    }
}

fn attach(world: &mut World, number: u32, node: usize) {
    let container = container(number);
    let now = world.now;
    for index in 0..world.nodes.len() {
        let host = &mut world.nodes[index];
        let is_here = host.endpoints.iter().any(|e| e.mac == container.mac);
        if is_here && index != node {
            host.endpoints.retain(|e| e.mac != container.mac);
        } else if index == node && !is_here {
            host.endpoints.push(container.clone());
        } else {
            continue;
        }
        host.announce(now);
        world.settle(index);
    }
}

fn want(world: &mut World, from: usize, to: usize) {
    let (peer, now) = (world.nodes[to].id, world.now);
    if let Some(mesh) = world.nodes[from].mesh.as_mut() {
        mesh.handle_want(peer, now);
        world.settle(from);
    }
}

fn suspect(world: &mut World, from: usize, to: usize) {
    let (peer, now) = (world.nodes[to].id, world.now);
    if let Some(mesh) = world.nodes[from].mesh.as_mut() {
        mesh.handle_suspicion(peer, now);
        world.settle(from);
    }
}

/// When faults may happen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Season {
    pub(crate) from: Instant,
    pub(crate) until: Instant,
    /// Loss outside of bursts.
    pub(crate) loss: f64,
}

/// Time between two faults of an 8-peer mesh, on average; more peers, more faults.
const FAULT_EVERY: Duration = Duration::from_secs(3);
/// The longest a fault lasts, and the shortest.
const LASTS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));

/// Draws random faults for a season. Whatever is broken is mended before its end, except that
/// vanishing nodes stay away, and that the network may end up in two halves: returns the sides.
pub(crate) fn churn(
    world: &mut World,
    layout: &Layout,
    season: Season,
    random: &mut Random,
) -> Vec<bool> {
    let every = FAULT_EVERY.mul_f64(8.0 / layout.size().max(8) as f64);
    let mut at = season.from;
    loop {
        at = at + every.mul_f64(-(1.0 - random.unit()).ln());
        if at >= season.until {
            break;
        }
        let lasts = random.log_between(LASTS.0, LASTS.1);
        let end = (at + lasts).min(season.until);
        for (when, fault) in draw(layout, season, random, at, end) {
            world.schedule_fault(when, fault);
        }
    }
    for node in 0..layout.size() {
        let when = season.from + (season.until - season.from).mul_f64(random.unit());
        let fault = Fault::Crash {
            node,
            with_hints: true,
        };
        if layout.vanishing[node] {
            world.schedule_fault(when, fault.clone());
            world.schedule_fault(season.until, fault);
        }
    }
    final_halves(world, layout, season, random)
}

fn final_halves(
    world: &mut World,
    layout: &Layout,
    season: Season,
    random: &mut Random,
) -> Vec<bool> {
    if !random.chance(0.25) {
        return vec![false; layout.size()];
    }
    let sides = layout.halves(random);
    world.schedule_fault(season.until, Fault::Split(sides.clone()));
    sides
}

/// One fault and what ends it.
fn draw(
    layout: &Layout,
    season: Season,
    random: &mut Random,
    at: Instant,
    end: Instant,
) -> Vec<(Instant, Fault)> {
    let (node, other) = random.pair(layout.size());
    match random.below(14) {
        0..=2 => {
            let with_hints = random.chance(0.5);
            vec![
                (at, Fault::Crash { node, with_hints }),
                (end, Fault::Start(node)),
            ]
        }
        3 => vec![(at, Fault::Stop(node)), (end, Fault::Start(node))],
        4 => {
            let crash = Fault::Crash {
                node,
                with_hints: false,
            };
            vec![
                (at, crash),
                (at, Fault::LoseBootCounter(node)),
                (end, Fault::Start(node)),
            ]
        }
        5 => vec![(at, Fault::Pause(node)), (end, Fault::Resume(node))],
        6 | 7 => vec![
            (at, Fault::Cut(node, other)),
            (at, Fault::Cut(other, node)),
            (end, Fault::Mend(node, other)),
            (end, Fault::Mend(other, node)),
        ],
        8 => vec![
            (at, Fault::Cut(node, other)),
            (end, Fault::Mend(node, other)),
        ],
        9 => {
            let sides: Vec<bool> = (0..layout.size()).map(|_| random.chance(0.5)).collect();
            vec![(at, Fault::Split(sides.clone())), (end, Fault::Join(sides))]
        }
        10 => vec![(at, Fault::Loss(0.3)), (end, Fault::Loss(season.loss))],
        11 => vec![(at, Fault::Roam(node))],
        12 => {
            let number = random.below(layout.size()) as u32;
            vec![(at, Fault::Attach { number, node })]
        }
        _ => vec![
            (at, Fault::Want(node, other)),
            (end, Fault::Suspect(other, node)),
        ],
    }
}
