//! What happens to very many at once: all start in one second, or a part of them dies in one instant.

use std::collections::HashSet;
use std::time::Duration;

use rmesh_gossip::Path;

use super::fault::Fault;
use super::layout::Layout;
use super::network::PORT;
use super::random::Random;
use super::report::Outcome;
use super::scenario::{LAUNCH, Options, await_rest, outcome, world_within};
use super::world::World;

/// All start within this time.
const RESTART: Duration = Duration::from_secs(1);
/// Addresses of an earlier life that a daemon remembers and heeds.
const HINTS: usize = 16;
/// How long a mesh rests before some of it dies.
const CALM: Duration = Duration::from_secs(30);
/// The shares of peers that die, one after the other: of all, and of those that are left then.
const DYING: [f64; 2] = [0.3, 0.5];

/// Everybody starts within a second, and remembers where some of its peers were.
pub(crate) fn restart(options: &Options) -> Outcome {
    let mut random = Random::new(options.seed);
    let layout = Layout::open(options.peers, &mut random);
    let mut world = world_within(options, &layout, 0.0, RESTART, &mut random);
    for node in 0..options.peers {
        let others: HashSet<usize> = (0..HINTS).map(|_| random.below(options.peers)).collect();
        let mut others: Vec<usize> = others.into_iter().filter(|other| *other != node).collect();
        others.sort_unstable();
        let addresses = others
            .into_iter()
            .flat_map(|other| world.network.addresses(other));
        let hints = addresses.map(|ip| (ip, PORT).into()).collect();
        world.nodes[node].hints = hints;
    }
    let sides = vec![false; options.peers];
    world.run_for(RESTART);
    let heal = await_rest(&mut world, &sides);
    let peak = world.meter.peak_bytes;
    let mut outcome = outcome(options, world, heal.into_iter().collect(), heal, None);
    outcome.peak_bytes_per_s = peak as f64;
    outcome
}

/// Three of ten die at once, and when that is over half of the others: those that are left are one mesh, each time.
pub(crate) fn halve(options: &Options) -> Outcome {
    let mut random = Random::new(options.seed);
    let layout = Layout::open(options.peers, &mut random);
    let mut world = world_within(options, &layout, 0.0, LAUNCH, &mut random);
    let sides = vec![false; options.peers];
    world.run_for(LAUNCH);
    let mut healed: Vec<Duration> = Vec::new();
    if await_rest(&mut world, &sides).is_none() {
        return outcome(options, world, healed, None, None);
    }
    for share in DYING {
        world.run_for(CALM);
        world.meter.peak_bytes = 0;
        let mut left: Vec<usize> = (0..options.peers).collect();
        left.retain(|node| world.nodes[*node].mesh.is_some());
        for _ in 0..(left.len() as f64 * share) as usize {
            let node = left.swap_remove(random.below(left.len()));
            let with_hints = false;
            Fault::Crash { node, with_hints }.strike(&mut world);
        }
        left.sort_unstable();
        if share < 0.5 && !is_joined(&world, &left) {
            world.violate(format!(
                "{share} of all died, and the others are not joined by links"
            ));
        }
        healed.extend(await_rest(&mut world, &sides));
    }
    let heal = healed
        .iter()
        .max()
        .copied()
        .filter(|_| healed.len() == DYING.len());
    outcome(options, world, healed, heal, None)
}

/// Whether direct ways join all of these, as they are used at the moment.
fn is_joined(world: &World, left: &[usize]) -> bool {
    let mut seen: HashSet<usize> = left.first().copied().into_iter().collect();
    let mut queue: Vec<usize> = seen.iter().copied().collect();
    while let Some(at) = queue.pop() {
        let Some(mesh) = world.nodes[at].mesh.as_ref() else {
            continue;
        };
        for (id, entry) in mesh.forwarding().peers {
            let is_direct = matches!(entry.path, Some(Path::Direct(_)));
            let there = world.numbers.get(&id).filter(|_| is_direct);
            let lives = |there: &&usize| world.nodes[**there].mesh.is_some();
            if let Some(there) = there.filter(lives)
                && seen.insert(*there)
            {
                queue.push(*there);
            }
        }
    }
    left.iter().all(|node| seen.contains(node))
}
